"""Findings as every report shows them: what is broken, who shows it, outputs side by side and where they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from harness.checking.compare.hunks import common_prefix, hunks
from harness.checking.compare.outcome import Difference, Hunk
from harness.report.difference import diff_lines
from harness.report.fuzz.example import one_line, turns
from harness.report.view import units
from harness.report.visible import shorten, visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport
    from harness.fuzz.measures import Covered, KindTried, Mutation, Tried

PLACES: Final = 3
"""Places where two outputs differ that are shown on a line a side."""
_NAMES: Final = 8
"""Subjects that are named where all cannot be."""
_LONGEST: Final = 400
"""Characters of a message."""
_TAG: Final = 100
"""Characters of a tag, and of what stands in one."""
_AROUND: Final = 39
"""Characters shown of what stands before a difference, and after it."""
_NOUNS: Final = {"template": "template", "tokenizer": "tokenizer", "parser": "format"}


@dataclass(frozen=True)
class Given:
    """What one part or several gave, alike.

    Attributes:
        by: The parts.
        text: What they gave.
        failed: Whether the text says how they ended instead.
    """

    by: str
    text: str
    failed: bool = False

    @cached_property
    def tokens(self) -> tuple[tuple[int, str], ...] | None:
        """The ids and their pieces, where that is what was given: a list of ids, or of pairs of an id and its piece."""
        if self.failed or not self.text.startswith("["):
            return None
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        pairs = [(one, "") if isinstance(one, int) else one for one in found]
        if not all(isinstance(one, list | tuple) and [type(part) for part in one] == [int, str] for one in pairs):
            return None
        return tuple((number, piece) for number, piece in pairs)

    @property
    def line(self) -> str:
        """The text; of tokens each id with its piece."""
        return self.text if self.tokens is None else _spaced([_token(one) for one in self.tokens])


@dataclass(frozen=True)
class Row:
    """A property in the table of all.

    Attributes:
        name: Its name.
        sentence: What must hold; empty where only a finding knows of the property.
        held: How often it was held against something.
        new: How many new root causes break it.
        known: How many of the baseline do.
    """

    name: str
    sentence: str
    held: int
    new: int
    known: int

    @property
    def result(self) -> str:
        """What came of it, in words."""
        if self.new:
            return counted(self.new, "root cause") + (f", {self.known} known" if self.known else "")
        if self.known:
            return f"{self.known} known"
        return "holds" if self.held else "never applied"


def tone(report: FuzzReport) -> str:
    """Return whether a search is good or bad; of mutants nobody can tell."""
    return "unknown" if report.mutation is not None else "bad" if report.new else "good"


def covered(one: Covered) -> str:
    """Return in words how much of a template was reached."""
    by = "the conversations" if one.by == "conversations" else "the golden cases"
    return f"{by} reached {one.share:.1%}: {one.reached:,} of {counted(one.points, 'branch', 'es')}, loops and outputs"


def missed(one: Covered) -> list[tuple[int, str, str]]:
    """Return what was not reached: the line, what it is, and its text."""
    return [(point.line, point.kind, visible(shorten(point.text, _TAG))) for point in one.missed]


def kinds(mutation: Mutation) -> list[KindTried]:
    """Return the kinds of mutants with all of them at the end."""
    return [*mutation.kinds, mutation.total]


def change(one: Tried) -> str:
    """Return what a mutant changes."""
    old, new = (visible(shorten(text, _TAG)) or "\u2205" for text in (one.old, one.new))
    return f"{old} \u2192 {new}"


def counted(count: int, what: str, many: str = "s") -> str:
    """Return a number with its noun, and what makes that many."""
    return f"{count:,} {what}{'' if count == 1 else many}"


def rows(report: FuzzReport) -> list[Row]:
    """Return the table of properties, those that only findings name at the end."""
    names = dict.fromkeys([*report.properties, *(finding.broken.name for finding in report.findings)])
    found: dict[str, list[bool]] = {name: [] for name in names}
    for finding in report.findings:
        found[finding.broken.name].append(finding.known)
    return [
        Row(name, report.properties.get(name, ""), report.held.get(name, 0), known.count(False), known.count(True))
        for name, known in found.items()
    ]


def not_true(finding: Finding) -> str:
    """Return what is claimed of the example."""
    return f"not true that {visible(finding.sentence)}"


def messages(finding: Finding) -> list[str]:
    """Return the root cause, and what is said of the example where that is more."""
    broken = finding.broken
    return [visible(shorten(text, _LONGEST)) for text in dict.fromkeys((broken.cause, broken.message)) if text]


def spread(finding: Finding, report: FuzzReport) -> str:
    """Return how many subjects and inputs show a root cause."""
    inputs = counted(finding.inputs, "input")
    if report.subjects <= 1:
        return inputs
    return f"{len(finding.subjects):,} of {counted(report.subjects, _NOUNS.get(report.kind, 'subject'))}, {inputs}"


def subjects(finding: Finding, most: int) -> str:
    """Return the names of at most so many subjects that show a root cause, that of the example first."""
    named = list(dict.fromkeys([finding.subject, *finding.subjects]))
    more = len(named) - most
    return visible(", ".join(named[:most])) + (f" and {more:,} more" if more > 0 else "")


def block(finding: Finding, report: FuzzReport) -> list[str]:
    """Return a finding in lines, made visible: what is broken, its spread, its shortest input and what came of it."""
    broken = finding.broken
    said = [f"{visible(broken.name)} in {visible(broken.path)}: {not_true(finding)}", *messages(finding)]
    said.append(f"shown by {spread(finding, report)}: {subjects(finding, _NAMES)}")
    said += [f"input: {turn.label}: {turn.said}" for turn in turns(finding.example)]
    return said + output_lines(finding)


def notes(report: FuzzReport) -> list[str]:
    """Return what a reader must know besides."""
    over = ["the time was over before all inputs were tried"] if report.ended else []
    return [*over, *report.notes]


def given(finding: Finding) -> list[Given]:
    """Return what the parts gave: texts, then how others ended. Parts that gave the same stand together."""
    found: dict[tuple[str, bool], list[str]] = {}
    for one in sorted(finding.broken.shown, key=lambda one: one.text is None):
        said = (one.text, False) if one.text is not None else (one.error or "nothing", True)
        found.setdefault(said, []).append(one.by)
    return [Given(" = ".join(by), text, failed) for (text, failed), by in found.items()]


def pair(outputs: list[Given]) -> tuple[Given, Given] | None:
    """Return the two texts among outputs, or None where there are not two."""
    texts = [one for one in outputs if not one.failed]
    return (texts[0], texts[1]) if len(texts) == 2 else None


def output_lines(finding: Finding) -> list[str]:
    """Return outputs on a line each, made visible; of two texts the places where they differ."""
    outputs = given(finding)
    two = pair(outputs)
    if two is None:
        return [f"{visible(one.by)}: {said}" for one, said in shown(outputs)]
    return [
        f"--- {visible(two[0].by)}",
        f"+++ {visible(two[1].by)}",
        *diff_lines(difference(*two), PLACES),
        *(f"{visible(one.by)}: {said}" for one, said in shown([one for one in outputs if one.failed])),
    ]


def shown(outputs: list[Given]) -> list[tuple[Given, str]]:
    """Return outputs with what is shown of them on a line: of texts that differ, from shortly before that on."""
    texts = [one.line for one in outputs if not one.failed]
    start = max(0, min((common_prefix(texts[0], other) for other in texts[1:]), default=0) - _AROUND)
    said = [one.line if one.failed or not start else f"\u2026{one.line[start:]}" for one in outputs]
    return [(one, one_line(text)) for one, text in zip(outputs, said, strict=True)]


def difference(one: Given, other: Given) -> Difference:
    """Return where two texts differ, by words; or two lists of tokens, by tokens."""
    if one.tokens is not None and other.tokens is not None:
        found = hunks([_token(token) for token in one.tokens], [_token(token) for token in other.tokens], _spaced)
        spaced = [{"before": f"{hunk.before} ".lstrip(" "), "after": f" {hunk.after}".rstrip(" ")} for hunk in found]
        found = tuple(
            hunk.model_copy(update={"at": f"token {hunk.at}", **around})
            for hunk, around in zip(found, spaced, strict=True)
        )
    else:
        found = tuple(_word_hunks(one.text, other.text))
    return Difference(summary=f"they differ in {counted(len(found), 'place')}", hunks=found, causes=())


def _word_hunks(one: str, other: str) -> Iterator[Hunk]:
    words = units(one)
    for hunk in hunks(words, units(other), "".join):
        start = len("".join(words[: int(hunk.at)]))
        before, after = one[:start], one[start + len(hunk.golden) :]
        around = {
            "before": before if len(before) <= _AROUND else f"\u2026{before[-_AROUND:]}",
            "after": after if len(after) <= _AROUND else f"{after[:_AROUND]}\u2026",
        }
        yield hunk.model_copy(update={"at": f"character {start}", **around})


def _token(token: tuple[int, str]) -> str:
    return f"{token[0]}[{token[1]}]" if token[1] else str(token[0])


def _spaced(tokens: Sequence[str]) -> str:
    return " ".join(tokens)
