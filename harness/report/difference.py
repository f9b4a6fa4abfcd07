"""Differences as every report shows them: harmless, on one line a side, and no longer than can be read."""

from __future__ import annotations

from dataclasses import dataclass

from harness.checking.compare.hunks import common_prefix
from harness.checking.compare.outcome import Difference, Hunk
from harness.report.visible import shorten, visible, visible_pair

_CONTEXT = 40
_LONGEST = 400


@dataclass(frozen=True)
class Place:
    """One place where two values differ, made visible.

    Attributes:
        at: Where.
        before: What stands right before it on both sides.
        expected: What should be there.
        observed: What is there.
        after: What stands right after it on both sides.
    """

    at: str
    before: str
    expected: str
    observed: str
    after: str

    @property
    def lines(self) -> tuple[str, str]:
        """Both sides with their surroundings, the difference itself in brackets."""
        return (
            f"{self.before}\u27e6{self.expected}\u27e7{self.after}",
            f"{self.before}\u27e6{self.observed}\u27e7{self.after}",
        )


def place(hunk: Hunk) -> Place:
    """Return a place as a reader can see it."""
    expected, observed = visible_pair(hunk.golden, hunk.observed)
    if len(expected) > _LONGEST or len(observed) > _LONGEST:
        expected, observed = _without_common(expected, observed)
    return Place(
        at=visible(hunk.at),
        before=visible(hunk.before)[-_CONTEXT:],
        expected=shorten(expected, _LONGEST),
        observed=shorten(observed, _LONGEST),
        after=visible(hunk.after)[:_CONTEXT],
    )


def diff_lines(difference: Difference, most: int) -> list[str]:
    """Return the first places of a difference as the lines of a unified diff."""
    lines: list[str] = []
    for shown in map(place, difference.hunks[:most]):
        expected, observed = shown.lines
        lines += [f"@@ {shown.at} @@", f"- {expected}", f"+ {observed}"]
    left = len(difference.hunks) - most
    if left > 0:
        lines.append(f"... and {left} more place{'s' if left > 1 else ''}")
    return lines


def _without_common(one: str, other: str) -> tuple[str, str]:
    """Leave out most of what two long texts begin and end with alike."""
    start = max(common_prefix(one, other) - _CONTEXT, 0)
    end = max(common_prefix(one[start:][::-1], other[start:][::-1]) - _CONTEXT, 0)
    head, tail = "\u2026" if start else "", "\u2026" if end else ""
    return f"{head}{one[start : len(one) - end]}{tail}", f"{head}{other[start : len(other) - end]}{tail}"
