"""What became of a text: the change that, made to the golden's, gives exactly what was observed.

A change is named only where it gives the observed text to the character, so that the same one in another case is the
same cause, whatever the texts are. Of a short text several can be true at once: the first is the most telling.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from harness.checking.compare.hunks import common_prefix

_SPACE = re.compile(r"\s+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_MARKUP = re.compile(r"<[^<>]*>")
_ESCAPED = re.compile(r"\\([^A-Za-z0-9\s])")
_CONTROLS = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})
_UNESCAPES = 16
"""How often an escape may have been escaped again."""
_PAIRS = 8
"""How many different characters may be written as others."""
_LONGEST = 20_000
"""Characters of a text that is looked at word by word."""


class Change(NamedTuple):
    """A change of a text.

    Attributes:
        key: What it is, the same in every case.
        words: What it is for a human, of `it`, the text.
    """

    key: str
    words: str


def changes(golden: str, observed: str) -> tuple[Change, ...]:
    """Return every change that gives one text of another, the most telling first; none where they are equal."""
    if golden == observed:
        return ()
    found = dict.fromkeys(change for look in _LOOKS for change in look(golden, observed))
    return tuple(found)


def _whole(golden: str, observed: str) -> Iterator[Change]:
    if not observed:
        yield Change("lost", "the whole text is missing")
    elif not golden:
        yield Change("made up", "there is a text where none should be")
    elif observed == golden * 2:
        yield Change("twice", "it stands there twice")
    if observed in (json.dumps(golden), json.dumps(golden, ensure_ascii=False)):
        yield Change("JSON", "it is written as JSON")


def _white_space(golden: str, observed: str) -> Iterator[Change]:
    if _SPACE.sub("", golden) != _SPACE.sub("", observed) or not golden.strip():
        return
    ends = {
        golden.strip(): "white space at its ends is missing",
        golden.lstrip(): "white space at its beginning is missing",
        golden.rstrip(): "white space at its end is missing",
    }
    yield Change("white space", ends.get(observed, "nothing but white space differs"))


def _ends(golden: str, observed: str) -> Iterator[Change]:
    lost, more = len(golden) - len(observed), len(observed) - len(golden)
    if observed and golden.startswith(observed):
        yield Change("end lost", "its last character is missing" if lost == 1 else "its end is missing")
    if observed and golden.endswith(observed):
        yield Change("beginning lost", "its first character is missing" if lost == 1 else "its beginning is missing")
    if observed.startswith(golden):
        yield Change("end added", "a character is added at its end" if more == 1 else "something is added at its end")
    if observed.endswith(golden):
        yield Change("beginning added", "a character is put before it" if more == 1 else "something is put before it")
    if golden in observed and len(golden) < len(observed):
        yield Change("within", "it stands within another text")
    if not observed:
        # Whatever takes an end away takes a short text whole.
        yield Change("end lost", "its end is missing")
        yield Change("beginning lost", "its beginning is missing")


def _characters(golden: str, observed: str) -> Iterator[Change]:
    if golden.casefold() == observed.casefold():
        yield Change("case", "nothing but upper and lower case differs")
    elif unicodedata.normalize("NFKC", golden) == unicodedata.normalize("NFKC", observed):
        yield Change("normal form", "it is in another Unicode normal form")
    if not golden.isascii() and _only_beyond_ascii(golden, observed):
        lost = observed == _BEYOND_ASCII.sub("", golden)
        yield Change("beyond ASCII", f"its characters beyond ASCII are {'missing' if lost else 'others'}")
    if _unescaped(golden, observed):
        yield Change("escaped", "characters of it are escaped")
    if len(golden) == len(observed):
        pairs = sorted({(a, b) for a, b in zip(golden, observed, strict=True) if a != b})
        if len(pairs) <= _PAIRS and len({a for a, _ in pairs}) == len(pairs):
            for a, b in pairs:
                if golden.count(a) == sum(x == a and y == b for x, y in zip(golden, observed, strict=True)):
                    yield Change(f"{a}\0{b}", f"{json.dumps(a)} is written as {json.dumps(b)}")


def _only_beyond_ascii(golden: str, observed: str) -> bool:
    """Whether all of a text that is ASCII stands there, in its order, and only what is between these pieces differs."""
    pieces = _BEYOND_ASCII.split(golden)
    first, *middle, last = pieces
    if not observed.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        at = observed.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(observed) - at >= len(last) and observed.endswith(last)


def _unescaped(golden: str, observed: str) -> bool:
    if json.dumps(golden)[1:-1] == observed or json.dumps(golden, ensure_ascii=False)[1:-1] == observed:
        return True
    if (
        observed in (golden.translate(_CONTROLS), golden.replace("\n", "\\n"))
        or _ESCAPED.sub(r"\1", observed) == golden
    ):
        return True
    text = observed
    for _ in range(_UNESCAPES):
        before, text = text, html.unescape(text)
        if text == golden:
            return True
        if text == before:
            break
    return False


def _pieces(golden: str, observed: str) -> Iterator[Change]:
    if observed and _MARKUP.sub("", golden) == observed:
        yield Change("markup", "what looks like markup is missing")
    lost = {character for character in golden if character not in observed}
    if lost and observed and "".join(character for character in golden if character not in lost) == observed:
        kind = _kind_of(lost)
        if kind is not None:
            yield Change(f"without {kind}", f"its {kind} are missing")
    start = common_prefix(golden, observed)
    end = common_prefix(golden[start:][::-1], observed[start:][::-1])
    if start and end and start + end == len(observed):
        yield Change("inside lost", "a piece inside it is missing")
    if start and end and start + end == len(golden):
        yield Change("inside added", "a piece is added inside it")
    if max(len(golden), len(observed)) <= _LONGEST:
        words, others = golden.split(), observed.split()
        if words != others and sorted(words) == sorted(others):
            yield Change("order", "its words stand in another order")


def _kind_of(characters: set[str]) -> str | None:
    if all(character.isdigit() for character in characters):
        return "digits"
    if all(unicodedata.category(character)[0] in "PS" for character in characters):
        return "punctuation marks"
    return None


_LOOKS: tuple[Callable[[str, str], Iterator[Change]], ...] = (_whole, _white_space, _ends, _characters, _pieces)
