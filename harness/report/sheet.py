"""A sheet: what any report shows of one model, whatever was held against what.

A check holds a stack against its goldens, a diff one stack against another. Both come down to stages, findings and
cases with two sides; the HTML, Markdown, JUnit and SARIF reports are written of sheets and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from harness.checking.compare.hunks import common_prefix
from harness.checking.compare.inference import divergences
from harness.checking.compare.outcome import Difference, Outcome
from harness.checking.judge import StageResult
from harness.checking.trace import FIELDS, Run, Trace
from harness.checking.verdict import Finding, StageVerdict, Verdict
from harness.project.golden import Golden
from harness.stage import Stage
from harness.values import Ending, Generation, Observation, Reply, Value

if TYPE_CHECKING:
    from harness.checking.diff import Compared
    from harness.checking.opened import Checked

_STATUS: Mapping[str, Literal["good", "bad", "unknown"]] = {
    "clean": "good",
    "convicted": "bad",
    "unjudged": "unknown",
    "error": "unknown",
}
SIGNS: Mapping[Outcome, str] = {
    Outcome.EQUAL: "=",
    Outcome.EQUIVALENT: "\u2248",
    Outcome.DIVERGED: "\u2260",
    Outcome.FAILED: "!",
    Outcome.UNOBSERVED: "?",
    Outcome.ERROR: "E",
}
"""A sign for each outcome, so that no report tells them apart by colour alone."""


class SheetCase(Value):
    """One case, with what each side made of it.

    Attributes:
        name: The case's name.
        description: One sentence for a human.
        results: The stages' results.
        expected: What should be, or the first stack's.
        observed: What is, or the second stack's.
        streams: The reply of either side when asked for as a stream, where it was seen.
        divergence: KL divergence in nats at each generated position, where it was measured; None where a
            log-probability is not a number.
    """

    name: str
    description: str = ""
    results: tuple[StageResult, ...]
    expected: Observation
    observed: Observation
    streams: tuple[Reply | Ending | None, Reply | Ending | None] = (None, None)
    divergence: tuple[float | None, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether any stage of it speaks against the stack."""
        return any(is_bad(result) for result in self.results)


class Sheet(Value):
    """What a report shows of one model.

    Attributes:
        title: What was held against what, in a few words.
        model: The model's name.
        line: The verdict in one line.
        status: `good`, `bad`, or `unknown` where nothing is bad but a stage was never seen, or code of ours raised.
        sides: What the two sides of a case are called, expected first.
        verb: What is said of a stage at fault: `convicted` in a check, `differs` in a diff.
        clear: What is said of one that is not: `cleared` in a check, `agrees` in a diff.
        stages: What is said of each stage.
        findings: The root causes.
        notes: What a reader must know beside.
        cases: Every case.
        limit: The largest divergence that is noise, in nats, where one was measured.
        parts: What ran: versions, builds and settings, by name.
        command: The command that makes this report again.
        made: When it was made, in ISO 8601.
    """

    title: str
    model: str
    line: str
    status: Literal["good", "bad", "unknown"]
    sides: tuple[str, str]
    verb: str
    clear: str = "cleared"
    stages: dict[Stage, StageVerdict]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    cases: tuple[SheetCase, ...]
    limit: float | None = None
    parts: dict[str, str] = Field(default_factory=dict)
    command: str = ""
    made: str = ""


def word_of(sheet: Sheet, status: str) -> str:
    """Return what a stage's status is called in a sheet."""
    return {"convicted": sheet.verb, "cleared": sheet.clear}.get(status, status)


def is_bad(result: StageResult) -> bool:
    """Return whether a result speaks against its stage: on golden input, or in the chain without an explanation."""
    return result.own_error is None and (result.isolated.outcome.bad or result.unexplained is not None)


def outcome_of(result: StageResult) -> Outcome:
    """Return the outcome to show: what is equal alone and differs in the chain without an explanation is not equal."""
    if result.own_error is not None:
        return Outcome.ERROR
    return result.isolated.outcome if result.isolated.outcome.bad or not is_bad(result) else Outcome.DIVERGED


