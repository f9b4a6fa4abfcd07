"""Verdicts as one self-contained page: no network, light and dark, readable with scripts off.

Whatever a model, a template or a server said is text in this page and never markup: the template engine escapes all of
it, the embedded data cannot close its element, and the page forbids every script but its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from markupsafe import Markup

from harness.checking.compare.outcome import Difference, Outcome
from harness.checking.judge import StageResult
from harness.checking.trace import FIELDS
from harness.checking.verdict import Finding
from harness.report.assets import page
from harness.report.difference import Place, place
from harness.report.embed import embedded
from harness.report.plots import case_plot, summary_plot
from harness.report.sheet import SIGNS, Sheet, SheetCase, by_weight, difference_of, is_bad, outcome_of, word_of
from harness.report.view import (
    Block,
    Table,
    TokenBlock,
    deltas_block,
    ending_text,
    ids_block,
    reply_blocks,
    request_blocks,
    text_block,
)
from harness.report.visible import shorten, visible
from harness.stage import Stage
from harness.values import Ending, Generation, Observation, Prompt, Reply, Request, Tokens

_Kind = TypeVar("_Kind")
_PLACES = 8
_FINDINGS = 6
"""Findings that are open at once."""
_LINKS = 30
_PLOTS = 60
"""Plots of single cases in a page."""
_LONGEST = 1_200
_TONES = {
    "good": "good",
    "bad": "bad",
    "unknown": "unknown",
    "cleared": "good",
    "convicted": "bad",
    "inherits": "warn",
    "unobserved": "unknown",
    "error": "unknown",
}
_OUTCOME_TONES = {
    Outcome.EQUAL: "good",
    Outcome.EQUIVALENT: "good",
    Outcome.DIVERGED: "bad",
    Outcome.FAILED: "bad",
    Outcome.UNOBSERVED: "unknown",
    Outcome.ERROR: "unknown",
}


def to_html(sheets: Sequence[Sheet]) -> str:
    """Return sheets as one page.

    Args:
        sheets: What to show, one a model.
    """
    data, left_out = embedded(sheets)
    plots = _Plots()
    return page(
        "page.html",
        ["page.css"],
        script="page.js",
        sheets=[_sheet(f"s{at}", sheet, plots) for at, sheet in enumerate(sheets)],
        outcomes=[str(outcome) for outcome in Outcome],
        legend=[(str(outcome), sign) for outcome, sign in SIGNS.items()],
        data=Markup(data),  # noqa: S704  # made harmless
        left_out=left_out,
        shown_findings=_FINDINGS,
    )


class _Plots:
    """Draws the plots of cases, up to a number that a page can bear."""

    def __init__(self) -> None:
        self._left = _PLOTS

    def case(self, case: SheetCase, limit: float | None, name: str) -> Markup | None:
        """Return the plot of a case whose numbers are not those that they should be."""
        expected, observed = case.expected.generation, case.observed.generation
        if not case.divergence or not isinstance(expected, Generation) or not isinstance(observed, Generation):
            return None
        if expected.distributions is None or observed.distributions is None or not self._left:
            return None
        self._left -= 1
        drawn = case_plot(expected.distributions, observed.distributions, case.divergence, limit, name)
        return Markup(drawn)  # noqa: S704  # numbers and our own words only

    def summary(self, sheet: Sheet, name: str) -> Markup | None:
        """Return the plot of all cases."""
        worst = [_worst(case) for case in sheet.cases]
        if all(value is None for value in worst):
            return None
        return Markup(summary_plot(worst, sheet.limit, name))  # noqa: S704  # numbers and our own words only


def _worst(case: SheetCase) -> float | None:
    known = [value for value in case.divergence if value is not None and math.isfinite(value)]
    return max(known, default=None)


def _sheet(name: str, sheet: Sheet, plots: _Plots) -> dict[str, Any]:
    links = {case.name: f"{name}-c{at}" for at, case in enumerate(sheet.cases)}
    return {
        "id": name,
        "title": visible(sheet.title),
        "line": visible(shorten(sheet.line, _LONGEST)),
        "tone": _TONES[sheet.status],
        "made": visible(sheet.made),
        "sides": tuple(map(visible, sheet.sides)),
        "stages": [
            {
                "stage": str(stage),
                "status": visible(word_of(sheet, said.status)),
                "tone": _TONES[said.status],
                "counts": ", ".join(f"{said.outcomes[o]} {o}" for o in Outcome if o in said.outcomes) or "none",
                "why": visible(shorten(said.why, _LONGEST)),
            }
            for stage, said in sheet.stages.items()
        ],
        "findings": [_finding(finding, links) for finding in by_weight(sheet.findings)],
        "summary": plots.summary(sheet, name),
        "notes": [visible(shorten(note, _LONGEST)) for note in sheet.notes],
        "parts": [(visible(key), visible(shorten(value, _LONGEST))) for key, value in sheet.parts.items()],
        "command": visible(sheet.command),
        "cases": [_case(links[case.name], case, sheet, plots) for case in sheet.cases],
    }


def _finding(finding: Finding, links: Mapping[str, str]) -> dict[str, Any]:
    return {
        "stage": str(finding.stage),
        "kind": finding.kind,
        "evidence": "" if finding.evidence == "isolated" else finding.evidence,
        "summary": visible(shorten(finding.summary, _LONGEST)),
        "location": visible(finding.location or ""),
        "hints": [visible(hint) for hint in finding.hints],
        "remedy": visible(finding.remedy or ""),
        "count": len(finding.cases),
        "cases": [(visible(case), links.get(case)) for case in finding.cases[:_LINKS]],
        "example": visible(finding.example),
        **_places(finding.difference),
    }


def _places(difference: Difference | None) -> dict[str, Any]:
    places: list[Place] = [place(hunk) for hunk in difference.hunks[:_PLACES]] if difference else []
    return {"places": places, "left": max(len(difference.hunks) - _PLACES, 0) if difference else 0}


def _case(name: str, case: SheetCase, sheet: Sheet, plots: _Plots) -> dict[str, Any]:
    broke = case.observed.broke or case.expected.broke
    return {
        "id": name,
        "name": visible(case.name),
        "description": visible(shorten(case.description, _LONGEST)),
        "broke": _lines(broke) if broke is not None else "",
        "results": " ".join(f"{result.stage}:{outcome_of(result)}" for result in case.results),
        "stages": [_stage(result, case, sheet, plots, name) for result in case.results],
        "chips": [_chip(stage, {result.stage: result for result in case.results}.get(stage)) for stage in Stage],
    }


def _chip(stage: Stage, result: StageResult | None) -> dict[str, str]:
    if result is None:
        return {"stage": str(stage), "outcome": "nothing to compare", "sign": "\u00b7", "tone": "none"}
    outcome = outcome_of(result)
    return {"stage": str(stage), "outcome": str(outcome), "sign": SIGNS[outcome], "tone": _OUTCOME_TONES[outcome]}


def _stage(result: StageResult, case: SheetCase, sheet: Sheet, plots: _Plots, name: str) -> dict[str, Any]:
    difference = difference_of(result)
    why = [difference.summary if difference else result.isolated.rule]
    if result.unexplained is not None and not result.isolated.outcome.bad:
        why.append(f"only in the {result.unexplained[0]} run")
    if result.follows is not None:
        why.append(f"in the chain it gets what {result.follows} made")
    drawn = result.stage is Stage.INFERENCE and is_bad(result)
    blocks = _blocks(result.stage, case, tuple(map(visible, sheet.sides)))
    # Where both sides stand whole next to each other, marked, the places would say the same again.
    marked = any(not isinstance(block, Table) and block.differs for block in blocks) and result.isolated.outcome.bad
    return {
        **_chip(result.stage, result),
        "open": is_bad(result),
        "why": visible(shorten("; ".join(filter(None, why)), _LONGEST)),
        "plot": plots.case(case, sheet.limit, name) if drawn else None,
        "blocks": blocks,
        **_places(None if marked and result.stage in (Stage.TEMPLATE, Stage.TOKENIZATION) else difference),
    }


def _blocks(stage: Stage, case: SheetCase, sides: Sequence[str]) -> list[Block | Table | TokenBlock]:
    """Return what both sides of a stage produced."""
    expected, observed = getattr(case.expected, FIELDS[stage]), getattr(case.observed, FIELDS[stage])
    blocks: list[Block | Table | TokenBlock] = []
    one, other = (None if isinstance(value, Ending) else value for value in (expected, observed))
    if isinstance(expected, Ending) or isinstance(observed, Ending):
        blocks.append(text_block("how it ended", _lines(expected), _lines(observed), sides))
    elif observed is None and expected is not None:
        blocks.append(text_block("how it ended", "with a value", "not reached", sides))
    if stage is Stage.CLIENT:
        blocks += request_blocks(_only(one, Request), _only(other, Request), sides)
    elif stage is Stage.TEMPLATE and (one or other):
        texts = [prompt.text if prompt else None for prompt in (_only(one, Prompt), _only(other, Prompt))]
        blocks.append(text_block("prompt", texts[0], texts[1], sides))
    elif stage is Stage.TOKENIZATION and (one or other):
        ids = [tokens.ids if tokens else () for tokens in (_only(one, Tokens), _only(other, Tokens))]
        blocks.append(ids_block("tokens", ids[0], ids[1], _pieces(case)))
    elif stage is Stage.INFERENCE and (one or other):
        blocks += _generation(_only(one, Generation), _only(other, Generation), _pieces(case))
    elif stage is Stage.POSTPROCESS:
        if one or other:
            blocks += reply_blocks(_only(one, Reply), _only(other, Reply), sides)
        blocks += _streams(case, sides)
    return blocks


def _only(value: object, kind: type[_Kind]) -> _Kind | None:
    assert value is None or isinstance(value, kind)
    return value


def _lines(value: object) -> str:
    """Return an ending as text, or that there is none."""
    return ending_text(value) if isinstance(value, Ending) else "not reached" if value is None else "with a value"


def _pieces(case: SheetCase) -> dict[int, str]:
    pieces: dict[int, str] = {}
    for side in (case.observed, case.expected):
        if isinstance(side.tokens, Tokens) and side.tokens.pieces is not None:
            pieces.update(zip(side.tokens.ids, side.tokens.pieces, strict=True))
    return pieces


def _generation(
    one: Generation | None, other: Generation | None, pieces: Mapping[int, str]
) -> list[Block | Table | TokenBlock]:
    blocks: list[Block | Table | TokenBlock] = []
    for name in ("ids", "chosen"):
        expected, observed = (getattr(side, name) if side else () for side in (one, other))
        # What the sampler chose is worth a second row only where it is not what stands there.
        if name == "ids" or (other and other.chosen != other.ids) or expected != observed:
            blocks.append(ids_block("generated" if name == "ids" else "chosen", expected, observed, pieces))
    finish = [side.finish if side else "" for side in (one, other)]
    blocks.append(Table("end", (("finish", finish[0], finish[1], finish[0] != finish[1]),)))
    return blocks


def _streams(case: SheetCase, sides: Sequence[str]) -> list[Block | Table | TokenBlock]:
    blocks: list[Block | Table | TokenBlock] = []
    observations: tuple[Observation, Observation] = (case.expected, case.observed)
    for label, streamed, observation in zip(sides, case.streams, observations, strict=True):
        reply = streamed if streamed is not None else observation.reply
        if isinstance(reply, Reply) and reply.deltas is not None:
            blocks.append(deltas_block(reply.deltas, label))
        elif isinstance(streamed, Ending):
            blocks.append(text_block("how the stream ended", None, ending_text(streamed), ("", label)))
    return blocks
