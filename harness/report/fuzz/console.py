"""A search on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report.difference import place
from harness.report.fuzz.example import turns
from harness.report.fuzz.view import (
    PLACES,
    Given,
    change,
    counted,
    covered,
    difference,
    given,
    kinds,
    messages,
    missed,
    not_true,
    notes,
    pair,
    rows,
    shown,
    spread,
    subjects,
    tone,
)
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport
    from harness.fuzz.measures import Covered, Mutation

SHOWN: Final = 20
"""Findings that are shown whole; tables have the others."""
LISTED: Final = 20
"""Lines that were not reached and mutants that survive that are shown; the other reports have more."""
_STYLES: Final = {"good": "bold green", "bad": "bold red", "unknown": "bold"}
_NAMES: Final = 4
_WIDEST: Final = 24
"""Characters of a label, so that what it labels has room."""


def print_report(console: Console, report: FuzzReport) -> None:
    """Print a search: what was done, the properties, each root cause with its shortest input, and the line."""
    console.print(Text(visible(f"{report.kind} {report.subject}"), style="bold"))
    console.print(_indented(_facts(report), 2))
    if report.properties or report.findings:
        console.print()
        console.print(_properties(report))
    for finding in report.new[:SHOWN]:
        console.print()
        _print_finding(console, finding, report)
    known = [finding for finding in report.findings if finding.known]
    for title, rest, style in (("more root causes", report.new[SHOWN:], ""), ("in the baseline", known, "dim")):
        if rest:
            console.print()
            console.print(_causes(f"{len(rest):,} {title}", rest, report, style))
    for one in report.coverage:
        console.print()
        _print_coverage(console, one, report)
    if report.mutation is not None:
        console.print()
        _print_mutation(console, report.mutation)
    for note in notes(report):
        console.print()
        console.print(_indented(Text(visible(note), style="yellow"), 2))
    console.print()
    console.print(Text(visible(report.line), style=_STYLES[tone(report)]))


def _print_coverage(console: Console, one: Covered, report: FuzzReport) -> None:
    of = f"{visible(one.subject)}: " if report.subjects > 1 else ""
    console.print(Text(f"{of}{covered(one)}"))
    table = _grid()
    for line, kind, text in missed(one)[:LISTED]:
        table.add_row(Text(f"line {line}"), Text.assemble((f"{kind}  ", "yellow"), text))
    if len(one.missed) > LISTED:
        table.add_row("", Text(f"and {len(one.missed) - LISTED:,} more", style="dim"))
    if table.row_count:
        console.print(_indented(table, 2))


def _print_mutation(console: Console, mutation: Mutation) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("mutants", overflow="fold")
    for title in ("tried", "differ", "goldens", "properties", "survive"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in kinds(mutation):
        numbers = (one.tried, one.told, one.by_goldens, one.by_properties, one.survive)
        goldens = f"{one.by_goldens:,}" if mutation.cases else "-"
        shown = [f"{number:,}" for number in numbers]
        table.add_row(_text(one.kind), *shown[:2], goldens, *shown[3:], style="yellow" if one.survive else "")
    console.print(table)
    if mutation.properties:
        first = ", ".join(f"{name} {count:,}" for name, count in mutation.properties.items())
        console.print()
        console.print(Text(f"killed first by {visible(first)}"))
    if mutation.survivors:
        console.print()
        survivors = counted(len(mutation.survivors), "survivor")
        console.print(Text(f"{survivors}: mutants that differ from their original and that nothing kills"))
    for survivor in mutation.survivors[:LISTED]:
        where = Text(f"{visible(survivor.subject)}, line {survivor.line}: {survivor.kind}", style="dim")
        console.print(_indented(where, 2))
        console.print(_indented(Text(change(survivor)), 4))
    if len(mutation.survivors) > LISTED:
        console.print(_indented(Text(f"and {len(mutation.survivors) - LISTED:,} more", style="dim"), 2))


def _facts(report: FuzzReport) -> Table:
    table = _grid()
    for name, value in report.facts.items():
        table.add_row(_text(name), _text(value))
    return table


def _properties(report: FuzzReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("property", overflow="fold")
    table.add_column("checked", justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for row in rows(report):
        style = "bold red" if row.new else "" if row.held and not row.known else "dim"
        table.add_row(_text(row.name), f"{row.held:,}", Text(row.result, style=style))
    return table


def _print_finding(console: Console, finding: Finding, report: FuzzReport) -> None:
    broken = finding.broken
    console.print(Text.assemble((visible(broken.name), "bold red"), f" in {visible(broken.path)}: ", not_true(finding)))
    for message in messages(finding):
        console.print(_indented(Text(message), 2))
    by = f": {subjects(finding, _NAMES)}" if report.subjects > 1 else ""
    console.print(_indented(Text(f"shown by {spread(finding, report)}{by}", style="dim"), 2))
    said = _grid()
    for turn in turns(finding.example):
        said.add_row(Text(turn.label), Text(turn.said, style="dim italic" if turn.ours else ""))
    if said.row_count:
        console.print(_indented(Text("the shortest input", style="dim"), 2))
        console.print(_indented(said, 4))
    outputs = given(finding)
    if outputs:
        console.print(_indented(Text("what came of it", style="dim"), 2))
        console.print(_indented(_outputs(outputs), 4))
    if finding.command:
        # In one line however long, to be copied.
        console.print(Text(f"  again: {visible(finding.command)}", style="dim"), soft_wrap=True)


def _outputs(outputs: list[Given]) -> Table:
    table = _grid()
    two = pair(outputs)
    if two is not None:
        found = difference(*two).hunks
        for at in map(place, found[:PLACES]):
            if table.row_count:
                table.add_row()
            for one, text in zip(two, (at.expected, at.observed), strict=True):
                table.add_row(_text(one.by), Text.assemble(at.before, (f"\u27e6{text}\u27e7", "bold"), at.after))
        if len(found) > PLACES:
            table.add_row("", Text(f"and {counted(len(found) - PLACES, 'more place')}", style="dim"))
        outputs = [one for one in outputs if one.failed]
    for one, text in shown(outputs):
        table.add_row(_text(one.by), Text(text, style="red" if one.failed else ""))
    return table


def _causes(title: str, findings: Sequence[Finding], report: FuzzReport, style: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", style=style)
    table.add_column(title, overflow="fold")
    table.add_column("in", overflow="fold")
    table.add_column("root cause", overflow="fold", ratio=1)
    table.add_column("shown by", justify="right", no_wrap=True)
    for finding in findings:
        count = f"{len(finding.subjects):,}" if report.subjects > 1 else f"{finding.inputs:,}"
        broken = finding.broken
        table.add_row(_text(broken.name), _text(broken.path), _text(broken.cause), count)
    return table


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", overflow="fold", max_width=_WIDEST)
    grid.add_column(overflow="fold")
    return grid


def _text(text: str) -> Text:
    """Return text of others, in which no markup is read."""
    return Text(visible(text))


def _indented(what: RenderableType, by: int) -> Padding:
    return Padding(what, (0, 0, 0, by))
