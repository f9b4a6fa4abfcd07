"""The command that measures the harness itself: attribute."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import (
    CLEAN,
    CONVICTED,
    OWN_ERROR,
    UNJUDGED,
    As,
    Format,
    Html,
    Markdown,
    Outputs,
    Where,
    console,
    print_own_errors,
    progress_line,
    project_at,
)
from harness.errors import UserError, unknown_name

if TYPE_CHECKING:
    from harness.defects.defect import Defect
    from harness.project.project import Project

_STATUS = {"right": CLEAN, "wrong": CONVICTED, "unjudged": UNJUDGED, "error": OWN_ERROR}
_COUNT, _DEEP, _ALL = 200, 6, 1 << 30
_LONGEST = 40
"""Characters of a trial's name beside the progress."""


def attribute(
    stack: Annotated[str, typer.Argument(help="The stack that defects are planted in.")] = "llama-cpp-python",
    out: Annotated[Path | None, typer.Option("--out", help="The bench's folder: its setup and its trials.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model; may be repeated. Else the stack's, as far as a defect needs them."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PATTERN", help="Ids like this, as tok-*, or a stage, kind or place; may be repeated."
        ),
    ] = None,
    defects: Annotated[
        Path | None,
        typer.Option("--defects", metavar="FILE.py", help="Your own defects instead; --only '*' takes ours as well."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=0, help="So many, of every stage, kind and place in turn; 0 takes all. Else 200."),
    ] = None,
    suite: Annotated[
        bool, typer.Option("--suite", help="Say what the cases are worth: what they miss, which add nothing.")
    ] = False,
    deep: Annotated[
        int | None,
        typer.Option("--deep", min=1, help="Cases of each model that are asked in full. Else 6; all for --suite."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trials side by side, each with one thread.")] = 2,
    pairs: Annotated[int, typer.Option("--pairs", min=0, help="Two defects at once, so many times.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the bench in the folder.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the defects, and plant none.")] = False,
    publish: Annotated[
        Path | None, typer.Option("--publish", metavar="FILE.json", help="Put the results into this file, by stack.")
    ] = None,
    html: Html = None,
    markdown: Markdown = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Plant labelled defects one by one, check each stack blindly, and count what was told right.

    Exit status 0: every defect that took effect was told with stage and kind, and no clean stack was convicted; 1: one
    was missed, named wrong, left something behind or raised, or a clean stack was convicted; 3: nothing took effect; 4:
    an error of our own ended a trial, which is counted as that.
    """
    from harness.attribution.bench import bench_of, jobs_of, known_defects, run_bench, setup_of
    from harness.attribution.pairs import draw_pairs
    from harness.attribution.published import load_published
    from harness.attribution.published import publish as put
    from harness.attribution.selection import of_stack, spread
    from harness.attribution.summary import summarise
    from harness.attribution.worth import shipped, worth_of
    from harness.project.stack import load_stack
    from harness.report import machine
    from harness.report.attribution.console import print_bench, print_catalogue
    from harness.report.attribution.worth import print_worth

    known = known_defects(defects)
    chosen = _chosen(known, only or (), defects)
    if listed:
        if form is Format.JSON:
            print(machine.to_json(machine.DEFECTS, exit_status=CLEAN, defects=[_labels(one) for one in chosen]))
        else:
            print_catalogue(console(), chosen)
        return
    if out is None:
        raise UserError("--out names no folder", "the bench is kept in one, as in --out bench")
    outputs = Outputs("harness.report.attribution", html=html, markdown=markdown)
    if publish is not None and publish.exists():
        load_published(publish)
    _check(out, resume)
    place = project_at(project)
    chosen = of_stack(chosen, load_stack(place, stack))
    if count != 0 and not (only or defects):
        chosen = spread(chosen, count or _COUNT)
    many = deep or (_ALL if suite else _DEEP)
    bench = bench_of(place, stack, model or _models(place, stack, chosen), many, jobs, defects, out / "traces")
    work = jobs_of(bench, chosen, draw_pairs([one for one in chosen if not _own(one, defects)], pairs))
    if not any(job.defects for job in work):
        raise UserError("none of these defects shows around these models", "harness attribute --list has all")
    with progress_line() as progress:
        progress("trials", 0, len(work))
        trials = run_bench(
            bench, work, out, jobs, lambda name, done, total: progress(f"trials: {_short(name)}", done, total)
        )
    setup = setup_of(bench, work)
    summary = summarise(setup, trials, known)
    worth = [worth_of(setup, trials, known, name, shipped()) for name in setup.models] if suite else []
    outputs.write(summary)
    if publish is not None:
        put(publish, summary)
    status = _STATUS[summary.status]
    if form is Format.JSON:
        print(machine.to_json(machine.ATTRIBUTE, exit_status=status, summary=summary, worth=worth))
    else:
        print_bench(console(), summary)
        for one in worth:
            print_worth(console(), one)
    errors = [trial.error for trial in trials if trial.error is not None]
    if errors:
        print_own_errors(errors)
    raise typer.Exit(status)


def _chosen(known: Mapping[str, Defect], patterns: Sequence[str], file: Path | None) -> list[Defect]:
    """Return the defects asked for: of a user's file its own where no pattern says more.

    Raises:
        UserError: nothing is like a pattern.
    """
    if not patterns:
        return [one for one in known.values() if file is None or _own(one, file)]
    found: set[str] = set()
    for pattern in patterns:
        like = {one.id for one in known.values() if _like(one, pattern)}
        if not like:
            names = {str(label) for one in known.values() for label in (one.stage, one.kind, one.place)}
            error = unknown_name("defect, stage, kind or place", pattern, names)
            raise UserError(error.message, f"{error.remedy}; harness attribute --list has every id")
        found |= like
    return [one for one in known.values() if one.id in found]


def _labels(defect: Defect) -> dict[str, Any]:
    return {one.name: getattr(defect, one.name) for one in fields(defect) if one.name not in ("hook", "arguments")}


def _like(one: Defect, pattern: str) -> bool:
    return pattern in (one.stage, one.kind, one.place) or fnmatchcase(one.id, pattern)


def _own(one: Defect, file: Path | None) -> bool:
    return file is not None and one.hook.rpartition(":")[0] == str(file.resolve())


def _models(project: Project, stack: str, defects: Iterable[Defect]) -> list[str]:
    """Return the stack's first model, and those of its others that a defect is labelled with."""
    from harness.project.stack import load_stack

    first, *others = load_stack(project, stack).models
    wanted = {name for one in defects for name in one.models}
    return [first, *(name for name in others if name in wanted)]


def _check(out: Path, resume: bool) -> None:
    """Look at the bench's folder before the work begins.

    Raises:
        UserError: it holds a bench and was not to, or the reverse, or it cannot be one.
    """
    from harness.attribution.results import SETUP

    there = (out / SETUP).exists()
    if there and not resume:
        raise UserError(f"{out} holds a bench already", "add --resume to go on with it, or name another folder")
    if resume and not there:
        raise UserError(f"{out} holds no bench to go on with", "leave --resume out to begin one")
    nearest = next(one for one in (out.absolute(), *out.absolute().parents) if one.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"no bench can be kept in {out}", "name a folder that can be written")


def _short(name: str) -> str:
    from harness.report.visible import shorten, visible

    return visible(shorten(name, _LONGEST))
