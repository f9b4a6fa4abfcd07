"""What tokenizers give for one text, and how two answers differ."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

from harness.fuzz.finding import Output
from harness.parts import PartError, Tokenizer

Answer = list[int] | PartError


class Asked:
    """One text, and the tokenizers' answers: each is asked once for the text, however many properties want to know.

    Args:
        tokenizers: The tokenizers. The first that answers is the one that the others are held against.
        text: The text.
    """

    __slots__ = ("_answers", "text", "tokenizers")

    def __init__(self, tokenizers: Sequence[Tokenizer], text: str) -> None:
        self.tokenizers, self.text = tokenizers, text
        self._answers: dict[tuple[int, bool], Answer] = {}

    def answer(self, number: int, *, special: bool) -> Answer:
        """Return the ids that a tokenizer gives for the text, or how it ended."""
        key = number, special
        known = self._answers.get(key)
        if known is None:
            known = self._answers[key] = encoded(self.tokenizers[number], self.text, special=special)
        return known

    def ids(self, number: int, *, special: bool) -> list[int] | None:
        """Return the ids that a tokenizer gives for the text; None where it gives none."""
        found = self.answer(number, special=special)
        return None if isinstance(found, PartError) else found


def encoded(tokenizer: Tokenizer, text: str, *, special: bool) -> Answer:
    """Return the ids of a text, or how the tokenizer ended."""
    try:
        return tokenizer.encode(text, special=special)
    except PartError as error:
        return error
    except Exception as error:  # noqa: BLE001 - what a tokenizer raises is its answer
        return PartError("error", str(error), name=type(error).__name__)


def normalized(tokenizer: Tokenizer, text: str) -> str:
    """Return a text as the tokenizer declares to normalize it (its attribute `normalization`)."""
    return unicodedata.normalize("NFC", text) if getattr(tokenizer, "normalization", "") == "NFC" else text


def output(tokenizer: Tokenizer, answer: Answer, asked: str = "") -> Output:
    """Return an answer to show: each id with its piece."""
    by = f"{tokenizer.name}, {asked}" if asked else tokenizer.name
    if isinstance(answer, PartError):
        return Output(by=by, error=f"{answer.kind}: {answer.message}")
    shown = [[one, _shown(tokenizer, one)] for one in answer]
    return Output(by=by, text=json.dumps(shown, ensure_ascii=False))


def _shown(tokenizer: Tokenizer, token: int) -> str | None:
    try:
        return tokenizer.decode([token]).decode("utf-8", errors="backslashreplace")
    except PartError:
        return None


def difference(asked: Asked, first: int, other: int, *, special: bool) -> str:
    """Return what tells the ids of two tokenizers apart, in words that say nothing of the text itself.

    Either control tokens differ, or the bytes that the ids stand for, or where the text is cut (told by the kinds of
    the characters beside the first cut that one has alone), or the ids of the same pieces.
    """
    left, right = asked.tokenizers[first], asked.tokenizers[other]
    left_ids, right_ids = asked.ids(first, special=special) or [], asked.ids(other, special=special) or []
    controls = {*left.special.values(), *right.special.values()}
    left_controls, right_controls = (sum(one in controls for one in ids) for ids in (left_ids, right_ids))
    if left_controls != right_controls:
        more = left if left_controls > right_controls else right
        return f"{more.name} has more control tokens"
    try:
        left_pieces, right_pieces = (
            [one.decode([token]) for token in ids] for one, ids in ((left, left_ids), (right, right_ids))
        )
    except PartError:
        return "an id has no bytes"
    left_bytes, right_bytes = b"".join(left_pieces), b"".join(right_pieces)
    if left_bytes != right_bytes:
        return _by_bytes(asked.text, (left, left_bytes), (right, right_bytes))
    left_cuts, right_cuts = (list(accumulate(map(len, pieces))) for pieces in (left_pieces, right_pieces))
    if left_cuts == right_cuts:
        return "other ids for the same pieces"
    place = min({*left_cuts} ^ {*right_cuts})
    cuts = left if place in left_cuts else right
    return f"{cuts.name} alone cuts {_where(left_bytes, place)}"


def _by_bytes(text: str, left: tuple[Tokenizer, bytes], right: tuple[Tokenizer, bytes]) -> str:
    """Return how bytes differ of which one side at most is the text's own."""
    given, nfc = text.encode("utf-8", "replace"), unicodedata.normalize("NFC", text).encode("utf-8", "replace")
    for (one, found), (_, others) in ((left, right), (right, left)):
        if found == nfc and others == given:
            return f"{one.name} alone normalizes (NFC)"
    wrong = [one.name for one, found in (left, right) if found not in (given, nfc)]
    return f"{' and '.join(wrong)} gives other bytes than the text's"


def _where(data: bytes, place: int) -> str:
    try:
        before, after = data[:place].decode("utf-8"), data[place:].decode("utf-8")
    except UnicodeDecodeError:
        return "inside a character"
    return f"between {_class_of(before[-1:])} and {_class_of(after[:1])}"


_CLASSES = {"L": "a letter", "M": "a mark", "N": "a digit", "P": "punctuation", "S": "a symbol", "Z": "a blank"}


def _class_of(character: str) -> str:
    if not character:
        return "the end"
    if character in "\r\n":
        return "a line's end"
    if character.isspace():
        return "a blank"
    if character.isascii():
        return "ASCII " + _CLASSES.get(unicodedata.category(character)[0], "control").removeprefix("a ")
    return _CLASSES.get(unicodedata.category(character)[0], "an unassigned or invisible character")
