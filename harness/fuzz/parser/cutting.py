"""Cutting a text into the pieces in which it comes: markers whole, the rest as a tokenizer would or as one wants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_WORD = re.compile(r" ?[^\W\d_]+| ?\d{1,3}|\s+| ?(?:_|[^\w\s]){1,3}")


def parts(text: str, markers: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield the markers of a text and what stands between them, and which it is; the longest marker counts."""
    longest_first = sorted(markers, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    place = 0
    for found in pattern.finditer(text):
        if found.start() > place:
            yield text[place : found.start()], False
        yield found.group(), True
        place = found.end()
    if place < len(text):
        yield text[place:], False


def words(text: str, markers: Sequence[str]) -> list[str]:
    """Return a text in the pieces in which a tokenizer may cut it: markers, words, digits, punctuation, white space."""
    return [word for part, marker in parts(text, markers) for word in ([part] if marker else _WORD.findall(part))]


def units(text: str, markers: Sequence[str]) -> list[str]:
    """Return the least pieces of a text: markers, and characters."""
    return [unit for part, marker in parts(text, markers) for unit in ([part] if marker else part)]


def grouped(items: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """Return items joined in groups of these sizes; what is left over comes last."""
    groups: list[str] = []
    place = 0
    for size in sizes:
        groups.append("".join(items[place : place + size]))
        place += size
    groups.append("".join(items[place:]))
    return [group for group in groups if group]
