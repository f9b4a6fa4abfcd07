"""BPE as SentencePiece writes it: tokens are text with a mark for each blank, and bytes that no token has are tokens.

A `tokenizer.json` lists the merges. A GGUF has a score for each token instead: of two neighbours whose text together is
a token, those of the highest score merge first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BLANK = "\u2581"
"""Stands for a blank in the text of an ordinary token."""
NEVER_MERGED = -1e6
"""The score of what no merge makes."""


def piece_of(text: str) -> bytes:
    """Return the bytes of an ordinary token's text."""
    return text.replace(BLANK, " ").encode("utf-8")


def scores_of(texts: Iterable[str], merges: Iterable[tuple[str, str]]) -> list[float]:
    """Return scores that merge as a list of merges does, by id."""
    rank: dict[str, int] = {}
    for number, (left, right) in enumerate(merges):
        rank.setdefault(left + right, number)
    return [-float(rank[text]) if text in rank else NEVER_MERGED for text in texts]


def merges_of(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the merges that scores stand for: every way to cut a token into two, the highest score first.

    Args:
        scores: The score of each token that text can become, by the token's text.
    """
    found = [
        (-score, -cut, text)
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    return [(text[:-before], text[-before:]) for _, before, text in sorted(found)]
