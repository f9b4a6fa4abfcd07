"""A trace: what every stage of one stack received and produced for one case. Run it, save it, load it, compare it.

A case runs four times. *isolated* feeds every stage the golden output of the stage before it, *isolated-stream* does so
for the postprocess stage's stream; *chained* and *chained-stream* are the stack's own path from end to end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from harness.checking.own import own_error
from harness.checking.running import RunningStack
from harness.errors import UserError
from harness.project.files import remove_file, write_file
from harness.project.golden import Golden, decode_distributions, encode_distributions
from harness.stage import ChatRoute, Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    Ending,
    Failure,
    Generation,
    Observation,
    OwnError,
    Prompt,
    Refusal,
    Reply,
    Tokens,
    Value,
)

Output = TypeVar("Output", bound=Value)


class Run(StrEnum):
    """How a case was run."""

    ISOLATED = "isolated"
    ISOLATED_STREAM = "isolated-stream"
    CHAINED = "chained"
    CHAINED_STREAM = "chained-stream"

    @property
    def streamed(self) -> bool:
        """Whether the reply was asked for as a stream."""
        return self in (Run.ISOLATED_STREAM, Run.CHAINED_STREAM)

    @property
    def chained(self) -> bool:
        """Whether each stage got what its own stack produced before it."""
        return self in (Run.CHAINED, Run.CHAINED_STREAM)


_ORDER = (Run.CHAINED, Run.ISOLATED, Run.ISOLATED_STREAM, Run.CHAINED_STREAM)
"""The chained run comes first, so that the part meets a new prompt with what the case before it has left in its cache;
the streamed one last, where it finds its own prompt there."""

FIELDS: Mapping[Stage, str] = {
    Stage.CLIENT: "request",
    Stage.TEMPLATE: "prompt",
    Stage.TOKENIZATION: "tokens",
    Stage.INFERENCE: "generation",
    Stage.POSTPROCESS: "reply",
}
"""The field of an observation that holds a stage's output."""


class Trace(Value):
    """What a stack did with one case.

    Attributes:
        stack: The stack's name.
        model: The model's name.
        case: The case's name.
        runs: What was observed, by run.
        replays: By chained run, what the stack's own postprocess stage makes, isolated, of the ids that this run
            generated; only where they are not the golden's.
        seconds: Time spent by stage, over all runs; the chained runs count as inference, which they almost wholly are.
    """

    stack: str
    model: str
    case: str
    runs: dict[Run, Observation] = Field(default_factory=dict)
    replays: dict[Run, Reply | Ending] = Field(default_factory=dict)
    seconds: dict[Stage, float] = Field(default_factory=dict)

    def output(self, run: Run, stage: Stage) -> Any:
        """Return what a stage produced in a run; None where it was not reached."""
        return getattr(self.runs[run], FIELDS[stage]) if run in self.runs else None