def difference_of(result: StageResult) -> Difference | None:
    """Return how a bad result differs; None for any other."""
    if result.isolated.outcome.bad or result.unexplained is None:
        return result.isolated.difference
    return result.unexplained[1]


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in stage order, of one stage those with the most cases first."""
    return sorted(findings, key=lambda finding: (list(Stage).index(finding.stage), -len(finding.cases)))


def sheet_of_verdict(
    verdict: Verdict,
    goldens: Mapping[str, Golden],
    traces: Mapping[str, Trace],
    *,
    limit: float | None,
    parts: Mapping[str, str],
    command: str,
    made: str,
) -> Sheet:
    """Return what a report shows of a check.

    Args:
        verdict: The verdict on one stack and model.
        goldens: The golden of every case of the verdict, by name.
        traces: What the stack did with every case, by name.
        limit: The noise limit in force, in nats, or None.
        parts: What ran: versions, builds and settings, by name.
        command: The command that makes the report again.
        made: When it was made, in ISO 8601.
    """
    results: dict[str, list[StageResult]] = {}
    for result in verdict.results:
        results.setdefault(result.case, []).append(result)
    return Sheet(
        title=f"{verdict.stack} around {verdict.model}",
        model=verdict.model,
        line=verdict.line,
        status=_STATUS[verdict.status],
        sides=("golden", verdict.stack),
        verb="convicted",
        stages=verdict.stages,
        findings=verdict.findings,
        notes=verdict.notes,
        cases=tuple(_case(goldens[name], traces[name], tuple(own)) for name, own in results.items()),
        limit=limit,
        parts=dict(parts),
        command=command,
        made=made,
    )


def sheet_of_check(checked: Checked, command: str) -> Sheet:
    """Return what a report shows of a check whose traces were kept.

    Args:
        checked: The check.
        command: The command that makes the report again.
    """
    return sheet_of_verdict(
        checked.verdict,
        checked.goldens,
        checked.traces,
        limit=checked.limit,
        parts=checked.parts,
        command=command,
        made=_now(),
    )


def sheet_of_diff(compared: Compared, command: str) -> Sheet:
    """Return what a report shows of a diff.

    Args:
        compared: The diff.
        command: The command that makes the report again.
    """
    diff = compared.diff
    sheet = sheet_of_verdict(
        diff.verdict,
        compared.expected,
        compared.traces,
        limit=compared.limit,
        parts=compared.parts,
        command=command,
        made=_now(),
    )
    swaps = (
        f"swapping only {diff.a}'s {' and '.join(swap.stages)} into {diff.b} makes them equal in {len(swap.equal)} of "
        f"{len(swap.differ)} {'cases that differ' if len(swap.differ) > 1 else 'case that differs'} there"
        for swap in diff.swaps
    )
    pairs = zip(diff.verdict.findings, diff.sides, strict=True)
    said = (
        f"{finding.stage}, case {finding.example}: {sides.describe(diff.a, diff.b)}"
        for finding, sides in pairs
        if sides is not None
    )
    return sheet.model_copy(
        update={
            "title": f"{diff.a} and {diff.b} around {diff.model}",
            "line": diff.line,
            "sides": (diff.a, diff.b),
            "verb": "differs",
            "clear": "agrees",
            "notes": (*swaps, *said, *sheet.notes),
        }
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _case(golden: Golden, trace: Trace, results: tuple[StageResult, ...]) -> SheetCase:
    observed = trace.runs.get(Run.ISOLATED, Observation())
    return SheetCase(
        name=golden.case.name,
        description=golden.case.description,
        results=results,
        expected=Observation(**{field: golden.value(stage) for stage, field in FIELDS.items()}),
        observed=observed,
        streams=(None, trace.output(Run.ISOLATED_STREAM, Stage.POSTPROCESS)),
        divergence=divergence(golden.generation, observed.generation),
    )


def divergence(expected: object, observed: object) -> tuple[float | None, ...]:
    """Return KL(expected || observed) in nats at each generated position that rests on the same ids before it.

    Empty where either side ended otherwise than with distributions to compare.
    """
    if not isinstance(expected, Generation) or not isinstance(observed, Generation):
        return ()
    if expected.distributions is None or observed.distributions is None:
        return ()
    # The first id that differs changes what every later position rests on.
    same = common_prefix(expected.ids, observed.ids) + 1
    positions = min(same, len(expected.distributions), len(observed.distributions))
    # Of a reference only the likeliest are kept, of another stack perhaps all.
    found = divergences(expected.distributions.head(positions).top(), observed.distributions.head(positions))
    return tuple(float(value) if np.isfinite(value) else None for value in found)
