"""The diff: two stacks that should agree, held against each other, and the stage that makes the difference.

What the first stack made of a case, from end to end, is taken for the golden of the second: each stage of the second is
fed with what the first one's stage before it produced, which is that stage swapped into the first stack. A stage that
gives something else on the same input makes the difference. The other direction is the proof: the first stack's stage
swapped into the second must make the two equal.

An engine is asked for the same ids once: of a swap, the stages before inference are run, and where they feed the ids
that were fed before, what the engine makes of them is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from harness.checking.compare.inference import Floor
from harness.checking.compare.outcome import WORST, Comparison, Outcome
from harness.checking.judge import Judge, StageResult
from harness.checking.noise import floor_of
from harness.checking.opened import Progress, identities
from harness.checking.own import OwnSeenError
from harness.checking.running import RunningStack, open_stack
from harness.checking.swap import swapped
from harness.checking.trace import FIELDS, Run, Trace, Tracer
from harness.checking.verdict import Finding, Verdict, convict, explain_by_rerun
from harness.errors import UserError
from harness.project.cases import cases_for
from harness.project.golden import Golden, GoldenError, load_golden, load_provenance
from harness.project.project import Project
from harness.project.stack import Stack, resolve_model
from harness.stage import Stage
from harness.values import (
    Case,
    Failure,
    Generation,
    ModelRef,
    Observation,
    OwnError,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Unobserved,
    Value,
)

_BEFORE_INFERENCE = (Stage.CLIENT, Stage.TEMPLATE, Stage.TOKENIZATION)


class Swap(Value):
    """What swapping stages of the first stack into the second does.

    Attributes:
        stages: The stages; several only where the stacks differ at several in one case.
        differ: The cases in which the two stacks differ at these stages.
        equal: Those of them in which the second stack, with only these stages swapped, is equal to the first.
    """

    stages: tuple[Stage, ...]
    differ: tuple[str, ...]
    equal: tuple[str, ...]


class Sides(Value):
    """What the golden says of both stacks at a finding's example.

    Attributes:
        a: How the first stack's output compares with it.
        b: How the second's does.
    """

    a: Comparison
    b: Comparison

    def describe(self, a: str, b: str) -> str:
        """Return one line for a human."""
        return f"the reference: {a} {_said(self.a)}, {b} {_said(self.b)}"


class Diff(Value):
    """What is said of two stacks.

    Attributes:
        a: The first stack's name.
        b: The second's.
        model: The model's name.
        status: `same`, `different`, `unjudged` where nothing differs but a stage could not be compared, or `error`
            where code of ours raised.
        line: The diff in one line.
        verdict: The second stack held against the first, stage by stage.
        swaps: The swaps, of the stages that differ.
        sides: What the golden says, one entry a finding; None where there is no golden to ask.
    """

    a: str
    b: str
    model: str
    status: Literal["same", "different", "unjudged", "error"]
    line: str
    verdict: Verdict
    swaps: tuple[Swap, ...]
    sides: tuple[Sides | None, ...] = Field(default=())


@dataclass(frozen=True)
class Compared:
    """A diff with what it rests on.

    Attributes:
        diff: The diff.
        expected: What the first stack made of each case.
        traces: What the second did.
        descriptions: What each case is about.
        limit: The largest divergence that is noise, in nats; None where none was measured.
        parts: What ran, by name.
        seconds: Time spent in inference, the chained runs included.
    """

    diff: Diff
    expected: Mapping[str, Golden]
    traces: Mapping[str, Trace]
    descriptions: Mapping[str, str]
    limit: float | None
    parts: Mapping[str, str]
    seconds: float


def diff(
    project: Project,
    a: Stack,
    b: Stack,
    cases: Sequence[str] = (),
    models: Sequence[str] = (),
    other_model: str | None = None,
    progress: Progress = lambda *_: None,
) -> Iterator[Compared]:
    """Hold two stacks against each other; one diff a model.

    Args:
        project: Where stacks, cases and goldens are.
        a: The first stack.
        b: The second.
        cases: Names; empty means all.
        models: Names; empty means all that both stacks name.
        other_model: A model for the second stack that is not the first one's.
        progress: Told of every case.

    Raises:
        UserError: something named does not exist or is broken, or the stacks share no model.
    """
    for name in models or _shared(a, b, other_model):
        model = resolve_model(project, name)
        other = model if other_model is None else resolve_model(project, other_model)
        asked = cases_for(project, name, cases)
        if asked:
            with open_stack(a, model) as first, open_stack(b, other, held_against=model) as second:
                yield Pair(project, first, second).run(asked, progress)


def _shared(a: Stack, b: Stack, other_model: str | None) -> tuple[str, ...]:
    shared = tuple(name for name in a.models if other_model is not None or name in b.models)
    if not shared:
        raise UserError(
            f"the stacks {a.name!r} and {b.name!r} share no model ({', '.join(a.models)}; {', '.join(b.models)}), and "
            "of different models different answers say nothing about the stacks",
            "name one for each if that is what you want: --model and --other-model",
        )
    return shared[:1] if other_model is not None else shared


class Pair:
    """Two open stacks around one model.

    Args:
        project: Where the goldens are.
        a: The first stack.
        b: The second.
    """

    def __init__(self, project: Project, a: RunningStack, b: RunningStack) -> None:
        self._project = project
        self._a, self._b = a, b
        self._floor = _joint(floor_of(project, a), floor_of(project, b))
        self._judge = Judge({}, self._floor)
        self._clock = _clock(a, b)
        self._seconds = 0.0

    def run(self, cases: Sequence[Case], progress: Progress = lambda *_: None) -> Compared:
        """Hold the stacks against each other in these cases."""
        expected: dict[str, Golden] = {}
        traces: dict[str, Trace] = {}
        results: list[StageResult] = []
        left_out: list[str] = []
        for done, case in enumerate(cases):
            progress(
                f"{self._a.stack.name} and {self._b.stack.name} {self._a.model.name} {case.name}", done, len(cases)
            )
            golden = self._first(self._at_one_time(case))
            if isinstance(golden, str):
                left_out.append(f"{case.name}: {golden}")
                continue
            trace = self._second(golden)
            expected[case.name], traces[case.name] = golden, trace
            results.extend(self._judge.case(golden, trace))
        if not results:
            raise UserError(f"no case can be compared: {'; '.join(left_out)}")
        verdict = convict(
            self._b.stack.name,
            self._b.model.name,
            results,
            lambda result: explain_by_rerun(
                self._judge,
                expected[result.case],
                result,
                lambda golden, run: Tracer(self._b).trace(golden, (run,)),
            ),
            same="same in, same out",
        )
        notes = (*(f"not compared: {one}" for one in left_out), *verdict.notes)
        verdict = verdict.model_copy(update={"notes": notes})
        swaps = self._swaps(verdict, expected)
        sides = tuple(self._sides(finding, expected, traces) for finding in verdict.findings)
        return Compared(
            diff=Diff(
                a=self._a.stack.name,
                b=self._b.stack.name,
                model=self._a.model.name,
                status=_STATUS[verdict.status],
                line=_line(self._a.stack.name, self._b.stack.name, verdict, swaps),
                verdict=verdict,
                swaps=swaps,
                sides=sides,
            ),
            expected=expected,
            traces=traces,
            descriptions={case.name: case.description for case in cases},
            limit=None if self._floor is None else self._floor.limit,
            parts={
                **{f"{self._a.stack.name}: {part}": said for part, said in identities(self._a).items()},
                **{f"{self._b.stack.name}: {part}": said for part, said in identities(self._b).items()},
            },
            seconds=self._seconds,
        )

    def _at_one_time(self, case: Case) -> Case:
        """Return the case at one clock for both stacks: the machine's where one of them can have no other."""
        if self._clock is None:
            return case
        return case.model_copy(update={"options": case.options.model_copy(update={"clock": self._clock})})

    def _first(self, case: Case) -> Golden | str:
        """Return what the first stack makes of a case, as a golden; or why it cannot be asked.

        Raises:
            OwnSeenError: code of ours raised.
        """
        tracer = Tracer(self._a)
        seen = tracer.chained(case, stream=False)
        for erred in seen.own_errors:
            raise OwnSeenError(erred)
        golden = _golden(case, self._a.model, seen)
        if golden is None:
            return _why(self._a.stack.name, seen)
        for stage in Stage:
            if golden.value(stage) is None or _without_numbers(golden.value(stage)):
                # The whole call does not show this stage; asked alone, the part may.
                golden = _with(golden, stage, _seen(tracer.stage(stage, golden)))
        self._seconds += tracer.seconds.get(Stage.INFERENCE, 0.0)
        if golden.reply is not None:
            streamed = _seen(tracer.stage(Stage.POSTPROCESS, golden, Run.ISOLATED_STREAM))
            golden = golden.model_copy(update={"streamed": streamed if isinstance(streamed, Reply) else None})
        return golden

    def _second(self, golden: Golden) -> Trace:
        trace = Tracer(self._b).trace(golden)
        self._seconds += trace.seconds.get(Stage.INFERENCE, 0.0)
        return trace

    def _swaps(self, verdict: Verdict, expected: Mapping[str, Golden]) -> tuple[Swap, ...]:
        differing: dict[str, tuple[Stage, ...]] = {}
        for result in verdict.results:
            if result.isolated.outcome.bad:
                differing[result.case] = (*differing.get(result.case, ()), result.stage)
        single = [(stage,) for stage in Stage if any(stage in stages for stages in differing.values())]
        several = sorted({stages for stages in differing.values() if len(stages) > 1})
        swaps = []
        for stages in (*single, *several):
            exact = len(stages) > 1
            differ = tuple(c for c, own in differing.items() if (own == stages if exact else stages[0] in own))
            tracer = Tracer(swapped(self._b, self._a, stages))
            left = {case: set(differing[case]) - set(stages) for case in differ}
            equal = tuple(case for case in differ if self._equal(tracer, expected[case], left[case]))
            swaps.append(Swap(stages=stages, differ=differ, equal=equal))
        return tuple(swaps)

    def _equal(self, tracer: Tracer, golden: Golden, left: set[Stage]) -> bool:
        """Return whether the second stack with some stages of the first is equal to the first in a case.

        Args:
            tracer: Of the second stack with these stages swapped.
            golden: What the first stack made of the case.
            left: The stages that differ and are not swapped.
        """
        if left - set(_BEFORE_INFERENCE):
            return False
        found = tracer.dry(golden.case)
        for early in _BEFORE_INFERENCE:
            if golden.value(early) is None:
                break
            comparison = self._judge.compare(early, golden, getattr(found, FIELDS[early]))
            _seen(comparison.error)
            if comparison.outcome.bad or comparison.outcome is Outcome.UNOBSERVED:
                return False
        return True

    def _sides(self, finding: Finding, expected: Mapping[str, Golden], traces: Mapping[str, Trace]) -> Sides | None:
        """Ask the golden about a finding's example, where both stacks were asked what the golden was."""
        case, stage = finding.example, finding.stage
        asked = expected[case]
        try:
            provenance = load_provenance(self._project, self._a.model)
            stored = cases_for(self._project, self._a.model.name, (case,))
            golden = load_golden(self._project, self._a.model, stored[0], provenance)
        except (GoldenError, IndexError):
            return None
        if not _same_input(stage, golden, asked):
            return None
        runs = (Run.ISOLATED, Run.ISOLATED_STREAM) if stage is Stage.POSTPROCESS else (Run.ISOLATED,)
        theirs = [traces[case].output(run, stage) for run in runs]
        ours = [asked.value(stage), asked.streamed][: len(theirs)]
        found = []
        for running, outputs in ((self._a, ours), (self._b, theirs)):
            policies = {(policy.stage, policy.rule): policy.reason for policy in running.stack.policies}
            judge = Judge(policies, self._floor)
            compared = [judge.compare(stage, golden, _dated(output, asked)) for output in outputs]
            found.append(min(compared, key=lambda comparison: WORST.index(comparison.outcome)))
        return Sides(a=found[0], b=found[1])


