"""Faults in what a node computes: one row of it, or one element of a row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from harness.inject.fault import Fault
from harness.inject.kinds.strike import Bytes, Effect, Moment
from harness.llama.ggml import Watcher, rows_of
from harness.llama.laboratory.engine import Engine
from harness.llama.layout import Tensor

Strike = tuple[Fault, Callable[[], int | None], Effect]
"""A fault, what returns the row of the batch that it is to hurt now or None, and where its effect is noted."""


@contextlib.contextmanager
def activation(engine: Engine, fault: Fault, moment: Moment, effect: Effect) -> Iterator[None]:
    """Hurt the row of one position."""

    def row() -> int | None:
        if not moment.is_for(fault):
            return None
        at = fault.position - moment.start if fault.phase == "prefill" and fault.position is not None else 0
        return at if 0 <= at < moment.rows else None

    with engine.nodes.watched(watcher(fault.site, [(fault, row, effect)], moment)):
        yield


def watcher(site: str, strikes: Sequence[Strike], moment: Moment) -> Watcher:
    """Return what hurts rows of the node `site`, which is `name/OPERATOR`."""
    name, _, operator = site.partition("/")

    def after(tensor: Tensor) -> None:
        values = rows_of(tensor, moment.rows)
        if values is None:
            return
        for fault, row_now, effect in strikes:
            row = row_now()
            if row is not None:
                before = values[row].copy()
                _hurt(fault, values[row])
                effect.note(before, values[row])

    return Watcher(lambda other, op: (other, op) == (name, operator), after=after)


def _hurt(fault: Fault, row: Bytes) -> None:
    place = slice(None) if fault.element is None else slice(fault.element, fault.element + 1)
    if fault.kind == "activation-bit":
        assert fault.bit is not None
        row.view(np.uint32)[place] ^= np.uint32(1 << fault.bit)
    elif fault.kind == "activation-scale":
        row[place] *= np.float32(fault.value)
    else:
        row[place] = 0 if fault.kind == "activation-zero" else np.nan
