"""Mutants of a template: each has one defect of a kind that templates have, and is a source that any engine can render.

A test of a template that no mutant fails tests nothing. Whether a mutant is told from its original is for the caller to
judge; some are not, because the defect is in what no input reaches or makes no difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.fuzz.template import _logic, _values, _writing
from harness.fuzz.template._edits import Rule, Template, still_parses
from harness.fuzz.template.source import plain_newlines

RULES: Final[Mapping[str, Rule]] = {**_values.RULES, **_logic.RULES, **_writing.RULES}

KINDS: Final[Mapping[str, str]] = {kind: (rule.__doc__ or "").strip() for kind, rule in RULES.items()}
"""The kinds of mutants, with a sentence that says what one of them does."""


@dataclass(frozen=True)
class Mutant:
    """A template with one defect.

    Attributes:
        kind: What kind of defect; one of `KINDS`.
        line: The line where it is, from 1.
        column: Where in this line, in characters from 1.
        old: What stood there.
        new: What stands there now.
        original: The template without the defect.
        start: Where in it the defect is, in characters.
    """

    kind: str
    line: int
    column: int
    old: str
    new: str
    original: str = field(repr=False)
    start: int

    @property
    def source(self) -> str:
        """The whole template with its defect."""
        return self.original[: self.start] + self.new + self.original[self.start + len(self.old) :]

    @property
    def sentence(self) -> str:
        """What the defect does."""
        return KINDS[self.kind]


def mutants(source: str) -> list[Mutant]:
    """Return the mutants of a template, by kind and place: the same ones in the same order each time.

    No two have the same source; one that does not compile is left out. A CRLF of the source is a newline in them.

        for mutant in mutants(source):
            killed = any(render(mutant.source, one) != render(source, one) for one in inputs)

    Args:
        source: The template.

    Raises:
        PartError: it is no template, or nested too deep.
    """
    template = Template(plain_newlines(source))
    # A template of 50 kB has some thousand mutants: their sources are not kept.
    seen = {_digest(template.source)}
    made: list[Mutant] = []
    for kind, rule in RULES.items():
        for edit in rule(template):
            before = template.source[: edit.start]
            digest = _digest(before + edit.new + template.source[edit.end :])
            if digest in seen or not still_parses(template, edit):
                continue
            seen.add(digest)
            line, column = before.count("\n") + 1, edit.start - before.rfind("\n")
            old = template.source[edit.start : edit.end]
            made.append(Mutant(kind, line, column, old, edit.new, template.source, edit.start))
    return made


def _digest(source: str) -> bytes:
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
