"""A search as a comment on a pull request, in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from harness.report.fuzz.example import raw, turns
from harness.report.fuzz.view import messages, not_true, notes, output_lines, rows, spread, subjects
from harness.report.markdown import MARK, code, fence, fitted
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport

_NAMES: Final = 60
"""Subjects that are named of a root cause."""
_SOURCE: Final = 8_000
"""Characters of one listing; a longer one would take the room of the findings after it."""


def to_markdown(report: FuzzReport) -> str:
    """Return a search as one comment: the result, the properties, tables of root causes, then each new one.

    What goes beyond GitHub's limit is left out from the end, and the comment says so.
    """
    return fitted(list(_blocks(report)))


def _blocks(report: FuzzReport) -> Iterator[str]:
    known = [finding for finding in report.findings if finding.known]
    yield f"### {MARK['bad' if report.new else 'good']} {code(report.line)}"
    if report.facts:
        yield "\n".join(f"* {code(name)}: {code(value)}" for name, value in report.facts.items())
    for note in notes(report):
        yield f"> {code(note)}"
    table = [f"| {code(row.name)} | {row.held:,} | {row.result} |" for row in rows(report)]
    if table:
        yield "\n".join(("| property | checked | result |", "|---|---:|---|", *table))
    if len(report.new) > 1:
        yield _causes(f"All {len(report.new):,} root causes", report.new, report)
    if known:
        yield _causes(f"In the baseline: {len(known):,}", known, report)
    for finding in report.new:
        yield "\n\n".join(_finding(finding, report))


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
