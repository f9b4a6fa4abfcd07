"""The figures and lists in our documents: each stands between two comments and is written from results and labels.

What stands around a block is written by hand and left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from harness.errors import UserError
from harness.report.attribution.markdown import sections
from harness.report.attribution.tables import STAGES, address, count_of, named, told_text
from harness.report.campaign.tables import percent
from harness.report.markdown import code, prose

if TYPE_CHECKING:
    from harness.attribution.summary import Summary
    from harness.defects.defect import Defect
    from harness.statistics import Share

FIGURES: Final = "attribution"
"""The block with a row a stack."""
TABLES: Final = "attribution tables"
"""The block with every table of every stack."""
CATALOGUE: Final = "catalogue"
"""The block with a row a defect."""


def replaced(text: str, name: str, block: str) -> str:
    """Return a document with another block between the comments of a name.

    Args:
        text: The document.
        name: The block's name.
        block: What is to stand there.

    Raises:
        UserError: the document does not have the two comments once each, in their order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed or begin in rest or end in after:
        raise UserError(f"the document has no one block {name!r}", f"it stands between {begin} and {end}")
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"


def figures(stacks: Mapping[str, Summary]) -> str:
    """Return a row a stack: what was planted, what was noticed and named, and what healthy stacks were blamed for."""
    head = (
        "stack",
        "planted",
        "took effect",
        "noticed",
        "right stage",
        "right kind",
        "engine and integration mistaken",
        "noticed by the answer alone",
        "false alarms on healthy stacks",
    )
    rows = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name, one in stacks.items():
        row = one.all
        controls = one.controls
        cells = (
            code(name),
            f"{row.tried:,}",
            f"{row.effective:,}",
            *(_share(share) for share in (row.noticed, row.stage, row.kind)),
            f"{len(one.swapped):,}",
            _share(row.answer),
            f"{len(controls.alarms):,} in {count_of(controls.comparisons, 'comparison')}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _share(share: Share) -> str:
    if not share.of:
        return "-"
    return f"{share.count:,} ({percent(share.value)} %, {percent(share.low)} to {percent(share.high)})"


def tables(stacks: Mapping[str, Summary]) -> str:
    """Return every table of every stack, and each defect that was not told as what it is."""
    parts = []
    for name, one in stacks.items():
        parts += [f"### {code(name)}", *sections(one)]
        bad = [told for told in one.defects if told.result in ("missed", "wrong stage", "wrong kind")]
        if bad:
            parts.append(f"#### Missed or wrong: {count_of(len(bad), 'defect')}")
            rows = ["| defect | planted | named | what it does |", "|---|---|---|---|"]
            rows += [
                f"| {code(told.id)} | {told.stage}, {told.kind} | {named(told)} | {code(told.sentence)} |"
                for told in bad
            ]
            parts.append("\n".join(rows))
        silent = [told for told in one.defects if told.result in ("without effect", "no place")]
        if silent:
            ids = ", ".join(code(told.id) for told in silent)
            parts.append(f"Without effect on what was asked, or no place in this stack: {ids}.")
    return "\n\n".join(parts)


def catalogue_table(defects: Iterable[Defect]) -> str:
    """Return a table a stage with a row a defect."""
    by_stage: dict[str, list[Defect]] = {}
    for one in defects:
        by_stage.setdefault(str(one.stage), []).append(one)
    parts = [f"{count_of(sum(map(len, by_stage.values())), 'defect')} in all."]
    for stage in (name for name in STAGES if name in by_stage):
        rows = [f"### {stage}: {len(by_stage[stage]):,}", "", "| id | kind | place | what it does | references |"]
        rows.append("|---|---|---|---|---|")
        for one in by_stage[stage]:
            links = ", ".join(map(_link, one.references))
            rows.append(f"| `{one.id}` | {one.kind} | {one.place} | {prose(one.sentence)} | {links} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _link(thread: str) -> str:
    link = address(thread)
    return f"[{thread}]({link})" if link else code(told_text(thread))
