"""The child process in which templates of unknown origin are rendered: all engines, one subject after the other."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness import parts
from harness.fuzz import conversations
from harness.fuzz.finding import Broken
from harness.fuzz.search import Search, found_in
from harness.fuzz.template.counting import Counted, Counting, counting_of
from harness.fuzz.template.golden_cases import GoldenCase
from harness.fuzz.template.properties import judge, properties_named
from harness.fuzz.template.trial import Conversation, Side, Subject, Trial, rendered
from harness.fuzz.template.worth import Bar, Original
from harness.parts import PartError, Rendering, Tokenizer
from harness.values import Json

_CONTROL = ("<|im_end|>", "</s>")
"""Texts of control tokens for a template that stands alone."""
_HARD = (
    *("control-tokens", "poison", "nfc", "digits", "whitespace", "han", "template-code"),
    *("parts", "empty", "two-users", "assistant-first", "system-later", "developer"),
    *("mapping-arguments", "nested", "numbers", "named-results"),
)
_WILD = (
    *("nul", "null-content", "no-content-key"),
    *("broken-arguments", "odd-ids", "unanswered-calls", "orphan-results", "bare-tools"),
)


class Bench:
    """Holds properties against templates.

    Args:
        engines: Import paths of `TemplateEngine`s; the first is the reference.
        properties: Names of properties; all where none is named.
        conversations: Those that every subject is tried on.
        tokenizer: The import path of a `Tokenizer` over a GGUF (`path`); empty for none.
    """

    def __init__(
        self,
        engines: Sequence[str],
        properties: Sequence[str],
        conversations: Sequence[Json],
        tokenizer: str = "",
    ) -> None:
        parts.end_process_when_stuck()
        self._engines = [parts.make(path) for path in engines]
        self._properties = properties_named(properties)
        self._conversations = [Conversation(one) for one in conversations]
        self._compiled: dict[str, Side] = {}
        self._tokenizer = tokenizer
        self._made: dict[str, Tokenizer] = {}
        self._last: Original | None = None
        # A template's recursion ends at Python's limit, and its renderer's frames are several to one of its own.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 2000))

    def identity(self) -> dict[str, str]:
        """Return the engines' versions, by name."""
        return {engine.name: engine.version() for engine in self._engines}

    def sweep(self, subject: Json, seconds: float, counts: bool = False) -> Json:
        """Try the conversations that every subject is tried on.

        Args:
            subject: The template.
            seconds: When to stop, for a template that takes long for each.
            counts: Whether what of it is reached is counted.

        Returns:
            `found`: a list of `broken`, `example` and `inputs`; `inputs`: how many were tried; `held`: how often
            each property was; `renders`, and whether the time was over (`ended`); `reached`: numbers of points.
        """
        work = _Work(self, Subject.model_validate(subject), counts)
        search: Search[Json] = Search(work.check, seconds)
        for one in self._conversations:
            work.known = one
            search.replay([one.data])
        return work.result(search)

    def explore(
        self,
        subject: Json,
        examples: int,
        number: int,
        seconds: float | None,
        replay: Sequence[Json],
        counts: bool = False,
    ) -> Json:
        """Try what failed before, then made-up conversations; see `sweep` for what is returned."""
        work = _Work(self, Subject.model_validate(subject), counts)
        search: Search[Json] = Search(work.check, seconds)
        search.replay(replay)
        search.explore(inputs(work.subject.control or _CONTROL), examples=examples, number=number)
        return work.result(search)

    def look(self, subject: Json, example: Json) -> Json:
        """Try one conversation; see `sweep` for what is returned."""
        work = _Work(self, Subject.model_validate(subject))
        search: Search[Json] = Search(work.check)
        search.replay([example])
        return work.result(search)

    def render(self, source: str, messages: Sequence[Json], tools: Any, variables: Json, opens: bool) -> Json:
        """Return what the reference makes of messages, as `text`; or how it ends, as `PartError` is made."""
        if source not in self._compiled:
            self._compiled = {source: Side(self._engines[0], source)}
        seen = rendered(self._compiled[source], Rendering(messages, tools, opens, variables))
        if isinstance(seen, PartError):
            return {"kind": seen.kind, "message": seen.message, "name": seen.name, "line": seen.line}
        return {"text": seen}

    def cover(self, subject: Json, cases: Sequence[Json]) -> Json:
        """Render golden cases in the reference and count what of a template is reached.

        Returns:
            `points`: each with `line`, `kind` and `text`; `reached`: their numbers. None where the reference does not
            show how it compiles, or the template does not compile.
        """
        template = Subject.model_validate(subject)
        counting = counting_of(self._engines[0], template.source)
        if counting is None:
            return {"points": None, "reached": []}
        for case in cases:
            counting.count(GoldenCase.model_validate(case).asked(template.variables))
        return {"points": [asdict(point) for point in counting.coverage.points], "reached": counting.reached}

    def mutants(self, subject: Json, cases: Sequence[Json]) -> Json:
        """Make the mutants of a template.

        Returns:
            `mutants`: what each is; `cases`: how many golden cases say something; or `error`: why there are none.
        """
        try:
            original = self._original(subject, cases)
        except PartError as error:
            return {"error": f"{error.kind}: {error.message}"}
        told = ("kind", "line", "column", "old", "new")
        made = [{name: getattr(mutant, name) for name in told} for mutant in original.mutants]
        return {"mutants": made, "cases": len(original.cases)}

    def try_mutants(
        self, subject: Json, cases: Sequence[Json], numbers: Sequence[int], seconds: float | None
    ) -> list[Json]:
        """Judge mutants of a template, by number, until the time is over.

        Returns:
            What came of each, as `Tried` has it: as many as there was time for.
        """
        ends = None if seconds is None else time.monotonic() + seconds
        original = self._original(subject, cases)
        tried: list[Json] = []
        for number in numbers:
            if ends is not None and time.monotonic() > ends:
                break
            tried.append(original.judged(original.mutants[number]).model_dump(mode="json"))
        return tried

    def _original(self, subject: Json, cases: Sequence[Json]) -> Original:
        """Return a template whose mutants are judged; the last one is kept."""
        template = Subject.model_validate(subject)
        if self._last is None or self._last.subject != template:
            bar = Bar(self._engines, self._properties, self._conversations)
            self._last = Original(template, [GoldenCase.model_validate(case) for case in cases], bar)
        return self._last

    def sides(self, subject: Subject) -> list[Side]:
        """Return a template in every engine."""
        return [Side(engine, subject.source) for engine in self._engines]

    def _tokenizer_of(self, subject: Subject) -> Tokenizer | None:
        if not self._tokenizer or subject.file is None:
            return None
        if subject.file not in self._made:
            self._made = {subject.file: parts.make(self._tokenizer, path=subject.file)}
        return self._made[subject.file]

    def counted(self, subject: Subject, side: Side) -> Counting | None:
        """Count from now on what of a template is reached by what is rendered on its side of the reference."""
        counting = counting_of(self._engines[0], subject.source)
        if counting is not None and not isinstance(side.compiled, PartError):
            side.compiled = Counted(side.compiled, counting)
        return counting

    def judged(
        self, subject: Subject, sides: Sequence[Side], conversation: Conversation
    ) -> tuple[list[Broken], Counter[str], Trial]:
        """Return what a conversation breaks, how often each property was held, and the trial."""
        trial = Trial(subject, sides, conversation, self._tokenizer_of(subject))
        broken, held = judge(trial, self._properties)
        return broken, held, trial