_ASKED = frozenset({"chat_template_kwargs"})
_STATUS: Mapping[str, Literal["same", "different", "unjudged", "error"]] = {
    "convicted": "different",
    "clean": "same",
    "unjudged": "unjudged",
    "error": "error",
}


def _golden(case: Case, model: ModelRef, seen: Observation) -> Golden | None:
    """Return what a chained run shows as a golden, with None for what it does not show; None without a request."""
    values: dict[str, Any] = {}
    for field in FIELDS.values():
        value = getattr(seen, field)
        if not isinstance(value, Request | Prompt | Tokens | Generation | Reply | Refusal):
            break
        values[field] = value
        if isinstance(value, Refusal):
            break
    request = values.pop("request", None)
    if not isinstance(request, Request):
        return None
    asked = {name: value for name, value in request.settings.items() if name in _ASKED or name in case.body}
    golden = Golden(case=case, model=model.name, request=request.model_copy(update={"settings": asked}), prompt=None)
    for stage in Stage:
        golden = _with(golden, stage, values.get(FIELDS[stage]))
    return golden


def _seen(value: Any) -> Any:
    """Return what a stage made. Of an error of ours nothing can be made a golden, and nothing proven.

    Raises:
        OwnSeenError: it is one.
    """
    if isinstance(value, OwnError):
        raise OwnSeenError(value)
    return value


