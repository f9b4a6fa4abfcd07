"""Many templates on made-up conversations: spread over child processes, one that dies is a finding and not the end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import Field

from harness.errors import UserError
from harness.fuzz.finding import Broken, Finding, Output, merged
from harness.fuzz.measures import Covered, Unreached
from harness.fuzz.template.golden_cases import GoldenCase
from harness.fuzz.template.properties import PROPERTIES
from harness.fuzz.template.trial import Subject
from harness.parts import STUCK
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.values import Json, Value

MEMORY: Final = 2 << 30
_SHOWN: Final = 200
_SEARCH: Final = 300.0
"""Seconds that the search on one template may take where nobody set a time: slow engines, and many causes to shrink."""
SECONDS: Final = 120.0
"""The time that one template may take in a sweep: far more than any published one does."""


class Statistics(Value):
    """What a run came to.

    Attributes:
        subjects: How many templates.
        inputs: How many conversations, over all of them.
        held: How often each property was held against what an engine made of one, by name.
        renders: How many renders.
        engines: The engines' versions, by name.
        ended: Whether the time was over before the examples were.
        coverage: What of the templates was reached, one a template, where it was counted.
        unjudged: Why a template could not be judged, by its name.
    """

    subjects: int = 0
    inputs: int = 0
    held: dict[str, int] = Field(default_factory=dict)
    renders: int = 0
    engines: dict[str, str] = Field(default_factory=dict)
    ended: bool = False
    coverage: tuple[Covered, ...] = ()
    unjudged: dict[str, str] = Field(default_factory=dict)

    @property
    def checks(self) -> int:
        """How many checks were made."""
        return sum(self.held.values())


class Plan(Value):
    """What is tried.

    Attributes:
        engines: Import paths of the engines by name; the first is the reference.
        properties: Names of properties; all where none is named.
        tokenizer: The import path of the tokenizer that reads the prompts of a GGUF's template; empty for none.
        examples: Made-up conversations for each template, beside the fixed ones; 0 for these only.
        number: The seed.
        seconds: The time budget of all, or None. What is begun in time is tried on the fixed conversations to the end.
        workers: Child processes at once.
        counts: Whether what of a template is reached is counted.
    """

    engines: dict[str, str]
    properties: tuple[str, ...] = ()
    tokenizer: str = ""
    examples: int = 0
    number: int = 0
    seconds: float | None = None
    workers: int = 0
    counts: bool = False


def fuzz_templates(
    plan: Plan,
    subjects: Sequence[Subject],
    conversations: Sequence[Json],
    failed: Mapping[str, Sequence[Json]],
    progress: Callable[[int], None] = lambda _: None,
    cases: Mapping[str, Sequence[GoldenCase]] = MappingProxyType({}),
) -> tuple[list[Finding], Statistics]:
    """Try templates on conversations.

    Args:
        plan: What is tried.
        subjects: The templates.
        conversations: Those that every template is tried on.
        failed: By subject, conversations that broke something before.
        progress: Told how many templates are done.
        cases: By subject, golden cases, of which it is counted apart what they reach.

    Returns:
        The findings, one a root cause, those on most templates first; and what was done.
    """
    run = Children(plan, conversations)
    findings: list[Finding] = []
    total = Statistics()
    run.expect(len(subjects))
    with run.pool() as submit:
        futures = [
            submit(run.tried, subject, failed.get(subject.name, ()), cases.get(subject.name, ()))
            for subject in subjects
        ]
        for done, future in enumerate(as_completed(futures), start=1):
            found, statistics = future.result()
            findings += found
            total = _added(total, statistics)
            progress(done)
    covered = tuple(sorted(total.coverage, key=lambda one: (one.subject, one.by)))
    joined = sorted(merged(sorted(findings, key=lambda one: one.subject)), key=_order)
    return joined, total.model_copy(update={"engines": run.engines, "coverage": covered})


def look_again(plan: Plan, subject: Subject, example: Json) -> tuple[list[Finding], Statistics]:
    """Try one conversation on one template, as a finding's command does."""
    run = Children(plan.model_copy(update={"workers": 1}), ())
    with run.pool() as submit:
        found, statistics = submit(run.looked, subject, example).result()
    return sorted(merged(found), key=_order), statistics.model_copy(update={"engines": run.engines})


