"""Meta's package llama-models. Of it the tokenizer's module alone is imported: the others need torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import tiktoken

from harness.components.tokenizers._errors import no_answer, no_bytes
from harness.models.vocabulary import Vocabulary, from_tiktoken
from harness.process.owner import the_parts_own
from harness.process.upstream import private


class LlamaTokenizer:
    """`Tokenizer.encode` without BOS and EOS, with all control tokens allowed or, as it is by default, none.

    Args:
        variant: `llama3` or `llama4`.
    """

    adds_bos = True
    normalization = ""

    def __init__(self, variant: str = "llama4") -> None:
        self.name = f"llama-models {variant}"
        module = importlib.import_module(f"llama_models.{variant}.tokenizer")
        with the_parts_own():
            self._real: Any = module.Tokenizer.get_instance()
        self._encoding: tiktoken.Encoding = private(self._real, "model", "llama_models")
        self.special = dict(self._real.special_tokens)
        self.added: dict[str, int] = {}
        self.bos: int | None = self._real.bos_id
        self.size: int = self._real.n_words

    def version(self) -> str:
        """Return the versions of the package and of tiktoken."""
        return f"llama-models {version('llama-models')}, tiktoken {tiktoken.__version__}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text."""
        return self._encoded(text, special=special, bos=False)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with the package's own BOS."""
        return self._encoded(text, special=True, bos=True)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        try:
            return self._encoding.decode_bytes(list(ids))
        except (KeyError, OverflowError) as error:
            raise no_bytes(error, ids, self.size) from error

    def vocabulary(self) -> Vocabulary:
        """Return what it was made of."""
        return from_tiktoken(
            private(self._encoding, "_mergeable_ranks", "tiktoken"),
            self.special,
            private(self._encoding, "_pat_str", "tiktoken"),
            bos=self.bos,
            eos=self._real.eos_id,
            adds_bos=True,
        )

    def _encoded(self, text: str, *, special: bool, bos: bool) -> list[int]:
        try:
            ids: list[int] = self._real.encode(text, bos=bos, eos=False, allowed_special="all" if special else set())
        except Exception as error:
            raise no_answer(error) from error
        return ids
