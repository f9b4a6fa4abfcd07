"""The fields of ggml's packed blocks: which bytes are a scale, a minimum, a sub-scale, the quants.

Layouts: the `block_*` structures in ggml-common.h as vendored by llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from harness.llama.layout import NotReadableError, ggml


class Field(NamedTuple):
    """A part of a block.

    Attributes:
        offset: Its first byte.
        size: How many bytes.
    """

    offset: int
    size: int


class Block(NamedTuple):
    """A type's block.

    Attributes:
        size: In bytes.
        fields: Its parts by name.
    """

    size: int
    fields: dict[str, Field]


def _block(**sizes: int) -> Block:
    fields, offset = {}, 0
    for name, size in sizes.items():
        fields[name] = Field(offset, size)
        offset += size
    return Block(offset, fields)


BLOCKS: Final[dict[int, Block]] = {
    0: _block(value=4),  # F32
    1: _block(value=2),  # F16
    2: _block(scale=2, quant=16),  # Q4_0
    3: _block(scale=2, minimum=2, quant=16),  # Q4_1
    6: _block(scale=2, quant_high=4, quant=16),  # Q5_0
    7: _block(scale=2, minimum=2, quant_high=4, quant=16),  # Q5_1
    8: _block(scale=2, quant=32),  # Q8_0
    10: _block(sub_scale=16, quant=64, scale=2, minimum=2),  # Q2_K
    11: _block(quant_high=32, quant=64, sub_scale=12, scale=2),  # Q3_K
    12: _block(scale=2, minimum=2, sub_scale=12, quant=128),  # Q4_K
    13: _block(scale=2, minimum=2, sub_scale=12, quant_high=32, quant=128),  # Q5_K
    14: _block(quant=128, quant_high=64, sub_scale=16, scale=2),  # Q6_K
    30: _block(value=2),  # BF16
}
"""By `enum ggml_type`. In the K types `scale` and `minimum` are those of the super-block."""

FLOAT_FIELDS: Final = {"scale", "minimum"}
"""Fields that are an IEEE half in every type above."""


def require_known(types: Iterable[int]) -> None:
    """Raise NotReadableError where a block of one of these types has another size in the llama.cpp of this process."""
    for number in sorted(set(types) & BLOCKS.keys()):
        size = ggml().type_size(number)
        if size != BLOCKS[number].size:
            name = ggml().type_name(number).decode()
            raise NotReadableError(f"a block of {name} has {size} bytes, not the {BLOCKS[number].size} known here")
