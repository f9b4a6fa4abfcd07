"""A GGUF taken apart into its entries and tensors, and put together again byte by byte.

The package `gguf` writes only what is right. Here everything may be wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ARRAY, STRING = 9, 8
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64 = 0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12
# Of the types that the tests use: numbers of a block, bytes of a block.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 8: (32, 34), 10: (256, 84), 11: (256, 110)}
BLOCKS |= {12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 24: (1, 1), 26: (1, 4), 28: (1, 8), 30: (1, 2)}


@dataclass
class Entry:
    """A key and its value.

    Attributes:
        key: The key.
        type: The value's type, of an array that of its elements.
        value: A number, text as bytes, or of an array a list of these.
        array: Whether it is an array.
        raw: What is written in place of the encoded value.
    """

    key: bytes
    type: int
    value: Any
    array: bool = False
    raw: bytes | None = None

    def encoded(self) -> bytes:
        head = struct.pack("<Q", len(self.key)) + self.key
        if self.raw is not None:
            return head + self.raw
        if self.array:
            head += struct.pack("<IIQ", ARRAY, self.type, len(self.value))
            return head + b"".join(_value(self.type, one) for one in self.value)
        return head + struct.pack("<I", self.type) + _value(self.type, self.value)


@dataclass
class Tensor:
    """A tensor; its place is worked out where it is not given.

    Attributes:
        name: Its name.
        sizes: Its sizes, innermost first.
        type: Its `enum ggml_type`.
        data: Its bytes.
        begin: The offset that the table gives, in place of the right one.
        dimensions: The number of dimensions that the table gives, in place of the right one.
    """

    name: bytes
    sizes: tuple[int, ...]
    type: int
    data: bytes
    begin: int | None = None
    dimensions: int | None = None


@dataclass
class File:
    """A whole GGUF.

    Attributes:
        entries: The metadata.
        tensors: The tensors.
        version: The version of the format.
        alignment: What the data is really aligned to.
        counts: The numbers of tensors and entries that the header gives, in place of the right ones.
        tail: Bytes behind the end.
        cut: How many bytes are missing at the end.
    """

    entries: list[Entry]
    tensors: list[Tensor]
    version: int = 3
    alignment: int = 32
    counts: tuple[int, int] | None = None
    magic: bytes = b"GGUF"
    tail: bytes = b""
    cut: int = 0

    def copy(self) -> File:
        return replace(
            self,
            entries=[replace(one, value=list(one.value) if one.array else one.value) for one in self.entries],
            tensors=[replace(one) for one in self.tensors],
        )

    def entry(self, key: str) -> Entry | None:
        return next((one for one in self.entries if one.key == key.encode()), None)

    def encoded(self) -> bytes:
        tensors, entries = self.counts or (len(self.tensors), len(self.entries))
        parts = [self.magic, struct.pack("<IQQ", self.version, tensors, entries)]
        parts += [one.encoded() for one in self.entries]
        data, place = [], 0
        for one in self.tensors:
            begin = place if one.begin is None else one.begin
            dimensions = len(one.sizes) if one.dimensions is None else one.dimensions
            parts.append(struct.pack("<Q", len(one.name)) + one.name + struct.pack("<I", dimensions & 0xFFFFFFFF))
            parts.append(struct.pack(f"<{len(one.sizes)}Q", *(size & (2**64 - 1) for size in one.sizes)))
            parts.append(struct.pack("<IQ", one.type & 0xFFFFFFFF, begin & (2**64 - 1)))
            padded = one.data + bytes(-len(one.data) % self.alignment)
            data.append(padded)
            place += len(padded)
        head = b"".join(parts)
        whole = head + bytes(-len(head) % self.alignment) + b"".join(data) + self.tail
        return whole[: len(whole) - self.cut]


def _value(type_: int, value: Any) -> bytes:
    if type_ == STRING:
        return struct.pack("<Q", len(value)) + bytes(value)
    if type_ in (F32, F64):
        return struct.pack("<" + CODES[type_], value)
    size = struct.calcsize(CODES[type_])
    return (int(value) % (1 << (8 * size))).to_bytes(size, "little")


@dataclass
class _Cursor:
    content: bytes
    place: int = 24
    taken: list[int] = field(default_factory=list)

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.content, self.place)
        self.place += struct.calcsize("<" + code)
        return value

    def value(self, type_: int) -> Any:
        return self.text() if type_ == STRING else self.number(CODES[type_])

    def text(self) -> bytes:
        length = self.number("Q")
        self.place += length
        return self.content[self.place - length : self.place]


def read(path: Path) -> File:
    """Take a healthy file apart."""
    content = path.read_bytes()
    version, tensors, entries = struct.unpack_from("<IQQ", content, 4)
    cursor = _Cursor(content)
    made = File([], [], version)
    for _ in range(entries):
        key, type_ = cursor.text(), cursor.number("I")
        if type_ == ARRAY:
            type_, count = cursor.number("I"), cursor.number("Q")
            made.entries.append(Entry(key, type_, [cursor.value(type_) for _ in range(count)], array=True))
        else:
            made.entries.append(Entry(key, type_, cursor.value(type_)))
    infos = []
    for _ in range(tensors):
        name, dimensions = cursor.text(), cursor.number("I")
        sizes = tuple(cursor.number("Q") for _ in range(dimensions))
        infos.append((name, sizes, cursor.number("I"), cursor.number("Q")))
    start = -(-cursor.place // 32) * 32
    for name, sizes, type_, begin in infos:
        size = bytes_of(sizes, type_)
        made.tensors.append(Tensor(name, sizes, type_, content[start + begin : start + begin + size]))
    return made


def bytes_of(sizes: Iterable[int], type_: int) -> int:
    """Return how many bytes a tensor has."""
    block, width = BLOCKS.get(type_, (1, 4))
    count = 1
    for size in sizes:
        count *= size
    return count // block * width
