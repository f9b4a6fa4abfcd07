"""What the search finds: a broken property, one root cause with all the inputs and subjects that show it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from harness.fuzz.measures import Covered, Mutation
from harness.values import Value

_HEX, _NUMBER = re.compile(r"0x[0-9a-f]+"), re.compile(r"\d+")
_NESTED = re.compile(r"\{.*\}|\[.*\]", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w{0,30}(?: object)?")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class Output(Value):
    """What one part gave.

    Attributes:
        by: The part, and what it was asked where that differs from one to the next ("jinja2, arguments as text").
        text: What it gave; ids are written as JSON. None where it gave nothing.
        error: How it ended instead.
    """

    by: str
    text: str | None = None
    error: str | None = None


class Broken(Value):
    """A property that one input breaks.

    Attributes:
        name: The property's name.
        path: The parts it is broken on, by name: one, or those that disagree (`jinja2 / minijinja`).
        cause: What tells one root cause from another; see `cause_of`. Says nothing about the input's own text.
        message: One line for a human.
        shown: The outputs side by side.
    """

    name: str
    path: str
    cause: str
    message: str
    shown: tuple[Output, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What is one finding."""
        return self.name, self.path, self.cause


class Finding(Value):
    """One root cause.

    Attributes:
        broken: The property as the example breaks it.
        sentence: What must hold.
        subjects: Which templates, tokenizers or formats show it.
        inputs: How many inputs showed it, over all of them.
        example: The shortest input that shows it, as JSON.
        subject: Of which subject the example is.
        command: Tries this example again.
        test: The source of a pytest function that does.
        known: Whether a baseline holds it already.
    """

    broken: Broken
    sentence: str
    subjects: tuple[str, ...]
    inputs: int
    example: Any
    subject: str
    command: str = ""
    test: str = ""
    known: bool = False

    @property
    def fingerprint(self) -> str:
        """What a baseline keeps: the same root cause has the same one in every run."""
        return hashlib.sha256("\0".join(self.broken.key).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def cause_of(text: str) -> str:
    """Return a message without what differs from input to input: values, quoted texts but for names, numbers."""
    told = _QUOTED.sub(
        lambda found: found[0] if _NAME.fullmatch(found[0][1:-1]) else "TEXT", _NESTED.sub("VALUE", text)
    )
    return _NUMBER.sub("N", _HEX.sub("ADDRESS", told))[:200]


def size_of(example: Any) -> tuple[int, str]:
    """Return a key by which a shorter example comes first, and the same always before the same."""
    text = json.dumps(example, ensure_ascii=True, sort_keys=True, default=str)
    return len(text), text


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with those of one root cause joined: the shortest example stays."""
    found: dict[tuple[str, str, str], Finding] = {}
    for one in findings:
        other = found.get(one.broken.key)
        if other is None:
            found[one.broken.key] = one
            continue
        shorter = min(one, other, key=lambda finding: size_of(finding.example))
        subjects = tuple(dict.fromkeys([*other.subjects, *one.subjects]))
        inputs = one.inputs + other.inputs
        found[one.broken.key] = shorter.model_copy(update={"subjects": subjects, "inputs": inputs})
    return list(found.values())


class FuzzReport(Value):
    """What a search came to, for a report.

    Attributes:
        kind: What was searched: `template`, `tokenizer` or `parser`.
        subject: What was named: a file, a package, a model, ...
        findings: The root causes, new ones first.
        facts: What was done and with what, by name, in the order in which it is shown.
        properties: What was held, by name: the sentence.
        held: How often each property was held, by name.
        subjects: How many subjects there were.
        ended: Whether the time was over before the examples were.
        notes: What a reader must know besides.
        coverage: How much of the templates was reached, where that was counted.
        mutation: What mutants came to, where these were tried; then nothing was searched.
    """

    kind: str
    subject: str
    findings: tuple[Finding, ...]
    facts: dict[str, str]
    properties: dict[str, str]
    held: dict[str, int]
    subjects: int = 1
    ended: bool = False
    notes: tuple[str, ...] = ()
    coverage: tuple[Covered, ...] = ()
    mutation: Mutation | None = None

    @property
    def new(self) -> tuple[Finding, ...]:
        """The findings that no baseline holds."""
        return tuple(finding for finding in self.findings if not finding.known)

    @property
    def line(self) -> str:
        """The result in one line."""
        if self.mutation is not None:
            return f"{self.kind} {self.subject}: {self.mutation.line}"
        known = len(self.findings) - len(self.new)
        besides = f" ({known} in the baseline)" if known else ""
        if not self.new:
            return f"{self.kind} {self.subject}: nothing new is broken{besides}"
        broken = len({finding.broken.name for finding in self.new})
        causes = f"{len(self.new)} root cause{'' if len(self.new) == 1 else 's'}"
        return f"{self.kind} {self.subject}: {causes} in {broken} propert{'y' if broken == 1 else 'ies'}{besides}"
