"""Small values to test with: a five-token vocabulary, one golden, observations that agree with it, and fake components.

The tokens are `<end>`, `Hi`, ` there`, `!` and `?`; the model answers "Hi there!".
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.checking.compare.inference import Floor
from harness.checking.compare.outcome import Comparison, Difference, Hunk, Outcome
from harness.checking.judge import Judge, StageResult
from harness.checking.running import RunningStack
from harness.checking.trace import FIELDS, Run, Trace
from harness.checking.verdict import Verdict, convict
from harness.project.golden import Golden
from harness.project.stack import Stack, Stages
from harness.stage import Stage
from harness.values import (
    Case,
    CaseOptions,
    Distributions,
    Failure,
    Generation,
    ModelRef,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Usage,
)

PIECES = ("<end>", "Hi", " there", "!", "?")
FLOOR = Floor(limit=0.01, mean=0.01, source="3 times the noise of made engines")
SETTINGS = {"temperature": 0, "max_tokens": 8}
CRASH = Failure(reason="crash", signal="SIGSEGV", log=("ggml: out of order",))


def row(best: int, second: int | None = None, gap: float = 4.0) -> list[float]:
    """Return logits whose likeliest token is `best`, followed by `second`, `gap` lower."""
    logits = [-8.0, -8.5, -9.0, -9.5, -10.0]
    if second is not None:
        logits[second] = -gap
    logits[best] = 0.0
    return logits


def distributions(*rows: Sequence[float]) -> Distributions:
    """Return the full distributions of rows of logits."""
    return Distributions.from_logits(np.array(rows, dtype=np.float32))


LOGITS = (row(1, 4), row(2, 3), row(3, 4), row(0, 1))
HEALTHY = distributions(*LOGITS)
"""One object for all, as arrays that are not the same object have no truth value when values are compared."""


def generation(**changes: Any) -> Generation:
    """Return what the healthy engine gives back for the golden's ids."""
    made: dict[str, Any] = {
        "ids": (1, 2, 3, 0),
        "chosen": (1, 2, 3, 0),
        "finish": "end_token",
        "distributions": HEALTHY,
    }
    return Generation(**{**made, **changes})


def golden(name: str = "greeting", **changes: Any) -> Golden:
    """Return a golden; keywords replace its values. Where a stage refuses, the stages after it have none."""
    messages = ({"role": "user", "content": "Say hi."},)
    body = {"messages": list(messages), **SETTINGS}
    made: dict[str, Any] = {
        "case": Case(name=name, description="Asks for a greeting.", covers=("tests",), body=body),
        "model": "tiny",
        "request": Request(messages=messages, settings=SETTINGS),
        "prompt": Prompt(text="<user>Say hi.\n<bot>", suffix="<bot>"),
        "tokens": Tokens(ids=(4, 1, 3), pieces=("?", "Hi", "!")),
        "generation": generation(distributions=distributions(*LOGITS).top()),
        "reply": Reply(
            content="Hi there!", finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=3), withheld=0
        ),
    }
    made.update(changes)
    later = ("prompt", "tokens", "generation", "reply")
    for at, field in enumerate(later):
        if isinstance(made[field], Refusal):
            made.update(dict.fromkeys(later[at + 1 :]))
            break
    return Golden(**made)


def streamed(reply: Reply) -> Reply:
    """Return a reply as a healthy stream gives it."""
    deltas = ({"role": "assistant"}, {"content": reply.content}, {})
    return reply.model_copy(update={"usage": None, "deltas": deltas, "policies": {}, "withheld": 0})


def observed(expected: Golden, **changes: Any) -> Observation:
    """Return an observation in which every stage did as the golden says; keywords replace single outputs."""
    right: dict[str, Any] = {FIELDS[stage]: expected.value(stage) for stage in Stage}
    if isinstance(expected.generation, Generation):
        settings = {**expected.request.settings, "top_k": 40}
        right["generation"] = expected.generation.model_copy(update={"distributions": HEALTHY, "settings": settings})
    if isinstance(expected.reply, Reply):
        right["reply"] = expected.reply.model_copy(update={"policies": {}, "withheld": 0})
    return Observation(**{**right, **changes})


def trace(expected: Golden, runs: Mapping[Run, Observation] | None = None, **more: Any) -> Trace:
    """Return a trace in which everything is right but for the runs given."""
    reply = expected.reply
    stream = streamed(reply) if isinstance(reply, Reply) else None
    made = {
        Run.ISOLATED: observed(expected),
        Run.ISOLATED_STREAM: Observation(reply=stream),
        Run.CHAINED: observed(expected),
        Run.CHAINED_STREAM: observed(expected, reply=stream),
    }
    return Trace(stack="made", model="tiny", case=expected.case.name, runs={**made, **(runs or {})}, **more)


