"""Faults in an operator: what it is told, and the mask and the scores that attention is given.

llama.cpp reuses graphs, so an edit is put back right after each run of its node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from harness.inject.fault import Fault
from harness.inject.kinds.strike import Bytes, Effect, Moment
from harness.llama.ggml import Watcher, data_of, float_parameters, sources
from harness.llama.laboratory.engine import Engine
from harness.llama.layout import RMS_NORM_EPS, ROPE_FREQ_BASE, ROPE_MODE, ROPE_N_DIMS, SOFT_MAX_SCALE, Tensor


@contextlib.contextmanager
def operator(engine: Engine, fault: Fault, moment: Moment, effect: Effect) -> Iterator[None]:
    """Hurt an operator in its layer, or in every layer."""
    op, place_of, edit = OPERATORS[fault.kind]
    kept: list[tuple[Bytes, Bytes]] = []

    def before(tensor: Tensor) -> None:
        if moment.is_for(fault):
            place = place_of(tensor)
            kept.append((place, place.copy()))
            edit(fault, place, moment)
            effect.note(kept[-1][1], place)

    def after(tensor: Tensor) -> None:
        del tensor
        while kept:
            place, was = kept.pop()
            place[...] = was

    def wants(name: str, its: str) -> bool:
        return its == op and (fault.layer is None or name.endswith(f"-{fault.layer}"))

    with engine.nodes.watched(Watcher(wants, before=before, after=after)):
        yield


def _integers(tensor: Tensor) -> Bytes:
    return np.ctypeslib.as_array(tensor.op_params)


def _floats(tensor: Tensor) -> Bytes:
    return np.ctypeslib.as_array(float_parameters(tensor))


def _scores(tensor: Tensor) -> Bytes:
    """The products of queries and keys, `(1, heads, rows, cells)`."""
    return data_of(sources(tensor)[0])


def _mask(tensor: Tensor) -> Bytes:
    """What is added to them, `(1, 1, rows, cells)`: 0, or minus infinity for what is not seen."""
    return data_of(sources(tensor)[1])


def _set(place: int) -> Callable[[Fault, Bytes, Moment], None]:
    def edit(fault: Fault, parameters: Bytes, moment: Moment) -> None:
        del moment
        parameters[place] = fault.value

    return edit


def _scale(fault: Fault, parameters: Bytes, moment: Moment) -> None:
    del moment
    parameters[SOFT_MAX_SCALE] *= np.float32(fault.value)


def _soft_cap(fault: Fault, scores: Bytes, moment: Moment) -> None:
    del moment
    scores[...] = np.float32(fault.value) * np.tanh(scores / np.float32(fault.value))


def _window(fault: Fault, mask: Bytes, moment: Moment) -> None:
    """Hide what lies further back than `value` positions; the cells of a single sequence lie in its order."""
    assert fault.value is not None
    for row in range(moment.rows):
        mask[..., row, : max(0, moment.start + row - int(fault.value) + 1)] = -np.inf


def _leak(fault: Fault, mask: Bytes, moment: Moment) -> None:
    """Let one row of the prompt see the position after it."""
    assert fault.position is not None
    row = fault.position - moment.start
    if 0 <= row < moment.rows - 1:
        mask[..., row, fault.position + 1] = 0


OPERATORS: Final[dict[str, tuple[str, Callable[[Tensor], Bytes], Callable[[Fault, Bytes, Moment], None]]]] = {
    "operator-rms-eps": ("RMS_NORM", _floats, _set(RMS_NORM_EPS)),
    "operator-rope-base": ("ROPE", _floats, _set(ROPE_FREQ_BASE)),
    "operator-rope-dims": ("ROPE", _integers, _set(ROPE_N_DIMS)),
    "operator-rope-style": ("ROPE", _integers, _set(ROPE_MODE)),
    "operator-softmax-scale": ("SOFT_MAX", _floats, _scale),
    "operator-soft-cap": ("SOFT_MAX", _scores, _soft_cap),
    "operator-window": ("SOFT_MAX", _mask, _window),
    "operator-mask-leak": ("SOFT_MAX", _mask, _leak),
}
"""Each kind: whose node, what of it is edited, and how."""
