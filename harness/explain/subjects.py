"""What a check is asked to look at: stacks by name or servers by address, around models by name or by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.checking.adhoc import NO_MODEL, address_of, stack_at
from harness.checking.compare.outcome import Outcome
from harness.checking.load import load_rows
from harness.checking.load.verdict import with_load
from harness.checking.opened import Checked, Progress
from harness.checking.rows import Row
from harness.checking.running import open_stack
from harness.checking.verdict import Verdict, convict, with_rows
from harness.errors import MissingPackageError, UserError
from harness.explain.examined import NO_TEMPLATE, rows_of_file
from harness.explain.pipeline import checked
from harness.project.own_file import is_model_file, with_model_file
from harness.project.project import Project
from harness.project.stack import Stack, load_component, load_stack, resolve_model, stack_names
from harness.stage import Stage

_AROUND_A_FILE: Final = ("llama-cpp-python", "llama-server")
"""The stacks of which the first that can run is taken for a file that nobody named a stack for."""

_OPENS: Final = "give --model-file FILE.gguf: the stages can then be held against what the file makes due"

_LOADING: Final = 300.0
"""Seconds for an answer of a server by its address: some load their model with the first question."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """One stack and what it is to be held against.

    Attributes:
        project: Where its models, cases and goldens are.
        stack: The stack.
        models: The models' names; empty means all that the stack names.
        cases: The cases' names; empty means all.
        url: Its address, where it was named by that.
        is_own_file: Whether the model is a file that was named by its path: what it is held against is made when it is
            missing.
        has_model: Whether there is any model to hold it against.
    """

    project: Project
    stack: Stack
    models: tuple[str, ...]
    cases: tuple[str, ...]
    url: str | None = None
    is_own_file: bool = False
    has_model: bool = True


@dataclass(frozen=True)
class Asked:
    """What a command line says of the subjects.

    Attributes:
        names: Stacks and addresses; empty means the stacks that can run here.
        models: Models' names, and files.
        cases: Cases' names; empty means all, or those of a first look.
        full: Whether all cases are asked of a file that was named by its path.
        model_file: The model file of an address.
        template: The chat template that is to be in force, of a file.
        key_variable: The environment variable with the API key of an address.
        profile: The family of an address.
    """

    names: Sequence[str] = ()
    models: Sequence[str] = ()
    cases: Sequence[str] = ()
    full: bool = False
    model_file: Path | None = None
    template: Path | None = None
    key_variable: str | None = None
    profile: str | None = None


def subjects(project: Project, asked: Asked, left_out: Told = lambda _: None) -> Iterator[Subject]:
    """Yield what is to be checked.

    Args:
        project: The project that was named, or the nearest one.
        asked: What the command line says.
        left_out: Told, in one line, of a stack that nobody named and that cannot run here.

    Raises:
        UserError: something named does not exist, cannot be read, or does not go together.
        NotRunningError: a server does not answer.
    """
    files = [name for name in asked.models if is_model_file(name)]
    addresses = [name for name in asked.names if address_of(name) is not None]
    _check(asked, files, addresses)
    if files:
        project, name = with_model_file(project, Path(files[0]), asked.template)
        asked = replace(asked, models=(name,))
    for name in asked.names or (_around_a_file(project) if files else stack_names(project)):
        address = address_of(name)
        if address is not None:
            yield _server(project, address, asked)
            continue
        stack = load_stack(project, name)
        if not asked.names and not files and (why := _why_not(stack)):
            left_out(f"left out: stack {name!r}: {why}")
            continue
        yield Subject(project, stack, tuple(asked.models), tuple(asked.cases), is_own_file=bool(files))


def judged(
    subject: Subject,
    asked: Asked,
    progress: Progress = lambda *_: None,
    told: Told = lambda _: None,
    *,
    save: Path | None = None,
    keep: bool = False,
    golden: str | None = None,
    strict: bool = False,
) -> Iterator[Checked]:
    """Check a subject; one explained verdict a model. What it is held against is made where it is missing.

    Args:
        subject: The subject.
        asked: What the command line says.
        progress: Told of what is made and of every case.
        told: Told, in one line, what will be made and what it costs, before it begins.
        save: As of `checked`.
        keep: As of `checked`.
        golden: As of `checked`.
        strict: As of `checked`.

    Raises:
        MissingPackageError: the reference is not installed.
        UserError: something named does not exist, or the reference does not know the file.
    """
    rows: tuple[Row, ...] = ()
    if subject.has_model and subject.is_own_file:
        model = resolve_model(subject.project, subject.models[0])
        rows = rows_of_file(model.path, has_template=model.chat_template is not None)
        if any(row.name == NO_TEMPLATE for row in rows):
            # Without a template there is nothing that a chat could be held against.
            yield _unheld(subject, model.name, rows, "the file has no chat template")
            return
    if subject.url is not None and not subject.cases:
        rows += _canaries(subject, asked, progress)
    if not subject.has_model:
        yield _unheld(subject, "no model file", (*_loaded(subject), *rows), _OPENS)
        return
    ready = _prepared(subject, asked, progress, told)
    for one in checked(
        ready.project,
        ready.stack,
        ready.cases,
        ready.models,
        progress,
        save,
        keep=keep,
        golden=golden,
        strict=strict,
    ):
        yield replace(one, verdict=with_rows(one.verdict, rows))


def is_right_in_part(verdict: Verdict) -> bool:
    """Return whether a verdict on an address found nothing wrong in what it could see, and could not see all."""
    right = {stage for stage, said in verdict.stages.items() if said.status == "cleared"} - {Stage.CLIENT}
    rows = any(row.outcome is Outcome.EQUAL for row in verdict.rows)
    return address_of(verdict.stack) is not None and verdict.status == "unjudged" and (bool(right) or rows)


def _canaries(subject: Subject, asked: Asked, progress: Progress) -> tuple[Row, ...]:
    from harness.canaries import canaries  # speaking HTTP is an extra

    assert subject.url is not None
    # llama-server serves one model by any name, so that none is kept of it.
    options = next(iter(subject.stack.options.values()))
    name = str(options.get("model") or next(iter(asked.models), "local"))
    return canaries(subject.url, model=name, key_variable=asked.key_variable, seconds=_LOADING, progress=progress)


def _loaded(subject: Subject) -> tuple[Row, ...]:
    """Return the rows of how a server's model is loaded, where no file says what it should be."""
    with open_stack(subject.stack, NO_MODEL) as running:
        return load_rows(running)


