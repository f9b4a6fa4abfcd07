"""What is known of ggml's memory: `struct ggml_tensor`, where operators keep their parameters, and the proof of both.

Nothing in ggml's API reads all of a tensor, so the structure is copied here by hand, from ggml.h as vendored by
llama-cpp-python 0.3.36. Another release may have another one. So before anything is read, tensors are made through
ggml's own functions, and every field that was set is read back.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import struct
from collections.abc import Iterator
from typing import Any, Final

_MAX_DIMS, _MAX_SRC, _MAX_NAME, _OP_PARAMS = 4, 10, 64, 16

TYPE_NAMES: Final[dict[int, str]] = {0: "f32", 1: "f16", 24: "i8", 25: "i16", 26: "i32", 27: "i64"}
"""Of `enum ggml_type`, the types whose elements stand one by one."""

ROPE_N_DIMS, ROPE_MODE, ROPE_FREQ_BASE, ROPE_FREQ_SCALE, ROPE_ATTN_FACTOR = 1, 2, 5, 6, 8
"""Where `ggml_rope_impl` (ggml.c) puts its parameters; the first two are integers, the others floats."""
RMS_NORM_EPS = SOFT_MAX_SCALE = FLASH_ATTN_SCALE = 0
FLASH_ATTN_SOFT_CAP = 2
"""Where `ggml_rms_norm_impl`, `ggml_soft_max_impl` and `ggml_flash_attn_ext` put theirs, all floats."""

_ROOM: Final = 1 << 18
"""Bytes for the tensors of the proof, and far more: a layout that is too long must not read past their end."""
_INPUT, _OUTPUT = 1, 2  # enum ggml_tensor_flag
_OPERATORS: Final = 90
"""Numbers of operators that are looked up; llama-cpp-python 0.3.36 has more."""


class Tensor(ctypes.Structure):
    """`struct ggml_tensor`, up to its name."""

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
    ]


class NotReadableError(RuntimeError):
    """What a graph computes cannot be read in this process; the message says why, in one line."""


class _InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


_POINTER, _INT, _FLOAT, _SIZE, _LENGTH = (
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_float,
    ctypes.c_size_t,
    ctypes.c_int64,
)
_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "ggml_init": (_POINTER, _InitParams),
    "ggml_free": (None, _POINTER),
    "ggml_type_name": (ctypes.c_char_p, _INT),
    "ggml_type_size": (_SIZE, _INT),
    "ggml_op_name": (ctypes.c_char_p, _INT),
    "ggml_new_tensor_4d": (_POINTER, _POINTER, _INT, _LENGTH, _LENGTH, _LENGTH, _LENGTH),
    "ggml_set_name": (_POINTER, _POINTER, ctypes.c_char_p),
    "ggml_set_input": (None, _POINTER),
    "ggml_set_output": (None, _POINTER),
    "ggml_get_data": (_POINTER, _POINTER),
    "ggml_add": (_POINTER, _POINTER, _POINTER, _POINTER),
    "ggml_mul_mat": (_POINTER, _POINTER, _POINTER, _POINTER),
    "ggml_permute": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT),
    "ggml_view_2d": (_POINTER, _POINTER, _POINTER, _LENGTH, _LENGTH, _SIZE, _SIZE),
    "ggml_rms_norm": (_POINTER, _POINTER, _POINTER, _FLOAT),
    "ggml_soft_max_ext": (_POINTER, _POINTER, _POINTER, _POINTER, _FLOAT, _FLOAT),
    "ggml_rope_ext": (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, *[_FLOAT] * 6),
    "ggml_flash_attn_ext": (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _FLOAT, _FLOAT, _FLOAT),
    "ggml_backend_cpu_buffer_type": (_POINTER,),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_POINTER, _POINTER, _POINTER),
    "ggml_backend_buffer_free": (None, _POINTER),
    "ggml_backend_buffer_is_host": (ctypes.c_bool, _POINTER),
    "ggml_backend_buffer_get_usage": (_INT, _POINTER),
    "ggml_backend_tensor_get": (None, _POINTER, _POINTER, _SIZE, _SIZE),
}
"""What is called of ggml: the type of the result, then those of the arguments."""


class Ggml:
    """ggml's functions by name, in the library that llama-cpp-python has loaded.

    Args:
        library: The library.

    Raises:
        AttributeError: it lacks one of them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        # A handle of its own: the binding's functions keep the signatures that it gave them.
        own = ctypes.CDLL(library._name)
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(own, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("ggml_"), function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"ggml_{name}")


