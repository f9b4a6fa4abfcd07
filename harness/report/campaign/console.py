"""A campaign on the terminal: short, within 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report.campaign.tables import (
    OUTCOME_WORDS,
    counted,
    headline,
    name_of,
    nats,
    percent,
    ranked,
)
from harness.report.visible import shorten, visible

if TYPE_CHECKING:
    from harness.inject.summary import Contrast, Paired, Summary
    from harness.statistics import Share

_MOST: Final = 5
"""Groups shown of each way of grouping."""
_LONGEST: Final = 26
"""Characters of a name, so that all columns fit."""
_STYLES: Final = {"sdc": "bold red", "due_nan": "yellow", "due_crash": "yellow", "due_hang": "yellow"}
_CHECKS: Final = {
    "digest": "a bit differs",
    "nan": "not a number",
    "distribution": "KL above {limit:g}",
    "text": "another id",
    "ended": "crash or hang",
}


def print_campaign(console: Console, summary: Summary) -> None:
    """Print outcomes, detection, and what is most vulnerable."""
    console.print(Text.assemble("faults in ", (visible(summary.model), "bold")))
    console.print(_outcomes(summary))
    console.print()
    console.print(_detection(summary))
    console.print()
    console.print(_vulnerable(summary))
    console.print()
    for note in (counted(summary), *summary.notes):
        console.print(Padding(Text(visible(note), style="dim"), (0, 0, 0, 2)))
    console.print()
    console.print(Text(headline(summary), style="bold"))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _short(share: Share) -> str:
    """Return a share and its interval in percent, as short as can be: `12.5 (9.1-16.8)`."""
    if not share.of:
        return "-"
    return f"{percent(share.value)} ({percent(share.low)}-{percent(share.high)})"


def _outcomes(summary: Summary) -> Table:
    table = _table("outcome", "faults", "% (95 %)")
    for outcome, share in summary.outcomes.items():
        style = _STYLES.get(outcome, "") if share.count else "dim"
        table.add_row(Text(OUTCOME_WORDS[outcome], style=style), f"{share.count:,}", _short(share))
    return table


def _detection(summary: Summary) -> Table:
    table = _table("noticed by", "faults", "% (95 %)", "alone", "digest aside")
    for one in summary.detection:
        aside = "-" if one.check == "digest" else f"{one.alone_but_digest:,}"
        what = f"{one.check}: {_CHECKS[one.check].format(limit=summary.limit)}"
        table.add_row(Text(what), f"{one.noticed.count:,}", _short(one.noticed), f"{one.alone:,}", aside)
    return table


def _vulnerable(summary: Summary) -> Table:
    table = _table("most vulnerable", "struck", "SDC % (95 %)", "harm % (95 %)", "KL p50")
    bits = [
        one.model_copy(update={"name": f"{bits.name} bit {one.name}"}) for bits in summary.bits for one in bits.groups
    ]
    for title, groups in (("", summary.modules), ("layer ", summary.layers), ("", bits)):
        most = [one for one in ranked(groups) if one.sdc.count][:_MOST]
        if most and table.row_count:
            table.add_row()
        for one in most:
            table.add_row(
                Text(shorten(title + name_of(one.name), _LONGEST)),
                f"{one.struck:,}",
                _short(one.sdc),
                _short(one.harm),
                nats(one.divergence, one.divergence.median),
            )
    return table


def print_paired(console: Console, names: tuple[str, str], found: Paired) -> None:
    """Print what two arms over the same faults do alike and not.

    Args:
        console: Where to.
        names: What the arms are called.
        found: What was compared.
    """
    one, other = map(name_of, names)
    table = _table("fault by fault", "both", f"only {one}", f"only {other}", "neither", "p (McNemar)")
    for contrast in found.contrasts:
        table.add_row(Text(_WHAT[contrast.what]), *_numbers(contrast))
    console.print(table)
    left = f"{found.void:,} void in one or both, {found.unpaired:,} run in one only"
    console.print(Text(f"{found.compared:,} faults struck in both; left out: {left}", style="dim"))


_WHAT: Final = {"sdc": "silent data corruption", "harm": "any harm"}


def _numbers(one: Contrast) -> tuple[str, ...]:
    counts = (one.both, one.only_one, one.only_other, one.neither)
    return (*(f"{count:,}" for count in counts), f"{one.p:.3g}")
