"""A search on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report.fuzz.view import example, outputs, spread, subjects
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport

SHOWN = 20
"""Findings that are shown whole; the table has them all."""


def print_report(console: Console, report: FuzzReport) -> None:
    """Print a search: what was done, each root cause with its shortest input, all of them in a table, and the line."""
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    console.print(Text.assemble((visible(f"{report.kind} {report.subject}"), "bold"), f": {visible(facts)}"))
    for finding in report.new[:SHOWN]:
        console.print()
        _print_finding(console, finding, report.subjects)
    if len(report.findings) > 1:
        console.print()
        console.print(_table(report, report.subjects))
    for note in report.notes:
        console.print(Padding(Text(visible(note), style="yellow"), (1, 0, 0, 2)))
    console.print()
    console.print(Text(visible(report.line), style="bold red" if report.new else "bold green"))


def _print_finding(console: Console, finding: Finding, of: int) -> None:
    broken = finding.broken
    console.print(Text.assemble((broken.name, "bold red"), f": not true that {finding.sentence}"))
    where = f"in {visible(broken.path)}: {visible(broken.cause)} ({spread(finding, of)})"
    console.print(Padding(Text(where), (0, 0, 0, 2)))
    if broken.message != broken.cause:
        console.print(Padding(Text(visible(broken.message)), (0, 0, 0, 2)))
    if of > 1:
        console.print(Padding(Text(subjects(finding), style="dim"), (0, 0, 0, 2)))
    if finding.example is not None:
        console.print(Padding(Text.assemble(("shortest: ", "dim"), example(finding)), (0, 0, 0, 2)))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for by, text, is_error in outputs(finding):
        grid.add_row(visible(by), Text(text, style="red" if is_error else ""))
    console.print(Padding(grid, (0, 0, 0, 4)))
    if finding.command:
        # In one line however long, to be copied.
        console.print(Text(f"  again: {visible(finding.command)}", style="dim"), soft_wrap=True)


def _table(report: FuzzReport, of: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("property", no_wrap=True)
    table.add_column("in", overflow="fold")
    table.add_column("root cause", overflow="fold", ratio=1)
    table.add_column("shown by", justify="right", no_wrap=True)
    for finding in report.findings:
        shown = f"{len(finding.subjects):,}" if of > 1 else f"{finding.inputs:,}"
        broken = finding.broken
        style = "dim" if finding.known else ""
        table.add_row(broken.name, visible(broken.path), visible(broken.cause), shown, style=style)
    return table
