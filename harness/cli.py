"""The command line: a thin runner. Exit status 0: clean; 1: something convicted; 2: wrong call or file; 3: unjudged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.project import Project

CLEAN, CONVICTED, WRONG, UNJUDGED = 0, 1, 2, 3
INTERRUPTED = 130


class Format(StrEnum):
    """How a report is written to standard output."""

    TEXT = "text"
    JSON = "json"


class _Commands(TyperGroup):
    """Turns what the user can mend into one line and status 2, and an interruption into one line and status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            print(f"harness: {error}", file=sys.stderr)
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            print("harness: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: twice as quick
    help="Tells which stage of a local LLM stack is broken, and of what kind the defect is.",
)

Where = Annotated[
    Path | None,
    typer.Option("--project", help="The folder with stacks/ and golden/ in it; else the nearest upwards, else ours."),
]
As = Annotated[Format, typer.Option("--format", help="A report for a reader, or one JSON object and nothing else.")]
Cases = Annotated[list[str] | None, typer.Option("--case", help="Only this case; may be given several times.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write the report as one page that needs no network.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the report for a pull-request comment.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write the report as JUnit XML.")]
Sarif = Annotated[Path | None, typer.Option("--sarif", help="Write the report as SARIF 2.1.0.")]
Model = Annotated[str | None, typer.Option("--model", help="A model of stacks/models.toml.")]


@app.command()
def stacks(project: Where = None, form: As = Format.TEXT) -> None:
    """List stacks, components, models and cases, and what is missing."""
    from harness.overview import overview
    from harness.report import machine
    from harness.report.console import print_overview

    found = overview(_project(project))
    if form is Format.JSON:
        print(machine.to_json(machine.STACKS, **found.model_dump(mode="json")))
    else:
        print_overview(_console(), found)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="STACK", help="Stacks; all without one.")] = None,
    case: Cases = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be repeated.")] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Keep every trace in this folder.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 where any case was unobserved.")] = False,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Hold stacks against their goldens and print a verdict."""
    from harness.compare.outcome import Outcome
    from harness.report import machine
    from harness.report.console import print_verdicts
    from harness.report.sheet import sheet_of_check
    from harness.session import checked as run_check

    place = _project(project)
    outputs = _Outputs(html, markdown, junit, sarif)
    verdicts, sheets = [], []
    with _progress() as progress:
        for stack in _stacks(place, names or ()):
            wanted = bool(outputs.wanted)
            for checked in run_check(place, stack, case or (), model or (), progress, save, keep=wanted):
                verdicts.append(checked.verdict)
                if outputs.wanted:
                    sheets.append(sheet_of_check(checked, _command()))
                progress.clear()
                if form is Format.TEXT:
                    print_verdicts(_console(), [checked.verdict])
    outputs.write(sheets)
    if not verdicts:
        raise UserError("none of these cases is asked of these models", "harness stacks lists both")
    statuses = {verdict.status for verdict in verdicts}
    unseen = any(result.isolated.outcome is Outcome.UNOBSERVED for v in verdicts for result in v.results)
    unjudged = "unjudged" in statuses or (strict and unseen)
    status = CONVICTED if "convicted" in statuses else UNJUDGED if unjudged else CLEAN
    if form is Format.JSON:
        print(machine.to_json(machine.CHECK, exit_status=status, verdicts=verdicts))
    raise typer.Exit(status)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="STACK_A", help="The stack that the other is held against.")],
    b: Annotated[str, typer.Argument(metavar="STACK_B", help="The other stack.")],
    case: Cases = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be repeated.")] = None,
    other_model: Annotated[
        str | None, typer.Option("--other-model", help="Another model for STACK_B; different answers are then natural.")
    ] = None,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Hold two stacks against each other, and name the stage that makes the difference."""
    from harness.diff import diff as run_diff
    from harness.report import machine
    from harness.report.console import print_diff
    from harness.report.sheet import sheet_of_diff
    from harness.stack import load_stack

    place = _project(project)
    outputs = _Outputs(html, markdown, junit, sarif)
    found = []
    with _progress() as progress:
        first, second = load_stack(place, a), load_stack(place, b)
        for compared in run_diff(place, first, second, case or (), model or (), other_model, progress):
            found.append(compared)
            progress.clear()
            if form is Format.TEXT:
                print_diff(_console(), compared.diff)
    if not found:
        raise UserError("none of these cases is asked of these models", "harness stacks lists both")
    outputs.write([sheet_of_diff(compared, _command()) for compared in found])
    statuses = {compared.diff.status for compared in found}
    status = CONVICTED if "different" in statuses else UNJUDGED if "unjudged" in statuses else CLEAN
    if form is Format.JSON:
        print(machine.to_json(machine.DIFF, exit_status=status, diffs=[compared.diff for compared in found]))
    raise typer.Exit(status)


