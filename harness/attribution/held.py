"""What an engine says at the positions of a golden's answer, and how far it is from what another one says there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from harness.checking.compare.inference import divergences
from harness.checking.running import open_stack
from harness.project.golden import Golden
from harness.project.project import Project
from harness.project.stack import load_stack
from harness.stage import Stage
from harness.values import Distributions, Generation, ModelRef, Request, Tokens, Value

POSITIONS = 10
"""Positions of an answer that are looked at, at most."""
FREE = 32
"""Ids that an answer may have that is left to the engine."""
ENGINE = "llama-cpp-python"
_ONE_THREAD: Mapping[str, Mapping[str, Any]] = {
    ENGINE: {"n_threads": 1, "n_threads_batch": 1},
    "llama-server": {"parameters": {"cpuparams.n_threads": 1}},
}


class Held(Value):
    """One case of an engine, held against the same case of another one, or of the same one on other ids.

    Attributes:
        case: The case.
        kl: KL(one || other) in nats, at each position; exactly 0 where the logits are the same bits.
        turned: At how many positions the likeliest token is another.
        text: Whether the greedy text is another within these positions.
        answer: What the other's own answer is, where the one's ends by itself: it `ends` too, is `empty`, or `runs on`
            for `FREE` ids; None where it was not asked.
    """

    case: str
    kl: tuple[float, ...]
    turned: int
    text: bool
    answer: Literal["ends", "empty", "runs on"] | None = None


class Engine:
    """An open engine that is fed ids.

    Args:
        part: The component.
    """

    def __init__(self, part: Any) -> None:
        self.part = part

    def forced(self, golden: Golden, ids: tuple[int, ...]) -> Generation:
        """Feed a prompt and then the golden's answer, and return what is said at each of its positions.

        llama-cpp-python stops after one position where the prompt itself ends in an end token.

        Raises:
            StageRefusedError: the engine refused the prompt.
            StageFailedError: it died, or took too long.
        """
        assert isinstance(golden.generation, Generation)
        answer = golden.generation.ids[:POSITIONS]
        found: Generation = self.part.generate(Tokens(ids=ids), golden.request, answer)
        return found

    def answer(self, ids: tuple[int, ...]) -> Literal["ends", "empty", "runs on"]:
        """Feed a prompt and let the engine answer, greedily.

        Raises:
            StageRefusedError: the engine refused the prompt.
            StageFailedError: it died, or took too long.
        """
        greedy = Request(messages=(), settings={"temperature": 0, "max_tokens": FREE})
        found: Generation = self.part.generate(Tokens(ids=ids), greedy, None)
        if found.finish != "end_token":
            return "runs on"
        return "ends" if len(found.ids) > 1 else "empty"


@contextmanager
def engine(
    project: Project, model: ModelRef, options: Mapping[str, Any] | None = None, stack: str = ENGINE
) -> Iterator[Engine]:
    """Open the engine of a stack, with one thread unless the options say otherwise.

    Args:
        project: Where the stack is.
        model: The model.
        options: Options of the component of its inference.
        stack: The stack's name.
    """
    loaded = load_stack(project, stack)
    name = loaded.stages.component(Stage.INFERENCE)
    merged: dict[str, Any] = dict(_ONE_THREAD.get(name, {}))
    for key, value in (options or {}).items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, Mapping) else value
    with open_stack(loaded.with_options(name, merged), model) as running:
        yield Engine(running.part(Stage.INFERENCE))


def held(case: str, golden: Generation, one: Generation, other: Generation) -> Held:
    """Hold what was said at the positions of one answer against what was said there in another situation.

    Args:
        case: The case.
        golden: The answer.
        one: What counts as right.
        other: What is held against it; it may show the likeliest tokens only.
    """
    assert one.distributions is not None
    assert other.distributions is not None
    count = min(len(one.distributions), len(other.distributions))
    right, seen = one.distributions.head(count), other.distributions.head(count)
    kl = [float(f"{value:.6g}") for value in divergences(right.top(), seen)]
    for at, pair in enumerate(zip(one.digests, other.digests, strict=False)):
        if at < count and pair[0] == pair[1]:
            kl[at] = 0.0
    turned = np.array(right.argmax()) != np.array(seen.argmax())
    return Held(case=case, kl=tuple(kl), turned=int(turned.sum()), text=_leaves(golden, right, turned))


def _leaves(golden: Generation, right: Distributions, turned: Any) -> bool:
    """Return whether two greedy texts part within the positions that they share.

    What is fed are the golden's ids. Up to the first position where the one's own choice leaves them, they are its
    text.
    """
    own = right.argmax()
    parts = next((at for at, token in enumerate(own) if token != golden.ids[at]), len(own) - 1)
    return bool(turned[: parts + 1].any())
