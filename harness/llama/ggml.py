"""A running llama.cpp graph, seen from inside: its tensors as ctypes and NumPy, and who watches which node.

Everything here reads and writes memory of this process. It does so only where the layout of tensors is proven
(`layout.py`) and a tensor's data are not in a device's memory, and raises `NotReadableError` elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.llama.layout import TYPE_NAMES, NotReadableError, Tensor, ggml, require_readable

_DTYPES: Final[dict[int, Any]] = {
    number: np.dtype(name.replace("f", "float").replace("i", "int")) for number, name in TYPE_NAMES.items()
}
_COMPUTED: Final = 2
"""`enum ggml_backend_buffer_usage`: what a graph computes. A device may keep weights in an order of its own."""
VIEWS: Final = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})
"""Operators that compute nothing."""


def tensor_at(pointer: Any) -> Tensor:
    """Return the tensor behind a pointer, as ggml passes it to a callback or keeps it in `src`.

    Raises:
        NotReadableError: the layout of tensors is another one in this llama.cpp.
    """
    require_readable()
    found: Tensor = ctypes.cast(pointer, ctypes.POINTER(Tensor)).contents
    return found


def sources(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the operator's inputs."""
    return tuple(tensor_at(pointer) for pointer in tensor.src if pointer)


def operator_name(number: int) -> str:
    """Return ggml's name of an operator, from the library that is loaded."""
    return str(ggml().op_name(number).decode("ascii"))


def data_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a writable view of a tensor, `(ne[3], ne[2], ne[1], ne[0])`.

    Raises:
        TypeError: its elements are packed into blocks; see `bytes_of`.
        NotReadableError: it is not in this process's memory.
    """
    size = _span(tensor)
    _require_host(tensor)
    return _array(tensor, (ctypes.c_char * size).from_address(tensor.data))


def bytes_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a writable view of a contiguous tensor's bytes, uint8.

    Raises:
        NotReadableError: it is not in this process's memory.
    """
    _require_host(tensor)
    size = tensor.nb[3] * tensor.ne[3]
    memory = (ctypes.c_uint8 * size).from_address(tensor.data)
    return np.ctypeslib.as_array(memory)


def rows_of(tensor: Tensor, tokens: int) -> np.ndarray[Any, Any] | None:
    """Return a writable view of an activation, `(tokens, features)`; None where its last dimension is no token.

    Raises:
        TypeError: its elements are packed into blocks.
        NotReadableError: it is not in this process's memory.
    """
    return _rows(data_of(tensor), tokens)


def copied_rows_of(tensor: Tensor, tokens: int) -> np.ndarray[Any, Any] | None:
    """Return what `rows_of` does as a copy, also of an activation that was computed on a device.

    Raises:
        TypeError: its elements are packed into blocks.
        NotReadableError: it has no data, or they cannot be had from the device.
    """
    buffer = _buffer(tensor)
    if buffer is None or ggml().backend_buffer_is_host(buffer):
        array = data_of(tensor)
    elif ggml().backend_buffer_get_usage(buffer) == _COMPUTED:
        memory = (ctypes.c_char * _span(tensor))()
        ggml().backend_tensor_get(ctypes.addressof(tensor), memory, 0, len(memory))
        array = _array(tensor, memory)
    else:
        raise _elsewhere(tensor)
    rows = _rows(array, tokens)
    return None if rows is None else rows.copy()


def _rows(array: np.ndarray[Any, Any], tokens: int) -> np.ndarray[Any, Any] | None:
    outermost, outer, inner, _ = array.shape
    of_tokens = outermost == 1 and (outer == tokens or (outer == 1 and inner == tokens))
    if not of_tokens or not array.flags.c_contiguous:
        return None
    return array.reshape(tokens, -1)


