"""A search as one self-contained page: no network, light and dark, readable with scripts off.

Whatever a part gave, and every name and text of an input, is text in it and never markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness.report.assets import page
from harness.report.fuzz.example import raw, turns
from harness.report.fuzz.view import (
    Given,
    Row,
    change,
    counted,
    covered,
    given,
    kinds,
    messages,
    missed,
    notes,
    pair,
    rows,
    spread,
    tone,
)
from harness.report.view import Block, TokenBlock, ids_block, text_block
from harness.report.visible import shorten, visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport
    from harness.fuzz.measures import Covered, Mutation

_OPEN: Final = 6
"""Findings that are open at once."""
_NAMES: Final = 400
"""Subjects that are named of a root cause."""
_LONGEST: Final = 1_200
_LISTED: Final = 1_000
"""Lines that were not reached and mutants that survive that are listed."""
_SOURCE: Final = 40_000
"""Characters of one listing."""


def to_html(report: FuzzReport) -> str:
    """Return a search as one page."""
    known = [finding for finding in report.findings if finding.known]
    firsts: dict[str, str] = {}
    for at, finding in enumerate((*report.new, *known)):
        firsts.setdefault(finding.broken.name, f"f{at}")
    return page(
        "fuzz.html",
        ["page.css", "fuzz.css"],
        script="page.js",
        title=visible(shorten(f"{report.kind} {report.subject}", _LONGEST)),
        line=visible(shorten(report.line, _LONGEST)),
        tone=tone(report),
        facts=[(visible(name), visible(shorten(value, _LONGEST))) for name, value in report.facts.items()],
        notes=[visible(shorten(note, _LONGEST)) for note in notes(report)],
        rows=[_row(row, firsts.get(row.name)) for row in rows(report)],
        coverage=[_covered(one) for one in report.coverage],
        mutation=None if report.mutation is None else _mutation(report.mutation),
        new=[_finding(f"f{at}", finding, report, at < _OPEN) for at, finding in enumerate(report.new)],
        known=[_finding(f"f{at}", finding, report, False) for at, finding in enumerate(known, len(report.new))],
    )


def _covered(one: Covered) -> dict[str, Any]:
    return {
        "subject": visible(shorten(one.subject, _LONGEST)),
        "said": covered(one),
        "missed": missed(one)[:_LISTED],
        "more": max(len(one.missed) - _LISTED, 0),
    }


def _mutation(mutation: Mutation) -> dict[str, Any]:
    return {
        "rows": [
            {
                "kind": one.kind,
                "sentence": one.sentence,
                "numbers": [
                    f"{one.tried:,}",
                    f"{one.told:,}",
                    f"{one.by_goldens:,}" if mutation.cases else "",
                    f"{one.by_properties:,}",
                    f"{one.survive:,}",
                ],
            }
            for one in kinds(mutation)
        ],
        "properties": [(visible(name), f"{count:,}") for name, count in mutation.properties.items()],
        "survivors": [
            (visible(shorten(one.subject, _LONGEST)), one.line, one.kind, change(one))
            for one in mutation.survivors[:_LISTED]
        ],
        "more": max(len(mutation.survivors) - _LISTED, 0),
    }


def _row(row: Row, first: str | None) -> dict[str, Any]:
    return {
        "name": visible(shorten(row.name, _LONGEST)),
        "sentence": visible(shorten(row.sentence, _LONGEST)),
        "held": f"{row.held:,}",
        "result": row.result,
        "tone": "bad" if row.new else "unknown" if row.known or not row.held else "good",
        "first": first,
    }


def _finding(name: str, finding: Finding, report: FuzzReport, is_open: bool) -> dict[str, Any]:
    broken = finding.broken
    cause, *more = messages(finding) or [""]
    named = list(dict.fromkeys([finding.subject, *finding.subjects]))
    return {
        "id": name,
        "open": is_open,
        "name": visible(shorten(broken.name, _LONGEST)),
        "path": visible(shorten(broken.path, _LONGEST)),
        "cause": cause,
        "messages": more,
        "sentence": visible(shorten(finding.sentence, _LONGEST)),
        "spread": spread(finding, report),
        "subject": visible(finding.subject),
        "subjects": [visible(one) for one in named[:_NAMES]] if report.subjects > 1 else [],
        "unnamed": max(len(named) - _NAMES, 0),
        "turns": [
            {"who": turn.label, "ours": turn.ours, "text": _stretches(turn.text)} for turn in turns(finding.example)
        ],
        "outputs": _outputs(given(finding)),
        "listings": [
            (title, _listing(text), copied)
            for title, text, copied in (
                ("The input as JSON", "" if finding.example is None else raw(finding.example, indent=2), False),
                ("Run it again", visible(finding.command), True),
                ("As a test for pytest", finding.test, True),
            )
            if text
        ],
    }


def _stretches(text: str) -> Any:
    return text_block("", text, text, ()).panes[0][1]


def _listing(text: str) -> str:
    if len(text) > _SOURCE:
        return f"{counted(len(text), 'character')}, which the JSON report holds"
    return "\n".join(map(visible, text.strip("\n").split("\n")))


def _outputs(outputs: list[Given]) -> dict[str, Any]:
    """Return outputs as panes; of two texts with what differs marked, and two lists of tokens aligned."""
    found: dict[str, Any] = {"sides": (), "panes": (), "tokens": None}
    two = pair(outputs)
    if two is not None:
        sides = (visible(two[0].by), visible(two[1].by))
        tokens = _tokens(*two)
        if tokens is None:
            block: Block = text_block("", two[0].line, two[1].line, sides)
            found["panes"] = [(*pane, tone) for pane, tone in zip(block.panes, ("expected", "observed"), strict=True)]
        else:
            found.update(sides=sides, tokens=tokens)
        outputs = [one for one in outputs if one.failed]
    panes = [(visible(one.by), _stretches(one.line), "failed" if one.failed else "") for one in outputs]
    return {**found, "panes": [*found["panes"], *panes]}


def _tokens(one: Given, other: Given) -> TokenBlock | None:
    """Return two lists of tokens aligned; None where they are none, or an id has a piece of its own on each side."""
    if one.tokens is None or other.tokens is None:
        return None
    pieces = dict(one.tokens)
    if any(pieces.setdefault(number, piece) != piece for number, piece in other.tokens):
        return None
    return ids_block("", [number for number, _ in one.tokens], [number for number, _ in other.tokens], pieces)
