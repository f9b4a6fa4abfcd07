"""Pairs of defects: which can be planted together, and a draw of them that is spread evenly over pairs of stages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Final

from harness.defects.defect import Defect, Place
from harness.stage import Stage

_ONCE: Final = (Place.MODEL, Place.SOURCE, Place.OPTIONS)
"""Places that hold one thing, which the second defect would find changed by the first."""

Two = tuple[Defect, Defect]


def draw_pairs(defects: Iterable[Defect], count: int, seed: int = 0) -> list[Two]:
    """Return pairs of defects of two stages, the upstream one first; the same ones for the same seed.

    Pairs of stages come in turn; within one the pair is taken whose defects are in the fewest pairs so far.

    Args:
        defects: What to draw from.
        count: How many pairs; fewer where no more can be planted.
        seed: The same seed draws the same pairs.
    """
    at = list(Stage).index
    ordered = sorted(defects, key=lambda one: (at(one.stage), one.id))
    groups: dict[tuple[Stage, Stage], list[Two]] = {}
    for pair in combinations(ordered, 2):
        if together(*pair):
            groups.setdefault((pair[0].stage, pair[1].stage), []).append(pair)
    chance = random.Random(seed)  # noqa: S311  # a draw that can be repeated, no secret
    for group in groups.values():
        chance.shuffle(group)
    drawn: list[Two] = []
    used: Counter[str] = Counter()
    while len(drawn) < count and any(groups.values()):
        for group in groups.values():
            if group and len(drawn) < count:
                best = min(range(len(group)), key=lambda number: sum(used[one.id] for one in group[number]))
                pair = group.pop(best)
                used.update(one.id for one in pair)
                drawn.append(pair)
    return drawn


def together(one: Defect, other: Defect) -> bool:
    """Return whether two defects can be planted in one stack so that both could show."""
    if one.stage is other.stage or (one.place is other.place and one.place in _ONCE):
        return False
    if "loading failure" in (one.symptom, other.symptom):
        # Nothing of a stack that does not start is seen.
        return False
    return not one.models or not other.models or bool(set(one.models) & set(other.models))