def _why(stack: str, seen: Observation) -> str:
    """Return why a case does not leave a stack's client."""
    ended = seen.request or seen.broke
    if isinstance(ended, Unobserved):
        return ended.reason
    if isinstance(ended, Refusal):
        return f"the client of {stack} refuses it ({ended.error}: {ended.message})"
    return f"the client of {stack} {ended.describe()}" if isinstance(ended, Failure) else f"{stack} shows nothing of it"


def _with(golden: Golden, stage: Stage, value: Any) -> Golden:
    """Return a golden with a stage's value, if it is one."""
    if isinstance(value, Generation) and value.distributions is not None:
        value = value.model_copy(update={"distributions": value.distributions.top()})
    fits = isinstance(value, Prompt | Tokens | Generation | Reply | Refusal)
    return golden.model_copy(update={FIELDS[stage]: value}) if fits else golden


def _without_numbers(value: Any) -> bool:
    return isinstance(value, Generation) and (value.distributions is None or len(value.distributions) < len(value.ids))


def _same_input(stage: Stage, golden: Golden, asked: Golden) -> bool:
    """Return whether a stage was given, in the first stack, what the golden of the stage before it says."""
    if stage is Stage.CLIENT:
        return True
    if stage is Stage.TEMPLATE:
        return golden.request.messages == asked.request.messages and golden.request.tools == asked.request.tools
    if stage is Stage.TOKENIZATION:
        return golden.prompt == asked.prompt or _texts(golden) == _texts(asked)
    if golden.tokens is None or asked.tokens is None or golden.tokens.ids != asked.tokens.ids:
        return False
    if stage is Stage.INFERENCE:
        return True
    one, other = golden.generation, asked.generation
    return isinstance(one, Generation) and isinstance(other, Generation) and one.ids == other.ids


