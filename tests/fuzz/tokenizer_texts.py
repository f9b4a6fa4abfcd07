"""A small strategy for texts, for the tests of the search alone."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PARTS = (
    *(" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2003", "\x85", "\u200b"),
    *("a", "HELLO", "Hello", "world", "don't", "DON'T", "I'LL", "it's", "'s", "\u00e9", "e\u0301", "\u212b", "\u0301"),
    *("1", "12", "12345", "\u0663", "\u00bd", "\u2167", "\U0001d7d8"),
    *(".", ",", "!", "/", "//", "...", "\u3002", "\u2019", "\u00ab", "$", "+", "\u20ac", "<|", "|>", "_"),
    *("\u65e5\u672c", "\u306e", "\ud55c", "\u0915\u094d\u0937\u093f", "\u0e01\u0e47", "\u05d0", "\u0639\u064e"),
    *("\U0001f680", "\U0001f468\u200d\U0001f469", "\ufe0f", "\x00", "\x7f", "\ufffd", "\U0010ffff", "\u01c4", "\u02b0"),
    *("\u0378", "\u1c80", "\ua7c0", "\U00010d4a"),
)


def texts(tokenizer: Any) -> st.SearchStrategy[str]:
    """Texts of hard parts, any characters, and texts of some of the tokenizer's own special tokens."""
    own = [*list(tokenizer.special)[:12], *list(tokenizer.special)[-4:], *list(tokenizer.added)[:12]]
    character = st.characters(exclude_categories=("Cs",))
    mixed = st.lists(st.sampled_from([*PARTS, *own]) | character, max_size=10)
    blanks = st.lists(st.sampled_from(["a", "1", "!", *PARTS[:11]]), max_size=8)
    return st.one_of(mixed, blanks).map("".join)
