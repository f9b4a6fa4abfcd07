"""In what way two renders of one conversation differ: the same difference everywhere is one finding."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from harness.checking.compare.hunks import common_prefix
from harness.fuzz.finding import cause_of
from harness.parts import PartError

_SPACE = re.compile(r"\s+")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&#34;", '"'), ("&quot;", '"'), ("&amp;", "&"))
_WORDS = re.compile(r"\b(None|none|null|nil|undefined)\b"), re.compile(r"\b(True|true)\b|\b(False|false)\b")
_NUMBER = re.compile(r"\b(\d+)\.0\b")
_TRIES = 100
"""Brackets in a text that begin no JSON, after which no more of them are tried."""
JSON_FORM = "the order or the spacing of JSON"


def difference(reference: str | PartError, other: str | PartError) -> str | None:
    """Return the cause of a difference in words that say nothing of the input; None where there is none.

    Two that end are the same where both refuse, or both fail: engines word their errors differently.
    """
    if isinstance(other, PartError):
        if isinstance(reference, PartError):
            refused = [one.kind == "refused" for one in (reference, other)]
            return None if refused[0] == refused[1] else "only one of the two refuses on purpose"
        return f"ends where the other renders: {ending(other)}"
    if isinstance(reference, PartError):
        return f"renders where the other ends: {ending(reference)}"
    if reference == other:
        return None
    for what, plain in _FORMS.items():
        if plain(reference) == plain(other):
            return what
    if plain_of_all(reference) == plain_of_all(other):
        return "several of white space, escapes, JSON's order and words"
    if _is_cut_out(other, reference):
        return "a piece of the text is left out"
    return "a piece of text more" if _is_cut_out(reference, other) else "other text"


def ending(error: PartError) -> str:
    """Return how a part ended, without what differs from input to input."""
    return " ".join(word for word in (error.kind, error.name, cause_of(error.message)) if word)


def plain_of_all(text: str) -> str:
    """Return a text without anything that one of the known differences is about."""
    # Escapes before JSON, which is none with them.
    for plain in (_unescaped, _sorted_json, _without_none, _one_bool, _numbers, _without_space):
        text = plain(text)
    return text


def _is_cut_out(shorter: str, longer: str) -> bool:
    """Return whether a text is another one with one piece of it left out."""
    start = common_prefix(shorter, longer)
    return len(shorter) < len(longer) and longer.endswith(shorter[start:])


def _without_space(text: str) -> str:
    return _SPACE.sub("", text)


def _unescaped(text: str) -> str:
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text.replace("\\/", "/"))
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def _sorted_json(text: str) -> str:
    """Return a text with all JSON objects in it written with sorted keys and no spaces."""
    parts: list[str] = []
    place = failed = 0
    decoder = json.JSONDecoder()
    for opened in re.finditer(r"[\[{]", text):
        if opened.start() < place:
            continue
        try:
            value, end = decoder.raw_decode(text, opened.start())
            parts += [text[place : opened.start()], _canonical(value)]
        except (ValueError, RecursionError):
            # Each reads on to the end of the text: a text of brackets would cost their number squared.
            failed += 1
            if failed == _TRIES:
                break
            continue
        place = end
    return "".join([*parts, text[place:]])


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _one_none(text: str) -> str:
    return _WORDS[0].sub("null", text)


def _without_none(text: str) -> str:
    return _WORDS[0].sub("", text)


def _one_bool(text: str) -> str:
    return _WORDS[1].sub(lambda found: found[0].lower(), text)


def _numbers(text: str) -> str:
    return _NUMBER.sub(r"\1", text)


_FORMS: dict[str, Callable[[str], str]] = {
    "white space": _without_space,
    "escapes of <, >, &, ', / or of other characters": _unescaped,
    JSON_FORM: _sorted_json,
    "the word for none": _one_none,
    "a none is a word or nothing": _without_none,
    "the words for true and false": _one_bool,
    "whole numbers with or without .0": _numbers,
}
