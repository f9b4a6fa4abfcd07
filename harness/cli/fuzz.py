"""Commands that try what must hold on inputs that are made up: fuzz engine."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from harness.cli.shared import CLEAN, CONVICTED, UNJUDGED, As, Format, Where, console, progress_line, project_at
from harness.errors import UserError

_TRIAL_SECONDS, _SLOW_TRIAL_SECONDS = 120.0, 1800.0
"""How long an invariant may take on one input; one that takes minutes, alone on a slow machine."""


def fuzz_engine(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", help="A model's name, or a GGUF file.")],
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this invariant; may be repeated.")] = None,
    examples: Annotated[int, typer.Option("--examples", min=1, help="Inputs for each invariant.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same inputs.")] = 0,
    limit: Annotated[
        float | None,
        typer.Option("--limit", metavar="NATS", help="How far apart two healthy runs may be; else as was measured."),
    ] = None,
    ids: Annotated[str | None, typer.Option("--ids", help="Instead of made-up prompts this one, as ids.")] = None,
    choice: Annotated[int, typer.Option("--choice", min=0, help="With --ids: the number that picks settings.")] = 0,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Try what must hold of llama.cpp around a model, whatever it is fed; needs no golden."""
    from harness.llama.laboratory.invariants import invariants_named, open_engine
    from harness.llama.laboratory.noise import floor_of_one, floor_of_two
    from harness.models.gguf import check_header
    from harness.project.stack import find_model_file, load_models
    from harness.report import machine
    from harness.report.console import print_tried
    from harness.stage import StageFailedError

    place = project_at(project)
    invariants = invariants_named(only or ())
    found = None if ids is None else (_ids(ids), choice)
    path = find_model_file(place, model)
    check_header(path)
    run = _fuzzing()
    # A file by its path has no noise that was measured.
    measured = floor_of_one(place, model) if model in load_models(place) else None
    floor = floor_of_two(measured) if limit is None else _limit(limit)
    call = ["harness", "fuzz", "engine", model, *([] if limit is None else ["--limit", str(limit)])]
    call += ["--project", str(project)] if project else []
    child = open_engine(path, _SLOW_TRIAL_SECONDS if any(one.slow for one in invariants) else _TRIAL_SECONDS)
    try:
        with progress_line() as progress:
            if found is None:
                tried = list(
                    run.fuzz(child, invariants, floor, examples=examples, number=seed, call=call, progress=progress)
                )
            else:
                tried = list(run.try_input(child, invariants, floor, found, call))
    except StageFailedError as failed:
        print(f"harness: the engine does not start around {path}: {failed.failure.describe()}", file=sys.stderr)
        raise typer.Exit(UNJUDGED) from None
    finally:
        child.close()
    statuses = {one.status for one in tried}
    status = CONVICTED if "broken" in statuses else UNJUDGED if "unjudged" in statuses else CLEAN
    if form is Format.JSON:
        print(machine.to_json(machine.FUZZ, exit_status=status, model=model, seed=seed, limits=floor, tried=tried))
    else:
        print_tried(console(), model, tried, floor)
    raise typer.Exit(status)


def _fuzzing() -> Any:
    from harness.errors import MissingPackageError
    from harness.project.stack import missing_distribution

    if missing_distribution("llama-cpp-python"):
        raise MissingPackageError("trying the engine", "llama-cpp-python", "llama-cpp")
    try:
        from harness.fuzz import engine
    except ImportError as error:
        raise MissingPackageError("making up inputs", str(error.name), "fuzz") from error
    return engine


def _ids(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError:
        found = ()
    if not found or min(found) < 0:
        raise UserError(f"--ids {text!r} is no prompt", "name at least one id, as in --ids '1 9690 198'")
    return found


def _limit(nats: float) -> Any:
    from harness.checking.compare.inference import Floor

    return Floor(limit=nats, mean=nats, source="as given by --limit")
