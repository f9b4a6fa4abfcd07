"""What is remembered between runs, because finding it again is slow: the hashes of model files."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

from harness.models.gguf import sha256_of


def remembered_sha256(path: Path) -> str:
    """Return a file's SHA-256, from memory while its place, size, inode and times are the same."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_ino}|{status.st_mtime_ns}|{status.st_ctime_ns}"
    store = Path(platformdirs.user_cache_dir("llm-stack-harness")) / "sha256.json"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        loaded = json.loads(store.read_text(encoding="utf-8"))
        known = {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}
    if key not in known:
        known[key] = sha256_of(path)
        # A cache that cannot be written only costs time.
        with contextlib.suppress(OSError):
            store.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=store.parent, delete=False, encoding="utf-8") as file:
                json.dump(known, file)
            os.replace(file.name, store)  # noqa: PTH105 - atomic
    return known[key]
