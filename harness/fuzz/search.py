"""The search for inputs that break properties, and for the shortest input of each root cause.

One run of Hypothesis per root cause: what breaks a property for a cause that is known already passes, so that the next
cause is found and made small. What an input did is remembered, so a run over the same inputs costs their making only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

from harness.fuzz.finding import Broken, size_of

T = TypeVar("T")
Key = tuple[str, str, str]
_SHRINKS = 500
"""How many inputs are tried to make one example smaller."""


@dataclass
class Found(Generic[T]):
    """One root cause.

    Attributes:
        broken: The property as the example breaks it.
        example: The shortest input that breaks it.
        inputs: How many different inputs did.
    """

    broken: Broken
    example: T
    inputs: int = 1


@dataclass
class Searched(Generic[T]):
    """What a search came to.

    Attributes:
        found: By root cause.
        inputs: How many different inputs were tried.
        ended: Whether its time was over before its examples were.
    """

    found: dict[Key, Found[T]] = field(default_factory=dict)
    inputs: int = 0
    ended: bool = False


class _BrokenError(Exception):
    """Tells Hypothesis that an input breaks a property."""


class _Over(BaseException):
    """Ends a run of Hypothesis at once, which catches every `Exception`."""


class Search(Generic[T]):
    """A search.

    Args:
        check: Returns what an input breaks. It must give the same again for the same input.
        seconds: The time budget; None for none.
        progress: Told how many inputs were tried.
    """

    def __init__(
        self,
        check: Callable[[T], Sequence[Broken]],
        seconds: float | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._check = check
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._progress = progress
        self._seen: dict[str, tuple[Broken, ...]] = {}
        self.result: Searched[T] = Searched()

    def replay(self, examples: Iterable[T]) -> None:
        """Try given inputs: those that failed before, or a fixed list."""
        for example in examples:
            if self._is_over():
                return
            self._look(example)

    def explore(self, inputs: SearchStrategy[T], *, examples: int, number: int) -> None:
        """Try made-up inputs, and make the example of each new root cause as small as it gets.

        Args:
            inputs: Makes them; values that JSON can hold.
            examples: How many.
            number: The seed.
        """
        small: set[Key] = set()
        while (key := self._explored(inputs, examples, number, small)) is not None:
            small.add(key)

    def _explored(self, inputs: SearchStrategy[T], examples: int, number: int, small: set[Key]) -> Key | None:
        """Run once; return the root cause whose example was made small, or None where there was no new one."""
        target: Key | None = None
        smallest: T | None = None
        left = _SHRINKS

        @seed(number)
        @settings(
            max_examples=examples,
            phases=(Phase.generate, Phase.shrink),
            database=None,
            deadline=None,
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def holds(example: T) -> None:
            nonlocal target, smallest, left
            if self._is_over() or left == 0:
                raise _Over
            tried = self.result.inputs
            keys = {one.key for one in self._look(example)} - small
            if target is None:
                target = min(keys, default=None)
            elif self.result.inputs > tried:
                left -= 1
            if target in keys:
                smallest = example
                raise _BrokenError

        # Hypothesis would leave a folder with notes where the program runs.
        with TemporaryDirectory() as folder:
            set_hypothesis_home_dir(folder)
            try:
                holds()
            except (_BrokenError, _Over):
                pass
            finally:
                set_hypothesis_home_dir(None)
        if target is not None and smallest is not None:
            found = self.result.found[target]
            found.example = smallest
            found.broken = next(one for one in self._look(smallest) if one.key == target)
        return target

    def _look(self, example: T) -> Sequence[Broken]:
        text = size_of(example)[1]
        if text in self._seen:
            return self._seen[text]
        broken = tuple(self._check(example))
        self._seen[text] = broken
        self.result.inputs += 1
        self._progress(self.result.inputs)
        for one in broken:
            known = self.result.found.get(one.key)
            if known is None:
                self.result.found[one.key] = Found(one, example)
                continue
            known.inputs += 1
            if size_of(example) < size_of(known.example):
                known.broken, known.example = one, example
        return broken

    def _is_over(self) -> bool:
        self.result.ended = self.result.ended or (self._ends is not None and time.monotonic() > self._ends)
        return self.result.ended


def found_in(search: Search[Any]) -> list[Found[Any]]:
    """Return what a search found, the shortest examples first."""
    return sorted(search.result.found.values(), key=lambda found: (size_of(found.example), found.broken.key))
