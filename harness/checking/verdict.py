"""The verdict: which stage is at fault, of what kind, on what evidence, and why each other stage is not.

1. A stage that diverges or fails when fed golden input is at fault.
2. A stage that diverges only on what its own stack fed it inherits.
3. A stage that is clean isolated, was fed golden input in the chained run and diverges all the same is run again: what
   then varies is nondeterminism, what stays is state. Nothing else is convicted, and what was not seen is not cleared.
4. Where the server's answer is right and what its client hands on is not, the client is at fault.
5. Where code of ours raised, nothing is known: it convicts nobody, clears nobody, and the verdict says so first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from harness.checking.compare.count import CAUSE
from harness.checking.compare.outcome import START, Difference, Hunk, Kind, Outcome, unobserved
from harness.checking.judge import Chained, Judge, StageResult
from harness.checking.own import OwnSeenError
from harness.checking.root_causes import RootCause, grouped, parts_of
from harness.checking.rows import Row
from harness.checking.trace import Run, Trace
from harness.project.golden import Golden
from harness.stage import Stage
from harness.values import OwnError, Value

RERUNS = 2
_NOTED = 6

Rerun = Callable[[Golden, Run], Trace]
"""Runs a chained run of a case again."""


Evidence = Literal["isolated", "received", "stream", "state", "nondeterminism", "nodes", "file", "load", "canary"]


class Finding(Value):
    """One root cause, with every case that shows it.

    Attributes:
        stage: The stage at fault.
        kind: What sort of defect it is.
        summary: One line, of the example.
        cases: Every case that shows it.
        example: The case shown: the largest difference, or else the one with the least to read.
        difference: How the example differs.
        evidence: `isolated` (fed with golden input); of what shows only in the chain `received` (a client's answer is
            not the server's), `stream` (only when streamed), `state` or `nondeterminism` (see the module); `nodes` (of
            an engine whose numbers are within the noise, but not those of a node in its network), `file` (of a model
            file that is not the golden's, and shows in no output), `load` and `canary` (a row, of no case).
        location: Of an engine's wrong numbers, where in the network the first one is; of an artifact, what shows that
            the file is wrong and not the part.
        hints: Known defects that give exactly this.
        remedy: What to change, where that is known.
    """

    stage: Stage
    kind: Kind
    summary: str
    cases: tuple[str, ...]
    example: str
    difference: Difference
    evidence: Evidence = "isolated"
    location: str | None = None
    hints: tuple[str, ...] = ()
    remedy: str | None = None


class Seen(Value):
    """How an engine was seen.

    Attributes:
        by: The distributions of what it generated, or these and every node of its network.
        why: Of outputs alone, why no nodes were looked at.
    """

    by: Literal["outputs only", "outputs and nodes"]
    why: str | None = None


class OwnErrors(Value):
    """One error of our own, and what could not be judged for it.

    Attributes:
        stage: The stage that was looked at.
        cases: The cases.
        error: What was raised, in the first of them.
    """

    stage: Stage
    cases: tuple[str, ...]
    error: OwnError


class StageVerdict(Value):
    """What is said of one stage.

    Attributes:
        status: `convicted`, `cleared`, `inherits` (cleared on golden input, but fed by a convicted stage),
            `unobserved`, or `error` (code of ours raised while it was looked at).
        outcomes: How many cases had each isolated outcome.
        why: One line.
        seen: Of inference, how; None where nobody has said.
    """

    status: Literal["convicted", "cleared", "inherits", "unobserved", "error"]
    outcomes: dict[Outcome, int] = Field(default_factory=dict)
    why: str
    seen: Seen | None = None


class Verdict(Value):
    """What is said of a stack around a model.

    Attributes:
        stack: The stack's name.
        model: The model's name.
        status: `convicted`, `clean`, `unjudged` where nothing is convicted but a stage was never seen, or `error`
            where code of ours raised, whatever else was found.
        line: The verdict in one line.
        stages: What is said of each stage.
        findings: The root causes, in stage order; of one stage that of most cases first.
        results: Every stage of every case.
        notes: What a reader must know beside: policies relied on, cases that could not be asked.
        errors: The errors of our own.
        rows: What was held against declarations and documents.
    """

    stack: str
    model: str
    status: Literal["convicted", "clean", "unjudged", "error"]
    line: str
    stages: dict[Stage, StageVerdict]
    findings: tuple[Finding, ...]
    results: tuple[StageResult, ...]
    notes: tuple[str, ...] = ()
    errors: tuple[OwnErrors, ...] = ()
    rows: tuple[Row, ...] = ()


def convict(
    stack: str,
    model: str,
    results: Sequence[StageResult],
    explain: Callable[[StageResult], Literal["state", "nondeterminism"]],
    same: str = "golden in, golden out",
) -> Verdict:
    """Return the verdict on all results.

    Args:
        stack: The stack's name.
        model: The model's name.
        results: Every stage of every case.
        explain: Tells state from nondeterminism, by running the case again; asked only for unexplained results, and
            raises `OwnSeenError` where code of ours raises in that run.
        same: Why a stage is cleared, in a few words.
    """
    results, explained = _explained(_counting(_one_start(results)), explain)
    errors = _errors(results)
    findings = tuple(finding for stage in Stage for finding in _findings(stage, results, explained, errors))
    convicted = {finding.stage for finding in findings}
    stages = {stage: _stage_verdict(stage, results, findings, convicted, same) for stage in Stage}
    unseen = [stage for stage, verdict in stages.items() if verdict.status == "unobserved"]
    cases = len({result.case for result in results})
    status: Literal["convicted", "clean", "unjudged", "error"]
    if errors:
        status, line = "error", _line(findings, cases, errors)
    elif findings:
        status, line = "convicted", _line(findings, cases)
    elif unseen:
        status, line = "unjudged", _unjudged(unseen, stages)
    else:
        compared = sum(result.isolated.outcome.seen for result in results)
        status, line = "clean", f"clean: five stages cleared, {compared} comparisons in {cases} {_cases(cases)}"
    return Verdict(
        stack=stack,
        model=model,
        status=status,
        line=line,
        stages=stages,
        findings=findings,
        results=tuple(results),
        notes=tuple(_notes(results)),
        errors=errors,
    )


def with_rows(verdict: Verdict, rows: Sequence[Row]) -> Verdict:
    """Return a verdict with rows, those that diverged as findings."""
    found = verdict.model_copy(update={"rows": (*verdict.rows, *rows)})
    for row in rows:
        if row.outcome is Outcome.DIVERGED:
            found = adding(found, finding_of_row(row))
        if row.error is not None:
            found = _with_error(found, row.stage, row.error)
    return found


def _with_error(verdict: Verdict, stage: Stage, error: OwnError) -> Verdict:
    errors = (*verdict.errors, OwnErrors(stage=stage, cases=(), error=error))
    cases = len({result.case for result in verdict.results})
    line = _line(verdict.findings, cases, errors)
    return verdict.model_copy(update={"errors": errors, "status": "error", "line": line})


def finding_of_row(row: Row) -> Finding:
    """Return the finding that a row is which diverged."""
    place = Hunk(at=row.name, golden=row.expected, observed=row.found)
    difference = Difference(summary=row.why, hunks=(place,), causes=(f"{row.of}\0{row.name}",), kind=row.kind)
    return Finding(
        stage=row.stage,
        kind=row.kind,
        summary=row.why,
        cases=(),
        example="",
        difference=difference,
        evidence=row.of,
        location=f"declared by {row.source}" if row.of == "load" else row.source,
        remedy=row.remedy or None,
    )


def adding(verdict: Verdict, finding: Finding) -> Verdict:
    """Return a verdict with one more finding, of what no case's outputs show."""
    return replacing(verdict, (), finding)


def replacing(verdict: Verdict, gone: Sequence[Finding], finding: Finding) -> Verdict:
    """Return a verdict with a finding in the place of others of its stage, if there are any."""
    findings = (*(one for one in verdict.findings if one not in gone), finding)
    own = [one for one in findings if one.stage is finding.stage]
    said = verdict.stages[finding.stage].model_copy(
        update={"status": "convicted", "why": f"{_root_causes(own)}: {_leading(own).summary}"}
    )
    return verdict.model_copy(
        update={
            "status": "error" if verdict.errors else "convicted",
            "line": _line(findings, len({result.case for result in verdict.results}), verdict.errors),
            "stages": {**verdict.stages, finding.stage: said},
            "findings": tuple(sorted(findings, key=lambda one: list(Stage).index(one.stage))),
        }
    )


def seen_by(verdict: Verdict, *, nodes: bool, why: str | None = None) -> Verdict:
    """Return a verdict that says how inference was seen, in its stage and in the line that clears.

    Args:
        verdict: The verdict.
        nodes: Whether the nodes of the network were held, beside its outputs.
        why: Why not, where they were not.
    """
    seen = Seen(by="outputs and nodes" if nodes else "outputs only", why=None if nodes else why)
    said = verdict.stages[Stage.INFERENCE]
    shown = f"{seen.by} ({seen.why})" if seen.why else seen.by
    said = said.model_copy(update={"seen": seen, "why": f"{said.why}; seen by {shown}"})
    update: dict[str, object] = {"stages": {**verdict.stages, Stage.INFERENCE: said}}
    if verdict.status == "clean":
        update["line"] = f"{verdict.line}; inference by {seen.by}"
    return verdict.model_copy(update=update)


def _root_causes(findings: Sequence[Finding]) -> str:
    return f"{len(findings)} root cause{'s' if len(findings) > 1 else ''}"


def _leading(findings: Sequence[Finding]) -> Finding:
    """Return the root cause that explains most cases."""
    return max(findings, key=lambda finding: len(finding.cases))


def with_findings(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    """Return a verdict whose findings are of another kind, or have more to say; their stages and cases stay."""
    cases = len({result.case for result in verdict.results})
    return verdict.model_copy(update={"findings": tuple(findings), "line": _line(findings, cases, verdict.errors)})


def _line(findings: Sequence[Finding], cases: int, errors: Sequence[OwnErrors] = ()) -> str:
    """Return the verdict that convicts, in one line; what went wrong of our own comes first."""
    if errors:
        first_error = errors[0]
        # Of a row, which is of no case.
        where = f", {len(first_error.cases)} of {cases} {_cases(cases)}" if first_error.cases else ""
        said = f"{first_error.error.describe()} [{first_error.stage}{where}]"
        if not findings:
            return f"an error of our own (nobody is convicted): {said}"
        return f"an error of our own: {said}; apart from it: {_line(findings, cases)}"
    first, *others = [stage for stage in Stage if any(finding.stage is stage for finding in findings)]
    main = _leading([finding for finding in findings if finding.stage is first])
    line = f"convicted: {first} ({main.kind}): {main.summary}"
    if main.cases:
        line += f" [{len(main.cases)} of {cases} {_cases(cases)}]"
    return f"{line}; also convicted: {', '.join(others)}" if others else line


def _unjudged(unseen: Sequence[Stage], stages: Mapping[Stage, StageVerdict]) -> str:
    cleared = sum(said.status == "cleared" for said in stages.values())
    looked = f"nothing wrong in {cleared} of {len(stages)} stages; " if cleared else ""
    return f"{looked}could not judge: {', '.join(unseen)} unobserved"


def _cases(count: int) -> str:
    return "case" if count == 1 else "cases"


def _one_start(results: Sequence[StageResult]) -> Sequence[StageResult]:
    """A part that does not start fails in each of its stages alike: the engine answers, the others were never run."""
    starts: dict[Difference, set[Stage]] = {}
    for result in results:
        difference = result.isolated.difference
        if difference is not None and difference.causes[0].startswith(START):
            starts.setdefault(difference, set()).add(result.stage)
    shared = {difference for difference, stages in starts.items() if len(stages) > 1 and Stage.INFERENCE in stages}
    never_run = unobserved("the part does not start")
    return [
        result.model_copy(update={"isolated": never_run})
        if result.isolated.difference in shared and result.stage is not Stage.INFERENCE
        else result
        for result in results
    ]


def _counting(results: Sequence[StageResult]) -> Sequence[StageResult]:
    """A number of prompt ids that is the same for prompts of several lengths counts nothing, so it convicts nobody."""
    told = [r.unexplained[1].hunks[0] for r in results if r.unexplained and r.unexplained[1].causes == (CAUSE,)]
    if not len({hunk.observed for hunk in told}) == 1 < len({hunk.golden for hunk in told}):
        return results
    silent = {"unexplained": None, "streamed_only": False, "chained": Chained.NOT_SEEN}
    return [
        r.model_copy(update=silent) if r.unexplained and r.unexplained[1].causes == (CAUSE,) else r for r in results
    ]


_STAYS = "stays when run again: by state that earlier calls left, or by a path of its own"
_Why = Literal["state", "nondeterminism"]


def _explained(
    results: Sequence[StageResult], explain: Callable[[StageResult], _Why]
) -> tuple[Sequence[StageResult], Mapping[tuple[Stage, str], _Why]]:
    """Explain what shows only in the chain; nothing where code of ours raised, as nothing is then convicted for it."""
    if any(result.own_error is not None for result in results):
        return results, {}
    found: dict[tuple[Stage, str], _Why] = {}
    told = list(results)
    for at, result in enumerate(results):
        if result.unexplained is not None and not result.received:
            try:
                found[result.stage, result.case] = explain(result)
            except OwnSeenError as seen:
                told[at] = result.model_copy(update={"erred": seen.own})
    return told, found


def _errors(results: Sequence[StageResult]) -> tuple[OwnErrors, ...]:
    """Group the errors of our own by stage and by what they say."""
    groups: dict[tuple[Stage, str], list[tuple[str, OwnError]]] = {}
    for result in results:
        if result.own_error is not None:
            key = result.stage, result.own_error.describe()
            groups.setdefault(key, []).append((result.case, result.own_error))
    return tuple(
        OwnErrors(stage=stage, cases=tuple(case for case, _ in members), error=members[0][1])
        for (stage, _), members in sorted(groups.items(), key=lambda group: list(Stage).index(group[0][0]))
    )


def _findings(
    stage: Stage,
    results: Sequence[StageResult],
    reasons: Mapping[tuple[Stage, str], _Why],
    errors: Sequence[OwnErrors],
) -> Iterable[Finding]:
    """Return the root causes of a stage, the one that explains most cases first.

    Where code of ours raised, what stays is what another stage did on golden input alone.
    """
    if any(error.stage is stage for error in errors):
        return
    own = [r for r in results if r.stage is stage]
    isolated = [r for r in own if r.isolated.outcome.bad]
    none_right = all(r.isolated.outcome.bad or not r.isolated.outcome.seen for r in own)
    parts = [(r, part) for r in isolated if r.isolated.difference for part in parts_of(r.isolated.difference)]
    yield from _told(stage, parts, "isolated", none_right=none_right)
    if errors:
        return
    unexplained = [r for r in own if r.unexplained is not None]
    explained: list[tuple[StageResult, Evidence]] = [
        (r, "received" if r.received else reasons[r.stage, r.case]) for r in unexplained
    ]
    explained = [(r, "stream" if why == "state" and r.streamed_only else why) for r, why in explained]
    evidences: tuple[Evidence, ...] = ("received", "stream", "state", "nondeterminism")
    for evidence in evidences:
        seen = [(r, r.unexplained[1]) for r, why in explained if why == evidence and r.unexplained]
        yield from _told(stage, [(r, part) for r, whole in seen for part in parts_of(whole)], evidence)


def _told(
    stage: Stage, parts: Sequence[tuple[StageResult, Difference]], evidence: Evidence, *, none_right: bool = False
) -> Iterable[Finding]:
    found = [_finding(stage, cause, evidence) for cause in grouped(parts, none_right=none_right)]
    yield from sorted(found, key=lambda finding: -len(finding.cases))


def _finding(
    stage: Stage,
    cause: RootCause[StageResult],
    evidence: Evidence,
) -> Finding:
    group = (*cause.shown, *cause.joined)
    result, part = min(cause.shown, key=lambda pair: (-pair[1].size, _length(pair[1])))
    difference = _shown(result, part, [own for r, own in group if r is result], evidence)
    summary, kind = difference.summary, difference.kind
    if evidence == "received":
        summary = f"{summary}, in what it makes of the server's answer"
    elif evidence == "stream":
        summary = f"{summary}; only when streamed"
    elif evidence != "isolated":
        rests = (
            "stays when run again: by state that earlier calls left, or by a path of its own"
            if evidence == "state"
            else "varies from run to run"
        )
        if result.isolated.outcome is Outcome.UNOBSERVED:
            rests = "was not seen on golden input alone"
        summary = f"{summary}; only when chained, and it {rests}"
    return Finding(
        stage=stage,
        kind=kind,
        summary=summary,
        cases=tuple(sorted({r.case for r, _ in group})),
        example=result.case,
        difference=difference,
        evidence=evidence,
    )


def _shown(result: StageResult, part: Difference, mine: Sequence[Difference], evidence: Evidence) -> Difference:
    """Return how an example differs: as a whole, where all of it has this cause."""
    whole = result.isolated.difference if evidence == "isolated" else result.unexplained and result.unexplained[1]
    if not whole or len(mine) < len(whole.parts):
        return part
    return whole.model_copy(update={"summary": part.summary, "causes": part.causes, "parts": ()})


def _length(difference: Difference) -> int:
    return sum(len(hunk.golden) + len(hunk.observed) for hunk in difference.hunks) + len(difference.summary)


def _stage_verdict(
    stage: Stage, results: Sequence[StageResult], findings: Sequence[Finding], convicted: set[Stage], same: str
) -> StageVerdict:
    own = [result for result in results if result.stage is stage]
    outcomes: dict[Outcome, int] = {}
    for result in own:
        outcomes[result.isolated.outcome] = outcomes.get(result.isolated.outcome, 0) + 1
    seen = sum(count for outcome, count in outcomes.items() if outcome.seen)
    in_its_path = [r for r in own if r.by_own_ids and r.chained is Chained.CONSISTENT]
    erred = [result.own_error for result in own if result.own_error is not None]
    if erred:
        why = f"an error of our own in {len(erred)} of {len(own)} {_cases(len(own))}: {erred[0].describe()}"
        return StageVerdict(status="error", outcomes=outcomes, why=why)
    if stage in convicted:
        mine = [finding for finding in findings if finding.stage is stage]
        return StageVerdict(
            status="convicted", outcomes=outcomes, why=f"{_root_causes(mine)}: {_leading(mine).summary}"
        )
    if not seen and not in_its_path:
        reasons = sorted({result.isolated.rule for result in own}) or ["no case reaches it"]
        return StageVerdict(status="unobserved", outcomes=outcomes, why="; ".join(reasons))
    fed_by = sorted({r.follows for r in own if r.follows in convicted}, key=list(Stage).index)
    if fed_by:
        why = f"{_cleared(own, same)}; in the chain it gets what {', '.join(fed_by)} made"
        return StageVerdict(status="inherits", outcomes=outcomes, why=why)
    if not seen:
        why = f"right in its own path in {len(in_its_path)} of {len(own)} {_cases(len(own))}; alone it was not seen"
        return StageVerdict(status="cleared", outcomes=outcomes, why=why)
    return StageVerdict(status="cleared", outcomes=outcomes, why=_cleared(own, same))


def _cleared(own: Sequence[StageResult], same: str) -> str:
    worst = max((r.isolated.measured["kl"] for r in own if "kl" in r.isolated.measured), default=None)
    if worst is not None:
        limit = max(r.isolated.measured["limit"] for r in own if "limit" in r.isolated.measured)
        return f"same ids in, same numbers out (KL at most {worst:.3g}, limit {limit:.3g} nats)"
    return same


def _notes(results: Sequence[StageResult]) -> Iterable[str]:
    for outcome, what in ((Outcome.EQUIVALENT, "policy"), (Outcome.UNOBSERVED, "unobserved")):
        groups: dict[tuple[Stage, str], list[str]] = {}
        for result in results:
            comparison = result.isolated
            if comparison.outcome is outcome and (comparison.policy or outcome is Outcome.UNOBSERVED):
                groups.setdefault((result.stage, comparison.rule), []).append(result.case)
        for (stage, rule), cases in groups.items():
            listed = ", ".join(cases[:_NOTED]) + (f", and {len(cases) - _NOTED} more" if len(cases) > _NOTED else "")
            yield f"{what}: {stage}: {rule} [{listed}]"


def explain_by_rerun(
    judge: Judge, golden: Golden, result: StageResult, rerun: Rerun
) -> Literal["state", "nondeterminism"]:
    """Run an unexplained case again: what stays is of state or of a path of its own, what goes is chance.

    Raises:
        OwnSeenError: code of ours raised in that run.
    """
    assert result.unexplained is not None
    run, _ = result.unexplained
    for _ in range(RERUNS):
        again = judge.case(golden, rerun(golden, run))
        erred = next((one.own_error for one in again if one.own_error is not None), None)
        if erred is not None:
            raise OwnSeenError(erred)
        if not any(one.stage is result.stage and one.unexplained is not None for one in again):
            return "nondeterminism"
    return "state"
