"""The child process in which templates of unknown origin are rendered: all engines, one subject after the other."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness import parts
from harness.fuzz import conversations
from harness.fuzz.finding import Broken
from harness.fuzz.search import Search, found_in
from harness.fuzz.template.properties import judge, properties_named
from harness.fuzz.template.trial import Conversation, Side, Subject, Trial, rendered
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
        self._engines = [parts.make(path) for path in engines]
        self._properties = properties_named(properties)
        self._conversations = [Conversation(one) for one in conversations]
        self._compiled: dict[str, Side] = {}
        self._tokenizer = tokenizer
        self._made: dict[str, Tokenizer] = {}
        # A template's recursion ends at Python's limit, and its renderer's frames are several to one of its own.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 2000))

    def identity(self) -> dict[str, str]:
        """Return the engines' versions, by name."""
        return {engine.name: engine.version() for engine in self._engines}

    def sweep(self, subject: Json) -> Json:
        """Try the conversations that every subject is tried on.

        Returns:
            `found`: a list of `broken`, `example` and `inputs`; `inputs`: how many were tried; `held`: how often
            each property was; `renders`, and whether the time was over (`ended`).
        """
        work = _Work(self, Subject.model_validate(subject))
        search: Search[Json] = Search(work.check)
        for one in self._conversations:
            work.known = one
            search.replay([one.data])
        return work.result(search)

    def explore(self, subject: Json, examples: int, number: int, seconds: float | None, replay: Sequence[Json]) -> Json:
        """Try what failed before, then made-up conversations; see `sweep` for what is returned."""
        work = _Work(self, Subject.model_validate(subject))
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

    def sides(self, subject: Subject) -> list[Side]:
        """Return a template in every engine."""
        return [Side(engine, subject.source) for engine in self._engines]

    def _tokenizer_of(self, subject: Subject) -> Tokenizer | None:
        if not self._tokenizer or subject.file is None:
            return None
        if subject.file not in self._made:
            self._made = {subject.file: parts.make(self._tokenizer, path=subject.file)}
        return self._made[subject.file]

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

    def __init__(self, bench: Bench, subject: Subject) -> None:
        self.subject = subject
        self.known: Conversation | None = None
        self._bench = bench
        self._sides = bench.sides(subject)
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
        }