@functools.cache
def ggml() -> Ggml:
    """Return ggml's functions.

    Raises:
        ImportError: llama-cpp-python is not there, or keeps its library elsewhere.
        AttributeError: one of the functions is missing.
    """
    from llama_cpp._ggml import libggml

    return Ggml(libggml)


@functools.cache
def why_unreadable() -> str | None:
    """Return why no tensor of the llama.cpp in this process may be read, in one line; None where the layout is proven.

    Proven once for the process, in about a millisecond.
    """
    try:
        field = wrong_field(ggml(), Tensor)
        seen = None if field is None else f"field `{field}` holds something else"
    except ImportError as error:
        seen = f"its library was not found: {error}"
    except AttributeError as error:
        seen = f"its library cannot be asked: {error}"
    if seen is None:
        return None
    return (
        f"the layout of ggml_tensor in llama-cpp-python {_version()} is not the one known here ({seen}): "
        "the network cannot be looked into"
    )


def require_readable() -> None:
    """Raise NotReadableError unless the layout is proven."""
    why = why_unreadable()
    if why is not None:
        raise NotReadableError(why)


def wrong_field(ggml: Ggml, layout: type[ctypes.Structure]) -> str | None:
    """Return the first field of a layout that does not hold what ggml's functions were given; None where all do.

    No address that is read is followed.

    Args:
        ggml: ggml's functions.
        layout: A copy of `struct ggml_tensor`; its fields have the names of `Tensor`'s.
    """
    names = {ggml.type_name(number) for number in TYPE_NAMES}
    wrong = set() if names == {name.encode() for name in TYPE_NAMES.values()} else {"type"}
    facts = [fact for part in (_shapes, _operators, _buffers) for fact in part(ggml, layout)]
    wrong |= {field for field, read, expected in facts if field != "op" and read != expected}
    if not wrong and any(_operator(ggml, read) != expected for field, read, expected in facts if field == "op"):
        wrong = {"op"}
    return next((str(field[0]) for field in layout._fields_ if field[0] in wrong), None)


def _operator(ggml: Ggml, number: Any) -> object:
    """Return an operator's name. Asked where all fields around `op` are right, as ggml looks it up without a bound."""
    return ggml.op_name(number) if 0 <= number < _OPERATORS else None


_Facts = Iterator[tuple[str, object, object]]
"""A field, what the layout reads there, and what it must be."""


def _shapes(ggml: Ggml, layout: Any) -> _Facts:
    """Tensors and views of them."""
    context = ggml.init(_InitParams(_ROOM, None, False))
    try:
        # Sizes and strides that are all different, also as 32-bit halves.
        sizes = (5, 7, 3, 2)
        first = ggml.new_tensor_4d(context, 0, *sizes)
        for number, width in ((0, 4), (1, 2), (26, 4)):
            made = ggml.new_tensor_4d(context, number, *sizes)
            tensor = layout.from_address(made)
            strides = (width, width * 5, width * 35, width * 105)
            yield from (("type", tensor.type, number), ("ne", tuple(tensor.ne), sizes))
            yield from (("nb", tuple(tensor.nb), strides), ("buffer", tensor.buffer, None))
            yield from (("view_src", tensor.view_src, None), ("view_offs", tensor.view_offs, 0))
            yield from (("data", tensor.data, ggml.get_data(made)), ("src", tuple(tensor.src), (None,) * _MAX_SRC))
            yield from (("flags", tensor.flags, 0), ("op", tensor.op, b"NONE"))
            yield "op_params", tuple(tensor.op_params), (0,) * _OP_PARAMS
        ggml.set_input(first)
        yield "flags", layout.from_address(first).flags, _INPUT
        ggml.set_output(first)
        yield "flags", layout.from_address(first).flags, _INPUT | _OUTPUT
        for name in (b"l_out-7", b"n" * (_MAX_NAME - 1)):
            ggml.set_name(first, name)
            yield "name", layout.from_address(first).name, name
        turned = layout.from_address(ggml.permute(context, first, 1, 2, 0, 3))
        yield from (("ne", tuple(turned.ne), (3, 5, 7, 2)), ("nb", tuple(turned.nb), (140, 4, 20, 420)))
        yield from (("view_src", turned.view_src, first), ("data", turned.data, ggml.get_data(first)))
        part = layout.from_address(ggml.view_2d(context, first, 2, 3, 20, 44))
        yield from (("view_src", part.view_src, first), ("view_offs", part.view_offs, 44))
        yield from (("data", part.data, ggml.get_data(first) + 44), ("op", part.op, b"VIEW"))
    finally:
        ggml.free(context)


