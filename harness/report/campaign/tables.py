"""A campaign's summary as sentences and tables of text, the same on the terminal, in Markdown and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.report.visible import shorten, visible

if TYPE_CHECKING:
    from harness.inject.summary import Bits, Detection, Divergence, Group, Summary
    from harness.statistics import Share

_LONGEST: Final = 60
_RANKED: Final = "The most vulnerable first: by the lower end of the interval of silent data corruption (SDC)."
OUTCOME_WORDS: Final = {
    "masked_identical": "masked, the same numbers bit for bit",
    "masked_semantic": "masked, the same ids from other numbers",
    "sdc": "silent data corruption: other ids, no error",
    "due_nan": "detected error: not a number",
    "due_crash": "detected error: crash",
    "due_hang": "detected error: hang",
}
CHECK_WORDS: Final = {
    "digest": "digest: a bit of the logits differs",
    "nan": "nan: a logit is no number",
    "distribution": "distribution: KL divergence above {limit:g} nats",
    "text": "text: another id",
    "ended": "ended: the engine crashed or hung",
}


@dataclass(frozen=True)
class Table:
    """A table whose first column is names and whose others are numbers.

    Attributes:
        title: What it shows.
        head: The names of the columns.
        rows: Its cells, visible and of a bearable length.
        note: What to know to read it.
        foreign: The first column holds names that a model file may have given.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    foreign: bool = False


def name_of(text: str) -> str:
    """Return a name that a model file may have given, safe and of a bearable length."""
    return visible(shorten(text, _LONGEST))


def percent(value: float) -> str:
    """Return a share in percent; small ones with more digits, none and all without."""
    if math.isnan(value):
        return "-"
    shown = 100 * value
    return f"{shown:g}" if value in (0, 1) else f"{shown:.2f}" if shown < 1 else f"{shown:.1f}"


def share_text(share: Share) -> str:
    """Return a share and its interval in percent: `12.5 (9.1 to 16.8)`."""
    if not share.of:
        return "-"
    return f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)})"


def nats(divergence: Divergence, value: float | None) -> str:
    """Return a quantile of divergences."""
    if not divergence.runs:
        return "-"
    return "infinite" if value is None else f"{value:.2g}"


def headline(summary: Summary) -> str:
    """Return a campaign in one line."""
    sdc, harm = summary.outcomes["sdc"], summary.harm
    struck = f"{harm.of:,} fault{'' if harm.of == 1 else 's'} struck"
    if not harm.of:
        return f"{struck}: nothing can be said"
    return (
        f"{struck}: {percent(sdc.value)} % (95 %: {percent(sdc.low)} to {percent(sdc.high)}) corrupted the output "
        f"silently, {percent(harm.value)} % (95 %: {percent(harm.low)} to {percent(harm.high)}) did any harm"
    )


def counted(summary: Summary) -> str:
    """Return how many faults there were, and how sure that makes a share."""
    there_are = "" if summary.population is None else f" (there are {summary.population:,})"
    needed = " and ".join(f"{count:,} for {100 * float(margin):g}" for margin, count in summary.needed.items())
    takes = f"; it takes {needed}" if needed else ""
    return (
        f"{summary.run:,} of {summary.drawn:,} drawn faults{there_are} were run. {summary.void:,} of them are void: "
        "they changed nothing where they were to strike, and are in no share. Margin of an overall share at 95 %: "
        f"{percent(summary.margin)} points{takes}."
    )


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Return what was run."""
    parts = [
        ("model", summary.model),
        ("model file's SHA-256", summary.sha256),
        *summary.engine.items(),
        ("seed", str(summary.seed)),
        ("kinds", ", ".join(group.name for group in summary.kinds)),
    ]
    return [(name_of(key), visible(shorten(value, 1200))) for key, value in parts]


def outcomes_table(summary: Summary) -> Table:
    """Return the share of every outcome."""
    rows = [
        (OUTCOME_WORDS[outcome], f"{share.count:,}", share_text(share)) for outcome, share in summary.outcomes.items()
    ]
    rows.append(("any harm: corruption or detected error", f"{summary.harm.count:,}", share_text(summary.harm)))
    return Table("Outcomes", ("outcome", "faults", "% (95 % interval)"), tuple(rows))


def detection_table(summary: Summary) -> Table:
    """Return what notices a fault that changed something."""
    rows = tuple(_detection_row(one, summary.limit) for one in summary.detection)
    changed = summary.detection[0].noticed.of
    return Table(
        "Detection",
        ("check", "noticed", "% (95 % interval)", "alone", "alone but for the digest"),
        rows,
        f"Of the {changed:,} faults that changed a number or ended the engine. A digest needs the clean run's numbers "
        "of the same machine and build; the other checks do not.",
    )


def _detection_row(one: Detection, limit: float) -> tuple[str, ...]:
    aside = "-" if one.check == "digest" else f"{one.alone_but_digest:,}"
    noticed = one.noticed
    return (
        CHECK_WORDS[one.check].format(limit=limit),
        f"{noticed.count:,}",
        share_text(noticed),
        f"{one.alone:,}",
        aside,
    )


def group_table(title: str, groups: Iterable[Group], note: str = "") -> Table:
    """Return groups with their shares and divergences."""
    rows = tuple(
        (
            name_of(one.name),
            f"{one.struck:,}",
            f"{one.void:,}",
            share_text(one.sdc),
            share_text(one.harm),
            nats(one.divergence, one.divergence.median),
            nats(one.divergence, one.divergence.high),
        )
        for one in groups
    )
    head = ("", "struck", "void", "SDC % (95 %)", "harm % (95 %)", "KL median", "KL 90th")
    return Table(title, head, rows, note, foreign=True)


def ranked(groups: Iterable[Group]) -> list[Group]:
    """Return the groups that something struck, the most vulnerable to silent corruption first.

    By the lower end of the interval, so that a few faults prove little. Not by harm: a fault that writes NaN is noticed
    wherever it strikes, and would put first what has room for one.
    """
    return sorted((one for one in groups if one.struck), key=lambda one: (-one.sdc.low, -one.harm.low, one.name))


def bits_note(bits: Bits) -> str:
    """Return what the bits of a sort of number are."""
    spans = [
        f"{part.first} {part.name}" if part.first == part.last else f"{part.first} to {part.last} {part.name}"
        for part in bits.parts
    ]
    return f"Bit {', '.join(spans)}; 0 is the lowest."


def group_tables(summary: Summary) -> list[Table]:
    """Return a table for each way of grouping that has groups."""
    tables = [
        group_table("By kind of fault", summary.kinds),
        group_table("By module", ranked(summary.modules), _RANKED),
        group_table("By layer", summary.layers),
        group_table("By phase", summary.phases),
        group_table("By field of a packed block", summary.fields),
        *(group_table(f"By bit: {one.name}", one.groups, bits_note(one)) for one in summary.bits),
    ]
    return [table for table in tables if table.rows]
