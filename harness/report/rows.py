"""The rows of the load stage and of the canaries on the terminal: what is wrong whole, the rest in a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.checking.compare.outcome import Outcome
from harness.checking.rows import Row
from harness.report.visible import shorten, visible

_TITLES: Final = {"load": ("loaded with", "declared", "in force"), "canary": ("canary", "documented", "came")}
_RIGHT: Final = {"load": ("setting as declared", "settings as declared"), "canary": ("canary right", "canaries right")}
_NAMED: Final = 4
_LONGEST: Final = 60


def rows_block(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Yield what is shown of rows: nothing where there are none."""
    for of in ("load", "canary"):
        own = [row for row in rows if row.of == of]
        if own:
            yield Text()
            yield _table(of, own)


def _table(of: str, rows: Sequence[Row]) -> RenderableType:
    bad = [row for row in rows if row.outcome.bad or row.outcome is Outcome.ERROR]
    lines = [*_folded(of, rows)]
    if not bad:
        return Text("\n".join(lines), style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    what, expected, found = _TITLES[of]
    table.add_column(what, no_wrap=True)
    for title in (expected, found):
        table.add_column(title, overflow="fold")
    for row in bad:
        ended = row.error.describe() if row.error is not None else row.found
        table.add_row(
            Text(visible(row.name), style="bold red" if row.error is None else "bold magenta"),
            *(Text(visible(shorten(text, _LONGEST))) for text in (row.expected, ended)),
        )
    grid = Table.grid()
    grid.add_row(table)
    for line in lines:
        grid.add_row(Padding(Text(line, style="dim"), (0, 0, 0, 2)))
    return grid


def _folded(of: str, rows: Sequence[Row]) -> Iterator[str]:
    right = sum(row.outcome in (Outcome.EQUAL, Outcome.EQUIVALENT) for row in rows)
    if right:
        yield f"{right} {_RIGHT[of][right != 1]}"
    unseen = [row.name for row in rows if row.outcome is Outcome.UNOBSERVED]
    if unseen:
        more = f", and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
        yield f"{len(unseen)} unobserved: {visible(', '.join(unseen[:_NAMED]))}{more}"
