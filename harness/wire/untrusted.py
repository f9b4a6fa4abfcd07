"""JSON from whoever it may be: what it would build is bounded before anything is built."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_VALUES = 4 << 20
"""Values of an answer. With the whole vocabulary's numbers at a position there are about a million."""
DEEPEST = 200
"""Levels of an answer. What the harness writes and reads again must stay below Python's and pydantic's limits."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_STRUCTURE = bytes(one for one in range(256) if one not in b"[]{},")
_STEPS = bytes({91: 1, 123: 1, 93: 255, 125: 255}.get(one, 0) for one in range(256))
"""How many levels deeper a character leads, as a signed byte."""
_MAY_BE_LONE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parsed(data: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        ValueError: it is no JSON, nests too deep, or holds too many values; the message says which.
        RecursionError: as Python's parser has it.
    """
    if sum(data.count(one) for one in (b"[", b"{", b",")) > DEEPEST:
        _check(data)
    return json.loads(data.decode("utf-8"))


def check_texts(value: Any, data: bytes) -> None:
    """Raise where a value that was read from `data` holds a text that no file can hold.

    Raises:
        ValueError: a text has a lone surrogate.
    """
    if not _MAY_BE_LONE.search(data):
        return
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if _SURROGATE.search(one):
                raise ValueError("it holds a lone surrogate")
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one


def _check(data: bytes) -> None:
    structure = _STRING.sub(b"", data).translate(None, _NOT_STRUCTURE)
    if len(structure) > 2 * MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    steps = np.frombuffer(structure.translate(_STEPS), dtype=np.int8)
    if steps.size and np.cumsum(steps, dtype=np.int32).max() > DEEPEST:
        raise ValueError(f"it nests more than {DEEPEST} levels deep")


def key_patterns(key: str) -> tuple[re.Pattern[bytes], ...]:
    """Return what finds a key in bytes: as it is, with characters escaped as JSON or an address does, or in base64.

    Each begins with a literal byte whichever way it matches, so that the rest of 200 MB is skipped in no time.
    """
    characters = [
        rb"(?:%s|\\%s|\\u%s|%%%s)"
        % (plain := re.escape(one.encode()), plain, _any_case(f"{ord(one):04x}"), _any_case(f"{ord(one):02x}"))
        for one in key
    ]
    coded = [
        re.escape(base64.b64encode(text.encode()).rstrip(b"="))[:-1] for text in (key, f"Bearer {key}") if len(key) > 3
    ]
    return tuple(map(re.compile, [b"".join(characters), *(rb"%s[\w+/]?=*" % one for one in coded)]))


def without_key_of(data: bytes, patterns: Sequence[re.Pattern[bytes]]) -> bytes:
    """Return data with stars for a key."""
    for pattern in patterns:
        data = pattern.sub(b"***", data)
    return data


def holds_in_pieces(values: Sequence[Any], patterns: Sequence[re.Pattern[bytes]]) -> bool:
    """Return whether texts that stand under the same names hold a key when they are put together, one after the other.

    Args:
        values: The events of a stream, or one answer, whose log-probabilities may show a text in pieces too.
        patterns: What finds the key.
    """
    texts: dict[tuple[str, ...], list[str]] = {}
    for value in values:
        _gather(value, (), texts)
    joined = ["".join(pieces).encode("utf-8", "replace") for pieces in texts.values()]
    return any(pattern.search(text) for text in joined for pattern in patterns)


def _gather(value: Any, names: tuple[str, ...], texts: dict[tuple[str, ...], list[str]]) -> None:
    if isinstance(value, str):
        texts.setdefault(names, []).append(value)
    elif isinstance(value, dict):
        for name, one in value.items():
            _gather(one, (*names, name), texts)
    elif isinstance(value, list):
        for one in value:
            _gather(one, names, texts)


def _any_case(digits: str) -> bytes:
    return b"".join(b"[%c%c]" % (ord(one), ord(one.upper())) if one.isalpha() else one.encode() for one in digits)
