"""A search as a comment on a pull request, in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from harness.report.fuzz.example import raw, turns
from harness.report.fuzz.view import (
    change,
    covered,
    kinds,
    messages,
    missed,
    not_true,
    notes,
    output_lines,
    rows,
    spread,
    subjects,
    tone,
)
from harness.report.markdown import MARK, code, fence, fitted
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport
    from harness.fuzz.measures import Covered, Mutation

_NAMES: Final = 60
"""Subjects that are named of a root cause."""
_LISTED: Final = 100
"""Lines that were not reached and mutants that survive that are listed."""
_SOURCE: Final = 8_000
"""Characters of one listing; a longer one would take the room of the findings after it."""


def to_markdown(report: FuzzReport) -> str:
    """Return a search as one comment: the result, the properties, tables of root causes, then each new one.

    What goes beyond GitHub's limit is left out from the end, and the comment says so.
    """
    return fitted(list(_blocks(report)))


def _blocks(report: FuzzReport) -> Iterator[str]:
    known = [finding for finding in report.findings if finding.known]
    yield f"### {MARK[tone(report)]} {code(report.line)}"
    if report.facts:
        yield "\n".join(f"* {code(name)}: {code(value)}" for name, value in report.facts.items())
    for note in notes(report):
        yield f"> {code(note)}"
    table = [f"| {code(row.name)} | {row.held:,} | {row.result} |" for row in rows(report)]
    if table:
        yield "\n".join(("| property | checked | result |", "|---|---:|---|", *table))
    yield from (_coverage(one) for one in report.coverage)
    if report.mutation is not None:
        yield from _mutation(report.mutation)
    if len(report.new) > 1:
        yield _causes(f"All {len(report.new):,} root causes", report.new, report)
    if known:
        yield _causes(f"In the baseline: {len(known):,}", known, report)
    for finding in report.new:
        yield "\n\n".join(_finding(finding, report))


def _coverage(one: Covered) -> str:
    said = f"{code(one.subject)}: {covered(one)}."
    if not one.missed:
        return said
    table = [f"| {line} | {kind} | {code(text)} |" for line, kind, text in missed(one)[:_LISTED]]
    head = "| line | not reached | text |\n|---:|---|---|"
    return f"{said}\n\n{_folded(_first('not reached', len(one.missed)), chr(10).join((head, *table)))}"


def _mutation(mutation: Mutation) -> Iterator[str]:
    rows = []
    for one in kinds(mutation):
        goldens = f"{one.by_goldens:,}" if mutation.cases else ""
        numbers = f"{one.tried:,} | {one.told:,} | {goldens} | {one.by_properties:,} | {one.survive:,}"
        rows.append(f"| {code(one.kind)} | {numbers} |")
    head = "| mutants | tried | differ | killed by goldens | by properties | survive |\n|---|---:|---:|---:|---:|---:|"
    yield "\n".join((head, *rows))
    if mutation.survivors:
        table = [
            f"| {code(one.subject)} | {one.line} | {code(one.kind)} | {code(change(one))} |"
            for one in mutation.survivors[:_LISTED]
        ]
        head = "| template | line | mutant | change |\n|---|---:|---|---|"
        yield _folded(_first("survivors", len(mutation.survivors)), "\n".join((head, *table)))


def _first(what: str, count: int) -> str:
    return f"{count:,} {what}" + (f", the first {_LISTED}" if count > _LISTED else "")


def _causes(title: str, findings: Sequence[Finding], report: FuzzReport) -> str:
    table = [
        f"| {code(one.broken.name)} | {code(one.broken.path)} | {code(one.broken.cause)} | {spread(one, report)} |"
        for one in findings
    ]
    head = "| property | in | root cause | shown by |\n|---|---|---|---|"
    return _folded(title, "\n".join((head, *table)))


def _finding(finding: Finding, report: FuzzReport) -> Iterator[str]:
    broken = finding.broken
    yield f"#### {code(broken.name)} in {code(broken.path)}"
    yield code(not_true(finding))
    yield "\n".join(f"* {code(message)}" for message in messages(finding))
    if report.subjects > 1:
        named = code(subjects(finding, _NAMES))
        yield _folded(f"Shown by {spread(finding, report)}", named)
    else:
        yield f"Shown by {spread(finding, report)}."
    said = [f"{turn.label}: {turn.said}" for turn in turns(finding.example)]
    if said:
        yield f"The shortest input, of {code(finding.subject)}:\n\n{fence(said, '')}"
    outputs = output_lines(finding)
    if outputs:
        yield f"What came of it:\n\n{fence(outputs, 'diff' if outputs[0].startswith('---') else '')}"
    for title, text, language in (
        ("The input as JSON", raw(finding.example), "json"),
        ("Run it again", finding.command, "sh"),
        ("As a test for pytest", finding.test, "python"),
    ):
        if text and finding.example is not None:
            yield _folded(title, _listing(text, language))


def _listing(text: str, language: str) -> str:
    if len(text) > _SOURCE:
        return f"{len(text):,} characters, which the JSON report holds."
    return fence([visible(line) for line in text.strip("\n").split("\n")], language)


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
