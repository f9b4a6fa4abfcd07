"""A running llama.cpp graph, seen from inside: its tensors as ctypes and NumPy, and who watches which node.

Layout: `struct ggml_tensor` in ggml.h as vendored by llama-cpp-python 0.3.36. Everything here reads and writes memory
of this process: the CPU backend's.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_MAX_DIMS, _MAX_SRC, _MAX_NAME, _OP_PARAMS = 4, 10, 64, 16
_DTYPES: Final[dict[int, Any]] = {0: np.float32, 1: np.float16, 24: np.int8, 25: np.int16, 26: np.int32, 27: np.int64}
"""NumPy's type for `enum ggml_type`, of the types whose elements stand one by one."""

ROPE_N_DIMS, ROPE_MODE, ROPE_FREQ_BASE, ROPE_FREQ_SCALE, ROPE_ATTN_FACTOR = 1, 2, 5, 6, 8
"""Where `ggml_rope_impl` (ggml.c) puts its parameters; the first two are integers, the others floats."""
RMS_NORM_EPS = SOFT_MAX_SCALE = FLASH_ATTN_SCALE = 0
FLASH_ATTN_SOFT_CAP = 2
"""Where `ggml_rms_norm_impl`, `ggml_soft_max_impl` and `ggml_flash_attn_ext` put theirs, all floats."""
VIEWS: Final = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})
"""Operators that compute nothing."""


class Tensor(ctypes.Structure):
    """`struct ggml_tensor`."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _MAX_DIMS),
        ("nb", ctypes.c_size_t * _MAX_DIMS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * _OP_PARAMS),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SRC),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _MAX_NAME),
        ("extra", ctypes.c_void_p),
    ]


def tensor_at(pointer: Any) -> Tensor:
    """Return the tensor behind a pointer, as ggml passes it to a callback or keeps it in `src`."""
    found: Tensor = ctypes.cast(pointer, ctypes.POINTER(Tensor)).contents
    return found


def sources(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the operator's inputs."""
    return tuple(tensor_at(pointer) for pointer in tensor.src if pointer)


def operator_name(number: int) -> str:
    """Return ggml's name of an operator, from the library that is loaded."""
    from llama_cpp._ggml import libggml

    function: Any = libggml.ggml_op_name
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_char_p
    return str(function(number).decode("ascii"))


def data_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a writable view of a tensor, `(ne[3], ne[2], ne[1], ne[0])`.

    Raises:
        TypeError: its elements are packed into blocks; see `bytes_of`.
    """
    if tensor.type not in _DTYPES:
        raise TypeError(f"tensor {tensor.name!r} has the packed type {tensor.type}")
    span = sum((n - 1) * stride for n, stride in zip(tensor.ne, tensor.nb, strict=True))
    dtype = np.dtype(_DTYPES[tensor.type])
    memory = (ctypes.c_char * (span + dtype.itemsize)).from_address(tensor.data)
    return np.ndarray(tuple(tensor.ne)[::-1], dtype, memory, 0, tuple(tensor.nb)[::-1])


def bytes_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a writable view of a contiguous tensor's bytes, uint8."""
    size = tensor.nb[_MAX_DIMS - 1] * tensor.ne[_MAX_DIMS - 1]
    memory = (ctypes.c_uint8 * size).from_address(tensor.data)
    return np.ctypeslib.as_array(memory)


def rows_of(tensor: Tensor, tokens: int) -> np.ndarray[Any, Any] | None:
    """Return a writable view of an activation, `(tokens, features)`; None where its last dimension is no token."""
    array = data_of(tensor)
    outermost, outer, inner, _ = array.shape
    of_tokens = outermost == 1 and (outer == tokens or (outer == 1 and inner == tokens))
    if not of_tokens or not array.flags.c_contiguous:
        return None
    return array.reshape(tokens, -1)


def float_parameters(tensor: Tensor) -> Any:
    """Return the 16 words of an operator's parameters (`op_params` as integers) as writable floats."""
    return (ctypes.c_float * _OP_PARAMS).from_buffer(tensor.op_params)


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
        tensor = tensor_at(pointer)
        key = (tensor.name, tensor.op)
        wanted = self._wanted.get(key)
        if wanted is None:
            if tensor.op not in self._names:
                self._names[tensor.op] = operator_name(tensor.op)
            name = tensor.name.decode("utf-8", errors="replace")
            wanted = tuple(one for one in self.watchers if one.wants(name, self._names[tensor.op]))
            self._wanted[key] = wanted
        if not wanted:
            return not ask
        try:
            for one in wanted:
                call = one.before if ask else one.after
                if call is not None:
                    call(tensor)
        except Exception as error:  # noqa: BLE001 - raised again by `check`
            self._raised = error
        return True
