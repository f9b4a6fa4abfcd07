"""The part of ggml's tensor that a fault needs to see, as ctypes, and the edit of an operator's parameters.

Layout: `struct ggml_tensor` in ggml.h as vendored by llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

_MAX_DIMS, _MAX_SRC, _MAX_NAME, _OP_PARAMS = 4, 10, 64, 16
ROPE_FREQ_BASE = 5
"""Where `ggml_rope_impl` (ggml.c) puts the frequency base, a float, among the parameters of GGML_OP_ROPE."""


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


def operator_name() -> Callable[[int], str]:
    """Return the function that names an operator by its number, from the library that is loaded."""
    from llama_cpp._ggml import libggml

    function: Any = libggml.ggml_op_name
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_char_p
    return lambda number: str(function(number).decode("ascii"))


def set_float_parameter(tensor: ctypes.c_void_p, index: int, value: float) -> None:
    """Overwrite one float among an operator's parameters."""
    view = ctypes.cast(tensor, ctypes.POINTER(Tensor)).contents
    address = ctypes.addressof(view.op_params) + index * ctypes.sizeof(ctypes.c_int32)
    ctypes.c_float.from_address(address).value = value
