"""What programs do to a text on its way, each by a pure function."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_CONTROL_TEXT: Final = re.compile(r"<\|[a-z_]+\|>")
_OPENING_QUOTE: Final = re.compile(r"(^|[\s(\[{])([\"'])")
_CURLY: Final = {'"': ("\u201c", "\u201d"), "'": ("\u2018", "\u2019")}


def edited(text: str, edit: str) -> str:
    """Return a text after the edit of this name; see `EDITS`."""
    return EDITS[edit](text)


def _with_smart_quotes(text: str) -> str:
    opened = _OPENING_QUOTE.sub(lambda found: found[1] + _CURLY[found[2]][0], text)
    return "".join(_CURLY[one][1] if one in _CURLY else one for one in opened)


def _escaped(text: str) -> str:
    """Return a text with JSON's escapes for what is not ASCII; a character beyond U+FFFF is two of them."""
    units = text.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


EDITS: Final[Mapping[str, Callable[[str], str]]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "html escaped": html.escape,
    "html unescaped": html.unescape,
    "smart quotes": _with_smart_quotes,
    "non-ascii dropped": lambda text: text.encode("ascii", "ignore").decode("ascii"),
    "non-ascii escaped": _escaped,
    "mojibake": lambda text: text.encode("utf-8", "surrogatepass").decode("cp1252", "replace"),
    "stripped": str.strip,
    "spaces collapsed": lambda text: " ".join(text.split()),
    "blank lines collapsed": lambda text: re.sub(r"(\r?\n){2,}", "\n", text),
    "lines stripped": lambda text: re.sub(r"[ \t]+(?=\r?\n|$)", "", text),
    "crlf made": lambda text: re.sub(r"\r?\n", "\r\n", text),
    "crlf lost": lambda text: text.replace("\r\n", "\n"),
    "invisible removed": lambda text: _INVISIBLE.sub("", text),
    "control text removed": lambda text: _CONTROL_TEXT.sub("", text),
    "placeholders filled": lambda text: re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", text, flags=re.DOTALL),
    "newlines escaped": lambda text: text.replace("\n", "\\n"),
}
"""By name."""
