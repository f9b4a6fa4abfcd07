"""A bench as a comment on a pull request, in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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
)
from harness.report.campaign.markdown import rows_of
from harness.report.markdown import MARK, code, fitted, prose

if TYPE_CHECKING:
    from harness.attribution.summary import Summary, Told
    from harness.report.campaign.tables import Table


def to_markdown(summary: Summary) -> str:
    """Return a bench's summary as one comment, cut at its end where GitHub would refuse it."""
    return fitted(list(_blocks(summary)))


def _blocks(summary: Summary) -> Iterator[str]:
    yield f"### {MARK[TONES[summary.status]]} {headline(summary)}"
    yield f"Stack {code(summary.stack)}. {prose(counted(summary))}"
    yield from sections(summary)
    for result in ("missed", "wrong stage", "wrong kind", "others too"):
        yield from _listed(RESULTS[result], [one for one in summary.defects if one.result == result])
    for result, says in ENDS.items():
        told = [one for one in summary.defects if one.result == result]
        if told:
            yield f"#### {says}: {count_of(len(told), 'defect')}"
            silent = result == "without effect"
            yield "\n".join(f"* {code(one.id)}{'' if silent else f': {code(one.line)}'}" for one in told)
    for says, controls in (
        ("False alarms", summary.controls.alarms),
        ("Clean stacks that could not be judged", summary.controls.unjudged),
        ("Errors of our own in checks of the clean stack", summary.controls.errors),
    ):
        if controls:
            yield f"#### {says}"
            yield "\n".join(f"* {code(one.name)}: {code(one.line)}" for one in controls)


def sections(summary: Summary) -> Iterator[str]:
    """Return the tables of a bench, each under its title."""
    tables: list[Table] = [shares_table(summary.all)]
    if summary.all.effective:
        tables += [matrix_table(summary.by_stage, "stage"), matrix_table(summary.by_kind, "kind")]
    tables += group_tables(summary)
    if summary.pairs:
        tables.append(pairs_table(summary))
    for table in tables:
        note = f"{table.note}\n\n" if table.note else ""
        yield f"#### {table.title}\n\n{note}{rows_of(table)}"


def _listed(what: str, told: list[Told]) -> Iterator[str]:
    if told:
        yield f"#### {what}: {count_of(len(told), 'defect')}"
    for one in told:
        yield (
            f"* {code(one.id)} ({labels(one)}): {code(one.sentence)}\n"
            f"  * verdict: {code(one.line)}\n"
            f"  * changed: {changed(one)}"
        )
