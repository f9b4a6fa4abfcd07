"""The command that tries chat templates on made-up conversations: fuzz template."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.cli.searching import (
    Again,
    BaselineFile,
    Database,
    Examples,
    Only,
    Seconds,
    Seed,
    Write,
    again,
    concluded,
    example_of,
    needs_hypothesis,
    remembered,
)
from harness.cli.shared import As, Format, Html, Junit, Markdown, Outputs, Sarif, Where, progress_line, project_at
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding
    from harness.fuzz.template.golden_cases import GoldenCase
    from harness.fuzz.template.run import Plan, Statistics
    from harness.fuzz.template.trial import Subject
    from harness.values import Json

_MANY = 8
"""Templates from which on only the fixed conversations are tried, if nobody says how many."""
_EXAMPLES = 100


def fuzz_template(
    name: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATES",
            help="A .jinja file, a folder, a GGUF, a tokenizer_config.json, a model, a stack or an installed package.",
        ),
    ],
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="A template engine; may be repeated. The first is the reference."),
    ] = None,
    template: Annotated[str | None, typer.Option("--template", help="Only this one of several templates.")] = None,
    only: Only = None,
    examples: Examples = None,
    seconds: Seconds = None,
    seed: Seed = 0,
    example: Again = None,
    baseline: BaselineFile = None,
    write_baseline: Write = None,
    database: Database = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also tell which lines no conversation and no golden case reached.")
    ] = False,
    mutants: Annotated[
        str | None,
        typer.Option(
            "--mutants",
            metavar="N|all",
            help="Instead: plant defects, so many a template, and count which the properties and goldens see.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes at once; 0 for one a core.")] = 0,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Try chat templates on made-up conversations in several template engines; needs no model and no golden."""
    outputs = Outputs("harness.report.fuzz", html=html, markdown=markdown, junit=junit, sarif=sarif)
    needs_hypothesis()
    from harness.fuzz import fixed_conversations
    from harness.fuzz.template.api import DEFAULT_ENGINES, checked, chosen, engine_paths, tokenizer_path
    from harness.fuzz.template.golden_cases import golden_cases
    from harness.fuzz.template.properties import properties_named
    from harness.fuzz.template.run import Plan, fuzz_templates, look_again
    from harness.fuzz.template.subjects import subjects

    place = project_at(project)
    every = subjects(place, name)
    found = chosen(every, template)
    count = examples if examples is not None else (_EXAMPLES if len(found) < _MANY else 0)
    properties_named(only or ())
    plan = Plan(
        engines=engine_paths(engine or DEFAULT_ENGINES),
        properties=tuple(only or ()),
        tokenizer=tokenizer_path(),
        examples=count,
        number=seed,
        seconds=seconds,
        workers=workers,
        counts=coverage,
    )
    fixed = [{key: one[key] for key in ("messages", "tools") if key in one} for one in fixed_conversations()]
    if mutants is not None:
        asked = {
            "--coverage": coverage,
            "--example": example,
            "--examples": examples is not None,
            "--baseline": baseline,
            "--write-baseline": write_baseline,
            "--database": database,
            "--junit": junit,
            "--sarif": sarif,
        }
        _nothing_else(asked)
        _measured(plan, found, fixed, golden_cases(place, name), _count(mutants), name, outputs, form)
    with remembered(database, "template", [subject.name for subject in found]) as memory, progress_line() as progress:
        if example is None:
            findings, statistics = fuzz_templates(
                plan,
                found,
                fixed,
                memory.failed,
                lambda done: progress("templates", done, len(found)),
                golden_cases(place, name) if coverage else {},
            )
            memory.findings = findings
        else:
            findings, statistics = look_again(plan, found[0], checked(example_of(example)))
    told = [one.model_copy(update=_again(one, name, len(every), plan)) for one in findings]
    concluded(
        kind="template",
        subject=name,
        findings=told,
        facts=_facts(statistics),
        properties={one.name: one.sentence for one in properties_named(plan.properties)},
        held=statistics.held,
        subjects=len(found),
        ended=statistics.ended,
        coverage=statistics.coverage,
        notes=(*_uncounted(plan, statistics), *_unjudged(statistics)),
        unjudged=bool(statistics.unjudged),
        baseline=baseline,
        write_baseline=write_baseline,
        outputs=outputs,
        form=form,
        seed=seed,
    )


def _count(mutants: str) -> int | None:
    """Return how many mutants of a template are tried; None for all."""
    if mutants == "all":
        return None
    if not mutants.isdecimal() or int(mutants) == 0:
        raise UserError(f"--mutants {mutants!r} is no number of mutants", "name one, or say: --mutants all")
    return int(mutants)


def _nothing_else(given: dict[str, Any]) -> None:
    for option in (name for name, value in given.items() if value):
        raise UserError(f"{option} does not go with --mutants", "mutants are tried instead of a search")


def _measured(
    plan: Plan,
    found: Sequence[Subject],
    fixed: Sequence[Json],
    cases: Mapping[str, Sequence[GoldenCase]],
    most: int | None,
    name: str,
    outputs: Outputs,
    form: Format,
) -> NoReturn:
    """Try mutants, and end with their report."""
    from harness.fuzz.template.mutate import try_mutants

    with progress_line() as progress:
        mutation, engines, ended = try_mutants(
            plan, found, fixed, cases, most, lambda done, all_of_them: progress("mutants", done, all_of_them)
        )
    concluded(
        kind="template",
        subject=name,
        findings=(),
        facts={
            "templates": f"{len(found):,}",
            "conversations": f"{len(fixed):,}",
            "golden cases": f"{mutation.cases:,}",
            **engines,
        },
        properties={},
        held={},
        subjects=len(found),
        ended=ended,
        notes=tuple(f"{one}: no mutants: {why}" for one, why in mutation.unjudged.items()),
        mutation=mutation,
        baseline=None,
        write_baseline=None,
        outputs=outputs,
        form=form,
        seed=plan.number,
    )


def _uncounted(plan: Plan, statistics: Statistics) -> tuple[str, ...]:
    """Return what is said where coverage was asked for and could not be had."""
    if not plan.counts or statistics.coverage:
        return ()
    return ("nothing was counted: for coverage the first engine has to be transformers-template, and to compile it",)


def _unjudged(statistics: Statistics) -> tuple[str, ...]:
    return tuple(f"{name} could not be judged: {why}" for name, why in sorted(statistics.unjudged.items()))


def _facts(statistics: Statistics) -> dict[str, str]:
    return {
        "templates": f"{statistics.subjects:,}",
        "conversations": f"{statistics.inputs:,}",
        "checks": f"{statistics.checks:,}",
        "renders": f"{statistics.renders:,}",
        **statistics.engines,
    }


def _again(finding: Finding, name: str, of: int, plan: Plan) -> dict[str, str]:
    """Return the command and the pytest function that try a finding's example again."""
    engines = [word for engine in plan.engines for word in ("--engine", engine)]
    if finding.example is None:
        words = ["harness", "fuzz", "template", name, "--template", finding.subject]
        return {"command": shlex.join([*words, *engines])}
    which = ["--template", finding.subject] if of > 1 else []
    words = ["harness", "fuzz", "template", name, *which, *engines, "--only", finding.broken.name]
    where = f"{name!r}, conversation, template={finding.subject!r}" if of > 1 else f"{name!r}, conversation"
    call = f"try_template({where}, engines={list(plan.engines)!r}, properties={[finding.broken.name]!r})"
    return again(finding, words, call, "conversation")
