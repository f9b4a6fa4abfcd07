"""Which defects a bench plants: those that its stack has a place for, all of them or a spread of them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.defects.defect import Defect
from harness.defects.planting import missing_place
from harness.project.stack import Stack


def of_stack(defects: Sequence[Defect], stack: Stack) -> list[Defect]:
    """Return the defects that the stack has a place for."""
    return [one for one in defects if missing_place(stack, one) is None]


def spread(defects: Sequence[Defect], count: int) -> list[Defect]:
    """Return so many defects, the same ones for the same catalogue, in its order.

    Every stage, kind and place gives one in turn; of one group those come first that lie far apart in the catalogue, as
    its neighbours are variants of each other.
    """
    groups: dict[tuple[str, str, str], list[Defect]] = {}
    for one in defects:
        groups.setdefault((one.stage, one.kind, one.place), []).append(one)
    turns = [_far_apart(group) for _, group in sorted(groups.items())]
    chosen: set[str] = set()
    while turns and len(chosen) < count:
        chosen.update(turn.pop(0).id for turn in turns[: count - len(chosen)])
        turns = [turn for turn in turns if turn]
    return [one for one in defects if one.id in chosen]


def _far_apart(group: Sequence[Defect]) -> list[Defect]:
    """Return a group in the order of the van der Corput sequence of its places: first, middle, quarters, ..."""
    width = max(len(group) - 1, 1).bit_length()
    order = sorted(range(1 << width), key=lambda at: int(format(at, f"0{width}b")[::-1], 2))
    return [group[at] for at in order if at < len(group)]
