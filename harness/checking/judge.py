"""One case: how each stage compares with the golden, on golden input and in the chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from harness.checking.compare import client, inference, postprocess, template, tokenization
from harness.checking.compare.count import by_count
from harness.checking.compare.inference import Floor
from harness.checking.compare.mechanism import with_parts
from harness.checking.compare.outcome import (
    WORST,
    Comparison,
    Difference,
    Outcome,
    compare_endings,
    errored,
    unobserved,
)
from harness.checking.own import own_error
from harness.checking.trace import Run, Trace
from harness.project.golden import Golden
from harness.stage import Stage
from harness.values import Failure, Generation, OwnError, Prompt, Refusal, Reply, Tokens, Unobserved, Value

Replying = Callable[[Golden, Generation], Golden | None]
"""Returns a golden with the reply to the ids that a stack has generated itself, or None where nothing can make it."""


_COMPUTED = (Stage.INFERENCE, Stage.POSTPROCESS)
_NOT_COMPUTED = "the reference does not compute this model, so no golden says what it answers"


def no_replies(golden: Golden, generation: Generation) -> Golden | None:  # noqa: ARG001 - as `Replying` is called
    """Return none."""
    return None


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
        by_own_ids: Whether the reply to the ids that the stack generated itself was right: of a part that cannot be
            given ids to make a reply of.
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
    by_own_ids: bool = False

    @property
    def own_error(self) -> OwnError | None:
        """What code of ours raised while the stage was looked at."""
        return self.isolated.error or self.erred


class Judge:
    """Holds traces against goldens.

    Args:
        policies: The declared policies, `(stage, rule)` with their reasons.
        floor: The noise floor of the stack's configuration, or None.
        context: Returns how many ids the engine's context takes, or None if that is not shown.
        replying: Returns a golden with the reply to other generated ids, or None where nothing can make it.
    """

    def __init__(
        self,
        policies: Mapping[tuple[Stage, str], str],
        floor: Floor | None,
        context: Callable[[], int | None] = lambda: None,
        replying: Replying = no_replies,
    ) -> None:
        self._policies = policies
        self.floor = floor
        self._context = context
        self._replying = replying

    def case(self, golden: Golden, trace: Trace) -> tuple[StageResult, ...]:
        """Return the result of every stage that the golden has something to say of."""
        results = {}
        for stage in Stage:
            if golden.value(stage) is None:
                if stage in _COMPUTED and golden.tokens is not None and golden.generation is None:
                    results[stage] = StageResult(stage=stage, case=golden.case.name, isolated=unobserved(_NOT_COMPUTED))
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
            outside = self._outside_context(golden, observed)
            if outside is not None:
                return outside
            return inference.compare(expected, observed, golden.request.settings, self.floor)  # type: ignore[arg-type]
        return postprocess.compare(expected, observed, policies)  # type: ignore[arg-type]

    def _outside_context(self, golden: Golden, observed: object) -> Comparison | None:
        ends = (golden.generation, observed)
        if golden.tokens is None or not any(isinstance(one, Refusal) and one.context for one in ends):
            return None
        covered = inference.BEYOND_CONTEXT in golden.case.covers
        ids = len(golden.tokens.ids)
        return inference.outside_context(golden.generation, observed, ids, self._context(), covered=covered)

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
                self._behind(stage, golden, trace, run, results)
                return
            update: dict[str, object] = self._consistent(result)
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

    def _behind(self, stage: Stage, golden: Golden, trace: Trace, run: Run, results: dict[Stage, StageResult]) -> None:
        """Judge what can be judged behind a stage that does not show what it made.

        Of a prompt its length may be known, and a reply can be held against the ids that were generated, whatever they
        were generated for.
        """
        reply = trace.output(run, Stage.POSTPROCESS)
        if not isinstance(reply, Reply):
            return
        if stage in (Stage.TEMPLATE, Stage.TOKENIZATION):
            count = None if reply.usage is None else reply.usage.prompt_tokens
            difference = by_count(golden.prompt, golden.tokens, count)
            if difference is not None and not results[stage].isolated.outcome.bad:
                results[stage] = results[stage].model_copy(update=_unexplained(results[stage], run, difference))
        if Stage.POSTPROCESS not in results:
            return
        due = self._due(golden, trace, run)
        if isinstance(due, OwnError):
            results[Stage.POSTPROCESS] = results[Stage.POSTPROCESS].model_copy(update={"erred": due})
            return
        if due is None or due.reply is None:
            return
        if reply.usage is not None and due.reply.usage is not None:
            # The prompt's length is not this stage's doing.
            usage = reply.usage.model_copy(update={"prompt_tokens": due.reply.usage.prompt_tokens})
            reply = reply.model_copy(update={"usage": usage})
        comparison = self.compare(Stage.POSTPROCESS, due, reply)
        result = results[Stage.POSTPROCESS]
        if comparison.error is not None:
            results[Stage.POSTPROCESS] = result.model_copy(update={"erred": comparison.error})
        elif comparison.outcome.bad and not result.isolated.outcome.bad:
            assert comparison.difference is not None
            results[Stage.POSTPROCESS] = result.model_copy(update=_unexplained(result, run, comparison.difference))
        elif comparison.outcome.seen:
            results[Stage.POSTPROCESS] = result.model_copy(update=self._consistent(result))

    def _consistent(self, result: StageResult) -> dict[str, object]:
        own = result.stage is Stage.POSTPROCESS and self._replying is not no_replies
        by_own_ids = own and result.isolated.outcome is Outcome.UNOBSERVED
        return {"chained": _worse(result, Chained.CONSISTENT), "by_own_ids": by_own_ids}

    def _due(self, golden: Golden, trace: Trace, run: Run) -> Golden | OwnError | None:
        """Return the golden with the reply that is due to the ids that a run generated itself."""
        own = trace.output(run, Stage.INFERENCE)
        if not isinstance(own, Generation):
            return None
        try:
            return self._replying(golden, own)
        except Exception as error:  # noqa: BLE001 - as in `compare`
            return own_error(error)

    def _broken(
        self, golden: Golden, broke: Failure | Refusal | OwnError, run: Run, results: dict[Stage, StageResult]
    ) -> None:
        """The chained call as a whole ended: explained where a stage fails alone, else the last one has to answer."""
        last = Stage.INFERENCE if Stage.INFERENCE in results else list(results)[-1]
        if isinstance(broke, OwnError):
            results[last] = results[last].model_copy(update={"erred": broke})
            return
        if self._outside_context(golden, broke) is not None:
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
        if run not in trace.replays:
            if golden.reply is None:
                return unobserved(_NOT_COMPUTED)
            return self.compare(Stage.POSTPROCESS, golden, observed)
        replay = trace.replays[run]
        if isinstance(replay, Unobserved) or golden.reply is None:
            # The stack cannot be given ids to make a reply of, so the reference makes the one that is due.
            due = self._due(golden, trace, run)
            if isinstance(due, OwnError):
                return errored(due)
            if due is not None:
                return self.compare(Stage.POSTPROCESS, due, observed)
        return self._against_replay(observed, replay)

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
