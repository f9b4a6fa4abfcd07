"""Root causes: the differences of many cases, put together where one cause explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from harness.checking.compare.outcome import ACCEPTS, MESSAGE, Difference


class Of(Protocol):
    """What has a case."""

    @property
    def case(self) -> str:
        """The case's name."""


Case = TypeVar("Case", bound=Of)


@dataclass(eq=False)
class _Group(Generic[Case]):
    """Differences with one cause.

    Attributes:
        causes: The signatures of all of them.
        members: Whose they are.
        joined: What another cause would explain, and this one does.
    """

    causes: set[str]
    members: list[tuple[Case, Difference]]
    joined: list[tuple[Case, Difference]] = field(default_factory=list)

    @property
    def cases(self) -> set[str]:
        return {one.case for one, _ in (*self.members, *self.joined)}

    def joins(self, other: _Group[Case], *, none_right: bool) -> bool:
        """Whether another group's cause explains this one's members too."""
        mine = [difference for _, difference in self.members]
        if all(_signed(difference, difference.perhaps) & other.causes for difference in mine):
            return True
        if all(difference.causes[0].startswith(ACCEPTS) for difference in mine):
            # What is done to every message's text makes a text of what is none; and what is never right is another.
            return none_right or all(cause.partition("\0")[2].startswith(MESSAGE) for cause in other.causes)
        if len(self.cases) > len(other.cases):
            return False
        followed = any(not difference.follows for _, difference in other.members)
        return all(difference.follows for difference in mine) and followed and self.cases <= other.cases


def parts_of(difference: Difference) -> tuple[Difference, ...]:
    """Return the parts of a difference, each of which may have another root cause."""
    return difference.parts or (difference,)


@dataclass(frozen=True)
class RootCause(Generic[Case]):
    """What one cause explains.

    Attributes:
        shown: The differences that show it, and whose they are.
        joined: Those that it explains besides: what follows from it, and what it looks like in a small case.
    """

    shown: tuple[tuple[Case, Difference], ...]
    joined: tuple[tuple[Case, Difference], ...]


def grouped(pairs: Sequence[tuple[Case, Difference]], *, none_right: bool = False) -> list[RootCause[Case]]:
    """Group differences by root cause.

    Those that share a cause belong together. A group joins a larger one that would explain each of its members, and
    what follows from what is wrong beside it joins that.

    Args:
        pairs: Whose difference each is; one may have several parts.
        none_right: Whether every case that was seen is wrong.
    """
    groups: list[_Group[Case]] = []
    for one, difference in pairs:
        causes = _signed(difference, difference.causes)
        touching = [group for group in groups if group.causes & causes]
        merged = _Group(causes.union(*(g.causes for g in touching)), [pair for g in touching for pair in g.members])
        merged.members.append((one, difference))
        groups = [group for group in groups if group not in touching] + [merged]
    for group in sorted(groups, key=lambda group: len(group.cases)):
        others = sorted((other for other in groups if other is not group), key=lambda other: -len(other.cases))
        into = next((other for other in others if group.joins(other, none_right=none_right)), None)
        if into is not None:
            into.joined += [*group.members, *group.joined]
            groups = [other for other in groups if other is not group]
    return [RootCause(tuple(group.members), tuple(group.joined)) for group in groups]


def _signed(difference: Difference, causes: Sequence[str]) -> set[str]:
    """Return causes of one kind of defect: those of another kind are others."""
    return {f"{difference.kind}\0{cause}" for cause in causes}
