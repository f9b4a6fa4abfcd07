"""The alphabet in which byte-level tokens are written: a character for each byte (GPT-2, `bytes_to_unicode`)."""

from __future__ import annotations

from collections.abc import Mapping


def _byte_characters() -> dict[str, int]:
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + n): byte for n, byte in enumerate(rest)}


BYTE_OF: Mapping[str, int] = _byte_characters()
_CHARACTER_OF = {byte: ord(character) for character, byte in BYTE_OF.items()}


def text_of(piece: bytes) -> str:
    """Return a piece's bytes as a byte-level token's text."""
    return piece.decode("latin-1").translate(_CHARACTER_OF)


def bytes_of(text: str) -> bytes | None:
    """Return the bytes of a byte-level token's text, or None where a character of it stands for no byte."""
    try:
        return bytes([BYTE_OF[character] for character in text])
    except KeyError:
        return None
