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
from enum import StrEnum
from typing import Literal

from pydantic import Field

from harness.checking.compare import client, inference, postprocess, template, tokenization
from harness.checking.compare.inference import Floor
from harness.checking.compare.mechanism import with_parts
from harness.checking.compare.outcome import (
    START,
    WORST,
    Comparison,
    Difference,
    Kind,
    Outcome,
    compare_endings,
    errored,
    unobserved,
)
from harness.checking.own import OwnSeenError, own_error
from harness.checking.root_causes import RootCause, grouped, parts_of
from harness.checking.trace import Run, Trace
from harness.project.golden import Golden
from harness.stage import Stage
from harness.values import Failure, Generation, OwnError, Prompt, Refusal, Reply, Tokens, Value

RERUNS = 2
_NOTED = 6

Rerun = Callable[[Golden, Run], Trace]
"""Runs a chained run of a case again."""


class Chained(StrEnum):
    """What the chained runs add to a stage's isolated outcome."""

    CONSISTENT = "consistent"
    INHERITS = "inherits"
    UNEXPLAINED = "unexplained"
    NOT_SEEN = "not seen"


class StageResult(Value):
    """One stage of one case.

    Attributes:
        stage: The stage.
        case: The case's name.
        isolated: Fed with golden input; the worse of stream and non-stream.
        chained: What the chained runs add.
        follows: Of one that inherits, the stage whose output it got.
        unexplained: Of one that is unexplained, the difference and the run it was seen in.
        streamed_only: Of one that is unexplained, that it was so only in the run with a stream.
        received: Of a client that is unexplained, that it is so of what it makes of the server's answer.
        erred: What code of ours raised in a chained run; what raised in the isolated one is that comparison's.
    """

    stage: Stage
    case: str
    isolated: Comparison
    chained: Chained = Chained.NOT_SEEN
    follows: Stage | None = None
    unexplained: tuple[Run, Difference] | None = None
    streamed_only: bool = False
    received: bool = False
    erred: OwnError | None = None

    @property
    def own_error(self) -> OwnError | None:
        """What code of ours raised while the stage was looked at."""
        return self.isolated.error or self.erred


Evidence = Literal["isolated", "received", "stream", "state", "nondeterminism", "nodes", "file"]


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
            file that is not the golden's, and shows in no output).
        location: Of an engine's wrong numbers, where in the network the first one is; of an artifact, what shows that
            the file is wrong and not the part.
        hints: Known defects that give exactly this.
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


# One case


