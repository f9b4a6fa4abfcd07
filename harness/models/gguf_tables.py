"""The tables of a GGUF: where each key and tensor stands, held against the file before anything is believed."""

from __future__ import annotations

import math
import mmap
import struct
from typing import NamedTuple

HEADER_BYTES = 24
# Entries of all tables together: keys, array elements, tensors. Gemma's vocabulary, the largest known, has 1.3 million.
_MAX_ENTRIES = 3_000_000
# Of all keys and values together; Gemma's has 14 MB.
_MAX_METADATA_BYTES = 64 << 20
# Each expert a tensor of its own, as once was the way, makes some 30,000.
_MAX_TENSORS = 100_000
_MAX_DIMENSIONS = 4
# A longer name does not fit into the engine's tensor, with the zero at its end.
_MAX_NAME_BYTES = 63
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = b"general.alignment"
_SCALAR_BYTES = {
    **dict.fromkeys(("UINT8", "INT8", "BOOL"), 1),
    **dict.fromkeys(("UINT16", "INT16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FLOAT32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FLOAT64"), 8),
}


class TensorPlace(NamedTuple):
    """Where a tensor is, as a file's table of tensors says.

    Attributes:
        dimensions: Its sizes, innermost first.
        type: Its `enum ggml_type`.
        begin: Its first byte in the file.
        size: How many bytes.
    """

    dimensions: tuple[int, ...]
    type: int
    begin: int
    size: int


class Tables:
    """A walk over a GGUF's tables; it keeps where each entry and tensor is. What is wrong raises `ValueError`.

    The package gguf does believe them: at a forged array length its reader appends empty elements for hours, and at a
    forged tensor size it computes an offset that overflows.

    Attributes:
        spans: The first and last byte of each key's entry.
        tensors: Where each tensor is, in the order of the table.
        data_start: Where the data of all tensors begins.
    """

    def __init__(self, content: mmap.mmap) -> None:
        self.spans: dict[bytes, tuple[int, int]] = {}
        self.tensors: dict[str, TensorPlace] = {}
        self.data_start = 0
        self._content = content
        self._place = HEADER_BYTES
        self._entries = 0
        self._alignment = 32

    def walk(self) -> None:
        """Go over all of it.

        Raises:
            ValueError: a table or a tensor ends beyond the file, could not be that large, or stands there twice.
        """
        tensors, keys = struct.unpack_from("<QQ", self._content, HEADER_BYTES - 16)
        self._count(keys + tensors)
        if tensors > _MAX_TENSORS:
            raise ValueError(f"its tables declare {tensors:,} tensors, more than {_MAX_TENSORS:,}")
        for _ in range(keys):
            begin = self._place
            key = self._skip_key()
            # The engine reads both as texts that end with a zero.
            if not key or b"\0" in key:
                raise ValueError(f"the key {_shown(key)} at byte {begin:,} is empty or holds a zero byte")
            if key in self.spans:
                raise ValueError(f"the key {_shown(key)} is there twice")
            self.spans[key] = begin, self._place
            if self._place > _MAX_METADATA_BYTES:
                raise ValueError(f"its keys and values have more than {_MAX_METADATA_BYTES:,} bytes")
        found = [self._skip_tensor() for _ in range(tensors)]
        start = self.data_start = -(-self._place // self._alignment) * self._alignment
        for name, one in found:
            end = start + one.begin + one.size
            if end > len(self._content):
                raise ValueError(f"tensor {name!r} ends at byte {end:,}, the file at {len(self._content):,}")
            if name in self.tensors:
                raise ValueError(f"tensor {name!r} is there twice")
            self.tensors[name] = one._replace(begin=start + one.begin)

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > _MAX_ENTRIES:
            raise ValueError(f"its tables declare {self._entries:,} entries, more than {_MAX_ENTRIES:,}")

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self._content, self._skip(struct.calcsize(layout)))
        return int(value)

    def _skip(self, length: int) -> int:
        """Step over so many bytes and return where they began."""
        begin = self._place
        if length > len(self._content) - begin:
            raise ValueError(
                f"{length:,} bytes are declared at byte {begin:,}, but the file has {len(self._content):,}"
            )
        self._place += length
        return begin

    def _text(self) -> bytes:
        length = self._number("<Q")
        begin = self._skip(length)
        if length > _MAX_METADATA_BYTES:
            raise ValueError(f"a name of {length:,} bytes is declared at byte {begin:,}")
        return self._content[begin : begin + length]

    def _skip_key(self) -> bytes:
        """Step over a key's entry and return the key."""
        from gguf import GGUFValueType

        key = self._text()
        type_ = GGUFValueType(self._number("<I"))
        if key == _ALIGNMENT:
            if type_ is not GGUFValueType.UINT32:
                raise ValueError(f"general.alignment is {type_.name}, not UINT32")
            self._alignment = self._number("<I")
            if not self._alignment or self._alignment & (self._alignment - 1):
                raise ValueError(f"general.alignment is {self._alignment:,}, not a power of two")
            return key
        elements = 1
        if type_ is GGUFValueType.ARRAY:
            type_ = GGUFValueType(self._number("<I"))
            elements = self._number("<Q")
            self._count(elements)
        if type_ is GGUFValueType.STRING:
            self._skip_texts(elements)
        elif type_ is GGUFValueType.ARRAY:
            raise ValueError(f"{_shown(key)} is an array of arrays")
        else:
            self._skip(elements * _SCALAR_BYTES[type_.name])
        return key

    def _skip_texts(self, count: int) -> None:
        """Step over texts; a vocabulary has some hundred thousand, so nothing is called for each but what reads it."""
        content, place, end, length = self._content, self._place, len(self._content), _LENGTH.unpack_from
        for _ in range(count):
            if place + _LENGTH.size > end:
                break
            place += _LENGTH.size + length(content, place)[0]
        else:
            if place <= end:
                self._place = place
                return
        # One of them ends beyond the file: step over each, to say which.
        for _ in range(count):
            self._skip(self._number("<Q"))

    def _skip_tensor(self) -> tuple[str, TensorPlace]:
        """Return the tensor's name and its place, counted from where the data of all tensors begins."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        raw = self._text()
        name = raw[:_MAX_NAME_BYTES].decode("utf-8", "replace")
        if len(raw) > _MAX_NAME_BYTES:
            raise ValueError(f"tensor {name!r}... has a name of {len(raw):,} bytes, more than {_MAX_NAME_BYTES}")
        if b"\0" in raw:
            raise ValueError(f"the name of tensor {name!r} holds a zero byte")
        dimensions = self._number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {dimensions:,} dimensions")
        sizes = tuple(self._number("<Q") for _ in range(dimensions))
        number = self._number("<I")
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(number)]
        if (sizes[0] if sizes else 1) % block:
            raise ValueError(f"tensor {name!r} has rows of {sizes[:1]} numbers, in blocks of {block}")
        return name, TensorPlace(sizes, number, self._number("<Q"), math.prod(sizes) // block * block_bytes)


def _shown(key: bytes) -> str:
    return repr(key[:64].decode("utf-8", "replace"))
