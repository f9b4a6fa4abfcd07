"""Commands about what stacks are held against, and the demonstration: record, doctor, probes, demo."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import (
    CLEAN,
    CONVICTED,
    OWN_ERROR,
    As,
    Format,
    Where,
    console,
    print_own_errors,
    progress_line,
    project_at,
)

if TYPE_CHECKING:
    from harness.project.project import Project


def record(
    model: Annotated[str, typer.Argument(help="A model of stacks/models.toml.")],
    approve: Annotated[
        list[str] | None, typer.Option("--approve", help="Write changes of this kind: new, changed or stale.")
    ] = None,
    noise: Annotated[
        str | None, typer.Option("--noise", metavar="STACK", help="Measure the noise floor on this healthy stack.")
    ] = None,
    checksums: Annotated[
        str | None,
        typer.Option("--checksums", metavar="STACK", help="Hold this engine against its own past, bit for bit."),
    ] = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Create or update goldens. Without --approve nothing is written; the status tells whether anything would be."""
    from harness.checking.opened import record_noise
    from harness.errors import MissingPackageError, unknown_name
    from harness.project.golden_writing import writing
    from harness.project.stack import load_stack, resolve_model
    from harness.report import machine
    from harness.report.console import print_recording
    from harness.report.visible import visible

    place = project_at(project)
    found = resolve_model(place, model)
    if noise is not None:
        from harness.explain.locate import record_nodes

        with writing(place, model), progress_line() as progress:
            measured = record_noise(place, load_stack(place, noise), model, progress)
            nodes = record_nodes(place, load_stack(place, noise), model, progress)
        for variation, why in measured.unmeasured.items():
            print(f"harness: not measured: {variation}: the engine {visible(why)}", file=sys.stderr)
        print(machine.to_json(machine.RECORD, model=model, noise=measured, nodes=nodes))
        return
    if checksums is not None:
        _hold_against_past(place, checksums, model, bool(approve), form)
    try:
        from harness.reference.record import Change, Recording
    except ImportError as error:
        raise MissingPackageError("recording goldens", str(error.name), "reference") from error
    kinds = [change.value for change in Change if change is not Change.UNCHANGED]
    for kind in approve or ():
        if kind not in kinds:
            raise unknown_name("kind of change", kind, kinds)
    recording = Recording(place, found, frozenset(Change(kind) for kind in approve or ()))
    with progress_line() as progress:
        for done, recorded in enumerate(recording.run()):
            progress(f"{model} {recorded.case}: {recorded.change}", done, done + 1)
    left = [one for one in recording.results if one.change is not Change.UNCHANGED and not one.written]
    status = CONVICTED if left else CLEAN
    if form is Format.JSON:
        cases = [vars(one) for one in recording.results]
        print(machine.to_json(machine.RECORD, exit_status=status, model=model, cases=cases))
    else:
        print_recording(console(), model, recording.results, "" if left else _next(place, model))
    raise typer.Exit(status)


def _next(place: Project, model: str) -> str:
    """Return the command that comes after recording; empty where no stack is held with the model."""
    from harness.checking.noise import load_noise
    from harness.errors import UserError
    from harness.project.stack import load_component, load_stack, stack_names
    from harness.stage import Stage

    measured = load_noise(place, model) is not None
    for name in stack_names(place):
        try:
            stack = load_stack(place, name)
            if model not in stack.models:
                continue
            if measured or not hasattr(load_component(stack.stages.component(Stage.INFERENCE)), "variations"):
                return f"harness check {name} --model {model}"
        except UserError:
            # Its file is wrong, or a package is missing: this command is not about that.
            continue
        return f"harness record {model} --noise {name}"
    return ""


def _hold_against_past(place: Project, stack: str, model: str, write: bool, form: Format) -> None:
    from harness.explain.checksums import record_checksums
    from harness.project.golden_writing import writing
    from harness.project.stack import load_stack
    from harness.report import machine

    with writing(place, model) if write else nullcontext():
        changes = record_checksums(place, load_stack(place, stack), model, write=write)
    status = CLEAN if write or changes == () else CONVICTED
    if form is Format.JSON:
        print(machine.to_json(machine.RECORD, exit_status=status, model=model, checksums=changes))
    elif changes is None:
        print(
            "nothing was recorded of this engine in these settings" + ("; it is now" if write else " (--approve new)")
        )
    else:
        print("\n".join(one.describe() for one in changes) or "every node computes the bits that were recorded")
    raise typer.Exit(status)


def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", help="A model's name, or a GGUF file.")],
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Examine a model file and this machine."""
    from harness.doctor import examine, examine_machine
    from harness.project.stack import find_model_file
    from harness.report import machine
    from harness.report.console import print_diagnosis

    path = find_model_file(project_at(project), model)
    found = [examine(path), examine_machine()]
    status = CONVICTED if any(diagnosis.worst == "bad" for diagnosis in found) else CLEAN
    if form is Format.JSON:
        print(machine.to_json(machine.DOCTOR, exit_status=status, diagnoses=found))
    else:
        for diagnosis in found:
            print_diagnosis(console(), diagnosis)
    raise typer.Exit(status)


def probes(
    model: Annotated[str, typer.Argument(help="A model of stacks/models.toml.")],
    folder: Annotated[Path, typer.Argument(help="Where to write replay.gguf and fingerprint.gguf.")],
    context: Annotated[int, typer.Option("--context", min=16, help="The most positions; the server's context.")] = 2048,
    project: Where = None,
) -> None:
    """Write the two model files that make a server of your own transparent; see stacks/ollama.toml for their use."""
    from harness.probes import write_probes
    from harness.project.stack import resolve_model

    for path in write_probes(resolve_model(project_at(project), model), folder, context):
        print(path)


def demo(form: As = Format.TEXT) -> None:
    """Plant three faults in the real stack and show each verdict."""
    from harness.attribution.demo import demo as run_demo
    from harness.report import machine
    from harness.report.console import print_scene

    scenes = []
    with progress_line() as progress:
        for scene in run_demo(project_at(None), progress):
            scenes.append(scene)
            progress.clear()
            if form is Format.TEXT:
                print_scene(console(), scene.defect.id if scene.defect else "", _sentence(scene), scene.verdict)
    status = CLEAN if all(scene.right for scene in scenes) else CONVICTED
    errors = [told.error for scene in scenes for told in scene.verdict.errors]
    if errors:
        status = OWN_ERROR
        print_own_errors(errors)
    if form is Format.JSON:
        content = [
            {"planted": scene.defect.id if scene.defect else None, "verdict": scene.verdict.model_dump(mode="json")}
            for scene in scenes
        ]
        print(machine.to_json(machine.DEMO, exit_status=status, scenes=content))
    raise typer.Exit(status)


def _sentence(scene: Any) -> str:
    return scene.defect.sentence if scene.defect else "Nothing is planted: the healthy stack."
