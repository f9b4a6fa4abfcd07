"""A bench's summary as sentences and tables of text, the same on the terminal, in Markdown and on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.report.campaign.tables import Table, percent, share_text
from harness.report.visible import shorten, visible
from harness.stage import Stage

if TYPE_CHECKING:
    from harness.attribution.summary import Both, Matrix, Row, Summary, Told
    from harness.statistics import Share

_LONGEST: Final = 600
_THREAD: Final = re.compile(r"([\w.-]+/[\w.-]+)#(\d{1,9})", re.ASCII)
"""An upstream thread as a defect names it; anything else is text."""
STAGES: Final = tuple(map(str, Stage))
SHARES: Final = {
    "noticed": "noticed",
    "stage": "convicted at the planted stage",
    "exact": "the same, and no innocent stage with it",
    "kind": "as the planted kind",
    "answer": "noticed by a look at the answer alone",
}
"""The shares of a row, by the name of their field."""
ENDS: Final = {
    "without effect": "without effect: no byte, id or number changed",
    "no place": "no place in this stack",
    "raised": "the defect's own function raised",
    "leaks": "left something behind",
    "error": "an error of our own",
}
"""What came of defects that are in no share."""
RESULTS: Final = {
    "exact": "right",
    "others too": "right, others too",
    "wrong kind": "wrong kind",
    "wrong stage": "wrong stage",
    "missed": "missed",
    "without effect": "without effect",
    "no place": "no place",
    "raised": "raised",
    "leaks": "leaks",
    "error": "error of ours",
}
"""What came of a defect, in a word or two."""
TONES: Final = {"right": "good", "wrong": "bad", "unjudged": "unknown", "error": "unknown"}


def told_text(text: str) -> str:
    """Return text that a defect, a model or an engine gave, safe and of a bearable length."""
    return visible(shorten(text, _LONGEST))


def count_of(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def title(summary: Summary) -> str:
    """Return what was measured."""
    return f"{told_text(summary.stack)} around {', '.join(map(told_text, summary.models))}"


def headline(summary: Summary) -> str:
    """Return a bench in one line."""
    alarms = len(summary.controls.alarms)
    healthy = (
        f"{count_of(alarms, 'false alarm')} in {count_of(summary.controls.comparisons, 'comparison')} of healthy stacks"
    )
    row = summary.all
    if not row.effective:
        return f"{count_of(row.tried, 'defect')}, none of which took effect; {healthy}"
    return (
        f"of {count_of(row.effective, 'defect')} that took effect {_part(row.noticed)} noticed, "
        f"{_part(row.stage)} convicted at the right stage; {healthy}"
    )


def _part(share: Share) -> str:
    return f"{share.count:,} ({percent(share.value)} %)"


def counted(summary: Summary) -> str:
    """Return how many defects and controls there were, and how they were asked."""
    row = summary.all
    ends = [f"{row.results[name]:,} {RESULTS[name]}" for name in ENDS if name in row.results]
    asked = "; ".join(
        f"{told_text(name)}: {count_of(deep, 'case')} in full, {shallow:,} up to the ids and on made-up ones"
        for name, (shallow, deep) in summary.cases.items()
    )
    controls = summary.controls
    own = sum(one.own for one in summary.defects)
    return (
        f"{count_of(row.tried, 'defect')} planted one at a time{f' ({own:,} of them your own)' if own else ''}: "
        f"{row.effective:,} took effect{''.join(f', {end}' for end in ends)}. "
        f"{count_of(controls.checks, 'check')} of the clean stack between them, "
        f"in {count_of(len(controls.settings), 'other healthy setting')}. {asked}. "
        f"{summary.seconds:,.0f} seconds in all."
    )


def shares_table(row: Row) -> Table:
    """Return the shares of the effective defects."""
    return Table(
        f"Of {count_of(row.effective, 'defect')} that took effect",
        ("what", "defects", "% (95 %)"),
        tuple((says, f"{getattr(row, name).count:,}", share_text(getattr(row, name))) for name, says in SHARES.items()),
    )


def group_tables(summary: Summary) -> list[Table]:
    """Return the shares by what defects have in common."""
    groups = (("stage", summary.stages), ("place", summary.places), ("symptom", summary.symptoms))
    return [_group(what, rows) for what, rows in (*groups, ("cause", summary.causes))]


def _group(what: str, rows: Sequence[Row]) -> Table:
    return Table(
        f"By {what}",
        (what, "tried", "effective", "noticed", "stage", "exact", "kind", "answer"),
        tuple(
            (
                one.name,
                f"{one.tried:,}",
                f"{one.effective:,}",
                *(f"{getattr(one, name).count:,}" if one.effective else "-" for name in SHARES),
            )
            for one in rows
        ),
    )


def matrix_table(matrix: Matrix, what: str) -> Table:
    """Return what was planted against what was named; of a cell in which nothing is, a dot."""
    return Table(
        f"Planted {what} against named {what}",
        ("planted", *matrix.named),
        tuple(
            (name, *(f"{count:,}" if count else "·" for count in counts))
            for name, counts in zip(matrix.planted, matrix.counts, strict=True)
        ),
    )


def pairs_table(summary: Summary) -> Table:
    """Return what was convicted of pairs, by their stages."""
    found = Counter((one.stages, _PAIRED[one.result]) for one in summary.pairs)
    stages = sorted({one.stages for one in summary.pairs}, key=lambda two: [STAGES.index(one) for one in two])
    columns = tuple(dict.fromkeys(_PAIRED.values()))
    return Table(
        "Two defects in two stages at once",
        ("planted", *columns),
        tuple((" + ".join(two), *(f"{found[two, one] or '·'}" for one in columns)) for two in stages),
        "Which of the two stages were convicted; void: nothing changed, or there is no verdict.",
    )


_PAIRED: Final[dict[Both, str]] = {
    "both": "both",
    "upstream only": "first",
    "downstream only": "second",
    "another stage": "other",
    "none": "none",
    "without effect": "void",
    "not judged": "void",
}


def labels(one: Told) -> str:
    """Return what a defect is labelled with, and whose it is."""
    return f"{one.stage}, {one.kind}, at {one.place}{', your own' if one.own else ''}"


def named(one: Told) -> str:
    """Return what the verdict's line names."""
    return f"{one.named_stage}, {one.named_kind}" if one.named_stage else "nothing"


def changed(one: Told) -> str:
    """Return which stages made something else."""
    chained = [stage for stage in one.chained if stage not in one.changed]
    parts = []
    if one.changed:
        parts.append(f"{', '.join(one.changed)} on golden input")
    if chained:
        parts.append(f"{', '.join(chained)} in the chain")
    return "; ".join(parts) or "nothing"


def address(thread: str) -> str:
    """Return the address of an upstream thread; of what names none it is empty."""
    found = _THREAD.fullmatch(thread)
    return f"https://github.com/{found[1]}/issues/{found[2]}" if found else ""