def _span(tensor: Tensor) -> int:
    """Return how many bytes there are from a tensor's first element to the end of its last."""
    if tensor.type not in _DTYPES:
        raise TypeError(f"tensor {tensor.name!r} has the packed type {tensor.type}")
    strides = sum((n - 1) * stride for n, stride in zip(tensor.ne, tensor.nb, strict=True))
    return int(strides) + int(_DTYPES[tensor.type].itemsize)


def _array(tensor: Tensor, memory: Any) -> np.ndarray[Any, Any]:
    return np.ndarray(tuple(tensor.ne)[::-1], _DTYPES[tensor.type], memory, 0, tuple(tensor.nb)[::-1])


def _buffer(tensor: Tensor) -> int | None:
    """Return the buffer that a tensor's data are in; None where they are in a context's own memory."""
    found: int | None = tensor.buffer
    return tensor_at(tensor.view_src).buffer if found is None and tensor.view_src else found


def _require_host(tensor: Tensor) -> None:
    buffer = _buffer(tensor)
    if not tensor.data:
        raise NotReadableError(f"the tensor {_name(tensor)!r} has no data")
    if buffer is not None and not ggml().backend_buffer_is_host(buffer):
        raise _elsewhere(tensor)


def _elsewhere(tensor: Tensor) -> NotReadableError:
    return NotReadableError(f"the tensor {_name(tensor)!r} lies in the memory of a device")


def _name(tensor: Tensor) -> str:
    return str(tensor.name.decode("utf-8", errors="replace"))


def float_parameters(tensor: Tensor) -> Any:
    """Return the 16 words of an operator's parameters (`op_params` as integers) as writable floats."""
    return (ctypes.c_float * len(tensor.op_params)).from_buffer(tensor.op_params)


@dataclass(frozen=True)
class Watcher:
    """Who is called for a node.

    Attributes:
        wants: Whether a node is of interest, by its name and operator. Asked once for each name and operator.
        before: Called right before the node is computed, when its inputs are there.
        after: Called right after.
    """

    wants: Callable[[str, str], bool]
    before: Callable[[Tensor], None] | None = None
    after: Callable[[Tensor], None] | None = None


class Nodes:
    """The watchers of a context's graph. A graph that is not watched runs as it would without.

    llama.cpp computes up to a node that somebody wants, and stops there; so only what is wanted costs anything.
    """

    def __init__(self) -> None:
        from llama_cpp import llama_cpp as low_level

        self.watchers: list[Watcher] = []
        self._wanted: dict[tuple[bytes, int], tuple[Watcher, ...]] = {}
        self._names: dict[int, str] = {}
        self._raised: Exception | None = None
        # llama.cpp calls it for as long as the context lives.
        self.callback = low_level.ggml_backend_sched_eval_callback(self._called)

    @contextlib.contextmanager
    def watched(self, *watchers: Watcher) -> Iterator[None]:
        """Have nodes watched for a while."""
        before = self.watchers
        self.watchers = [*before, *watchers]
        self._wanted.clear()
        try:
            yield
        finally:
            self.watchers = before
            self._wanted.clear()

    def check(self) -> None:
        """Raise what a watcher raised: no exception passes through llama.cpp."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _called(self, pointer: Any, ask: bool, _: Any) -> bool:
        if not self.watchers:
            return not ask
        try:
            tensor = tensor_at(pointer)
            wanted = self._who_wants(tensor)
            if not wanted:
                return not ask
            for one in wanted:
                call = one.before if ask else one.after
                if call is not None:
                    call(tensor)
        except Exception as error:  # noqa: BLE001 - raised again by `check`
            self._raised = error
        return True

    def _who_wants(self, tensor: Tensor) -> tuple[Watcher, ...]:
        key = (tensor.name, tensor.op)
        wanted = self._wanted.get(key)
        if wanted is None:
            if tensor.op not in self._names:
                self._names[tensor.op] = operator_name(tensor.op)
            wanted = tuple(one for one in self.watchers if one.wants(_name(tensor), self._names[tensor.op]))
            self._wanted[key] = wanted
        return wanted
