"""Faults in the cache of keys and values: a bit of a cell, and cells that are not what the sequence needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from harness.inject.fault import Fault
from harness.inject.kinds.strike import Bytes, Effect, Moment, VoidError, edited
from harness.llama.ggml import data_of
from harness.llama.laboratory.engine import Engine


def cells_of(engine: Engine, name: str) -> Bytes:
    """Return a writable view of a cache's cells, `(cell, element)`.

    Raises:
        VoidError: the engine has no such cache, or keeps it in packed blocks.
    """
    caches = engine.caches()
    if name not in caches:
        raise VoidError(f"the engine has no cache {name!r}")
    try:
        whole = data_of(caches[name]).reshape(-1)
    except TypeError as error:
        raise VoidError(str(error)) from error
    width = whole.size // engine.cells
    if name.startswith("cache_v") and not engine.flash_attention:
        # Without flash attention the values of one element lie side by side.
        return whole.reshape(width, engine.cells).T
    return whole.reshape(engine.cells, width)


@contextlib.contextmanager
def cache_bit(engine: Engine, fault: Fault, moment: Moment, effect: Effect) -> Iterator[None]:
    """Flip a bit of an element of a cell that the prompt has filled; in a fresh cache cell and position are one."""
    del moment
    assert fault.position is not None
    assert fault.element is not None
    cells = cells_of(engine, fault.site)
    place = cells[fault.position, fault.element : fault.element + 1]
    width = np.uint16 if place.dtype == np.float16 else np.uint32

    def flip(bits: Bytes) -> None:
        bits[:] = bits ^ width(1 << (fault.bit or 0))

    with edited(place.view(width), effect, flip):
        yield
