"""Text of models and users made safe and readable: what shows nothing is shown, what commands is disarmed."""

from __future__ import annotations

import unicodedata

# Printable by their category, but drawn as nothing: fillers, the blank Braille pattern, variation selectors.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_BLANK |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_SHOWN = {"\n": "\u240a", "\r": "\u240d", "\t": "\u2409"}


def visible(text: str) -> str:
    """Return text on one line in which every character shows, and no terminal control code survives."""
    shown: list[str] = []
    for character in text:
        # A mark needs a character to stand on.
        lone = unicodedata.combining(character) and (not shown or len(shown[-1]) > 1 or shown[-1] in _SHOWN.values())
        shown.append(f"<U+{ord(character):04X}>" if lone else _visible(character))
    return "".join(shown)


def visible_pair(one: str, other: str) -> tuple[str, str]:
    """Return two texts made visible; where they would look the same, in escapes that differ."""
    if one == other:
        return visible(one), visible(other)
    if visible(one) == visible(other) or unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return ascii(one)[1:-1], ascii(other)[1:-1]
    return visible(one), visible(other)


def shorten(text: str, width: int) -> str:
    """Return text of at most `width` characters, cut in the middle."""
    if len(text) <= width:
        return text
    left = (width - 1) // 2
    return f"{text[:left]}\u2026{text[len(text) - (width - 1 - left) :]}"


def _visible(character: str) -> str:
    if ord(character) in _BLANK:
        return f"<U+{ord(character):04X}>"
    if character in _SHOWN:
        return _SHOWN[character]
    if character == " " or (character.isprintable() and unicodedata.category(character) != "Zs"):
        return character
    return f"<U+{ord(character):04X}>"
