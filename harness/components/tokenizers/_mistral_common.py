"""Mistral's package mistral-common: its tekken tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import tiktoken
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from harness.components.tokenizers._errors import no_answer, no_such_token, not_parsed
from harness.models.vocabulary import Vocabulary, from_tekken
from harness.process.owner import the_parts_own


class MistralTokenizer:
    """`Tekkenizer.encode`, which encodes plain text: the package puts control tokens by their ids, never by a text.

    Args:
        variant: The name of a tekken file in the package's data folder.
    """

    adds_bos = True
    normalization = ""

    def __init__(self, variant: str = "tekken_240911") -> None:
        self.name = f"mistral-common {variant}"
        self._path = Path(str(files("mistral_common") / "data" / f"{variant}.json"))
        with the_parts_own():
            self._real = Tekkenizer.from_file(self._path)
        self.special = {self._real.id_to_piece(token): token for token in sorted(self._real.special_ids)}
        self.added: dict[str, int] = {}
        self.bos: int | None = self._real.bos_id
        self.size = self._real.n_words

    def version(self) -> str:
        """Return the versions of the package and of tiktoken."""
        return f"mistral-common {version('mistral-common')}, tiktoken {tiktoken.__version__}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of plain text."""
        if special:
            raise not_parsed(self.name)
        try:
            return self._real.encode(text, bos=False, eos=False)
        except Exception as error:
            raise no_answer(error) from error

    def prompt(self, text: str) -> list[int]:
        """Return the ids of plain text with the package's own BOS."""
        try:
            return self._real.encode(text, bos=True, eos=False)
        except Exception as error:
            raise no_answer(error) from error

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        outside = next((one for one in ids if not 0 <= one < self.size), None)
        if outside is not None:
            raise no_such_token(outside, self.size)
        with the_parts_own():
            return b"".join(self._real.id_to_byte_piece(one, SpecialTokenPolicy.KEEP) for one in ids)

    def vocabulary(self) -> Vocabulary:
        """Return what it was made of."""
        return from_tekken(self._path, tuple(self.special))
