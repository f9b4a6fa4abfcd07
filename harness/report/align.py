"""Two sequences side by side: what is the same, what is not, and long stretches of sameness cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.checking.compare.hunks import hunks


@dataclass(frozen=True)
class Span:
    """A stretch of two sequences.

    Attributes:
        same: Whether both sides agree.
        expected: The stretch on the expected side, as (start, end).
        observed: The stretch on the observed side.
    """

    same: bool
    expected: tuple[int, int]
    observed: tuple[int, int]


def align(expected: Sequence[Any], observed: Sequence[Any]) -> tuple[Span, ...]:
    """Return the stretches of two sequences in order, as the comparison itself matches them."""
    spans: list[Span] = []
    here, there = 0, 0
    # Of a hunk only its place and its two lengths are needed.
    for hunk in hunks(expected, observed, lambda items: str(len(items))):
        start, gone, new = int(hunk.at), int(hunk.golden), int(hunk.observed)
        if start > here:
            spans.append(Span(True, (here, start), (there, there + start - here)))
            there += start - here
        spans.append(Span(False, (start, start + gone), (there, there + new)))
        here, there = start + gone, there + new
    if here < len(expected):
        spans.append(Span(True, (here, len(expected)), (there, len(observed))))
    return tuple(spans)


def ends(length: int, most: int) -> tuple[int, int]:
    """Return how many items to show at the start and at the end of a stretch of which `most` may be shown."""
    if length <= most:
        return length, 0
    return most - most // 3, most // 3