def _unheld(subject: Subject, model: str, rows: Sequence[Row], why: str) -> Checked:
    """Return the verdict of rows alone, where no stage can be held against a golden."""
    verdict = convict(subject.stack.name, model, (), lambda _: "state")
    stages = {stage: said.model_copy(update={"why": why}) for stage, said in verdict.stages.items()}
    right = sum(row.outcome is Outcome.EQUAL for row in rows)
    line = f"nothing wrong in {right} rows; no stage was held against a golden: {why}" if right else verdict.line
    verdict = with_load(
        verdict.model_copy(update={"stages": stages, "line": line}), [row for row in rows if row.of == "load"]
    )
    verdict = with_rows(verdict, [row for row in rows if row.of != "load"])
    return Checked(verdict=verdict, goldens={}, traces={}, limit=None, parts={})


def _prepared(subject: Subject, asked: Asked, progress: Progress, told: Told) -> Subject:
    """Return a subject with the cases that it is asked, and make what a file is held against where it is missing."""
    if not (subject.is_own_file or subject.url):
        return subject
    (model,) = subject.models
    try:
        from harness.reference.ready import cost, make_ready, quick_cases
    except ImportError as error:
        raise MissingPackageError("holding a model file", str(error.name), "reference") from error
    if not subject.cases and not asked.full:
        subject = replace(subject, cases=quick_cases(subject.project, model))
    if subject.is_own_file:
        made = cost(subject.project, model, subject.cases)
        if made:
            told(made)
        make_ready(subject.project, model, subject.stack, subject.cases, progress)
    return subject


def _check(asked: Asked, files: Sequence[str], addresses: Sequence[str]) -> None:
    if len(asked.models) > 1 and files:
        raise UserError("one model file at a time", "check them one by one")
    if asked.template is not None and not files and asked.model_file is None:
        raise UserError("--template is of a model file", "name it: --model FILE.gguf, or --model-file of an address")
    if not addresses and (asked.model_file or asked.key_variable or asked.profile):
        raise UserError(
            "--model-file, --api-key-variable and --profile are of an address; a stack's file sets its own",
            "name a file for a stack by --model FILE.gguf",
        )
    if addresses and files:
        raise UserError("of an address --model is the name to ask for", "name its file by --model-file")


def _server(project: Project, address: str, asked: Asked) -> Subject:
    name = None
    own = False
    if asked.model_file is not None:
        above, name = with_model_file(project, asked.model_file, asked.template)
        own, project = above != project, above
    stack = stack_at(
        project,
        address,
        key_variable=asked.key_variable,
        profile=asked.profile,
        asked=next(iter(asked.models), None),
        model=name,
    )
    return Subject(
        project,
        stack,
        () if name is None else (name,),
        tuple(asked.cases),
        url=address,
        is_own_file=own,
        has_model=name is not None,
    )


def _around_a_file(project: Project) -> tuple[str, ...]:
    """Return the stack to run a file in, where none was named.

    Raises:
        UserError: none can run here.
    """
    names = [name for name in _AROUND_A_FILE if name in stack_names(project)]
    reasons = [_why_not(load_stack(project, name)) for name in names]
    ready = [name for name, why in zip(names, reasons, strict=True) if not why]
    if not ready:
        raise UserError("no stack can run a file here", "install one: pip install 'llm-stack-harness[servers]'")
    return (ready[0],)


def _why_not(stack: Stack) -> str:
    """Return why a stack that nobody named is not run; empty where it can be."""
    try:
        if stack.named_only:
            raise UserError("it is checked only when it is named", f"harness check {stack.name}")
        for component in stack.components:
            load_component(component)
    except (MissingPackageError, UserError) as error:
        return str(error)
    return ""
