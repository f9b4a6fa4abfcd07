"""Where two sequences differ: the places only, each as small as it can be shown."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from harness.checking.compare.outcome import Hunk

_MATCHER_LIMIT = 4_000_000
"""How many pairs of items a full matching may look at; beyond it the whole middle is one hunk."""
_CONTEXT = 3


def hunks(golden: Sequence[Any], observed: Sequence[Any], show: Callable[[Sequence[Any]], str]) -> tuple[Hunk, ...]:
    """Return the places where two sequences differ.

    Args:
        golden: What should be.
        observed: What is.
        show: Makes text of a slice.
    """
    start = common_prefix(golden, observed)
    end = common_prefix(golden[start:][::-1], observed[start:][::-1])
    middle, found = golden[start : len(golden) - end], observed[start : len(observed) - end]
    if not middle and not found:
        return ()
    if len(middle) * len(found) > _MATCHER_LIMIT:
        changes = [("replace", 0, len(middle), 0, len(found))]
    else:
        matcher = difflib.SequenceMatcher(None, middle, found, autojunk=False)
        changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    return tuple(
        Hunk(
            at=str(start + a),
            golden=show(middle[a:b]),
            observed=show(found[c:d]),
            before=show(golden[max(0, start + a - _CONTEXT) : start + a]),
            after=show(golden[start + b : start + b + _CONTEXT]),
        )
        for _, a, b, c, d in changes
    )


def common_prefix(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many leading items are equal."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
