"""A bench as one self-contained page: no network, light and dark, readable with scripts off.

A user's defect may be named anything: all of it is text in this page and never markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness.report.assets import page
from harness.report.attribution.tables import (
    RESULTS,
    TONES,
    address,
    changed,
    counted,
    group_tables,
    headline,
    labels,
    named,
    pairs_table,
    shares_table,
    title,
    told_text,
)
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.attribution.summary import Matrix, Summary, Told

_NAMED: Final = 40
"""Cases that are named of a stage."""
_RESULT_TONES: Final = {
    "exact": "good",
    "others too": "warn",
    "wrong kind": "bad",
    "wrong stage": "bad",
    "missed": "bad",
    "raised": "bad",
    "leaks": "bad",
    "without effect": "unknown",
    "no place": "unknown",
    "error": "unknown",
}
_FIRST: Final = ("error", "missed", "wrong stage", "wrong kind", "leaks", "raised", "others too")
"""Results that a reader wants to see first."""


def to_html(summary: Summary) -> str:
    """Return a bench's summary as one page."""
    found = {one.result for one in summary.defects}
    return page(
        "attribution.html",
        ["page.css", "campaign.css", "attribution.css"],
        script="page.js",
        title=title(summary),
        tone=TONES[summary.status],
        line=headline(summary),
        counted=counted(summary),
        shares=shares_table(summary.all),
        matrices=[_matrix(summary.by_stage, "stage"), _matrix(summary.by_kind, "kind")]
        if summary.all.effective
        else [],
        groups=group_tables(summary),
        pairs=pairs_table(summary) if summary.pairs else None,
        paired=[
            (told_text(" + ".join(one.ids)), one.result, told_text(one.line))
            for one in summary.pairs
            if one.result != "both"
        ],
        alarms=[
            (told_text(one.name), told_text(one.line), what)
            for what, controls in (
                ("false alarm", summary.controls.alarms),
                ("could not be judged", summary.controls.unjudged),
                ("error of our own", summary.controls.errors),
            )
            for one in controls
        ],
        facts=[(visible(name), told_text(version)) for name, version in summary.versions.items()],
        settings=[visible(one) for one in summary.controls.settings],
        stages=[row.name for row in summary.stages],
        results=[(_word(result), word) for result, word in RESULTS.items() if result in found],
        defects=[_defect(one) for one in sorted(summary.defects, key=_weight)],
    )


def _weight(one: Told) -> int:
    return _FIRST.index(one.result) if one.result in _FIRST else len(_FIRST)


def _word(result: str) -> str:
    return result.replace(" ", "-")


def _matrix(matrix: Matrix, what: str) -> dict[str, Any]:
    """Return a matrix with the shade of each cell: its share of the row."""
    rows = []
    for name, counts in zip(matrix.planted, matrix.counts, strict=True):
        total = sum(counts)
        cells = [
            {
                "count": f"{count:,}" if count else "·",
                "share": f"{count / total:.3f}",
                "tone": "" if not count else "good" if column == name else "bad",
                "says": f"{count} planted {name} named {column}",
            }
            for column, count in zip(matrix.named, counts, strict=True)
        ]
        rows.append((name, cells))
    return {"what": what, "named": matrix.named, "rows": rows}


def _defect(one: Told) -> dict[str, Any]:
    return {
        "id": told_text(one.id),
        "stage": str(one.stage),
        "result": _word(one.result),
        "word": RESULTS[one.result],
        "tone": _RESULT_TONES[one.result],
        "sentence": told_text(one.sentence),
        "labels": labels(one),
        "facts": [
            ("verdict", told_text(one.line) or "none"),
            ("named", named(one)),
            ("convicted", ", ".join(one.convicted) or "nothing"),
            ("changed", changed(one)),
            *((f"noticed by, {stage}", _cases(cases)) for stage, cases in one.noticed_by.items()),
            ("other answers", f"{one.answers:,}"),
            ("symptom", one.symptom),
            ("cause", one.cause),
            ("model", told_text(one.model)),
            *([("truly breaks as well", ", ".join(one.touches))] if one.touches else []),
        ],
        "references": [(told_text(thread), address(thread)) for thread in one.references],
    }


def _cases(cases: tuple[str, ...]) -> str:
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    return told_text(", ".join(cases[:_NAMED])) + more
