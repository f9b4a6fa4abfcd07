"""llama.cpp's library as the binding exposes it: its build and its types."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as low_level


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
    for path in sorted(Path(low_level.__file__).with_name("lib").glob("lib*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
