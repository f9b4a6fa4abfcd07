"""A GGUF model file: its metadata and where its tensors are. Nothing of it is executed."""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import MissingPackageError, ModelFileError, UserError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_HEADER_BYTES = 24
# Entries of all tables together: keys, array elements, tensors. Gemma's vocabulary, the largest known, has 1.3 million.
_MAX_ENTRIES = 3_000_000
_MAX_DIMENSIONS = 4
_SCALAR_BYTES = {
    **dict.fromkeys(("UINT8", "INT8", "BOOL"), 1),
    **dict.fromkeys(("UINT16", "INT16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FLOAT32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FLOAT64"), 8),
}
_SCALAR_CODES = {
    **dict(zip(("UINT8", "UINT16", "UINT32", "UINT64"), "BHIQ", strict=True)),
    **dict(zip(("INT8", "INT16", "INT32", "INT64"), "bhiq", strict=True)),
    **dict(zip(("BOOL", "FLOAT32", "FLOAT64"), "?fd", strict=True)),
}


@dataclass(frozen=True)
class ModelFile:
    """What a GGUF declares.

    Attributes:
        path: The file.
        metadata: Every key and value; arrays are lists. The reader's own `GGUF.*` header keys are left out.
        tensors: The reader's tensors (`name`, `shape` innermost first, `tensor_type`, `data` memory-mapped).
    """

    path: Path
    metadata: dict[str, Any]
    tensors: list[Any]

    @property
    def architecture(self) -> str:
        """The value of `general.architecture`, or an empty string."""
        return str(self.metadata.get("general.architecture", ""))


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


def check_header(path: Path) -> None:
    """Refuse early, without any package, what is not a readable GGUF.

    Raises:
        ModelFileError: the file is missing, too short, not GGUF, of the other byte order or of an unknown version.
    """
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}", "check the path, or the entry in stacks/models.toml")
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if head[:4] != _MAGIC:
        raise ModelFileError(f"{path} is not a GGUF file (it starts with {head[:4]!r}, not {_MAGIC!r})")
    if len(head) < _HEADER_BYTES:
        raise ModelFileError(f"{path} is truncated: {len(head)} bytes, shorter than a GGUF header", "copy it again")
    (version,) = struct.unpack("<I", head[4:8])
    if version not in _VERSIONS:
        big_endian = struct.unpack(">I", head[4:8])[0] in _VERSIONS
        what = "is a big-endian GGUF" if big_endian else f"has GGUF version {version}"
        raise ModelFileError(f"{path} {what}; versions 2 and 3, little-endian, are known", "convert the model again")


def read_model_file(path: Path) -> ModelFile:
    """Read a GGUF's metadata and tensor table (about 3 s for a vocabulary of 50,000 entries).

    Raises:
        ModelFileError: as `check_header`, or the tables inside the file do not hold together.
        MissingPackageError: the package `gguf` is not installed.
    """
    check_header(path)
    try:
        import gguf
    except ImportError as error:
        raise MissingPackageError("reading a model file", "gguf", "doctor") from error
    _check_tables(path)
    try:
        reader = gguf.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    # The reader trusts the file: a truncated or forged one surfaces as any of these.
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, TypeError, MemoryError) as error:
        raise ModelFileError(
            f"{path} is truncated or damaged: {error or type(error).__name__}", "copy or convert it again"
        ) from error
    return ModelFile(path=path, metadata=metadata, tensors=list(reader.tensors))


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a GGUF's keys and values alone: what `read_model_file` gives, a vocabulary of 200,000 entries in 2 s.

    Raises:
        ModelFileError: as `read_model_file`.
        MissingPackageError: the package `gguf` is not installed.
    """
    try:
        return {key: _decoded(raw, len(key.encode("utf-8"))) for key, raw in raw_entries(path).items()}
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is truncated or damaged: {error}", "copy or convert it again") from error


def raw_entries(path: Path) -> dict[str, bytes]:
    """Return every key's whole entry (name, type and value) as it stands in the file, by key.

    A file with the same vocabulary is made of these without decoding and encoding a hundred thousand strings.

    Raises:
        ModelFileError: as `read_model_file`.
        MissingPackageError: the package `gguf` is not installed.
    """
    check_header(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        spans = _walked(path, content).spans
        return {key.decode("utf-8", "replace"): content[begin:end] for key, (begin, end) in spans.items()}


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """Return where every tensor is, by name, in the order of the file.

    Raises:
        ModelFileError: as `read_model_file`.
        MissingPackageError: the package `gguf` is not installed.
    """
    check_header(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _walked(path, content).tensors


def entry_type(raw: bytes) -> str:
    """Return the type of a key's entry by its name in the package `gguf`; of an array that of its elements and `[]`."""
    type_, elements, _ = _typed(raw, struct.unpack_from("<Q", raw)[0])
    return type_.name if elements is None else f"{type_.name}[]"


