"""Tokenizers of the tiny vocabulary with a defect planted in each, to see that the properties find it."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import tokenizers

from harness.models.vocabulary import Vocabulary, tokenizer_json
from harness.models.vocabulary.byte_level import text_of
from harness.models.vocabulary.pre_tokenizers import QWEN_2
from harness.parts import PartError
from tests.tiny_vocabulary import tiny


class Healthy:
    """`tokenizers` over the tiny vocabulary."""

    adds_bos = True
    special: ClassVar[dict[str, int]] = {"<s>": 268, "<end>": 269}
    added: ClassVar[dict[str, int]] = {}
    bos = 268
    size = 270
    normalization = ""

    def __init__(self, name: str = "healthy") -> None:
        self.name = name
        self._pieces = self.vocabulary().pieces
        self._parses = self._made(self.vocabulary())
        self._plain = self._made(self.vocabulary())
        self._plain.encode_special_tokens = True

    def _made(self, vocabulary: Vocabulary) -> Any:
        return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))

    def vocabulary(self) -> Vocabulary:
        return tiny()

    def version(self) -> str:
        return "1"

    def encode(self, text: str, *, special: bool) -> list[int]:
        return (self._parses if special else self._plain).encode(text, add_special_tokens=False).ids

    def prompt(self, text: str) -> list[int]:
        return [268, *self.encode(text, special=True)]

    def decode(self, ids: Sequence[int]) -> bytes:
        if not all(0 <= one < self.size for one in ids):
            raise PartError("refused", "no such token")
        return b"".join(self._pieces[one] for one in ids)


class WithoutControl(Healthy):
    """Healthy, with no control token that it tells of."""

    special: ClassVar[dict[str, int]] = {}


class PlainOnly(Healthy):
    """Healthy, and parses no control texts."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        if special:
            raise PartError("unsupported", "it parses no control texts")
        return super().encode(text, special=False)


class Numbers(Healthy):
    """Healthy, with a token for two digits in place of one for `ld`."""

    def vocabulary(self) -> Vocabulary:
        return _with_numbers(tiny())


class OtherNumbers(Numbers):
    """The same vocabulary, but words are cut like another model's: single digits."""

    def vocabulary(self) -> Vocabulary:
        return _with_numbers(tiny(QWEN_2))


def _with_numbers(vocabulary: Vocabulary) -> Vocabulary:
    texts = list(vocabulary.texts)
    texts[263] = "12"
    merges = [("1", "2") if one == ("l", "d") else one for one in vocabulary.merges]
    merges.remove(("\u0120wor", "ld"))
    return replace(vocabulary, texts=tuple(texts), merges=tuple(merges))


class Normalizes(Healthy):
    """Normalizes, and declares it."""

    normalization = "NFC"

    def vocabulary(self) -> Vocabulary:
        return tiny(nfc=True)


class NormalizesInSecret(Normalizes):
    """Normalizes, and does not declare it."""

    normalization = ""


class DeclaresOnly(Healthy):
    """Declares that it normalizes, and does not."""

    normalization = "NFC"


class LostMerges(Healthy):
    """Does not know the last merges."""

    def vocabulary(self) -> Vocabulary:
        return replace(tiny(), merges=tiny().merges[:-1], ignore_merges=False)


class ParsesContent(Healthy):
    """Finds control tokens in plain text."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return super().encode(text, special=True)


class TwoBos(Healthy):
    """Puts two BOS before a prompt."""

    def prompt(self, text: str) -> list[int]:
        return [268, 268, *self.encode(text, special=True)]


class NoBos(Healthy):
    """Declares a BOS and puts none."""

    def prompt(self, text: str) -> list[int]:
        return self.encode(text, special=True)


class EncodeAddsBos(Healthy):
    """Adds a BOS where only the text was asked for."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [268, *super().encode(text, special=special)]


class StripsBlanks(Healthy):
    """Takes the blanks beside a control token away."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return super().encode(text.replace(" <end>", "<end>") if special else text, special=special)


class DropsBytes(Healthy):
    """Has no token for a byte."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [one for one in super().encode(text, special=special) if one != 0]


class CleansUp(Healthy):
    """Decodes a whole otherwise than its pieces."""

    def decode(self, ids: Sequence[int]) -> bytes:
        return super().decode(ids).replace(b" .", b".")


class Refuses(Healthy):
    """Raises for a character."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        if "\u3042" in text:
            raise PartError("error", f"cannot take {len(text)} characters", name="ValueError")
        return super().encode(text, special=special)


class Fails(Healthy):
    """Raises what no part should raise."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        raise LookupError(f"{len(text)} is none of mine")


class TooLong(Healthy):
    """Gives an id that it does not have."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [*super().encode(text, special=special), 270]


class OtherPiece(Healthy):
    """Has another text for an id, and does not find a control token."""

    special: ClassVar[dict[str, int]] = {"<s>": 268, "<fin>": 269}

    def decode(self, ids: Sequence[int]) -> bytes:
        return b"".join(b"<fin>" if one == 269 else super(OtherPiece, self).decode([one]) for one in ids)


class StripsLetters(Healthy):
    """Loses a letter."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        return super().encode(text.replace("he", "e"), special=special)


class OneControl(Healthy):
    """Does not know a control token."""

    special: ClassVar[dict[str, int]] = {"<s>": 268}


class OneAngstrom(Normalizes):
    """Has an entry that no text in its normal form can reach."""

    def vocabulary(self) -> Vocabulary:
        made = super().vocabulary()
        return replace(made, texts=(*made.texts[:264], text_of("\u212b".encode()), *made.texts[265:]), merges=())


class TwoLetters(Healthy):
    """Has the ids of `a` and `aa` alone."""

    special: ClassVar[dict[str, int]] = {}
    size = 2

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [1] * (len(text) // 2) + [0] * (len(text) % 2)

    def decode(self, ids: Sequence[int]) -> bytes:
        return b"".join((b"a", b"aa")[one] for one in ids)


class Aborts(Healthy):
    """Ends its process at a digit."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        if any(unicodedata.category(one) == "Nd" for one in text):
            os.abort()
        return super().encode(text, special=special)


class AbortsAtOnce(Healthy):
    """Ends its process while it is made."""

    def __init__(self) -> None:
        os.abort()
