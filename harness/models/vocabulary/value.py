"""The value: what a BPE tokenizer is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

from harness.models.vocabulary.byte_level import bytes_of
from harness.models.vocabulary.sentencepiece import piece_of


class Kind(IntEnum):
    """What a token is, numbered as in a GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_WRITTEN_AS_THEY_ARE = (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A vocabulary, byte-level or SentencePiece's.

    Attributes:
        texts: Each token's text by id, as a GGUF has it: ordinary tokens in the byte-level alphabet, or with a mark for
            each blank, control and user-defined ones as they are.
        kinds: Each token's kind, by id.
        merges: The pairs of texts that merge, those that merge first in front.
        steps: The pre-tokenizer, as the JSON of a `tokenizer.json`; None where it is not known here.
        pre: llama.cpp's name of the pre-tokenizer; None where it has none that is known here.
        nfc: Whether text is normalized (NFC) first.
        ignore_merges: Whether a whole word that is in the vocabulary is taken without merging.
        bos: The id that begins a text, where there is one.
        eos: The id that ends it.
        adds_bos: Whether a prompt wants a BOS before it.
        chat_template: The template that comes with it.
        sentencepiece: Whether it is SentencePiece's instead of byte-level; it is then without a pre-tokenizer.
    """

    texts: tuple[str, ...] = field(repr=False)
    kinds: tuple[Kind, ...] = field(repr=False)
    merges: tuple[tuple[str, str], ...] = field(repr=False)
    steps: Mapping[str, Any] | None = field(repr=False)
    pre: str | None
    nfc: bool = False
    ignore_merges: bool = False
    bos: int | None = None
    eos: int | None = None
    adds_bos: bool = False
    chat_template: str | None = field(default=None, repr=False)
    sentencepiece: bool = False

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self.texts)

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """Each token's bytes, by id. An unused token has none."""
        return tuple(self._piece(text, kind) for text, kind in zip(self.texts, self.kinds, strict=True))

    def of_kind(self, *kinds: Kind) -> dict[str, int]:
        """Return the ids of tokens of some kinds, by text."""
        return {
            text: token for token, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True)) if kind in kinds
        }

    def _piece(self, text: str, kind: Kind) -> bytes:
        if kind is Kind.UNUSED:
            return b""
        if kind is Kind.BYTE:
            return bytes.fromhex(text[3:5])
        if kind in _WRITTEN_AS_THEY_ARE:
            return text.encode("utf-8")
        piece = piece_of(text) if self.sentencepiece else bytes_of(text)
        return text.encode("utf-8") if piece is None else piece
