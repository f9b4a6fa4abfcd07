"""Text of models and users made safe and readable: what shows nothing is shown, what commands is disarmed."""

from __future__ import annotations

import unicodedata

_SHOWN = {"\n": "\u240a", "\r": "\u240d", "\t": "\u2409"}


def visible(text: str) -> str:
    """Return text on one line in which every character shows, and no terminal control code survives."""
    return "".join(_visible(character) for character in text)


def visible_pair(one: str, other: str) -> tuple[str, str]:
    """Return two texts made visible; where they would look the same, in escapes that differ."""
    if one != other and unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return ascii(one)[1:-1], ascii(other)[1:-1]
    return visible(one), visible(other)


def shorten(text: str, width: int) -> str:
    """Return text of at most `width` characters, cut in the middle."""
    if len(text) <= width:
        return text
    left = (width - 1) // 2
    return f"{text[:left]}\u2026{text[len(text) - (width - 1 - left) :]}"


def _visible(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    if character == " " or (character.isprintable() and unicodedata.category(character) != "Zs"):
        return character
    return f"<U+{ord(character):04X}>"
