"""Writing a GGUF around another one's vocabulary (GGUF specification, version 3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.models.gguf import entry_of, raw_entries

_ALIGNMENT = 32
_TYPES = {str: "STRING", int: "UINT32", float: "FLOAT32"}
_TENSOR_TYPES = {"float32": 0, "float16": 1}
_TEMPLATE = "tokenizer.chat_template"
_TOKENS = "tokenizer.ggml.tokens"


def write_probe(
    path: Path,
    source: Path,
    chat_template: str | None,
    values: Mapping[str, str | int | float],
    tensors: Mapping[str, NDArray[Any]],
) -> dict[str, int]:
    """Write a GGUF with the source's tokenizer and other weights.

    Args:
        path: The file to write.
        source: The GGUF whose `tokenizer.*` entries are taken over, byte for byte.
        chat_template: A template that replaces the source's own; None keeps it.
        values: The other keys; texts, unsigned integers and floats.
        tensors: float32 or float16 arrays in row-major order.

    Returns:
        Where each tensor's data begins in the file, in bytes.

    Raises:
        ModelFileError: the source is damaged.
    """
    entries = {key: raw for key, raw in raw_entries(source).items() if key.startswith("tokenizer.")}
    if chat_template is not None:
        entries[_TEMPLATE] = _entry(_TEMPLATE, chat_template)
    entries |= {key: _entry(key, value) for key, value in values.items()}
    head = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries)))
    for raw in entries.values():
        head += raw
    relative: dict[str, int] = {}
    place = 0
    for name, tensor in tensors.items():
        relative[name] = place
        head += _text(name) + struct.pack("<I", tensor.ndim) + struct.pack(f"<{tensor.ndim}Q", *tensor.shape[::-1])
        head += struct.pack("<IQ", _TENSOR_TYPES[tensor.dtype.name], place)
        place += _aligned(tensor.nbytes)
    start = _aligned(len(head))
    with path.open("wb") as file:
        file.write(head)
        for name, tensor in tensors.items():
            file.seek(start + relative[name])
            # Zeros are left as a hole: most of a probe is zeros.
            if tensor.any():
                file.write(np.ascontiguousarray(tensor).tobytes())
        file.truncate(start + place)
    return {name: start + at for name, at in relative.items()}


def vocabulary_size(source: Path) -> int:
    """Return how many tokens a GGUF's vocabulary has.

    Raises:
        ModelFileError: the file is damaged.
    """
    raw = raw_entries(source)[_TOKENS]
    # Name (length and text), the type `array`, the elements' type, their number.
    (count,) = struct.unpack_from("<Q", raw, 8 + len(_TOKENS) + 4 + 4)
    return int(count)


def _entry(key: str, value: str | int | float) -> bytes:
    return entry_of(key, value, _TYPES[type(value)])


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
