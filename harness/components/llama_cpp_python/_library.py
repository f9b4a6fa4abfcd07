"""llama.cpp's library as the binding exposes it: its build, its types, its log."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Mapping
from typing import Any

from llama_cpp import llama_cpp as low_level

_LOG_LEVEL_WARN = 3  # ggml.h, enum ggml_log_level
_LOG_LEVEL_CONT = 5
_KEPT: list[Any] = []


def with_type_ids(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the names of KV cache types by llama.cpp's numbers."""
    return {
        name: getattr(low_level, f"GGML_TYPE_{value.upper()}") if name in ("type_k", "type_v") else value
        for name, value in options.items()
    }


def type_name(number: int) -> str:
    """Return llama.cpp's name of a KV cache type."""
    for name in dir(low_level):
        if name.startswith("GGML_TYPE_") and getattr(low_level, name) == number:
            return name.removeprefix("GGML_TYPE_").lower()
    return str(number)


def library_digest() -> str:
    """Return the start of the SHA-256 over llama.cpp's shared libraries: what tells one build from another."""
    digest = hashlib.sha256()
    for path in sorted(low_level._base_path.glob("lib*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def log_warnings() -> None:
    """Send llama.cpp's warnings and errors to the log, whole and nothing else."""
    last = 0

    def write(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        nonlocal last
        last = last if level == _LOG_LEVEL_CONT else level
        if last >= _LOG_LEVEL_WARN:
            sys.stderr.write(text.decode("utf-8", errors="replace"))
            sys.stderr.flush()

    # llama.cpp keeps the pointer for the life of the process.
    callback = low_level.llama_log_callback(write)
    _KEPT.append(callback)
    low_level.llama_log_set(callback, ctypes.c_void_p(0))
