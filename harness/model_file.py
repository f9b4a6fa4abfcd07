"""A GGUF model file: its metadata and where its tensors are. Nothing of it is executed."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MissingPackageError, ModelFileError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)


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


def check_header(path: Path) -> None:
    """Refuse early, without any package, what is not a readable GGUF.

    Raises:
        ModelFileError: the file is missing, too short, not GGUF, of the other byte order or of an unknown version.
    """
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}", "check the path, or the entry in stacks/models.toml")
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if head[:4] != _MAGIC:
        raise ModelFileError(f"{path} is not a GGUF file (it starts with {head[:4]!r}, not {_MAGIC!r})")
    if len(head) < 24:
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
    try:
        reader = gguf.GGUFReader(path)
        metadata = {
            name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")
        }
    # The reader trusts the file: a truncated or forged one surfaces as any of these.
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, TypeError, MemoryError) as error:
        raise ModelFileError(
            f"{path} is truncated or damaged: {error or type(error).__name__}", "copy or convert it again"
        ) from error
    return ModelFile(path=path, metadata=metadata, tensors=list(reader.tensors))


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
