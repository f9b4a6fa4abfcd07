"""A bench on the terminal: short, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from harness.report.attribution.tables import (
    ENDS,
    RESULTS,
    TONES,
    changed,
    count_of,
    counted,
    group_tables,
    headline,
    labels,
    matrix_table,
    pairs_table,
    shares_table,
    title,
    told_text,
)

if TYPE_CHECKING:
    from harness.attribution.summary import Summary, Told
    from harness.defects.defect import Defect
    from harness.report.campaign.tables import Table

_LISTED: Final = 30
"""Defects of one result that are shown; the other reports have all."""
_BAD: Final = ("missed", "wrong stage", "wrong kind", "others too")
_STYLES: Final = {"good": "bold green", "bad": "bold red", "unknown": "bold"}


def print_bench(console: Console, summary: Summary) -> None:
    """Print the shares, the confusion matrices, and each defect that was not told as what it is."""
    console.print(Text(title(summary), style="bold"))
    console.print(Padding(Text(counted(summary), style="dim"), (0, 0, 0, 2)))
    for table in (shares_table(summary.all), *group_tables(summary)[:2]):
        console.print()
        console.print(_grid(table))
    if summary.all.effective:
        for matrix, what in ((summary.by_stage, "stage"), (summary.by_kind, "kind")):
            console.print()
            console.print(Text(f"planted {what} (rows) against named {what} (columns)", style="bold"))
            console.print(_grid(matrix_table(matrix, what), diagonal=matrix.planted))
    if summary.pairs:
        console.print()
        console.print(Text("two defects at once: the stages convicted", style="bold"))
        console.print(_grid(pairs_table(summary)))
    for result in _BAD:
        _print_told(console, RESULTS[result], [one for one in summary.defects if one.result == result])
    for result, says in ENDS.items():
        _print_ended(console, says, [one for one in summary.defects if one.result == result])
    alarms = [(one.name, one.line) for one in summary.controls.alarms]
    unjudged = [(one.name, one.line) for one in summary.controls.unjudged]
    errors = [(one.name, one.line) for one in summary.controls.errors]
    pairs = [(" + ".join(one.ids), one.line) for one in summary.pairs if one.result in ("another stage", "none")]
    _print_lines(console, "false alarms: the clean stack was convicted", alarms, "red")
    _print_lines(console, "the clean stack could not be judged", unjudged, "yellow")
    _print_lines(console, "errors of our own in checks of the clean stack", errors, "magenta")
    _print_lines(console, "pairs of which neither stage was convicted", pairs, "red")
    if summary.swapped:
        named = ", ".join(map(told_text, summary.swapped))
        console.print()
        console.print(Text(f"engine bug and integration defect taken for each other: {named}", style="red"))
    console.print()
    console.print(Text(headline(summary), style=_STYLES[TONES[summary.status]]))


def print_catalogue(console: Console, defects: Iterable[Defect]) -> None:
    """Print a line a defect; on a terminal long ones are folded within their column."""
    rows = [(one.id, str(one.stage), one.kind, str(one.place), one.sentence) for one in defects]
    if not console.is_terminal:
        widths = [max((len(told_text(row[at])) for row in rows), default=0) for at in range(4)]
        for row in rows:
            cells = [told_text(cell).ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)]
            console.print(Text("  ".join(cells)), soft_wrap=True)
        return
    for stage in dict.fromkeys(row[1] for row in rows):
        of_it = [row for row in rows if row[1] == stage]
        console.print(Text(f"{stage}: {count_of(len(of_it), 'defect')}", style="bold"))
        for name, _, kind, place, sentence in of_it:
            console.print(Padding(Text.assemble(told_text(name), (f"  {kind}, at {place}", "dim")), (0, 0, 0, 2)))
            console.print(Padding(Text(told_text(sentence), style="dim"), (0, 0, 0, 4)))
        console.print()


def _grid(table: Table, diagonal: Sequence[str] = ()) -> Grid:
    first = table.head[0] if diagonal or not table.title.startswith("Of ") else table.title.lower()
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grid.add_column(first, overflow="fold")
    for name in table.head[1:]:
        grid.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        cells = [
            Text(cell, style=_style(row[0], name, cell) if diagonal else "")
            for name, cell in zip(table.head[1:], row[1:], strict=True)
        ]
        grid.add_row(Text(row[0]), *cells)
    return grid


def _style(planted: str, named: str, cell: str) -> str:
    return "dim" if cell == "·" else "green" if planted == named else "bold red"


def _print_told(console: Console, what: str, told: Sequence[Told]) -> None:
    if not told:
        return
    console.print()
    console.print(Text(f"{what}: {count_of(len(told), 'defect')}", style="bold red"))
    for one in told[:_LISTED]:
        console.print(Padding(Text.assemble((told_text(one.id), "bold"), f"  {labels(one)}"), (0, 0, 0, 2)))
        rows = (("", one.sentence), ("verdict", one.line), ("changed", changed(one)))
        for name, text in rows:
            said = Text.assemble((f"{name}: ", "dim"), told_text(text)) if name else Text(told_text(text))
            console.print(Padding(said, (0, 0, 0, 4)))
    _print_more(console, len(told))


def _print_ended(console: Console, says: str, told: Sequence[Told]) -> None:
    if not told:
        return
    console.print()
    silent = told[0].result in _SILENT
    console.print(Text(f"{says}: {count_of(len(told), 'defect')}", style="bold" if silent else "bold red"))
    if silent:
        console.print(Padding(Text(", ".join(told_text(one.id) for one in told)), (0, 0, 0, 2)))
        return
    for one in told[:_LISTED]:
        own = " (your own)" if one.own else ""
        console.print(Padding(Text(f"{told_text(one.id)}{own}: {told_text(one.line)}"), (0, 0, 0, 2)))
    _print_more(console, len(told))


_SILENT: Final = ("without effect", "no place")


def _print_lines(console: Console, what: str, lines: Sequence[tuple[str, str]], style: str) -> None:
    if not lines:
        return
    console.print()
    console.print(Text(f"{what}: {len(lines):,}", style=f"bold {style}"))
    for name, line in lines[:_LISTED]:
        console.print(Padding(Text(f"{told_text(name)}: {told_text(line)}"), (0, 0, 0, 2)))
    _print_more(console, len(lines))


def _print_more(console: Console, count: int) -> None:
    if count > _LISTED:
        console.print(Padding(Text(f"and {count - _LISTED:,} more", style="dim"), (0, 0, 0, 2)))
