"""What the model's file says: its vocabulary, to turn ids into bytes and back, and what a server's model must be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from harness.models.gguf import ModelFile, read_model_file
from harness.probes.alphabet import BYTES
from harness.values import ModelRef

_NORMAL = 1
"""`tokenizer.ggml.token_type` of a token in the vocabulary's byte alphabet; others are plain text."""


class Vocabulary:
    """Ids and the bytes that they stand for.

    Only byte-level BPE (`tokenizer.ggml.model` is `gpt2`) is known: others add and strip blanks, so that a token's text
    does not tell which token it is.

    Args:
        metadata: The keys and values of a GGUF.
    """

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.size = len(metadata.get("tokenizer.ggml.tokens", ()))
        self._metadata = metadata

    def id_of(self, text: bytes) -> int | None:
        """Return the one id that stands for these bytes; None where there is none, or several."""
        return self._ids.get(text)

    def text_of(self, ids: Sequence[int]) -> str | None:
        """Return the text of ids; None where it is no UTF-8, or the vocabulary's form is not known."""
        if not self._pieces or any(not 0 <= one < self.size for one in ids):
            return None
        try:
            return b"".join(self._pieces[one] for one in ids).decode("utf-8")
        except UnicodeDecodeError:
            return None

    @cached_property
    def ends(self) -> frozenset[int]:
        """The ids that end a generation, as far as the file names them."""
        names = ("eos", "eot", "eom")
        found = (self._metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names)
        return frozenset(int(one) for one in found if one is not None)

    @cached_property
    def _pieces(self) -> list[bytes]:
        if self._metadata.get("tokenizer.ggml.model") != "gpt2":
            return []
        tokens: list[str] = self._metadata["tokenizer.ggml.tokens"]
        types = self._metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
        return [_bytes_of(token, kind) for token, kind in zip(tokens, types, strict=True)]

    @cached_property
    def _ids(self) -> dict[bytes, int | None]:
        found: dict[bytes, int | None] = {}
        for index, piece in enumerate(self._pieces):
            found[piece] = None if piece in found else index
        return found


class KnownModel:
    """The model of the goldens, read when it is first needed (3 s for a vocabulary of 50,000 tokens).

    Args:
        model: The model, or None where any will do: then no vocabulary is known.
    """

    def __init__(self, model: ModelRef | None) -> None:
        self._model = model

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its vocabulary."""
        return Vocabulary({} if self._model is None else self._file.metadata)

    @cached_property
    def _file(self) -> ModelFile:
        assert self._model is not None
        return read_model_file(self._model.path)


def _bytes_of(token: str, kind: int) -> bytes:
    if kind == _NORMAL and all(character in BYTES for character in token):
        return bytes(BYTES[character] for character in token)
    return token.encode("utf-8")