def inputs(control: Sequence[str]) -> SearchStrategy[Json]:
    """Return a strategy for conversations: plain ones, ones with hard texts, and ones that OpenAI's API refuses too."""
    hard = conversations(adversarial=_HARD, control=tuple(control), reasoning=None, prefill=None)
    wild = conversations(adversarial=(*_HARD, *_WILD), control=tuple(control), reasoning=None, prefill=None)
    return st.one_of(conversations(), hard, wild)


class _Work:
    """One subject at work."""

    def __init__(self, bench: Bench, subject: Subject, counts: bool = False) -> None:
        self.subject = subject
        self.known: Conversation | None = None
        self._bench = bench
        self._sides = bench.sides(subject)
        self._counting = bench.counted(subject, self._sides[0]) if counts else None
        self._held: Counter[str] = Counter()
        self._renders = 0

    def check(self, example: Json) -> list[Broken]:
        """Return what a conversation breaks."""
        known = self.known is not None and self.known.data is example
        conversation = self.known if known and self.known is not None else Conversation(example)
        broken, held, trial = self._bench.judged(self.subject, self._sides, conversation)
        self._held += held
        self._renders += trial.renders
        return broken

    def result(self, search: Search[Json]) -> Json:
        """Return what came of it, as JSON."""
        found = [
            {"broken": one.broken.model_dump(mode="json"), "example": one.example, "inputs": one.inputs}
            for one in found_in(search)
        ]
        return {
            "found": found,
            "inputs": search.result.inputs,
            "ended": search.result.ended,
            "held": dict(self._held),
            "renders": self._renders,
            "reached": [] if self._counting is None else self._counting.reached,
        }
