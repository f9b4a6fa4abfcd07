"""What a bit means: its place in the number that it belongs to, whatever bytes that number is packed into.

Sources: IEEE 754-2008 for the floats; ggml-quants.c (`dequantize_row_*`, `get_scale_min_k4`) as vendored by
llama-cpp-python 0.3.36 for the packed fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.inject.fault import Fault
from harness.llama.blocks import FLOAT_FIELDS
from harness.values import Value

F32, F16, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_0, BF16 = 0, 1, 10, 11, 12, 13, 14, 8, 30
"""Of `enum ggml_type` what has a layout of its own here."""
_QUANT_BITS: Final = {2: 4, 3: 4, 6: 5, 7: 5, Q8_0: 8, Q2_K: 2, Q3_K: 3, Q4_K: 4, Q5_K: 5, Q6_K: 6}
"""By type, how many bits a weight has: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, and the K types."""


class Part(Value):
    """Bits of a number that do the same.

    Attributes:
        name: What they are.
        first: The lowest.
        last: The highest.
    """

    name: str
    first: int
    last: int


class Form(NamedTuple):
    """How a number is written in bits.

    Attributes:
        name: Its name.
        parts: What its bits are, from the lowest on.
    """

    name: str
    parts: tuple[Part, ...]


class BitPlace(NamedTuple):
    """Where a bit stands.

    Attributes:
        what: What the number is: an activation, the scale of a block, ...
        form: How it is written.
        bit: The bit within the number, 0 the lowest.
    """

    what: str
    form: Form
    bit: int


def _float(name: str, fraction: int, exponent: int) -> Form:
    sign = fraction + exponent
    parts = (("fraction", 0, fraction - 1), ("exponent", fraction, sign - 1), ("sign", sign, sign))
    return Form(name, tuple(Part(name=one, first=first, last=last) for one, first, last in parts))


def _integer(bits: int, *, signed: bool = False) -> Form:
    """Return a whole number: bit b counts 2^b, but for the highest of a signed one (two's complement)."""
    name = f"int{bits}" if signed else f"{bits}-bit"
    value = Part(name="value", first=0, last=bits - 1 - signed)
    return Form(name, (value, Part(name="sign", first=bits - 1, last=bits - 1)) if signed else (value,))


_FLOATS: Final = {F32: _float("float32", 23, 8), F16: _float("float16", 10, 5), BF16: _float("bfloat16", 7, 8)}


def place_of(fault: Fault, types: Mapping[str, int], cache_types: Mapping[str, int]) -> BitPlace | None:
    """Return what bit of what a fault flips; None where it flips none, or where the tensor's type is not known.

    Args:
        fault: The fault.
        types: The `enum ggml_type` of tensors, by name.
        cache_types: Those of the caches, by the beginning of their name: `cache_k`, `cache_v`.
    """
    if fault.bit is None:
        return None
    if fault.kind.startswith("activation"):
        return BitPlace("activation", _FLOATS[F32], fault.bit)
    if fault.kind.startswith("cache"):
        form = _FLOATS.get(cache_types.get(fault.site[: len("cache_k")], F16))
        return None if form is None else BitPlace("cache", form, fault.bit)
    if fault.field is not None and fault.field in FLOAT_FIELDS:
        return BitPlace(fault.field, _FLOATS[F16], fault.bit)
    kind = types.get(fault.site)
    if fault.field == "value" and kind in _FLOATS:
        return BitPlace("weight", _FLOATS[kind], fault.bit)
    if kind not in _QUANT_BITS:
        return None
    if fault.field == "sub_scale":
        signed = kind == Q6_K
        form = _integer({Q2_K: 4, Q6_K: 8}.get(kind, 6), signed=signed)
        return BitPlace("sub-scale", form, _bit_of_sub_scale(fault.bit, kind))
    return BitPlace("weight", _integer(_QUANT_BITS[kind], signed=kind == Q8_0), _bit_of_quant(fault, kind))


def _bit_of_quant(fault: Fault, kind: int) -> int:
    """Return the place in a quantized weight: `quant` has its low bits, `quant_high` those above."""
    assert fault.bit is not None
    bits = _QUANT_BITS[kind]
    # How many bits of each weight lie in `quant`, each byte of which has a whole number of weights.
    low = {Q2_K: 2, Q3_K: 2, Q8_0: 8}.get(kind, 4)
    return fault.bit % low if fault.field == "quant" else low + fault.bit % (bits - low)


def _bit_of_sub_scale(bit: int, kind: int) -> int:
    """Return the place in a sub-scale, or in a sub-block's minimum, which is packed beside it."""
    byte, within = divmod(bit, 8)
    if kind == Q6_K:
        return within
    if kind == Q2_K:
        return within % 4
    if kind == Q3_K:
        # Eight bytes of low nibbles, then four bytes with the two high bits of four scales each.
        return within % 4 if byte < 8 else 4 + within % 2
    # Q4_K and Q5_K: eight bytes of six bits, each with two high bits of a number whose nibble is in the last four.
    return within % 4 if byte >= 8 else within if within < 6 else within - 2
