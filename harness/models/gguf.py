"""A GGUF model file: its metadata and where its tensors are. Nothing of it is executed."""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import MissingPackageError, ModelFileError, UserError
from harness.models.gguf_tables import HEADER_BYTES, Tables, TensorPlace

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_BYTES = "u1"
_NUMPY_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
_SCALAR_CODES = {
    **dict(zip(("UINT8", "UINT16", "UINT32", "UINT64"), "BHIQ", strict=True)),
    **dict(zip(("INT8", "INT16", "INT32", "INT64"), "bhiq", strict=True)),
    **dict(zip(("BOOL", "FLOAT32", "FLOAT64"), "?fd", strict=True)),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        path: The file.
        name: Its name.
        shape: Its sizes, innermost first.
        tensor_type: Its `gguf.GGMLQuantizationType`.
        data_offset: Its first byte in the file.
        n_bytes: How many bytes.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    tensor_type: Any
    data_offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def data(self) -> Any:
        """Its numbers, memory-mapped, outermost dimension first; of a type that NumPy lacks the bytes of each row."""
        import numpy as np
        from gguf.quants import quant_shape_to_byte_shape

        shape = tuple(reversed(self.shape))
        plain = numpy_type(self.tensor_type)
        if plain == _BYTES:
            shape = quant_shape_to_byte_shape(shape, self.tensor_type)
        if not self.n_bytes:
            return np.empty(shape, plain)
        return np.memmap(self.path, plain, "r", self.data_offset, shape)


def numpy_type(tensor_type: Any) -> str:
    """Return NumPy's name of a `gguf.GGMLQuantizationType`, or that of bytes."""
    return _NUMPY_TYPES.get(tensor_type.name, _BYTES)


@dataclass(frozen=True)
class ModelFile:
    """What a GGUF declares.

    Attributes:
        path: The file.
        metadata: Every key and value; arrays are lists.
        tensors: Its tensors, in the order of the file.
        types: The type of each key's value as `entry_type` gives it.
        data_start: Where the data of all tensors begins.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: list[Tensor]
    types: dict[str, str] = field(default_factory=dict)
    data_start: int = 0

    @property
    def architecture(self) -> str:
        """The value of `general.architecture`, or an empty string."""
        return str(self.metadata.get("general.architecture", ""))


def check_header(path: Path) -> None:
    """Refuse early, without any package, what is not a readable GGUF.

    Raises:
        ModelFileError: the file is missing, too short, not GGUF, of the other byte order or of an unknown version.
    """
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}", "check the path, or the entry in stacks/models.toml")
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if head[:4] != _MAGIC:
        raise ModelFileError(f"{path} is not a GGUF file (it starts with {head[:4]!r}, not {_MAGIC!r})")
    if len(head) < HEADER_BYTES:
        raise ModelFileError(f"{path} is truncated: {len(head)} bytes, shorter than a GGUF header", "copy it again")
    (version,) = struct.unpack("<I", head[4:8])
    if version not in _VERSIONS:
        big_endian = struct.unpack(">I", head[4:8])[0] in _VERSIONS
        what = "is a big-endian GGUF" if big_endian else f"has GGUF version {version}"
        raise ModelFileError(f"{path} {what}; versions 2 and 3, little-endian, are known", "convert the model again")


def read_model_file(path: Path) -> ModelFile:
    """Read a GGUF's metadata and tensor table (under a second for a vocabulary of 50,000 entries).

    Raises:
        ModelFileError: as `check_header`, or the tables inside the file do not hold together.
        MissingPackageError: the package `gguf` is not installed.
    """
    check_header(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        tables = _walked(path, content)
        metadata, types = {}, {}
        for raw_key, (begin, end) in tables.spans.items():
            key, raw = _key_of(path, raw_key), content[begin:end]
            metadata[key] = _value_of(path, raw, len(raw_key))
            types[key] = entry_type(raw)
    tensors = [_tensor(path, *one) for one in tables.tensors.items()]
    return ModelFile(path, metadata, tensors, types, tables.data_start)


def _tensor(path: Path, name: str, place: TensorPlace) -> Tensor:
    from gguf import GGMLQuantizationType

    return Tensor(path, name, place.dimensions, GGMLQuantizationType(place.type), place.begin, place.size)


def _key_of(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error


def _value_of(path: Path, raw: bytes, name_bytes: int) -> Any:
    try:
        return _decoded(raw, name_bytes)
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(f"{path} is truncated or damaged: {error}", "copy or convert it again")


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a GGUF's keys and values alone.

    Raises:
        ModelFileError: as `read_model_file`.
        MissingPackageError: the package `gguf` is not installed.
    """
    return read_model_file(path).metadata


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


def _walked(path: Path, content: mmap.mmap) -> Tables:
    tables = Tables(content)
    try:
        tables.walk()
    except ValueError as error:
        raise _damaged(path, error) from error
    except ImportError as error:
        raise MissingPackageError("reading a model file", "gguf", "doctor") from error
    return tables


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
