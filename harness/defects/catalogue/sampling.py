"""Defects between llama.cpp's logits and the id that is chosen. Each is called with the child's `Engine`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.defects.defect import defect
from harness.stage import Stage

_COMPONENT = "llama-cpp-python"
_FACTOR = 34.0  # a soft-capped model's 1/30, forgotten the other way round, is of this size
_HIDDEN_PENALTY = 1.3


@defect(
    "eng-logits-scaled",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="Every logit is 34 times as large: the greedy text stays, its probabilities do not.",
)
def logits_scaled(engine: Any) -> None:
    """Multiply the row in llama.cpp's own buffer before anyone reads it."""
    _before_sampling(engine, lambda row: np.multiply(row, np.float32(_FACTOR), out=row))


@defect(
    "eng-top-token-dropped",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The likeliest token can never be chosen.",
)
def top_token_dropped(engine: Any) -> None:
    """Take the likeliest token out of the row."""

    def drop(row: np.ndarray[Any, Any]) -> None:
        row[row.argmax()] = -np.inf

    _before_sampling(engine, drop)


@defect(
    "smp-hidden-repeat-penalty",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="A repeat penalty of 1.3 that nobody asked for.",
)
def hidden_repeat_penalty(engine: Any) -> None:
    """Build every chain of samplers with the penalty."""
    real = engine.llm._init_sampler
    engine.llm._init_sampler = lambda **asked: real(**{**asked, "repeat_penalty": _HIDDEN_PENALTY})


@defect(
    "smp-temperature-first",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The temperature is applied before the samplers that cut the distribution, not after them.",
)
def temperature_first(engine: Any) -> None:
    """Move llama.cpp's temperature sampler to the front of the chain."""
    real = engine.llm._init_sampler

    def build(**asked: Any) -> Any:
        from llama_cpp import llama_cpp as low_level

        chain = real(**asked)
        count = low_level.llama_sampler_chain_n(chain.sampler)
        parts = [low_level.llama_sampler_chain_remove(chain.sampler, 0) for _ in range(count)]
        names = [low_level.llama_sampler_name(part) for part in parts]
        order = sorted(range(count), key=lambda at: names[at] not in (b"temp", b"temp-ext"))
        for at in order:
            low_level.llama_sampler_chain_add(chain.sampler, parts[at])
        return chain

    engine.llm._init_sampler = build


@defect(
    "smp-seed-ignored",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="The seed is drawn anew for every request.",
)
def seed_ignored(engine: Any) -> None:
    """Set another seed before each chain of samplers is built."""
    real = engine.llm._init_sampler

    def build(**asked: Any) -> Any:
        engine.llm._seed = int.from_bytes(os.urandom(4), "little")
        return real(**asked)

    engine.llm._init_sampler = build


@defect(
    "eng-temp0",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="At temperature 0 the chain has no greedy sampler but draws from the distribution.",
    references=("abetlen/llama-cpp-python#878", "ggml-org/llama.cpp#9897"),
)
def drawn_at_zero(engine: Any) -> None:
    """Build the chain for temperature 0 with `dist` alone, which is what a negative one asks the binding for."""
    real = engine.llm._init_sampler
    engine.llm._init_sampler = lambda **asked: real(**{**asked, **({"temp": -1.0} if asked.get("temp") == 0 else {})})


@defect(
    "eng-temp0-penalised",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    penalty="repeat_penalty",
    value=1.1,
    sentence="Right before the greedy choice llama.cpp applies a repeat penalty of 1.1.",
    references=("abetlen/llama-cpp-python#878",),
)
@defect(
    "smp-hidden-presence-penalty",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    penalty="presence_penalty",
    value=4.0,
    sentence="llama.cpp's chain has a presence penalty of 4 that it was not told.",
)
@defect(
    "smp-hidden-frequency-penalty",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    penalty="frequency_penalty",
    value=4.0,
    sentence="llama.cpp's chain has a frequency penalty of 4 that it was not told.",
)
def hidden_penalty(engine: Any, penalty: str, value: float) -> None:
    """Build every chain of samplers with a penalty."""
    real = engine.llm._init_sampler
    engine.llm._init_sampler = lambda **asked: real(**{**asked, penalty: value})


def _before_sampling(engine: Any, edit: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    """Edit the row of logits that the next choice is made from."""
    from llama_cpp import llama_cpp as low_level

    real = engine.llm.sample

    def sample(*arguments: Any, idx: int | None = None, **keywords: Any) -> int:
        row = idx - engine.llm.n_tokens if idx is not None else -1
        pointer = ctypes.cast(low_level.llama_get_logits_ith(engine.llm.ctx, row), ctypes.POINTER(ctypes.c_float))
        edit(np.ctypeslib.as_array(pointer, shape=(engine.llm.n_vocab(),)))
        return int(real(*arguments, idx=idx, **keywords))

    engine.llm.sample = sample
