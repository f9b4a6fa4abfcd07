"""What a model file declares of how it is to be loaded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import settings as names
from harness.models.gguf import read_model_file
from harness.settings import SAMPLING, Scalar

_SAMPLING_KEYS: Final[Mapping[str, str]] = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "penalty_repeat",
    "xtc_probability": "xtc_probability",
    "mirostat": "mirostat",
}
"""The keys `general.sampling.*` by the names that servers have for them (llama.cpp, `common/common.cpp`)."""


@dataclass(frozen=True)
class Declared:
    """What a model file declares.

    Attributes:
        metadata: Its keys and values.
        vocabulary: How many tokens it has; None where it is one part of a split file.
        weights: How many numbers its tensors hold; None likewise.
        size: How many bytes; None likewise.
    """

    metadata: Mapping[str, Any]
    vocabulary: int | None
    weights: int | None
    size: int | None

    @property
    def template(self) -> str | None:
        """Its chat template."""
        found = self.metadata.get("tokenizer.chat_template")
        return found if isinstance(found, str) else None

    def of(self, setting: str) -> tuple[Scalar | None, str]:
        """Return what it says of a setting, and by which key."""
        architecture = self.metadata.get("general.architecture")
        if setting.startswith(SAMPLING):
            key = f"general.sampling.{_SAMPLING_KEYS.get(setting.removeprefix(SAMPLING), '')}"
            return self._number(key), key
        if setting in (names.BOS, names.EOS):
            key = f"tokenizer.ggml.{'bos' if setting == names.BOS else 'eos'}_token_id"
            return self._text_of(self.metadata.get(key)), key
        counted = {
            names.VOCABULARY: (self.vocabulary, "its list of tokens"),
            names.WEIGHTS: (self.weights, "its tensors"),
            names.SIZE: (self.size, "its tensors"),
            names.ARCHITECTURE: (architecture if isinstance(architecture, str) else None, "general.architecture"),
        }
        if setting in counted:
            return counted[setting]
        if setting == names.ROPE_SCALE:
            key = f"{architecture}.rope.scaling.factor"
            factor = self._number(key)
            # As llama.cpp reads it, whatever the type, but where the type says that there is none.
            stretched = factor and self.metadata.get(f"{architecture}.rope.scaling.type") != "none"
            return (1 / factor if factor and stretched else None), key
        keys = {
            names.TRAINED: "context_length",
            names.ROPE_BASE: "rope.freq_base",
            names.WINDOW: "attention.sliding_window",
        }
        key = f"{architecture}.{keys[setting]}" if setting in keys else ""
        return (self._number(key) if key else None), key

    def _number(self, key: str) -> int | float | None:
        found = self.metadata.get(key)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    def _text_of(self, token: object) -> str | None:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not isinstance(token, int) or not 0 <= token < len(tokens):
            return None
        return str(tokens[token])


def declared_by(path: Path) -> Declared:
    """Return what a model file declares.

    Raises:
        OSError: it is not there.
        UserError: it is no readable GGUF.
    """
    status = path.stat()
    return _declared_by(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _declared_by(path: Path, size: int, changed: int) -> Declared:
    del size, changed
    found = read_model_file(path)
    parts = found.metadata.get("split.count")
    whole = not (isinstance(parts, int) and parts > 1)
    tokens = found.metadata.get("tokenizer.ggml.tokens")
    return Declared(
        metadata=found.metadata,
        vocabulary=len(tokens) if isinstance(tokens, list) else None,
        weights=sum(int(one.n_elements) for one in found.tensors) if whole else None,
        size=sum(int(one.n_bytes) for one in found.tensors) if whole else None,
    )