def _order(finding: Finding) -> tuple[Any, ...]:
    return -len(finding.subjects), list(PROPERTIES).index(finding.broken.name), finding.broken.key


class OverError(Exception):
    """Nothing is asked any more: the pool of child processes is closed."""


class Children:
    """Child processes that hold properties against templates."""

    def __init__(self, plan: Plan, conversations: Sequence[Json]) -> None:
        self._plan = plan
        self._conversations = list(conversations)
        self._workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._count = plan.workers or os.cpu_count() or 1
        self._ends = None if plan.seconds is None else time.monotonic() + plan.seconds
        self._waiting = 0
        self._over = threading.Event()
        self.engines: dict[str, str] = {}

    @contextmanager
    def pool(self) -> Iterator[Callable[..., Any]]:
        """Hold child processes for as long as the context is open; yields what runs a call in one of them."""
        workers = [self._worker(self._plan.engines) for _ in range(self._count)]
        executor = ThreadPoolExecutor(self._count)
        try:
            self.engines = _identity(workers[0])
            for worker in workers:
                self._workers.put(worker)
            yield executor.submit
        finally:
            # A child that is at work is ended: who waits for it hears of its death, and begins nothing anew.
            self._over.set()
            executor.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()

    def tried(
        self, subject: Subject, failed: Sequence[Json], cases: Sequence[GoldenCase]
    ) -> tuple[list[Finding], Statistics]:
        """Try one template, for its share of the time that is left."""
        seconds = self._share()
        if seconds is not None and seconds <= 0:
            return [], Statistics(ended=True)
        found, statistics, reached = self._asked(subject, "sweep", seconds=SECONDS, counts=self._plan.counts)
        died = any(one.example is None for one in found)
        if self._plan.examples and not statistics.unjudged and not died:
            more, other, further = self._asked(
                subject,
                "explore",
                examples=self._plan.examples,
                number=self._plan.number,
                seconds=_SEARCH if seconds is None else seconds,
                replay=list(failed),
                counts=self._plan.counts,
            )
            found, statistics, reached = [*found, *more], _added(statistics, other), reached | further
        coverage = self._covered(subject, reached, cases) if self._plan.counts else ()
        return found, statistics.model_copy(update={"subjects": 1, "coverage": coverage})

    def expect(self, count: int) -> None:
        """Say how many templates are to be tried, so that each gets its share of the time."""
        self._waiting = count

    def _share(self) -> float | None:
        if self._ends is None:
            return None
        left = self._ends - time.monotonic()
        share = left * min(1.0, self._count / max(1, self._waiting))
        self._waiting -= 1
        return share

    def _covered(self, subject: Subject, reached: set[int], cases: Sequence[GoldenCase]) -> tuple[Covered, ...]:
        """Return what of a template was reached, and what its golden cases reach."""
        given = [case.model_dump(mode="json") for case in cases]
        try:
            answer = self.call("cover", subject=subject.model_dump(mode="json"), cases=given)
        except (WorkerDiedError, RemoteError):
            return ()
        if answer["points"] is None:
            return ()
        points = [Unreached(**point) for point in answer["points"]]
        by: dict[Literal["conversations", "goldens"], set[int]] = {"conversations": reached}
        if cases:
            by["goldens"] = set(answer["reached"])
        return tuple(
            Covered(subject=subject.name, by=name, points=len(points), missed=_missed(points, those))
            for name, those in by.items()
        )

    def looked(self, subject: Subject, example: Json) -> tuple[list[Finding], Statistics]:
        """Try one conversation."""
        found, statistics, _ = self._asked(subject, "look", example=example)
        return found, statistics.model_copy(update={"subjects": 1})

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method in a child process that has nothing to do.

        Raises:
            WorkerDiedError: the child died.
            OverError: the pool is closed.
        """
        worker = self._workers.get()
        try:
            if self._over.is_set():
                raise OverError
            return worker.call(method, **arguments)
        except WorkerDiedError:
            if self._over.is_set():
                raise OverError from None
            raise
        finally:
            self._workers.put(worker)

    def _asked(self, subject: Subject, method: str, **arguments: Any) -> tuple[list[Finding], Statistics, set[int]]:
        if subject.unread:
            return [], Statistics(unjudged={subject.name: subject.unread}), set()
        try:
            answer = self.call(method, subject=subject.model_dump(mode="json"), **arguments)
        except WorkerDiedError as death:
            return self._deadly(subject, method, arguments, death), Statistics(), set()
        except RemoteError as error:
            return [], Statistics(unjudged={subject.name: said(error)}), set()
        return *_read(subject, answer), set(answer["reached"])

    def _deadly(self, subject: Subject, method: str, arguments: Json, death: WorkerDiedError) -> list[Finding]:
        """Return which engine a template ends the process of, each tried alone."""
        found: list[Finding] = []
        for name, path in self._plan.engines.items():
            with self._worker({name: path}) as alone:
                try:
                    found += _read(subject, alone.call(method, subject=subject.model_dump(mode="json"), **arguments))[0]
                except WorkerDiedError as own:
                    found.append(_died(subject, name, own))
                except RemoteError:
                    # With the others it ended the process, which is what is told.
                    continue
        return found or [_died(subject, "all engines together", death)]

    def _worker(self, engines: Mapping[str, str]) -> Worker:
        init = {
            "engines": list(engines.values()),
            "properties": list(self._plan.properties),
            "conversations": self._conversations,
            "tokenizer": self._plan.tokenizer,
        }
        seconds = SECONDS + (_SEARCH if self._plan.seconds is None else self._plan.seconds)
        return Worker("harness.fuzz.template.child:Bench", init, seconds=seconds, memory=MEMORY, patience=2)


def _identity(worker: Worker) -> dict[str, str]:
    """Return the engines' versions.

    Raises:
        UserError: an engine cannot be made here, as something beside Python is missing.
    """
    try:
        found: dict[str, str] = worker.call("identity")
    except RemoteError as error:
        if error.error == UserError.__name__:
            raise UserError(error.message) from None
        raise
    return found


def said(error: RemoteError) -> str:
    """Return what kept a template from being judged, in a line."""
    message = " ".join(error.message.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return f"{error.error}: {message[:_SHOWN]}" if message else error.error


def _read(subject: Subject, answer: Json) -> tuple[list[Finding], Statistics]:
    findings = [
        Finding(
            broken=(broken := Broken.model_validate(one["broken"])),
            sentence=PROPERTIES[broken.name].sentence,
            subjects=(subject.name,),
            inputs=one["inputs"],
            example=one["example"],
            subject=subject.name,
        )
        for one in answer["found"]
    ]
    counted = {name: answer[name] for name in ("inputs", "held", "renders", "ended")}
    return findings, Statistics(**counted)


def _died(subject: Subject, engine: str, death: WorkerDiedError) -> Finding:
    failure = death.failure
    stuck = failure.signal == STUCK
    told = "did not end, and could not be interrupted" if stuck else failure.describe()
    said = f"the process that renders it {told}"
    broken = Broken(
        name="renders",
        path=engine,
        cause=f"ends the process: {'hang' if stuck else failure.reason}",
        message=said,
        shown=(Output(by=engine, error=said),),
    )
    sentence = PROPERTIES["renders"].sentence
    return Finding(
        broken=broken, sentence=sentence, subjects=(subject.name,), inputs=1, example=None, subject=subject.name
    )


def _added(one: Statistics, other: Statistics) -> Statistics:
    counted = {name: getattr(one, name) + getattr(other, name) for name in ("subjects", "inputs", "renders")}
    held = dict(Counter(one.held) + Counter(other.held))
    joined = {
        "held": held,
        "ended": one.ended or other.ended,
        "coverage": one.coverage + other.coverage,
        "unjudged": one.unjudged | other.unjudged,
    }
    return one.model_copy(update={**counted, **joined})


def _missed(points: Sequence[Unreached], reached: set[int]) -> tuple[Unreached, ...]:
    missed = [point for number, point in enumerate(points) if number not in reached]
    return tuple(sorted(missed, key=lambda point: point.line))
