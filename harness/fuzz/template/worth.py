"""Which mutants of a template are killed: by the golden cases, by the properties.

A mutant is told from its original by its renders of the fixed conversations. A golden case kills it by another prompt.
A property kills it where it is broken for a cause for which no conversation breaks it with the original; engines that
disagree over a mutant kill it where they agree over its original.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from harness.fuzz.measures import KindTried, Mutation, Tried
from harness.fuzz.template._property import Property
from harness.fuzz.template.golden_cases import GoldenCase
from harness.fuzz.template.mutation import KINDS, Mutant, mutants
from harness.fuzz.template.properties import judge, properties_named
from harness.fuzz.template.trial import Conversation, Side, Subject, Trial, rendered
from harness.parts import PartError, TemplateEngine

AGREE = "engines-agree"


@dataclass(frozen=True)
class Bar:
    """What mutants are held against.

    Attributes:
        engines: The engines; the first is the reference.
        properties: The properties.
        conversations: What they are tried on.
    """

    engines: Sequence[TemplateEngine]
    properties: Sequence[Property]
    conversations: Sequence[Conversation]


class Original:
    """A template whose mutants are judged: what it renders and breaks itself is found once.

    Args:
        subject: The template.
        cases: Its golden cases. One whose prompt it does not give itself says nothing of a mutant, and is left out.
        bar: What its mutants are held against.

    Raises:
        PartError: it does not compile.
    """

    def __init__(self, subject: Subject, cases: Sequence[GoldenCase], bar: Bar) -> None:
        self.subject, self._bar = subject, bar
        self.mutants: list[Mutant] = mutants(subject.source)
        self._alone = [one for one in bar.properties if one.name != AGREE]
        sides = self._sides(subject)
        if isinstance(sides[0].compiled, PartError):
            raise sides[0].compiled
        self.cases = [one for one in cases if _prompt(sides[0], subject, one) == one.prompt]
        self._texts: list[tuple[str, str]] = []
        self._broken: set[tuple[str, str]] = set()
        self._agree: list[bool] = []
        for conversation in bar.conversations:
            alone = Trial(subject, sides[:1], conversation)
            self._texts.append(_texts(alone))
            self._broken.update((one.name, one.cause) for one in judge(alone, self._alone)[0])
            self._agree.append(len(sides) == 1 or not _disagree(Trial(subject, sides, conversation)))

    def judged(self, mutant: Mutant) -> Tried:
        """Return what tells a mutant from its original, and what kills it."""
        subject = self.subject.model_copy(update={"source": mutant.source})
        sides = self._sides(subject)
        trials = [Trial(subject, sides[:1], one) for one in self._bar.conversations]
        told = [_texts(trial) != texts for trial, texts in zip(trials, self._texts, strict=True)]
        case = next((one.name for one in self.cases if _prompt(sides[0], subject, one) != one.prompt), None)
        broken = self._broken_by(trials, told) if any(told) or case else None
        if broken is None and len(sides) > 1 and self._part(subject, sides):
            broken = AGREE
        return Tried(
            subject=subject.name,
            kind=mutant.kind,
            line=mutant.line,
            column=mutant.column,
            old=mutant.old,
            new=mutant.new,
            told=any(told) or case is not None or broken is not None,
            case=case,
            broken=broken,
        )

    def _broken_by(self, trials: Sequence[Trial], told: Sequence[bool]) -> str | None:
        """Return the first property that a mutant breaks and its original does not."""
        # Most break something on a conversation that is rendered otherwise. One that is not may be in its other forms.
        for trial in [trials[at] for at in sorted(range(len(trials)), key=lambda at: not told[at])]:
            for one in self._alone:
                if any((found.name, found.cause) not in self._broken for found in judge(trial, [one])[0]):
                    return one.name
        return None

    def _part(self, subject: Subject, sides: Sequence[Side]) -> bool:
        """Tell whether the engines disagree over a mutant where they agree over its original."""
        agreed = zip(self._bar.conversations, self._agree, strict=True)
        return any(_disagree(Trial(subject, sides, one)) for one, agree in agreed if agree)

    def _sides(self, subject: Subject) -> list[Side]:
        wanted = self._bar.engines if any(one.name == AGREE for one in self._bar.properties) else self._bar.engines[:1]
        return [Side(engine, subject.source) for engine in wanted]


def _disagree(trial: Trial) -> bool:
    return bool(judge(trial, properties_named([AGREE]))[0])


def _texts(trial: Trial) -> tuple[str, str]:
    """Return what a trial renders, with the assistant's turn opened and not; that it ends is one text."""
    opened, closed = trial.render(trial.sides[0]), trial.closed(trial.sides[0])
    return _text(opened), _text(closed)


def _text(seen: str | PartError) -> str:
    return f"{seen.kind}: {seen.message}" if isinstance(seen, PartError) else f"text: {seen}"


def _prompt(side: Side, subject: Subject, case: GoldenCase) -> str | None:
    """Return what a golden case gives; None where it ends."""
    seen = rendered(side, case.asked(subject.variables))
    return None if isinstance(seen, PartError) else seen


def sampled(kinds: Sequence[str], most: int | None, seed: int) -> list[int]:
    """Return which mutants are tried, given the kind of each: as many of each kind as there is room for.

    Args:
        kinds: The kinds of the mutants, in their order.
        most: How many; None for all.
        seed: The same seed takes the same ones.

    Returns:
        Their numbers, one of each kind after the other, so that whoever has no time for all has tried all kinds.
    """
    random = Random(seed)  # noqa: S311 - nothing is secret
    by_kind: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(number)
    for numbers in by_kind.values():
        random.shuffle(numbers)
    rounds: Iterator[int] = (
        numbers[at] for at in range(len(kinds)) for numbers in by_kind.values() if at < len(numbers)
    )
    return list(rounds)[:most]


def summed(tried: Iterable[Tried], *, made: int, cases: int, unjudged: dict[str, str]) -> Mutation:
    """Return what mutants came to, by kind.

    Args:
        tried: Those that were tried.
        made: How many there are.
        cases: How many golden cases were held against them.
        unjudged: The templates whose mutants could not be judged, with the reason.
    """
    found = sorted(tried, key=lambda one: (one.subject, one.line, one.column, list(KINDS).index(one.kind), one.new))
    by_kind: dict[str, list[Tried]] = {kind: [] for kind in KINDS}
    properties: dict[str, int] = {}
    for one in found:
        by_kind[one.kind].append(one)
        if one.broken is not None:
            properties[one.broken] = properties.get(one.broken, 0) + 1
    kinds = tuple(
        KindTried(
            kind=kind,
            sentence=KINDS[kind],
            tried=len(of_kind),
            told=sum(one.told for one in of_kind),
            by_goldens=sum(one.case is not None for one in of_kind),
            by_properties=sum(one.broken is not None for one in of_kind),
            survive=sum(one.survives for one in of_kind),
        )
        for kind, of_kind in by_kind.items()
        if of_kind
    )
    return Mutation(
        made=made,
        kinds=kinds,
        survivors=tuple(one for one in found if one.survives),
        properties=dict(sorted(properties.items(), key=lambda item: (-item[1], item[0]))),
        cases=cases,
        unjudged=unjudged,
    )
