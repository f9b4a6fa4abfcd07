"""What a suite of cases is worth, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.attribution.worth import Worth

_LISTED: Final = 40


def print_worth(console: Console, worth: Worth) -> None:
    """Print the score by stage, what is missed, which cases add nothing, and the smallest set that scores the same."""
    console.print()
    console.print(Text(f"what the {len(worth.noticed)} cases of {visible(worth.model)} are worth", style="bold"))
    console.print(_scores(worth))
    _print_names(console, "noticed by no case", worth.unnoticed, worth.suggestions)
    _print_names(console, "triggered by no case", worth.without_effect, worth.suggestions)
    _print_names(console, "cases that add nothing that others do not notice as well", worth.idle)
    best = "as many are needed at least" if worth.exact else "fewer may do"
    few = "1 case notices" if len(worth.smallest) == 1 else f"{len(worth.smallest)} cases notice"
    what = f"{few} as much as all {len(worth.noticed)} ({best})"
    _print_names(console, what, worth.smallest)


def _scores(worth: Worth) -> Grid:
    table = Grid(box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("took effect", "noticed by a case", "by nodes only"):
        table.add_column(name, justify="right")
    for stage, score in worth.scores.items():
        share = f" ({score.noticed / score.effective:.0%})" if score.effective else ""
        table.add_row(str(stage), str(score.effective), f"{score.noticed}{share}", str(score.by_nodes))
    return table


def _print_names(
    console: Console, what: str, names: Sequence[str], suggestions: Mapping[str, Sequence[str]] | None = None
) -> None:
    if not names:
        return
    console.print()
    console.print(Text(f"{what}: {len(names)}", style="bold"))
    for name in names[:_LISTED]:
        cases = (suggestions or {}).get(name, ())
        more = f": {', '.join(map(visible, cases[:3]))} of the shipped suite would" if cases else ""
        console.print(Padding(Text(f"{visible(name)}{more}"), (0, 0, 0, 2)))
    if len(names) > _LISTED:
        console.print(Padding(Text(f"and {len(names) - _LISTED} more"), (0, 0, 0, 2)))
