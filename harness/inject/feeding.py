"""Faults that are done by feeding the engine wrongly, or by touching its logits: no memory is edited for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from harness.inject.fault import Fault
from harness.inject.kinds.strike import VoidError
from harness.llama.laboratory.engine import Engine, Logits, Row

Feeding = Callable[[Engine, Fault, Sequence[int]], tuple[Logits, int]]
"""Feeds a prompt as a fault says into an empty cache; returns the last row of logits and the next position."""


def _stale(engine: Engine, fault: Fault, prompt: Sequence[int]) -> tuple[Logits, int]:
    """The cells of the first positions are those of another prompt."""
    end = _inside(fault, prompt)
    other = [(token + 1) % engine.n_vocab for token in prompt[:end]]
    engine.prompt(other)
    return engine.prompt(prompt[end:], start=end)[-1], len(prompt)


def _dropped(engine: Engine, fault: Fault, prompt: Sequence[int]) -> tuple[Logits, int]:
    """A cell is lost after the prompt was fed."""
    at = _inside(fault, prompt)
    last = engine.prompt(prompt)[-1]
    if not engine.forget(0, at, at + 1):
        raise VoidError("the engine cannot drop a cell")
    return last, len(prompt)


def _duplicated(engine: Engine, fault: Fault, prompt: Sequence[int]) -> tuple[Logits, int]:
    """The last token of the prompt is there twice, at the same position."""
    del fault
    rows = [Row(token, at) for at, token in enumerate(prompt)]
    # In one batch: one that goes back is refused.
    return engine.feed([*rows, rows[-1]])[-1], len(prompt)


def _moved(engine: Engine, fault: Fault, prompt: Sequence[int]) -> tuple[Logits, int]:
    """The positions from one on are further away than they are."""
    assert fault.value is not None
    at, by = _inside(fault, prompt), int(fault.value)
    last = engine.prompt(prompt)[-1]
    engine.shift(0, at, len(prompt), by)
    return last, len(prompt) + by


def _shared(engine: Engine, fault: Fault, prompt: Sequence[int]) -> tuple[Logits, int]:
    """The sequence sees the first cells of another one."""
    end = _inside(fault, prompt)
    last = engine.prompt(prompt)[-1]
    engine.prompt([(token + 1) % engine.n_vocab for token in prompt[:end]], sequence=1)
    engine.share(1, 0, 0, end)
    return last, len(prompt)


def _inside(fault: Fault, prompt: Sequence[int]) -> int:
    assert fault.position is not None
    if not 0 < fault.position < len(prompt):
        raise VoidError(f"position {fault.position} is not inside a prompt of {len(prompt)} ids")
    return fault.position


FEEDINGS: Final[Mapping[str, Feeding]] = {
    "cache-stale": _stale,
    "cache-dropped": _dropped,
    "cache-duplicated": _duplicated,
    "cache-position": _moved,
    "cache-shared": _shared,
}
"""The kinds that hurt the cache by what is fed."""


def _scaled(fault: Fault, logits: Logits) -> Logits:
    return logits * np.float32(fault.value)


def _without_top(fault: Fault, logits: Logits) -> Logits:
    del fault
    changed = logits.copy()
    changed[logits.argmax()] = -np.inf
    return changed


LOGITS: Final[Mapping[str, Callable[[Fault, Logits], Logits]]] = {
    "logits-scale": _scaled,
    "logits-drop-top": _without_top,
}
"""The kinds that hurt a row of logits before an id is chosen from it."""
