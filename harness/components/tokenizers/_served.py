"""The child's side of a tokenizer's component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.parts import PartError, make


class Served:
    """A tokenizer.

    Args:
        tokenizer: The import path of its class.
        keywords: What it is made with.
    """

    def __init__(self, tokenizer: str, keywords: Mapping[str, Any]) -> None:
        self._real: Any = make(tokenizer, **keywords)

    def identity(self) -> dict[str, str]:
        """Return what identifies it."""
        return {"tokenizer": self._real.version(), "vocabulary": f"{self._real.size} ids"}

    def tokenize(self, text: str) -> dict[str, Any]:
        """Return the ids of a prompt, and each one's text for a reader; or `unsupported`, why it cannot be asked."""
        real = self._real
        try:
            ids = real.encode(text, special=True)
        except PartError as error:
            if error.kind != "unsupported":
                raise
            return {"unsupported": error.message}
        if real.adds_bos and real.bos is not None and ids[:1] != [real.bos]:
            ids = [real.bos, *ids]
        return {"ids": ids, "pieces": [real.decode([one]).decode("utf-8", errors="replace") for one in ids]}
