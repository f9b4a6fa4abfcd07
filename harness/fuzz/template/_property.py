"""What a property of templates is, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.fuzz.finding import Broken, Output
from harness.fuzz.template.trial import Side, Trial

Check = Callable[[Trial, Side], Iterator[Broken] | None]
"""Yields what is broken; None where the property does not apply."""


@dataclass(frozen=True)
class Property:
    """A property.

    Attributes:
        name: Its name.
        sentence: What must hold.
        check: Holds it against a trial.
        in_own_words: Whether each engine words the same cause in its own way.
        any_input: Whether it must hold of conversations too that OpenAI's API would refuse.
    """

    name: str
    sentence: str
    check: Check
    in_own_words: bool = False
    any_input: bool = False


def registering(properties: dict[str, Property]) -> Callable[..., Callable[[Check], Check]]:
    """Return a decorator that registers a check as a property of these, by its name and what must hold."""

    def named(name: str, sentence: str, **how: bool) -> Callable[[Check], Check]:
        def register(check: Check) -> Check:
            properties[name] = Property(name, sentence, check, **how)
            return check

        return register

    return named


def broken_on(name: str, side: Side, cause: str, message: str, *shown: Output) -> Broken:
    """Return that a property is broken in one engine."""
    return Broken(name=name, path=side.name, cause=cause, message=message, shown=shown)
