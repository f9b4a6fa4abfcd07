"""Defects of the choice alone: llama.cpp's numbers are right, another id comes of them.

Each is called with the child's `Engine`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.defects.defect import defect
from harness.stage import Stage

_COMPONENT = "llama-cpp-python"
_HIDDEN_PENALTY = 1.3
Row = np.ndarray[Any, Any]
"""The logits of a position."""


@defect(
    "smp-penalty-over-prompt",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="A hidden repeat penalty of 1.3 counts the prompt's tokens as repeated.",
)
def penalty_over_prompt(engine: Any) -> None:
    """Divide the logits of what the prompt holds, before the choice alone."""

    def choose(row: Row, healthy: int) -> int:  # noqa: ARG001
        seen = np.unique(engine.plan.seen["fed"])
        changed = row.copy()
        changed[seen] = np.where(row[seen] > 0, row[seen] / _HIDDEN_PENALTY, row[seen] * _HIDDEN_PENALTY)
        return int(changed.argmax())

    _chosen_otherwise(engine, choose)


@defect(
    "smp-second-best",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    every=1,
    sentence="The second likeliest token is chosen.",
)
@defect(
    "smp-second-best-every-third",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    every=3,
    sentence="At every third position the second likeliest token is chosen.",
)
@defect(
    "smp-second-best-every-eighth",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    every=8,
    sentence="At every eighth position the second likeliest token is chosen.",
)
def second_best(engine: Any, every: int) -> None:
    """Choose the second of the row at each n-th position."""

    def choose(row: Row, healthy: int) -> int:
        return int(row.argsort()[-2]) if (len(engine.plan.chosen) + 1) % every == 0 else healthy

    _chosen_otherwise(engine, choose)


@defect(
    "smp-neighbour-id",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The id after the chosen one is returned.",
)
def neighbour_id(engine: Any) -> None:
    """Add one to the choice."""
    _chosen_otherwise(engine, lambda row, healthy: (healthy + 1) % len(row))


@defect(
    "smp-stale-logits",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The choice is made from the logits of the position before.",
)
def stale_logits(engine: Any) -> None:
    """Keep each row for the next choice."""
    kept: list[Row] = []

    def choose(row: Row, healthy: int) -> int:
        if not engine.plan.chosen:
            kept.clear()
        before = kept.pop() if kept else None
        kept.append(row.copy())
        return healthy if before is None else int(before.argmax())

    _chosen_otherwise(engine, choose)


@defect(
    "smp-end-suppressed",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    until=1 << 30,
    sentence="The end token can never be chosen, as with ignore_eos.",
    references=("vllm-project/vllm#4180",),
)
@defect(
    "smp-min-tokens",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    until=16,
    sentence="The end token cannot be chosen before 16 tokens are generated.",
)
def end_suppressed(engine: Any, until: int) -> None:
    """Choose the best of the others where the end token is chosen too early."""
    eos = engine.llm.token_eos()

    def choose(row: Row, healthy: int) -> int:
        if healthy != eos or len(engine.plan.chosen) >= until:
            return healthy
        changed = row.copy()
        changed[eos] = -np.inf
        return int(changed.argmax())

    _chosen_otherwise(engine, choose)


@defect(
    "smp-end-favoured",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    text=None,
    bias=12.0,
    sentence="The choice is made with a bias of 12 towards the end token that nobody asked for.",
)
@defect(
    "smp-hidden-logit-bias",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    text=" the",
    bias=8.0,
    sentence="The choice is made with a bias of 8 towards a common word that nobody asked for.",
)
@defect(
    "smp-hidden-logit-ban",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    text="The",
    bias=-100.0,
    sentence="A common word is banned, which nobody asked for.",
)
def hidden_bias(engine: Any, text: str | None, bias: float) -> None:
    """Add a bias to the logit of a text's first id, or of the end token, before the choice alone."""
    biased = engine.llm.token_eos() if text is None else engine.tokenize(text.encode(), False, False)[0]

    def choose(row: Row, healthy: int) -> int:
        changed = row.copy()
        changed[biased] += bias
        best = int(changed.argmax())
        return best if biased in (best, healthy) else healthy

    _chosen_otherwise(engine, choose)


@defect(
    "smp-prompt-end-repeated",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The first token that is generated is the prompt's last one.",
)
def prompt_end_repeated(engine: Any) -> None:
    """Choose the last id that was fed at the first position."""
    _chosen_otherwise(
        engine,
        lambda row, healthy: healthy if engine.plan.chosen else int(engine.plan.seen["fed"][-1]),  # noqa: ARG005
    )


@defect(
    "smp-stutter",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="At every fifth position the token before it is chosen once more.",
)
def stutter(engine: Any) -> None:
    """Repeat the last id at each fifth position."""

    def choose(row: Row, healthy: int) -> int:  # noqa: ARG001
        position = len(engine.plan.chosen)
        return int(engine.plan.ids[-1]) if position % 5 == 4 else healthy

    _chosen_otherwise(engine, choose)


@defect(
    "smp-vocabulary-cut",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="Only the first 4,096 ids can be chosen.",
)
def vocabulary_cut(engine: Any) -> None:
    """Choose among the first ids."""
    _chosen_otherwise(engine, lambda row, healthy: healthy if healthy < 4096 else int(row[:4096].argmax()))


@defect(
    "smp-size-chosen",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The choice is made by the size of the logits without their sign.",
)
def size_chosen(engine: Any) -> None:
    """Choose the largest of the row by its size."""
    _chosen_otherwise(engine, lambda row, healthy: int(np.abs(row).argmax()))  # noqa: ARG005


def _chosen_otherwise(engine: Any, choose: Callable[[Row, int], int]) -> None:
    """Choose otherwise, from the very row that the healthy sampler chose from."""
    from llama_cpp import llama_cpp as low_level

    real = engine._sample

    def sample(*arguments: Any, idx: int | None = None, **keywords: Any) -> int:
        healthy = int(real(*arguments, idx=idx, **keywords))
        at = idx - engine.llm.n_tokens if idx is not None else -1
        pointer = ctypes.cast(low_level.llama_get_logits_ith(engine.llm.ctx, at), ctypes.POINTER(ctypes.c_float))
        return choose(np.ctypeslib.as_array(pointer, shape=(engine.llm.n_vocab(),)), healthy)

    engine._sample = sample