def entry_of(key: str, value: Any, type_name: str) -> bytes:
    """Return a key's whole entry as it stands in a file.

    Args:
        key: The key.
        value: Its value; of an array a sequence.
        type_name: As `entry_type` gives it.

    Raises:
        UserError: there is no such type, or the value is none of it.
    """
    from gguf import GGUFValueType

    name = type_name.removesuffix("[]")
    values = value if name != type_name else [value]
    try:
        head = _text(key)
        if name != type_name:
            head += struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType[name], len(values))
        else:
            head += struct.pack("<I", GGUFValueType[name])
        if name == "STRING":
            return head + b"".join(map(_text, values))
        return head + struct.pack(f"<{len(values)}{_SCALAR_CODES[name]}", *values)
    except (KeyError, struct.error, AttributeError, TypeError) as error:
        raise UserError(f"{value!r:.60} is no {type_name}, which {key} is to hold ({error})") from error


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _typed(raw: bytes, name_bytes: int) -> tuple[Any, int | None, int]:
    """Return the type of an entry's value, of an array that of its elements and their number, and where it begins."""
    from gguf import GGUFValueType

    place = 8 + name_bytes
    (number,) = struct.unpack_from("<I", raw, place)
    if GGUFValueType(number) is not GGUFValueType.ARRAY:
        return GGUFValueType(number), None, place + 4
    number, elements = struct.unpack_from("<IQ", raw, place + 4)
    return GGUFValueType(number), elements, place + 16


def _decoded(raw: bytes, name_bytes: int) -> Any:
    """Return the value of an entry whose tables hold together."""
    from gguf import GGUFValueType

    type_, elements, place = _typed(raw, name_bytes)
    if type_ is GGUFValueType.STRING:
        texts = []
        for _ in range(1 if elements is None else elements):
            end = place + 8 + int.from_bytes(raw[place : place + 8], "little")
            texts.append(raw[place + 8 : end].decode("utf-8"))
            place = end
        return texts[0] if elements is None else texts
    code = _SCALAR_CODES[type_.name]
    values = list(struct.unpack_from(f"<{1 if elements is None else elements}{code}", raw, place))
    return values[0] if elements is None else values


def _check_tables(path: Path) -> None:
    """Hold every count and length of the tables against the size of the file, before anything believes them.

    gguf's reader does believe them: at a forged array length it appends empty elements for hours, and at a forged
    tensor size it computes an offset that overflows.

    Raises:
        ModelFileError: a table or a tensor ends beyond the file, or could not be that large.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _walked(path, content)


def _walked(path: Path, content: mmap.mmap) -> _Tables:
    tables = _Tables(content)
    try:
        tables.walk()
    except ValueError as error:
        raise ModelFileError(f"{path} is truncated or damaged: {error}", "copy or convert it again") from error
    except ImportError as error:
        raise MissingPackageError("reading a model file", "gguf", "doctor") from error
    return tables


class _Tables:
    """A walk over a GGUF's tables; it keeps where each entry and tensor is. What is wrong raises `ValueError`."""

    def __init__(self, content: mmap.mmap) -> None:
        self.spans: dict[bytes, tuple[int, int]] = {}
        self.tensors: dict[str, TensorPlace] = {}
        self._content = content
        self._place = _HEADER_BYTES
        self._entries = 0
        self._alignment = 32

    def walk(self) -> None:
        tensors, keys = struct.unpack_from("<QQ", self._content, _HEADER_BYTES - 16)
        self._count(keys + tensors)
        for _ in range(keys):
            begin = self._place
            key = self._skip_key()
            self.spans[key] = begin, self._place
        found = [self._skip_tensor() for _ in range(tensors)]
        start = -(-self._place // self._alignment) * self._alignment
        for name, one in found:
            end = start + one.begin + one.size
            if end > len(self._content):
                raise ValueError(f"tensor {name!r} ends at byte {end:,}, the file at {len(self._content):,}")
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
        return self._content[begin : begin + length]

    def _skip_key(self) -> bytes:
        """Step over a key's entry and return the key."""
        from gguf import GGUFValueType

        key = self._text()
        type_ = GGUFValueType(self._number("<I"))
        elements = 1
        if key == b"general.alignment" and type_ is GGUFValueType.UINT32:
            # The reader refuses one that is zero or no power of two.
            self._alignment = self._number("<I") or 1
            return key
        if type_ is GGUFValueType.ARRAY:
            type_ = GGUFValueType(self._number("<I"))
            elements = self._number("<Q")
            self._count(elements)
        if type_ is GGUFValueType.STRING:
            for _ in range(elements):
                self._skip(self._number("<Q"))
        elif type_ is GGUFValueType.ARRAY:
            raise ValueError(f"{key[:64]!r} is an array of arrays")
        else:
            self._skip(elements * _SCALAR_BYTES[type_.name])
        return key

    def _skip_tensor(self) -> tuple[str, TensorPlace]:
        """Return the tensor's name and its place, counted from where the data of all tensors begins."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text()[:64].decode("utf-8", "replace")
        dimensions = self._number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {dimensions:,} dimensions")
        sizes = tuple(self._number("<Q") for _ in range(dimensions))
        number = self._number("<I")
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(number)]
        return name, TensorPlace(sizes, number, self._number("<Q"), math.prod(sizes) // block * block_bytes)


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
