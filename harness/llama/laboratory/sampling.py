"""llama.cpp's sampler chains, applied to the rows of a batch or to logits of one's own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as low_level

from harness.llama.laboratory.engine import Engine, Logits

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_LONGEST_PIECE = 512


class Chain:
    """A chain of samplers.

    Args:
        engine: Whose rows and vocabulary it is for.
        samplers: `llama_sampler` pointers in order; the chain frees them.
    """

    def __init__(self, engine: Engine, samplers: Sequence[Any]) -> None:
        self._engine = engine
        self._chain = low_level.llama_sampler_chain_init(low_level.llama_sampler_chain_default_params())
        for sampler in samplers:
            low_level.llama_sampler_chain_add(self._chain, sampler)

    def close(self) -> None:
        """Free it and its samplers."""
        low_level.llama_sampler_free(self._chain)

    def choose(self, row: int) -> int:
        """Choose from a row of the batch that the engine decoded last, and remember the choice."""
        return int(low_level.llama_sampler_sample(self._chain, self._engine.context, row))

    def remember(self, token: int) -> None:
        """Take an id as chosen."""
        low_level.llama_sampler_accept(self._chain, token)

    def left_of(self, logits: Logits) -> Logits:
        """Return what the chain makes of a row of logits, `(n_vocab,)`; what it removed is minus infinity."""
        candidates = np.zeros(len(logits), _CANDIDATE)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        array = low_level.llama_token_data_array(
            data=candidates.ctypes.data_as(low_level.llama_token_data_p), size=len(logits), selected=-1, sorted=False
        )
        low_level.llama_sampler_apply(self._chain, ctypes.byref(array))
        left = np.full(len(logits), -np.inf, np.float32)
        # A sampler may have sorted and cut the array; it stays in the same memory.
        kept = candidates[: array.size]
        left[kept["id"]] = kept["logit"]
        return left


@contextmanager
def chain(engine: Engine, *samplers: Any) -> Iterator[Chain]:
    """Have a chain for a while."""
    made = Chain(engine, samplers)
    try:
        yield made
    finally:
        made.close()


def greedy() -> Any:
    """Return a sampler that takes the likeliest id."""
    return low_level.llama_sampler_init_greedy()


def temperature(degree: float) -> Any:
    """Return a sampler that divides the logits by a temperature, or at 0 leaves the largest alone."""
    return low_level.llama_sampler_init_temp(degree)


def drawn(seed: int) -> Any:
    """Return a sampler that draws an id by its probability."""
    return low_level.llama_sampler_init_dist(seed)


def top_k(count: int) -> Any:
    """Return a sampler that keeps the likeliest ids."""
    return low_level.llama_sampler_init_top_k(count)


def biased(engine: Engine, biases: Mapping[int, float]) -> Any:
    """Return a sampler that adds to the logits of some ids."""
    pairs: Any = biases.items()
    array = (low_level.llama_logit_bias * len(biases))(*pairs)
    return low_level.llama_sampler_init_logit_bias(engine.n_vocab, len(biases), array)


def penalized(engine: Engine, last: int, repeat: float, frequency: float, presence: float) -> Any:
    """Return a sampler that penalizes the ids among the last so many that were chosen."""
    return low_level.llama_sampler_init_penalties(engine.n_vocab, last, repeat, frequency, presence)


def bound_by(engine: Engine, grammar: str) -> Any:
    """Return a sampler that lets through what a GBNF grammar allows next.

    Raises:
        RuntimeError: llama.cpp does not take the grammar.
    """
    sampler = low_level.llama_sampler_init_grammar(engine.vocabulary, grammar.encode(), b"root")
    if not sampler:
        raise RuntimeError("llama_sampler_init_grammar takes no grammar")
    return sampler


def ends(engine: Engine, token: int) -> bool:
    """Return whether an id ends generation."""
    return bool(low_level.llama_vocab_is_eog(engine.vocabulary, token))


@cache
def pieces(engine: Engine) -> tuple[bytes, ...]:
    """Return the text of every id, control tokens spelled out."""
    buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
    texts = []
    for token in range(engine.n_vocab):
        length = low_level.llama_token_to_piece(engine.vocabulary, token, buffer, _LONGEST_PIECE, 0, True)
        texts.append(buffer.raw[: max(length, 0)])
    return tuple(texts)