class Judge:
    """Holds traces against goldens.

    Args:
        policies: The declared policies, `(stage, rule)` with their reasons.
        floor: The noise floor of the stack's configuration, or None.
    """

    def __init__(self, policies: Mapping[tuple[Stage, str], str], floor: Floor | None) -> None:
        self._policies = policies
        self.floor = floor

    def case(self, golden: Golden, trace: Trace) -> tuple[StageResult, ...]:
        """Return the result of every stage that the golden has something to say of."""
        results = {}
        for stage in Stage:
            if golden.value(stage) is None:
                continue
            isolated = self.isolated(stage, golden, trace)
            results[stage] = StageResult(stage=stage, case=golden.case.name, isolated=isolated)
        for run in trace.runs:
            if run.chained:
                self._chained(golden, trace, run, results)
        return tuple(results.values())

    def isolated(self, stage: Stage, golden: Golden, trace: Trace) -> Comparison:
        """Compare a stage's isolated outputs; of stream and non-stream the worse counts."""
        seen = [self.compare(stage, golden, trace.output(Run.ISOLATED, stage))]
        if stage is Stage.POSTPROCESS and Run.ISOLATED_STREAM in trace.runs:
            streamed = golden.model_copy(update={"reply": golden.streamed or golden.reply})
            seen.append(self.compare(stage, streamed, trace.output(Run.ISOLATED_STREAM, stage)))
        return min(seen, key=lambda comparison: WORST.index(comparison.outcome))

    def compare(self, stage: Stage, golden: Golden, observed: object) -> Comparison:
        """Compare one stage's output with its golden, and say of which parts a difference consists.

        A comparison that raises is an error of ours.
        """
        try:
            comparison = self._compared(stage, golden, observed)
            return with_parts(comparison, golden.value(stage), observed, golden.request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it speaks against nobody
            return errored(own_error(error))

    def _compared(self, stage: Stage, golden: Golden, observed: object) -> Comparison:
        expected = golden.value(stage)
        if stage is Stage.CLIENT:
            return client.compare(expected, observed)  # type: ignore[arg-type]
        policies = {rule: reason for (at, rule), reason in self._policies.items() if at is stage}
        if stage is Stage.TEMPLATE:
            return template.compare(expected, observed, policies)  # type: ignore[arg-type]
        if stage is Stage.TOKENIZATION:
            return tokenization.compare(expected, observed, policies)  # type: ignore[arg-type]
        if stage is Stage.INFERENCE:
            return inference.compare(expected, observed, golden.request.settings, self.floor)  # type: ignore[arg-type]
        return postprocess.compare(expected, observed, policies)  # type: ignore[arg-type]

    def _chained(self, golden: Golden, trace: Trace, run: Run, results: dict[Stage, StageResult]) -> None:
        """Walk one chained run; once a stage's output is not the golden's, the stages after it inherit."""
        broke = trace.runs[run].broke
        if broke is not None:
            self._broken(golden, broke, run, results)
            return
        source: Stage | None = None
        for stage, result in list(results.items()):
            if source is not None:
                results[stage] = result.model_copy(
                    update={"chained": _worse(result, Chained.INHERITS), "follows": source}
                )
                continue
            comparison, follows = self._chained_stage(stage, golden, trace, run)
            if comparison.error is not None:
                # What got its output was fed nobody knows what.
                results[stage] = result.model_copy(update={"erred": comparison.error})
                return
            if comparison.outcome is Outcome.UNOBSERVED:
                if _same_ids(golden, trace.output(run, stage)):
                    # Not its numbers, but its ids are the golden's: what comes next got golden input.
                    continue
                return
            update: dict[str, object] = {"chained": _worse(result, Chained.CONSISTENT)}
            if stage is Stage.POSTPROCESS and comparison.outcome.bad and self._answered_right(golden, trace, run):
                assert comparison.difference is not None
                found = _unexplained(results[Stage.CLIENT], run, comparison.difference)
                results[Stage.CLIENT] = results[Stage.CLIENT].model_copy(update={**found, "received": True})
            elif comparison.outcome.bad and not result.isolated.outcome.bad:
                assert comparison.difference is not None
                update = _unexplained(result, run, comparison.difference)
            results[stage] = result.model_copy(update=update)
            if comparison.outcome.bad or not follows:
                source = stage

    def _broken(
        self, golden: Golden, broke: Failure | Refusal | OwnError, run: Run, results: dict[Stage, StageResult]
    ) -> None:
        """The chained call as a whole ended: explained where a stage fails alone, else the last one has to answer."""
        last = Stage.INFERENCE if Stage.INFERENCE in results else list(results)[-1]
        if isinstance(broke, OwnError):
            results[last] = results[last].model_copy(update={"erred": broke})
            return
        difference = compare_endings(golden.value(last), broke)
        assert difference is not None
        if any(result.isolated.outcome.bad for result in results.values()) or difference.difference is None:
            return
        update = _unexplained(results[last], run, difference.difference)
        results[last] = results[last].model_copy(update=update)

    def _chained_stage(self, stage: Stage, golden: Golden, trace: Trace, run: Run) -> tuple[Comparison, bool]:
        """Return how a stage of a chained run compares, and whether what it hands on is the golden's."""
        observed = trace.output(run, stage)
        if stage is Stage.POSTPROCESS:
            return self._reply(golden, trace, run, observed), True
        comparison = self.compare(stage, golden, observed)
        if isinstance(observed, Prompt) and isinstance(golden.prompt, Prompt):
            return comparison, observed.text == golden.prompt.text
        if isinstance(observed, Tokens) and golden.tokens is not None:
            return comparison, observed.ids == golden.tokens.ids
        return comparison, True

    def _answered_right(self, golden: Golden, trace: Trace, run: Run) -> bool:
        """Return whether the server's own answer is known and not bad."""
        answered = trace.runs[run].answered
        if answered is None:
            return False
        outcome = self._reply(golden, trace, run, answered).outcome
        return outcome.seen and not outcome.bad

    def _reply(self, golden: Golden, trace: Trace, run: Run, observed: object) -> Comparison:
        if run in trace.replays:
            return self._against_replay(observed, trace.replays[run])
        return self.compare(Stage.POSTPROCESS, golden, observed)

    def _against_replay(self, observed: object, replay: object) -> Comparison:
        """The sampler left the golden's ids within the noise: the same ids must give the same reply again."""
        if isinstance(replay, OwnError):
            return errored(replay)
        if isinstance(replay, Failure):
            failed = compare_endings(None, replay)
            assert failed is not None
            return failed
        if not isinstance(replay, Reply):
            return unobserved("its own ids could not be replayed")
        expected = replay.model_copy(update={"withheld": 0})
        try:
            return postprocess.compare(expected, observed, {})  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - as in `compare`
            return errored(own_error(error))


def _unexplained(result: StageResult, run: Run, difference: Difference) -> dict[str, object]:
    streamed_only = run.streamed and result.chained is not Chained.UNEXPLAINED
    return {"chained": Chained.UNEXPLAINED, "unexplained": (run, difference), "streamed_only": streamed_only}


def _same_ids(golden: Golden, observed: object) -> bool:
    if not isinstance(observed, Generation) or not isinstance(golden.generation, Generation):
        return False
    return observed.ids == golden.generation.ids


def _worse(result: StageResult, seen: Chained) -> Chained:
    order = (Chained.UNEXPLAINED, Chained.INHERITS, Chained.CONSISTENT, Chained.NOT_SEEN)
    return min(result.chained, seen, key=order.index)


# All cases


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
    results, explained = _explained(_one_start(results), explain)
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
        status, line = "unjudged", f"could not judge: {', '.join(unseen)} unobserved"
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


def adding(verdict: Verdict, finding: Finding) -> Verdict:
    """Return a verdict with one more finding, of what no case's outputs show."""
    findings = (*verdict.findings, finding)
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
        said = (
            f"{first_error.error.describe()} [{first_error.stage}, {len(first_error.cases)} of {cases} {_cases(cases)}]"
        )
        if not findings:
            return f"an error of our own (nobody is convicted): {said}"
        return f"an error of our own: {said}; apart from it: {_line(findings, cases)}"
    first, *others = [stage for stage in Stage if any(finding.stage is stage for finding in findings)]
    main = _leading([finding for finding in findings if finding.stage is first])
    line = f"convicted: {first} ({main.kind}): {main.summary} [{len(main.cases)} of {cases} {_cases(cases)}]"
    return f"{line}; also convicted: {', '.join(others)}" if others else line


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
        rests = "rests on state that earlier calls left" if evidence == "state" else "varies from run to run"
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
    erred = [result.own_error for result in own if result.own_error is not None]
    if erred:
        why = f"an error of our own in {len(erred)} of {len(own)} {_cases(len(own))}: {erred[0].describe()}"
        return StageVerdict(status="error", outcomes=outcomes, why=why)
    if stage in convicted:
        mine = [finding for finding in findings if finding.stage is stage]
        return StageVerdict(
            status="convicted", outcomes=outcomes, why=f"{_root_causes(mine)}: {_leading(mine).summary}"
        )
    if not seen:
        reasons = sorted({result.isolated.rule for result in own}) or ["no case reaches it"]
        return StageVerdict(status="unobserved", outcomes=outcomes, why="; ".join(reasons))
    fed_by = sorted({r.follows for r in own if r.follows in convicted}, key=list(Stage).index)
    if fed_by:
        why = f"{_cleared(own, same)}; in the chain it gets what {', '.join(fed_by)} made"
        return StageVerdict(status="inherits", outcomes=outcomes, why=why)
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
    """Run an unexplained case again: where the difference stays it rests on state, where it goes it is chance.

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
