"""Defects of what a tokenizer does to the text before it encodes it."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from harness.defects.defect import defect
from harness.defects.places import Tokenizing

_MARKER = re.compile(r"(<\|\w+\|>)")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_SPACE = "\u2581"  # what SentencePiece writes for a space


def _without(text: str, unwanted: Callable[[str], bool]) -> str:
    return "".join(letter for letter in text if not unwanted(letter))


def _invisible(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf"


_CHANGES: Mapping[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "nfd": lambda text: unicodedata.normalize("NFD", text),
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "nfkd": lambda text: unicodedata.normalize("NFKD", text),
    "lower": str.lower,
    "strip": str.strip,
    "accents": lambda text: _without(unicodedata.normalize("NFD", text), lambda one: bool(unicodedata.combining(one))),
    "ascii": lambda text: _without(text, lambda letter: not letter.isascii()),
    "ascii-marked": lambda text: re.sub(r"[^\x00-\x7f]", "?", text),
    "astral": lambda text: _without(text, lambda letter: ord(letter) > 0xFFFF),
    "astral-marked": lambda text: re.sub(r"[\U00010000-\U0010ffff]", "\ufffd\ufffd", text),
    "invisible": lambda text: _without(text, _invisible),
    "latin-1": lambda text: text.encode("utf-8").decode("latin-1"),
    "escapes": lambda text: re.sub(r"[^\x00-\x7f]", lambda found: f"\\u{ord(found[0]):04x}", text),
    "unescaped": lambda text: text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\"),
    "html": html.unescape,
    "quotes": lambda text: text.translate(_QUOTES),
    "newlines": lambda text: re.sub(r"\n{2,}", "\n", text),
    "no-newlines": lambda text: text.replace("\n", " "),
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "lf": lambda text: text.replace("\r\n", "\n").replace("\r", "\n"),
    "spaces": lambda text: re.sub(r" {2,}", " ", text),
    "no-spaces": lambda text: text.replace(" ", ""),
    "nbsp": lambda text: text.replace(" ", "\u00a0"),
    "nbsp-lost": lambda text: re.sub(r"[\u00a0\u2000-\u200a\u3000]", " ", text),
    "tabs": lambda text: text.replace("\t", "    "),
    "line-ends": lambda text: re.sub(r"[ \t]+(?=\n)", "", text),
    "indents": lambda text: re.sub(r"(?m)^[ \t]+", "", text),
    "metaspace": lambda text: text.replace(" ", _SPACE),
    "space-first": lambda text: f" {text}",
    "space-behind-markers": lambda text: _MARKER.sub(r"\1 ", text),
    "markers-strip-left": lambda text: re.sub(rf"\s+{_MARKER.pattern}", r"\1", text),
    "markers-strip-right": lambda text: re.sub(rf"{_MARKER.pattern}\s+", r"\1", text),
    "bom": lambda text: f"\ufeff{text}",
    "digits": lambda text: re.sub(r"(?<=\d)(?=\d)", " ", text),
    "number-signs": lambda text: re.sub(r"\d(?=\d{3}(?:\D|$))", r"\g<0>,", text),
}
"""What may be done to a text, by name."""


def _text(name: str, change: str, sentence: str, *references: str) -> Callable[..., Callable[..., Sequence[int]]]:
    return defect(
        name, place="ids", change=change, sentence=sentence, cause="tokenizer and text", references=references
    )


@_text("tok-nfc", "nfc", "The tokenizer composes characters (NFC) that its vocabulary has apart.")
@_text(
    "tok-wpm-nfd",
    "nfd",
    "The tokenizer decomposes characters (NFD) before it looks them up.",
    "ggml-org/llama.cpp#5496",
)
@_text(
    "tok-nfkc",
    "nfkc",
    "The tokenizer replaces ligatures, fractions and full-width forms by their plain ones (NFKC).",
    "ggml-org/llama.cpp#28845",
)
@_text("tok-nfkd", "nfkd", "The tokenizer replaces compatibility forms and decomposes what is left (NFKD).")
@_text("tok-lower", "lower", "The tokenizer puts everything into lower case.")
@_text("tok-strip", "strip", "White space at the prompt's two ends is lost.")
@_text(
    "tok-accents-lost",
    "accents",
    "Letters lose their accents, and everything else its combining marks.",
    "ggml-org/llama.cpp#5496",
)
@_text("tok-ascii-only", "ascii", "Characters beyond ASCII are dropped.")
@_text("tok-ascii-marked", "ascii-marked", "Characters beyond ASCII become question marks.")
@_text("tok-astral-lost", "astral", "Characters beyond the first plane of Unicode, emoji above all, are dropped.")
@_text(
    "tok-surrogates",
    "astral-marked",
    "Characters beyond the first plane are split into surrogates, which become two U+FFFD.",
    "ggml-org/llama.cpp#8691",
)
@_text(
    "tok-invisible-lost", "invisible", "Invisible format characters such as joiners and direction marks are dropped."
)
@_text("tok-mojibake", "latin-1", "The prompt's UTF-8 is read as Latin-1.")
@_text("tok-unicode-escaped", "escapes", "Characters beyond ASCII are written as escapes.")
@_text("tok-escapes-read", "unescaped", "A backslash and an n in the prompt are read as a newline.")
@_text("tok-html-unescaped", "html", "HTML entities in the prompt are resolved.")
@_text("tok-quotes-straight", "quotes", "Curved quotation marks become straight ones.")
@_text("tok-newlines-collapsed", "newlines", "A run of newlines becomes a single one.", "ggml-org/llama.cpp#21343")
@_text("tok-newlines-lost", "no-newlines", "Newlines become spaces.")
@_text("tok-crlf", "crlf", "Newlines become CR and LF.")
@_text("tok-lf", "lf", "CR and LF of the prompt become a newline.")
@_text("tok-spaces-collapsed", "spaces", "A run of spaces becomes a single one.", "ggml-org/llama.cpp#8338")
@_text(
    "tok-tfv5-metaspace-lost",
    "no-spaces",
    "Every space is lost: the pre-tokenizer writes a marker for it that the vocabulary does not have.",
    "huggingface/transformers#45488",
)
@_text(
    "tok-tfv5-metaspace",
    "metaspace",
    "Spaces become SentencePiece's marker in front of a byte-level vocabulary.",
    "huggingface/transformers#45488",
)
@_text("tok-nbsp", "nbsp", "Spaces become no-break spaces.")
@_text("tok-wide-spaces-lost", "nbsp-lost", "Spaces of other widths become plain ones.")
@_text("tok-tabs-expanded", "tabs", "Tabs become four spaces.", "ggml-org/llama.cpp#8338")
@_text("tok-line-ends-stripped", "line-ends", "White space before a newline is lost.")
@_text("tok-indents-lost", "indents", "White space at the start of a line is lost.")
@_text(
    "tok-add-space-prefix",
    "space-first",
    "A space is put before the prompt, as SentencePiece vocabularies of the first kind want it.",
    "ggml-org/llama.cpp#8248",
)
@_text(
    "tok-retok-space-growth",
    "space-behind-markers",
    "Each control token is followed by a space that nobody wrote.",
    "ggml-org/llama.cpp#7938",
)
@_text("tok-markers-strip-left", "markers-strip-left", "Control tokens swallow the white space before them.")
@_text(
    "tok-markers-strip-right",
    "markers-strip-right",
    "Control tokens swallow the white space behind them.",
    "ggml-org/llama.cpp#8338",
)
@_text("tok-byte-order-mark", "bom", "The prompt begins with a byte order mark.")
@_text("tok-digits-apart", "digits", "Digits are encoded with a space between them.")
@_text("tok-thousands-marked", "number-signs", "A comma is put before the last three digits of a number.")
def text_changed(seen: Tokenizing, change: str) -> Sequence[int]:
    """Encode what becomes of the text, where anything does."""
    text = _CHANGES[change](seen.text)
    return seen.ids if text == seen.text else seen.encode(text, True)