class Tracer:
    """Runs cases on one open stack and times the stages.

    Args:
        running: The stack.
    """

    def __init__(self, running: RunningStack) -> None:
        self._running = running
        self._seconds: dict[Stage, float] = {}

    @property
    def seconds(self) -> Mapping[Stage, float]:
        """Time spent by stage since the last trace began."""
        return self._seconds

    def trace(
        self, golden: Golden, runs: Iterable[Run] = tuple(Run), stages: Collection[Stage] = tuple(Stage)
    ) -> Trace:
        """Run a case and return what was observed.

        Args:
            golden: The case's golden.
            runs: How it is run.
            stages: Those that are run isolated; of the others nothing is then seen.
        """
        self._seconds = {}
        wanted = tuple(runs)
        seen = {run: self._observe(run, golden, stages) for run in sorted(wanted, key=_ORDER.index)}
        found = {run: seen[run] for run in wanted}
        return Trace(
            stack=self._running.stack.name,
            model=self._running.model.name,
            case=golden.case.name,
            runs=found,
            replays=self._replays(golden, found),
            seconds=self._seconds,
        )

    def dry(self, case: Case) -> Observation:
        """Run the stages before inference, each on what the stack itself produced; needs no golden."""
        return self._chain(case, (Stage.CLIENT, Stage.TEMPLATE, Stage.TOKENIZATION), stream=False)

    def chained(self, case: Case, *, stream: bool) -> Observation:
        """Run the stack's own path from end to end; needs no golden."""
        route = self._running.chat_route
        if route is not None:
            return self._chat(route, case, stream=stream)
        return self._chain(case, tuple(Stage), stream=stream)

    def stage(self, stage: Stage, golden: Golden, run: Run = Run.ISOLATED) -> Any:
        """Run one stage isolated and return its value or how it ended; None where there is nothing to feed it."""
        part = self._running.part(stage)
        if stage is Stage.CLIENT:
            return self._attempt(stage, lambda: part.request(golden.case))
        if stage is Stage.TEMPLATE:
            return self._attempt(stage, lambda: part.render(golden.request, golden.case.options))
        if not isinstance(golden.prompt, Prompt):
            return None
        prompt, tokens, generation = golden.prompt, golden.tokens, golden.generation
        if stage is Stage.TOKENIZATION:
            return self._attempt(stage, lambda: part.tokenize(prompt))
        if tokens is None or generation is None:
            return None
        if stage is Stage.INFERENCE:
            # Where a refusal is due any id will do: none should ever be asked for.
            forced = generation.ids if isinstance(generation, Generation) else (0,)
            return self._attempt(stage, lambda: part.generate(tokens, golden.request, forced))
        if not isinstance(generation, Generation):
            return None
        streamed = run.streamed
        return self._attempt(stage, lambda: part.reply(generation, tokens, golden.request, stream=streamed))

    def _observe(self, run: Run, golden: Golden, stages: Collection[Stage]) -> Observation:
        if run is Run.ISOLATED:
            return Observation(**{FIELDS[stage]: self.stage(stage, golden) for stage in Stage if stage in stages})
        if run is Run.ISOLATED_STREAM:
            return Observation(reply=self.stage(Stage.POSTPROCESS, golden, run))
        return self.chained(golden.case, stream=run.streamed)

    def _chat(self, whole: ChatRoute, case: Case, *, stream: bool) -> Observation:
        found = self._attempt(Stage.INFERENCE, lambda: whole.chat(case, stream=stream))
        if isinstance(found, Observation):
            return found
        if isinstance(found, Failure | Refusal | OwnError):
            return Observation(broke=found)
        return Observation(**dict.fromkeys(FIELDS.values(), found))

    def _chain(self, case: Case, stages: Iterable[Stage], *, stream: bool) -> Observation:
        """Run stage after stage, each on what came before, until one does not end with a value."""
        part = self._running.part
        found: dict[str, Any] = {}
        calls: dict[Stage, Callable[[], Value]] = {
            Stage.CLIENT: lambda: part(Stage.CLIENT).request(case),
            Stage.TEMPLATE: lambda: part(Stage.TEMPLATE).render(found["request"], case.options),
            Stage.TOKENIZATION: lambda: part(Stage.TOKENIZATION).tokenize(found["prompt"]),
            Stage.INFERENCE: lambda: part(Stage.INFERENCE).generate(found["tokens"], found["request"], None),
            Stage.POSTPROCESS: lambda: part(Stage.POSTPROCESS).reply(
                found["generation"], found["tokens"], found["request"], stream=stream
            ),
        }
        for stage in stages:
            found[FIELDS[stage]] = self._attempt(stage, calls[stage])
            if isinstance(found[FIELDS[stage]], Ending):
                break
        return Observation(**found)

    def _replays(self, golden: Golden, found: Mapping[Run, Observation]) -> dict[Run, Reply | Ending]:
        replays: dict[Run, Reply | Ending] = {}
        part = self._running.part(Stage.POSTPROCESS)
        for run, observation in found.items():
            generation, tokens = observation.generation, observation.tokens
            if not run.chained or not isinstance(generation, Generation) or not isinstance(tokens, Tokens):
                continue
            if isinstance(golden.generation, Generation) and generation.ids == golden.generation.ids:
                continue
            again = partial(part.reply, generation, tokens, golden.request, stream=run.streamed)
            replays[run] = self._attempt(Stage.POSTPROCESS, again)
        return replays

    def _attempt(self, stage: Stage, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return call()
        except StageRefusedError as refused:
            return refused.refusal
        except StageFailedError as failed:
            return failed.failure
        except StageUnobservedError as unobserved:
            return unobserved.unobserved
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever else is raised is ours, and ends this stage only
            return own_error(error)
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start


def save_trace(trace: Trace, folder: Path) -> None:
    """Save a trace as `<case>.json`, and the distributions of each run as `<case>.<run>.npz`.

    Raises:
        UserError: the folder cannot be written.
    """
    text = json.dumps(trace.model_dump(mode="json"), ensure_ascii=True, indent=2)
    write_file(folder / f"{trace.case}.json", text.encode("utf-8"))
    for run in Run:
        generation = trace.output(run, Stage.INFERENCE)
        if isinstance(generation, Generation) and generation.distributions is not None:
            write_file(folder / f"{trace.case}.{run}.npz", encode_distributions(generation.distributions))
        else:
            remove_file(folder / f"{trace.case}.{run}.npz")


def load_trace(folder: Path, case: str) -> Trace:
    """Load a trace that `save_trace` wrote.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / f"{case}.json"
    try:
        trace = Trace.model_validate_json(path.read_bytes())
        runs = dict(trace.runs)
        for run, observation in trace.runs.items():
            arrays = folder / f"{case}.{run}.npz"
            if isinstance(observation.generation, Generation) and arrays.is_file():
                distributions = decode_distributions(arrays.read_bytes())
                whole = observation.generation.model_copy(update={"distributions": distributions})
                runs[run] = observation.model_copy(update={"generation": whole})
    except (OSError, ValueError) as error:
        raise UserError(f"no trace of case {case!r} can be read from {folder}: {error}") from error
    return trace.model_copy(update={"runs": runs})