def _texts(golden: Golden) -> str | None:
    return golden.prompt.text if isinstance(golden.prompt, Prompt) else None


def _dated(output: Any, asked: Golden) -> Any:
    """Return an output with the clock that its prompt was rendered at, so that it can be held against the golden's."""
    return output.model_copy(update={"clock": asked.case.options.clock}) if isinstance(output, Prompt) else output


def _clock(a: RunningStack, b: RunningStack) -> datetime | None:
    parts = (*a.parts.values(), *b.parts.values())
    own = any(getattr(part, "own_clock", False) for part in parts)
    return datetime.now().replace(microsecond=0) if own else None


def _joint(one: Floor | None, other: Floor | None) -> Floor | None:
    """Two healthy engines may be off the reference to different sides."""
    if one is None or other is None:
        return None
    return Floor(limit=one.limit + other.limit, mean=one.mean + other.mean, source=f"{one.source}, and {other.source}")


def _line(a: str, b: str, verdict: Verdict, swaps: Sequence[Swap]) -> str:
    cases = len({result.case for result in verdict.results})
    if verdict.status == "error":
        return verdict.line
    if verdict.status == "clean":
        compared = sum(result.isolated.outcome.seen for result in verdict.results)
        return f"{a} and {b} agree: five stages, {compared} comparisons in {cases} case{'s' if cases > 1 else ''}"
    if verdict.status == "unjudged":
        unseen = ", ".join(stage for stage, said in verdict.stages.items() if said.status == "unobserved")
        return f"no difference seen between {a} and {b}, but {unseen} could not be compared"
    stages = list(dict.fromkeys(finding.stage for finding in verdict.findings))
    first = max((f for f in verdict.findings if f.stage is stages[0]), key=lambda finding: len(finding.cases))
    text = f"{a} and {b} differ in {stages[0]}: {b}: {first.summary}"
    swap = next((swap for swap in swaps if swap.stages == (stages[0],)), None)
    if swap is not None:
        such = "cases that differ" if len(swap.differ) > 1 else "case that differs"
        text += (
            f"; swapping only {a}'s {stages[0]} into {b} makes them equal in {len(swap.equal)} of {len(swap.differ)} "
            f"{such} there ({cases} in all)"
        )
    return text + (f"; they also differ in {', '.join(stages[1:])}" if stages[1:] else "")


def _said(comparison: Comparison) -> str:
    if comparison.outcome is Outcome.EQUAL:
        return "is equal to it"
    if comparison.outcome is Outcome.EQUIVALENT:
        return f"is, by its declared policy {comparison.policy}" if comparison.policy else "is equivalent to it"
    if not comparison.outcome.seen:
        return f"is unobserved ({comparison.rule})"
    return "is not" if comparison.outcome is Outcome.DIVERGED else "fails"
