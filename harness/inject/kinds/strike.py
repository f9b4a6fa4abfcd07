"""When a fault strikes, and whether it changed anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from harness.inject.fault import Fault
from harness.llama.laboratory.engine import Engine

Bytes = np.ndarray[Any, Any]


class VoidError(Exception):
    """The fault cannot take effect, or did not; the text says why."""


class Effect:
    """Whether a fault struck, and whether something changed where it did.

    Attributes:
        struck: It reached its place.
        changed: The bytes there were others afterwards.
    """

    def __init__(self) -> None:
        self.struck = False
        self.changed = False

    def note(self, before: Bytes, after: Bytes) -> None:
        """Note what was at the place before and after."""
        self.struck = True
        self.changed = self.changed or before.tobytes() != after.tobytes()

    def check(self) -> None:
        """Raise VoidError where nothing changed."""
        if not self.struck:
            raise VoidError("its place was not reached")
        if not self.changed:
            raise VoidError("what it sets was there before")


class Moment:
    """Where a run is: what decides whether a fault strikes now.

    Attributes:
        phase: What is being computed.
        step: The generated token, from 0 on.
        start: The position of the first row of the batch.
        rows: How many rows it has.
    """

    def __init__(self) -> None:
        self.phase = "prefill"
        self.step = 0
        self.start = 0
        self.rows = 0

    def is_for(self, fault: Fault) -> bool:
        """Return whether a fault of this phase is there now."""
        if fault.phase == "load":
            return True
        if fault.phase == "prefill":
            return self.phase == "prefill"
        return self.phase != "prefill" and self.step == fault.step


Planting = Callable[[Engine, Fault, Moment, Effect], contextlib.AbstractContextManager[None]]
"""Does a fault to an engine, for as long as the context is open. Raises VoidError where it cannot."""


@contextlib.contextmanager
def edited(place: Bytes, effect: Effect, edit: Callable[[Bytes], None]) -> Iterator[None]:
    """Edit memory for a while."""
    before = place.copy()
    edit(place)
    effect.note(before, place)
    try:
        yield
    finally:
        place[...] = before