def chained(observation: Observation) -> dict[Run, Observation]:
    """Return the same chained run, streamed and not."""
    return {Run.CHAINED: observation, Run.CHAINED_STREAM: observation}


def never_explained(result: StageResult) -> Any:
    """Stand in for the explanation of what shows only in the chain, where none may be asked for."""
    raise AssertionError(f"{result.stage} of {result.case} is unexplained: {result.unexplained}")


def verdict(
    *pairs: tuple[Golden, Trace],
    policies: Mapping[tuple[Stage, str], str] | None = None,
    floor: Floor | None = FLOOR,
    explain: Callable[[StageResult], Any] = never_explained,
) -> Verdict:
    """Judge traces and convict."""
    judge = Judge(policies or {}, floor)
    results = [result for expected, found in pairs for result in judge.case(expected, found)]
    return convict("made", "tiny", results, explain)


def result(stage: Stage, case: str = "greeting", **changes: Any) -> StageResult:
    """Return a stage's result, `equal` unless told otherwise."""
    return StageResult(**{"stage": stage, "case": case, "isolated": Comparison(outcome=Outcome.EQUAL), **changes})


def difference(summary: str = "it differs", *places: Hunk, cause: str = "it", **changes: Any) -> Difference:
    """Return a difference with one cause."""
    return Difference(**{"summary": summary, "hunks": places, "causes": (cause,), **changes})


# Fake components


class Part:
    """A component that answers what it is told to, and remembers what it was given.

    Args:
        answers: By stage, the value to return, the exception to raise, or a function of what is received.
    """

    name = "part"
    stages = frozenset(Stage)
    requires = ("", "")

    def __init__(self, answers: Mapping[Stage, Any]) -> None:
        self.answers = dict(answers)
        self.received: list[tuple[Stage, tuple[Any, ...]]] = []

    def answer(self, stage: Stage, *given: Any) -> Any:
        self.received.append((stage, given))
        found = self.answers[stage]
        if callable(found):
            found = found(*given)
        if isinstance(found, Exception):
            raise found
        return found

    def given(self, stage: Stage) -> list[tuple[Any, ...]]:
        """Return what a stage received, call by call."""
        return [given for at, given in self.received if at is stage]


class Front(Part):
    """Performs the stages before inference."""

    def request(self, case: Case) -> Request:
        return self.answer(Stage.CLIENT, case)

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        return self.answer(Stage.TEMPLATE, request, options)

    def tokenize(self, prompt: Prompt) -> Tokens:
        return self.answer(Stage.TOKENIZATION, prompt)


class Back(Part):
    """Performs inference and what follows it."""

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        return self.answer(Stage.INFERENCE, tokens, request, forced)

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        return self.answer(Stage.POSTPROCESS, generation, tokens, request, stream)


class Whole(Front, Back):
    """Performs all five stages, one at a time."""


class Route(Whole):
    """Performs all five stages, and the whole path in one call.

    Args:
        answers: As of every part.
        route: The observation to return of the whole path, the exception to raise, or a function of case and stream.
    """

    def __init__(self, answers: Mapping[Stage, Any], route: Any) -> None:
        super().__init__(answers)
        self.route = route
        self.chats: list[tuple[Case, bool]] = []

    def chat(self, case: Case, *, stream: bool) -> Observation:
        self.chats.append((case, stream))
        found = self.route(case, stream) if callable(self.route) else self.route
        if isinstance(found, Exception):
            raise found
        return found


def answers(expected: Golden) -> dict[Stage, Any]:
    """Return what a healthy part answers; its reply is streamed where a stream is asked for."""
    right = observed(expected)

    def reply(generation: Generation, tokens: Tokens, request: Request, stream: bool) -> Any:
        return streamed(right.reply) if stream else right.reply

    return {**{stage: getattr(right, FIELDS[stage]) for stage in Stage}, Stage.POSTPROCESS: reply}


def running(*parts: Part) -> RunningStack:
    """Return a running stack of one part that does everything, or of a front and a back."""
    named = {f"part-{i}": part for i, part in enumerate(parts)}
    front, back = next(iter(named)), list(named)[-1]
    stack = Stack(
        name="made",
        description="A stack of fake parts.",
        models=("tiny",),
        stages=Stages(client=front, template=front, tokenization=front, inference=back, postprocess=back),
    )
    model = ModelRef(name="tiny", path=Path("tiny.gguf"), sha256="0" * 64)
    route = parts[0] if len(parts) == 1 and isinstance(parts[0], Route) else None
    return RunningStack(stack=stack, model=model, parts=named, chat_route=route)
