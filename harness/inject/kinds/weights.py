"""Faults in the model's tensors, as they lie in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from harness.inject.fault import Fault, generator
from harness.inject.kinds.strike import Bytes, Effect, Moment, VoidError, edited
from harness.llama.blocks import BLOCKS, FLOAT_FIELDS
from harness.llama.ggml import bytes_of
from harness.llama.laboratory.engine import Engine
from harness.llama.layout import Tensor


@contextlib.contextmanager
def weight(engine: Engine, fault: Fault, moment: Moment, effect: Effect) -> Iterator[None]:
    """Hurt a tensor."""
    del moment
    weights = engine.weights()
    if fault.site not in weights:
        raise VoidError(f"the model has no tensor {fault.site!r}")
    tensor = weights[fault.site]
    with contextlib.ExitStack() as edits:
        if fault.kind == "weight-bit":
            edits.enter_context(edited(_field(fault, tensor), effect, lambda place: _flip(fault, place)))
        elif fault.kind in ("weight-nan", "weight-inf"):
            edits.enter_context(edited(_field(fault, tensor), effect, lambda place: _no_number(fault, place)))
        elif fault.kind == "weight-zero":
            edits.enter_context(edited(bytes_of(tensor), effect, lambda place: place.fill(0)))
        elif fault.kind == "weight-permute":
            order = generator(fault.id).permutation(int(tensor.ne[1]))
            edits.enter_context(edited(bytes_of(tensor), effect, lambda place: _permute(place, tensor, order)))
        else:
            other = _alike(engine, fault, tensor)
            own, theirs = bytes_of(tensor).copy(), bytes_of(other).copy()
            edits.enter_context(edited(bytes_of(tensor), effect, lambda place: np.copyto(place, theirs)))
            edits.enter_context(edited(bytes_of(other), effect, lambda place: np.copyto(place, own)))
        yield


def _field(fault: Fault, tensor: Tensor) -> Bytes:
    """Return the bytes of a field of a block."""
    if tensor.type not in BLOCKS:
        raise VoidError(f"no layout is known of tensors of type {tensor.type}")
    size, fields = BLOCKS[tensor.type]
    if fault.field not in fields or fault.element is None:
        raise VoidError(f"the blocks of {fault.site} have {', '.join(fields)}, and no {fault.field}")
    offset, length = fields[fault.field]
    start = fault.element * size + offset
    return bytes_of(tensor)[start : start + length]


def _flip(fault: Fault, place: Bytes) -> None:
    assert fault.bit is not None
    place[fault.bit // 8] ^= np.uint8(1 << fault.bit % 8)


def _no_number(fault: Fault, place: Bytes) -> None:
    if fault.field not in FLOAT_FIELDS | {"value"}:
        raise VoidError(f"the field {fault.field} is no floating-point number")
    number = np.nan if fault.kind == "weight-nan" else np.inf
    dtype = np.float16 if len(place) == np.dtype(np.float16).itemsize else np.float32
    place[:] = np.array([number], dtype=dtype).view(np.uint8)


def _permute(place: Bytes, tensor: Tensor, order: Bytes) -> None:
    if tensor.ne[1] == 1:
        raise VoidError("a single row has no order")
    rows = place.reshape(-1, int(tensor.nb[1]))
    rows[:] = rows[order]


def _alike(engine: Engine, fault: Fault, tensor: Tensor) -> Tensor:
    """Return the same tensor of the next layer."""
    found = None
    if fault.layer is not None:
        name = fault.site.replace(f"blk.{fault.layer}.", f"blk.{(fault.layer + 1) % engine.n_layer}.")
        found = engine.weights().get(name)
    if found is None or (found.type, *found.ne) != (tensor.type, *tensor.ne):
        raise VoidError(f"no other layer has a tensor like {fault.site}")
    return found
