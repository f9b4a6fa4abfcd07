"""The byte-level alphabet: the character that stands for each byte in a token (GPT-2, `bytes_to_unicode`)."""

from __future__ import annotations


def _alphabet() -> dict[str, int]:
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}


BYTES = _alphabet()
"""The byte of each character."""