def _operators(ggml: Ggml, layout: Any) -> _Facts:
    """Operators, their sources and their parameters."""
    context = ggml.init(_InitParams(_ROOM, None, False))
    try:
        heads = ggml.new_tensor_4d(context, 0, 8, 3, 5, 1)
        same = ggml.new_tensor_4d(context, 0, 8, 3, 5, 1)
        positions = ggml.new_tensor_4d(context, 26, 5, 1, 1, 1)
        factors = ggml.new_tensor_4d(context, 0, 3, 1, 1, 1)
        rope = ggml.rope_ext(context, heads, positions, factors, 6, 2, 96, 5000.0, 0.75, 0.125, 1.5, 32.0, 2.0)
        normed = ggml.rms_norm(context, heads, 0.375)
        weighed = ggml.soft_max_ext(context, heads, None, 0.625, 0.0)
        attended = ggml.flash_attn_ext(context, heads, same, same, None, 0.875, 0.0, 24.0)
        for made, name, sources in (
            (ggml.add(context, heads, same), b"ADD", (heads, same)),
            (ggml.mul_mat(context, heads, same), b"MUL_MAT", (heads, same)),
            (rope, b"ROPE", (heads, positions, factors)),
            (normed, b"RMS_NORM", (heads,)),
            (weighed, b"SOFT_MAX", (heads,)),
            (attended, b"FLASH_ATTN_EXT", (heads, same, same)),
        ):
            tensor = layout.from_address(made)
            yield "op", tensor.op, name
            yield "src", tuple(tensor.src), sources + (None,) * (_MAX_SRC - len(sources))
            yield "data", tensor.data, ggml.get_data(made)
        for made, at, value in (
            (rope, ROPE_FREQ_BASE, 5000.0),
            (rope, ROPE_FREQ_SCALE, 0.75),
            (rope, ROPE_ATTN_FACTOR, 1.5),
            (normed, RMS_NORM_EPS, 0.375),
            (weighed, SOFT_MAX_SCALE, 0.625),
            (attended, FLASH_ATTN_SCALE, 0.875),
            (attended, FLASH_ATTN_SOFT_CAP, 24.0),
        ):
            yield "op_params", _as_float(layout.from_address(made).op_params[at]), value
        turned = layout.from_address(rope)
        yield "op_params", (turned.op_params[ROPE_N_DIMS], turned.op_params[ROPE_MODE]), (6, 2)
    finally:
        ggml.free(context)


def _buffers(ggml: Ggml, layout: Any) -> _Facts:
    """A tensor in a backend's buffer."""
    context = ggml.init(_InitParams(_ROOM, None, True))
    buffer = None
    try:
        made = ggml.new_tensor_4d(context, 0, 5, 7, 3, 2)
        yield "data", layout.from_address(made).data, None
        buffer = ggml.backend_alloc_ctx_tensors_from_buft(context, ggml.backend_cpu_buffer_type())
        tensor = layout.from_address(made)
        yield from (("buffer", tensor.buffer, buffer), ("data", tensor.data, ggml.get_data(made)))
    finally:
        if buffer is not None:
            ggml.backend_buffer_free(buffer)
        ggml.free(context)


def _as_float(word: int) -> float:
    return float(struct.unpack("f", struct.pack("i", word))[0])


def _version() -> str:
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"
