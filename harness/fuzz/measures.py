"""What a search measures beside what it finds: what of a template was reached, and which of its mutants are killed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.values import Value


class Unreached(Value):
    """A branch, a loop's number of runs, an output or a macro that no input reached.

    Attributes:
        line: Where its tag begins, from 1.
        kind: What it is; see `harness.fuzz.template.coverage.Kind`.
        text: Its tag's source, cut.
    """

    line: int
    kind: str
    text: str


class Covered(Value):
    """How much of a template some inputs reached.

    Attributes:
        subject: The template.
        by: Which inputs: the conversations of the search in all forms that properties ask for, or the golden cases.
        points: How many points there are to reach.
        missed: Those that were not, in the order of the source.
    """

    subject: str
    by: Literal["conversations", "goldens"]
    points: int
    missed: tuple[Unreached, ...] = ()

    @property
    def reached(self) -> int:
        """How many points were reached."""
        return self.points - len(self.missed)

    @property
    def share(self) -> float:
        """The share of the points that were reached; 1 where there are none."""
        return self.reached / self.points if self.points else 1.0


class Tried(Value):
    """A mutant that was tried.

    Attributes:
        subject: The template that it is a mutant of.
        kind: What kind of defect it has.
        line: Where the defect is, from 1.
        column: Where in this line, in characters from 1.
        old: What stood there.
        new: What stands there now.
        told: Whether some render of it differs from its original's: it is effective.
        case: The first golden case that kills it, or None.
        broken: The first property that kills it, or None.
    """

    subject: str
    kind: str
    line: int
    column: int
    old: str
    new: str
    told: bool
    case: str | None = None
    broken: str | None = None

    @property
    def survives(self) -> bool:
        """Whether it differs from its original, and nothing kills it."""
        return self.told and self.case is None and self.broken is None


class KindTried(Value):
    """The mutants of one kind.

    Attributes:
        kind: The kind.
        sentence: What the defect does.
        tried: How many were tried.
        told: How many of them differ from their original.
        by_goldens: How many the goldens kill.
        by_properties: How many the properties kill.
        survive: How many differ and are killed by neither.
    """

    kind: str
    sentence: str
    tried: int
    told: int
    by_goldens: int
    by_properties: int
    survive: int


class Mutation(Value):
    """What the mutants of templates tell of what tests the templates.

    Attributes:
        made: How many mutants there are.
        kinds: Those that were tried, by kind.
        survivors: Those that differ from their original and that nothing kills.
        properties: By property, how many mutants it was the first to kill.
        cases: How many golden cases were held against them; 0 where there are none.
        unjudged: The templates whose mutants could not be judged, with the reason.
    """

    made: int
    kinds: tuple[KindTried, ...]
    survivors: tuple[Tried, ...]
    properties: dict[str, int]
    cases: int = 0
    unjudged: dict[str, str] = Field(default_factory=dict)

    @property
    def total(self) -> KindTried:
        """All kinds together."""
        names = ("tried", "told", "by_goldens", "by_properties", "survive")
        return KindTried(kind="all", sentence="", **{name: sum(getattr(k, name) for k in self.kinds) for name in names})

    @property
    def line(self) -> str:
        """The result in one line."""
        total = self.total
        if not total.told:
            return f"{total.tried:,} of {self.made:,} mutants tried, none of which differs from its original"
        share = f"{total.by_properties / total.told:.1%}"
        goldens = f", the goldens {total.by_goldens / total.told:.1%}" if self.cases else ""
        return (
            f"{total.tried:,} of {self.made:,} mutants tried, {total.told:,} differ from their original: "
            f"the properties kill {share}{goldens}, {total.survive:,} survive"
        )