@app.command()
def trace(
    stack: Annotated[str, typer.Argument(metavar="STACK_OR_URL", help="A stack, or a server's address.")],
    case: Annotated[str, typer.Argument(help="A case.")],
    model: Annotated[
        str | None, typer.Option("--model", help="A model of stacks/models.toml; of an address, the name to ask for.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Ask for a stream.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop before inference; needs no weights.")] = False,
    key: Annotated[
        str | None,
        typer.Option("--api-key-variable", metavar="NAME", help="The environment variable with an address's API key."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="An address's family: llama-server, ollama, lm-studio or generic; else tried."),
    ] = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Show what every stage of a stack makes of a case; of a server's address, what it sends to its model."""
    from harness.adhoc import is_address, observe_address
    from harness.golden import load_case
    from harness.report import machine
    from harness.report.console import render_observation
    from harness.session import observe
    from harness.stack import load_stack

    place = _project(project)
    asked = load_case(place, case)
    if is_address(stack):
        found = observe_address(
            stack, asked, key_variable=key, profile=profile, model=model, stream=stream, dry_run=dry_run
        )
    elif key or profile:
        raise UserError("--api-key-variable and --profile are of an address; a stack's file sets its own")
    else:
        found = observe(place, load_stack(place, stack), asked, model, stream=stream, dry_run=dry_run)
    if form is Format.JSON:
        print(machine.to_json(machine.TRACE, stack=stack, case=case, observation=found))
    else:
        _console().print(render_observation(found))


@app.command()
def record(
    model: Annotated[str, typer.Argument(help="A model of stacks/models.toml.")],
    approve: Annotated[
        list[str] | None, typer.Option("--approve", help="Write changes of this kind: new, changed or stale.")
    ] = None,
    noise: Annotated[
        str | None, typer.Option("--noise", metavar="STACK", help="Measure the noise floor on this healthy stack.")
    ] = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Create or update goldens. Without --approve nothing is written; the status tells whether anything would be."""
    from harness.errors import MissingPackageError, unknown_name
    from harness.report import machine
    from harness.report.console import print_recording
    from harness.session import record_noise
    from harness.stack import load_stack, resolve_model

    place = _project(project)
    if noise is not None:
        with _progress() as progress:
            measured = record_noise(place, load_stack(place, noise), model, progress)
        print(machine.to_json(machine.RECORD, model=model, noise=measured))
        return
    try:
        from harness.record import Change, Recording
    except ImportError as error:
        raise MissingPackageError("recording goldens", str(error.name), "reference") from error
    kinds = [change.value for change in Change if change is not Change.UNCHANGED]
    for kind in approve or ():
        if kind not in kinds:
            raise unknown_name("kind of change", kind, kinds)
    recording = Recording(place, resolve_model(place, model), frozenset(Change(kind) for kind in approve or ()))
    with _progress() as progress:
        for done, recorded in enumerate(recording.run()):
            progress(f"{model} {recorded.case}: {recorded.change}", done, done + 1)
    left = [one for one in recording.results if one.change is not Change.UNCHANGED and not one.written]
    status = CONVICTED if left else CLEAN
    if form is Format.JSON:
        cases = [vars(one) for one in recording.results]
        print(machine.to_json(machine.RECORD, exit_status=status, model=model, cases=cases))
    else:
        print_recording(_console(), model, recording.results)
    raise typer.Exit(status)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", help="A model's name, or a GGUF file.")],
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Examine a model file and this machine."""
    from harness.doctor import examine, examine_machine
    from harness.report import machine
    from harness.report.console import print_diagnosis
    from harness.stack import find_model_file

    path = find_model_file(_project(project), model)
    found = [examine(path), examine_machine()]
    status = CONVICTED if any(diagnosis.worst == "bad" for diagnosis in found) else CLEAN
    if form is Format.JSON:
        print(machine.to_json(machine.DOCTOR, exit_status=status, diagnoses=found))
    else:
        for diagnosis in found:
            print_diagnosis(_console(), diagnosis)
    raise typer.Exit(status)


@app.command()
def probes(
    model: Annotated[str, typer.Argument(help="A model of stacks/models.toml.")],
    folder: Annotated[Path, typer.Argument(help="Where to write replay.gguf and fingerprint.gguf.")],
    context: Annotated[int, typer.Option("--context", min=16, help="The most positions; the server's context.")] = 2048,
    project: Where = None,
) -> None:
    """Write the two model files that make a server of your own transparent; see stacks/ollama.toml for their use."""
    from harness.probes import write_probes
    from harness.stack import resolve_model

    for path in write_probes(resolve_model(_project(project), model), folder, context):
        print(path)


@app.command()
def demo(form: As = Format.TEXT) -> None:
    """Plant three faults in the real stack and show each verdict."""
    from harness.demo import demo as run_demo
    from harness.report import machine
    from harness.report.console import print_scene

    scenes = []
    with _progress() as progress:
        for scene in run_demo(_project(None), progress):
            scenes.append(scene)
            progress.clear()
            if form is Format.TEXT:
                print_scene(_console(), scene.defect.id if scene.defect else "", _sentence(scene), scene.verdict)
    status = CLEAN if all(scene.right for scene in scenes) else CONVICTED
    if form is Format.JSON:
        content = [
            {"planted": scene.defect.id if scene.defect else None, "verdict": scene.verdict.model_dump(mode="json")}
            for scene in scenes
        ]
        print(machine.to_json(machine.DEMO, exit_status=status, scenes=content))
    raise typer.Exit(status)


def _stacks(place: Project, names: Sequence[str]) -> Iterator[Any]:
    """Yield the stacks that are named; without a name those that can run here, and say which are left out."""
    from harness.errors import MissingPackageError
    from harness.stack import load_component, load_stack, stack_names

    for name in names or stack_names(place):
        stack = load_stack(place, name)
        if not names:
            try:
                if stack.named_only:
                    raise UserError("it is checked only when it is named", f"harness check {name}")
                for component in stack.components:
                    load_component(component)
            except (MissingPackageError, UserError) as error:
                print(f"harness: left out: stack {name!r}: {error}", file=sys.stderr)
                continue
        yield stack


class _Outputs:
    """The files that a report is written to. Their folders are looked at before the work begins, not after it."""

    def __init__(self, html: Path | None, markdown: Path | None, junit: Path | None, sarif: Path | None) -> None:
        self._files = {"html": html, "markdown": markdown, "junit": junit, "sarif": sarif}
        for path in self.wanted.values():
            if path.is_dir() or not path.absolute().parent.is_dir():
                raise UserError(f"no file can be written at {path}", "name a file in a folder that exists")
        if html is not None:
            self._writer("html")

    @property
    def wanted(self) -> dict[str, Path]:
        """The files asked for, by kind."""
        return {kind: path for kind, path in self._files.items() if path is not None}

    def write(self, sheets: list[Any]) -> None:
        """Write the reports asked for."""
        from harness.golden import write_file

        for kind, path in self.wanted.items():
            write_file(path, self._writer(kind)(sheets).encode("utf-8"))

    @staticmethod
    def _writer(kind: str) -> Any:
        import importlib

        from harness.errors import MissingPackageError

        try:
            return getattr(importlib.import_module(f"harness.report.{kind}"), f"to_{kind}")
        except ImportError as error:
            raise MissingPackageError(f"a report as {kind}", str(error.name), "report") from error


def _command() -> str:
    import shlex

    return shlex.join(["harness", *sys.argv[1:]])


def _sentence(scene: Any) -> str:
    return scene.defect.sentence if scene.defect else "Nothing is planted: the healthy stack."


def _project(root: Path | None) -> Project:
    from harness.project import find_project

    return find_project(root)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


class _Progress:
    """Shows what is being done, in one line of a terminal that goes away before anything else is printed."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        console = Console(stderr=True)
        self._status = Status("starting", console=console) if console.is_terminal else None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._status is not None:
            self._status.start()
            self._status.update(f"{what}  {done}/{total}")

    def clear(self) -> None:
        """Take the line away; the next step shows it again."""
        if self._status is not None:
            self._status.stop()


@contextmanager
def _progress() -> Iterator[_Progress]:
    shown = _Progress()
    try:
        yield shown
    finally:
        shown.clear()


def main() -> None:
    """Run the command line."""
    app()
