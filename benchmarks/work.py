"""Hooks for the measured engine: what it was asked to compute, and the same again without the harness around it."""

from __future__ import annotations

import time
from typing import Any


def record(engine: Any) -> None:
    """Note every evaluation of the engine: how far its context was, and the ids it was fed."""
    done: list[tuple[int, list[int]]] = []
    real = engine.llm.eval

    def eval_noted(tokens: Any) -> None:
        done.append((int(engine.llm.n_tokens), [int(token) for token in tokens]))
        real(tokens)

    def take() -> list[tuple[int, list[int]]]:
        taken = list(done)
        done.clear()
        return taken

    def replay(work: list[tuple[int, list[int]]]) -> float:
        start = time.perf_counter()
        for reached, tokens in work:
            engine.llm.n_tokens = reached
            real(tokens)
        seconds = time.perf_counter() - start
        engine.llm.reset()
        return seconds

    engine.llm.eval = eval_noted
    engine.take = take
    engine.replay = replay
