"""What llama.cpp says while it runs, in the process that it runs in."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_LOG_LEVEL_WARN = 3  # ggml.h, enum ggml_log_level
_LOG_LEVEL_CONT = 5
_KEPT: list[Any] = []


def log_warnings() -> None:
    """Send llama.cpp's warnings and errors to the log, whole and nothing else."""
    from llama_cpp import llama_cpp as low_level

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
