"""A campaign as a comment on a pull request, in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.report.campaign.tables import (
    Table,
    counted,
    detection_table,
    facts,
    group_tables,
    headline,
    outcomes_table,
)
from harness.report.markdown import code, fitted

if TYPE_CHECKING:
    from harness.inject.summary import Summary


def to_markdown(summary: Summary) -> str:
    """Return a campaign's summary as one comment, cut at its end where GitHub would refuse it."""
    return fitted(list(_blocks(summary)))


def _blocks(summary: Summary) -> Iterator[str]:
    yield f"### {headline(summary)}"
    yield f"Faults in {code(summary.model)}. {counted(summary)}"
    for table in (outcomes_table(summary), detection_table(summary)):
        yield f"#### {table.title}"
        if table.note:
            yield table.note
        yield rows_of(table)
    for table in group_tables(summary):
        note = f"{table.note}\n\n" if table.note else ""
        yield f"<details><summary>{table.title}</summary>\n\n{note}{rows_of(table)}\n\n</details>"
    yield "\n".join(f"* {note}" for note in summary.notes)
    rows = "\n".join(f"| {code(name)} | {code(value)} |" for name, value in facts(summary))
    yield f"<details><summary>What ran</summary>\n\n| part | value |\n|---|---|\n{rows}\n\n</details>"


def rows_of(table: Table) -> str:
    """Return a table's head and rows."""
    name = code if table.foreign else str
    rows = [f"| {' | '.join(table.head)} |", f"|---|{'---:|' * (len(table.head) - 1)}"]
    rows += [f"| {' | '.join((name(first), *cells))} |" for first, *cells in table.rows]
    return "\n".join(rows)
