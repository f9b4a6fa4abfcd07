"""The mutants of many templates, judged in child processes: how much of what can go wrong the tests would see."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from typing import Any, Final

from harness.fuzz.measures import Mutation, Tried
from harness.fuzz.template.golden_cases import GoldenCase
from harness.fuzz.template.run import Children, Plan, said
from harness.fuzz.template.trial import Subject
from harness.fuzz.template.worth import sampled, summed
from harness.process.worker import RemoteError, WorkerDiedError
from harness.values import Json

_CHUNK: Final = 40
"""Mutants that are judged in one call. Each child finds out once what their original does."""


def try_mutants(
    plan: Plan,
    subjects: Sequence[Subject],
    conversations: Sequence[Json],
    cases: Mapping[str, Sequence[GoldenCase]],
    most: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Mutation, dict[str, str], bool]:
    """Judge the mutants of templates.

    Args:
        plan: The engines, of which the first is the reference, the properties, the seed, the time and the workers.
        subjects: The templates.
        conversations: What mutants are tried on.
        cases: By subject, its golden cases.
        most: How many mutants of each template are tried; None for all.
        progress: Told how many mutants are judged, and how many there are.

    Returns:
        What came of them, the engines' versions by name, and whether the time was over before all were judged.
    """
    children = Children(plan, conversations)
    ends = None if plan.seconds is None else time.monotonic() + plan.seconds
    work = [_Work(children, one, cases.get(one.name, ()), plan.number, most, ends) for one in subjects]
    tried: list[Tried] = []
    with children.pool() as submit:
        for future in as_completed([submit(one.make) for one in work]):
            future.result()
        wanted = sum(len(one.numbers) for one in work)
        chunks = [(one, numbers) for one in work for numbers in one.chunks()]
        futures: list[Future[list[Tried]]] = [submit(one.judge, numbers) for one, numbers in chunks]
        for future in as_completed(futures):
            tried += future.result()
            progress(len(tried), wanted)
    result = summed(
        tried,
        made=sum(one.made for one in work),
        cases=sum(one.cases for one in work),
        unjudged={one.subject.name: one.error for one in work if one.error},
    )
    return result, children.engines, len(tried) + sum(one.failed for one in work) < wanted


class _Work:
    """The mutants of one template."""

    def __init__(
        self,
        children: Children,
        subject: Subject,
        cases: Sequence[GoldenCase],
        seed: int,
        most: int | None,
        ends: float | None,
    ) -> None:
        self.subject = subject
        self.numbers: list[int] = []
        self.made = self.cases = self.failed = 0
        self.error = ""
        self._mutants: list[Json] = []
        self._children, self._seed, self._most, self._ends = children, seed, most, ends
        self._asked = {
            "subject": subject.model_dump(mode="json"),
            "cases": [case.model_dump(mode="json") for case in cases],
        }

    def make(self) -> None:
        """Find out which mutants there are."""
        if self.subject.unread:
            self.error = self.subject.unread
            return
        try:
            answer = self._children.call("mutants", **self._asked)
        except WorkerDiedError as death:
            answer = {"error": f"the process that renders it {death.failure.describe()}"}
        except RemoteError as error:
            answer = {"error": said(error)}
        self.error = answer.get("error", "")
        if not self.error:
            self._mutants, self.cases = answer["mutants"], answer["cases"]
            self.made = len(self._mutants)
            self.numbers = sampled([one["kind"] for one in self._mutants], self._most, self._seed)

    def chunks(self) -> list[list[int]]:
        """Return the numbers of the mutants that are to be judged, a call each."""
        return [self.numbers[at : at + _CHUNK] for at in range(0, len(self.numbers), _CHUNK)]

    def judge(self, numbers: Sequence[int]) -> list[Tried]:
        """Judge mutants: as many as there is time for. One that ends its process is killed by that."""
        left = None if self._ends is None else self._ends - time.monotonic()
        if left is not None and left <= 0:
            return []
        try:
            answer: list[Any] = self._children.call("try_mutants", **self._asked, numbers=list(numbers), seconds=left)
        except WorkerDiedError:
            if len(numbers) == 1:
                return [self._deadly(numbers[0])]
            return [one for number in numbers for one in self.judge([number])]
        except RemoteError as error:
            self.error, self.failed = said(error), self.failed + len(numbers)
            return []
        return [Tried.model_validate(one) for one in answer]

    def _deadly(self, number: int) -> Tried:
        return Tried(subject=self.subject.name, **self._mutants[number], told=True, broken="renders")
