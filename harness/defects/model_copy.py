"""A copy of a GGUF that a defect edits: its metadata, its vocabulary, the bytes of its tensors."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, unknown_name
from harness.models.gguf import entry_of, entry_type, raw_entries, read_metadata, tensor_places
from harness.models.gguf_tables import TensorPlace

_VERSION = 3
_ALIGNMENT = "general.alignment"
_DEFAULT_ALIGNMENT = 32


class ModelCopy:
    """A model file that is edited in memory and written once. The file itself is only read.

    Args:
        path: The file that is copied.

    Attributes:
        version: The version of the format that the copy says it has.
        cut: How many bytes are left off its end.

    Raises:
        ModelFileError: the file is no readable GGUF.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata = read_metadata(path)
        self._entries = raw_entries(path)
        self._places = tensor_places(path)
        self._types = {name: place.type for name, place in self._places.items()}
        self._tensors: dict[str, NDArray[np.uint8]] = {}
        self._same_header = True
        self.version = _VERSION
        self.cut = 0

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Every key and value, as edited so far; arrays are lists, which `set` alone changes in the copy."""
        return MappingProxyType(self._metadata)

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of the file."""
        return tuple(self._places)

    def set(self, key: str, value: Any, type_name: str | None = None) -> None:
        """Give a key another value, or add one.

        Args:
            key: The key.
            value: Its value; of an array a sequence.
            type_name: Its type by its name in the package `gguf` (`UINT32`, `STRING`, ...; of an array with `[]` behind
                that of its elements). A key that is there keeps its own.

        Raises:
            UserError: the key is not there and no type is given, or the value is none of the type.
        """
        if type_name is None:
            type_name = entry_type(self._entries[self._known(key)])
        self._entries[key] = entry_of(key, value, type_name)
        self._metadata[key] = list(value) if type_name.endswith("[]") else value
        self._same_header = False

    def remove(self, key: str) -> None:
        """Leave a key out.

        Raises:
            UserError: it is not there.
        """
        del self._entries[self._known(key)]
        del self._metadata[key]
        self._same_header = False

    def tensor(self, name: str) -> NDArray[np.uint8]:
        """Return a tensor's bytes as they stand in the file, `(rows, bytes of a row)`, to be changed in place.

        A row is what one output of a matrix is computed from; a vector is one row, and a view of it as `<f4` its
        numbers.

        Raises:
            UserError: there is no such tensor.
        """
        if name not in self._tensors:
            place = self._place(name)
            rows = int(np.prod(place.dimensions[1:], dtype=np.int64))
            data = np.fromfile(self._path, np.uint8, place.size, offset=place.begin)
            self._tensors[name] = data.reshape(rows, -1)
        return self._tensors[name]

    def tensor_type(self, name: str) -> int:
        """Return a tensor's `enum ggml_type`.

        Raises:
            UserError: there is no such tensor.
        """
        self._place(name)
        return self._types[name]

    def retype(self, name: str, number: int) -> None:
        """Say that a tensor is of another `enum ggml_type`; its bytes stay.

        Raises:
            UserError: there is no such tensor.
        """
        self._place(name)
        self._types[name] = number
        self._same_header = False

    def drop(self, name: str) -> None:
        """Leave a tensor out.

        Raises:
            UserError: it is not there.
        """
        self._place(name)
        del self._places[name]
        self._tensors.pop(name, None)
        self._same_header = False

    def save(self, path: Path) -> Path:
        """Write the edited file and return where it is.

        Raises:
            UserError: it would be the file that is copied, or it cannot be written.
        """
        if path.resolve() == self._path.resolve():
            raise UserError(f"{path} is the model file itself", "give the copy another place")
        try:
            if self._same_header:
                shutil.copyfile(self._path, path)
                begins = {name: place.begin for name, place in self._places.items()}
            else:
                begins = self._write_anew(path)
            with path.open("r+b") as file:
                for name, data in self._tensors.items():
                    file.seek(begins[name])
                    file.write(np.ascontiguousarray(data).data)
                file.seek(4)
                file.write(struct.pack("<I", self.version))
                file.truncate(max(0, path.stat().st_size - self.cut))
        except OSError as error:
            raise UserError(f"the edited model cannot be written to {path}: {error.strerror}") from error
        return path

    def _write_anew(self, path: Path) -> dict[str, int]:
        """Write a new header before the tensors' bytes, and return where each tensor begins."""
        alignment = int(self._metadata.get(_ALIGNMENT, _DEFAULT_ALIGNMENT))
        head = bytearray(struct.pack("<4sIQQ", b"GGUF", self.version, len(self._places), len(self._entries)))
        for raw in self._entries.values():
            head += raw
        begin = 0
        relative: dict[str, int] = {}
        for name, place in self._places.items():
            encoded = name.encode("utf-8")
            count = len(place.dimensions)
            head += struct.pack("<Q", len(encoded)) + encoded + struct.pack("<I", count)
            head += struct.pack(f"<{count}QIQ", *place.dimensions, self._types[name], begin)
            relative[name] = begin
            begin += _aligned(place.size, alignment)
        start = _aligned(len(head), alignment)
        with self._path.open("rb") as source, path.open("wb") as file:
            file.write(head)
            for name, place in self._places.items():
                source.seek(place.begin)
                file.seek(start + relative[name])
                file.write(source.read(place.size))
            file.truncate(start + begin)
        return {name: start + at for name, at in relative.items()}

    def _known(self, key: str) -> str:
        if key not in self._entries:
            raise unknown_name("key", key, self._entries)
        return key

    def _place(self, name: str) -> TensorPlace:
        if name not in self._places:
            raise unknown_name("tensor", name, self._places)
        return self._places[name]


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
