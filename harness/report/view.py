"""The values of a case as a page shows them: pieces of text, each with what sort of thing it is. No markup here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.report.align import align, ends
from harness.report.visible import visible, visible_pair
from harness.values import Ending, Reply, Request

_SAME_TEXT, _NEAR_TEXT, _CHANGED_TEXT = 2_400, 240, 1_200
"""Characters shown of a text that is the same on both sides, of a stretch between two differences, of a difference."""
_SAME_IDS, _NEAR_IDS, _CHANGED_IDS = 60, 12, 80
_SPANS = 40
"""Differences shown of one value; a text that differs in more places is another text."""
_ROWS = 24
"""Deltas of a stream shown."""
_FIELD = 600

_UNITS = re.compile(r"\w+|\s|[^\w\s]")
_CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?(?:s|bos|eos|pad|unk|think|tool_call|tool_response|tools)>|\[/?INST\]")
_PARTS = re.compile(rf"({_CONTROL.pattern}|\n| +(?=\n|\Z)| {{2,}})")
_CODE_POINT = re.compile(r"(<U\+[0-9A-F]{4,6}>|[\u2409\u240d])")


@dataclass(frozen=True)
class Mark:
    """A piece of text of one sort.

    Attributes:
        kind: Empty, or `nl` (an end of line), `ct` (a control token), `sp` (blanks that a reader would not see), `cp`
            (a character written as its code point), `gap` (something is left out here), `nil` (nothing is here).
        text: What to show.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Stretch:
    """Marks that stand together, alike on both sides or not."""

    changed: bool
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Block:
    """One value of one or both sides.

    Attributes:
        name: What it is.
        panes: A label and stretches for each side; one pane where both are the same.
        layout: Whether ends of lines are layout of ours and not the text's own.
    """

    form: ClassVar[str] = "text"
    name: str
    panes: tuple[tuple[str, tuple[Stretch, ...]], ...]
    layout: bool = False

    @property
    def differs(self) -> bool:
        """Whether both sides are shown."""
        return len(self.panes) > 1


@dataclass(frozen=True)
class Chip:
    """A token, or a gap where it has no id."""

    id: int | None
    text: str
    control: bool = False


@dataclass(frozen=True)
class Row:
    """A stretch of tokens; where the sides differ, one of each side."""

    same: bool
    expected: tuple[Chip, ...]
    observed: tuple[Chip, ...] = ()


@dataclass(frozen=True)
class TokenBlock:
    """Ids of both sides, aligned."""

    form: ClassVar[str] = "ids"
    name: str
    count: str
    rows: tuple[Row, ...]

    @property
    def differs(self) -> bool:
        """Whether any stretch differs."""
        return not all(row.same for row in self.rows)


@dataclass(frozen=True)
class Table:
    """Names with a value of each side, and names that only the observed side has."""

    form: ClassVar[str] = "table"
    name: str
    rows: tuple[tuple[str, str, str, bool], ...]
    more: str = ""


def marks(text: str, *, last: bool = True) -> tuple[Mark, ...]:
    """Return raw text as marks, with everything that does not show made to show.

    Args:
        text: The text.
        last: Whether nothing follows it: a blank at its end would then not be seen.
    """
    found: list[Mark] = []
    for at, part in enumerate(_PARTS.split(text)):
        if at % 2 == 0:
            found += _shown(visible(part))
        elif part == "\n":
            found.append(Mark("nl", "\u240a"))
        else:
            found.append(Mark("ct" if part.strip(" ") else "sp", part))
    if not last and found and found[-1] == Mark("sp", " "):
        found[-1] = Mark("", " ")
    return tuple(found)


def units(text: str) -> list[str]:
    """Return a text in the pieces by which texts are compared: words, and every other character by itself."""
    return _UNITS.findall(text)


def text_block(
    name: str, expected: str | None, observed: str | None, sides: Sequence[str], *, layout: bool = False
) -> Block:
    """Return a text of two sides; None where a side has none."""
    if expected == observed:
        shown = _cut(expected or "", _SAME_TEXT) or (Mark("nil", "empty"),)
        return Block(name, (("both", (Stretch(False, shown),)),), layout)
    if expected is None or observed is None:
        left, right = _one_sided(expected), _one_sided(observed)
    else:
        left, right = _two_sided(expected, observed)
    return Block(name, ((sides[0], left), (sides[1], right)), layout)


def ids_block(name: str, expected: Sequence[int], observed: Sequence[int], pieces: Mapping[int, str]) -> TokenBlock:
    """Return the ids of two sides, aligned, with their pieces where known."""
    spans = align(expected, observed)
    rows: list[Row] = []
    for span in spans[: 2 * _SPANS]:
        one = expected[slice(*span.expected)]
        if span.same:
            rows.append(Row(True, _chips(one, _SAME_IDS if len(spans) == 1 else _NEAR_IDS, pieces)))
        else:
            other = observed[slice(*span.observed)]
            rows.append(Row(False, _chips(one, _CHANGED_IDS, pieces), _chips(other, _CHANGED_IDS, pieces)))
    if len(spans) > 2 * _SPANS:
        rows.append(Row(True, (Chip(None, f"{len(spans) - 2 * _SPANS} more stretches"),)))
    count = f"{len(expected)}" if len(expected) == len(observed) else f"{len(expected)} and {len(observed)}"
    return TokenBlock(name, f"{count} id{'' if count == '1' else 's'}", tuple(rows))


def request_blocks(expected: Request | None, observed: Request | None, sides: Sequence[str]) -> list[Block | Table]:
    """Return what reaches the server: messages and tools as text, the settings as a table."""
    blocks: list[Block | Table] = [
        text_block(name, _pretty(expected, name), _pretty(observed, name), sides, layout=True)
        for name in ("messages", "tools", "tool_choice")
        if _pretty(expected, name) is not None or _pretty(observed, name) is not None
    ]
    asked = expected.settings if expected else {}
    in_force = observed.settings if observed else {}
    rows = tuple((name, value, in_force.get(name, "")) for name, value in asked.items())
    shown = tuple((_field(n), _field(a), _field(b), a != b) for n, a, b in rows)
    others = ", ".join(f"{_field(n)} {_field(v)}" for n, v in in_force.items() if n not in asked)
    if shown or others:
        blocks.append(Table("settings", shown, f"also in force: {others}" if others else ""))
    return blocks


def reply_blocks(expected: Reply | None, observed: Reply | None, sides: Sequence[str]) -> list[Block | Table]:
    """Return what the caller gets: the texts side by side, the rest as a table."""
    blocks: list[Block | Table] = []
    for name in ("content", "reasoning"):
        one, other = (None if side is None else getattr(side, name) for side in (expected, observed))
        if one is not None or other is not None:
            blocks.append(text_block(name, one, other, sides))
    one, other = _pretty(expected, "tool_calls"), _pretty(observed, "tool_calls")
    if one is not None or other is not None:
        blocks.append(text_block("tool calls", one, other, sides, layout=True))
    finishes = [_field(side.finish_reason) if side else "" for side in (expected, observed)]
    rows: list[tuple[str, str, str]] = [("finish_reason", finishes[0], finishes[1])]
    for name in ("prompt_tokens", "completion_tokens"):
        counts = [getattr(side.usage, name) if side and side.usage else None for side in (expected, observed)]
        # A stream has no counts, and a specification may leave them open.
        if any(count is not None for count in counts):
            said = ["" if count is None else str(count) for count in counts]
            rows.append((name, said[0], said[1]))
    blocks.append(Table("the rest", tuple((n, a, b, a != b) for n, a, b in rows)))
    return blocks


def deltas_block(deltas: Sequence[Mapping[str, Any]], label: str) -> Block:
    """Return the deltas of a stream, one a line."""
    head, tail = ends(len(deltas), _ROWS)
    lines = [Mark("", f"{_field(delta)}\n") for delta in deltas[:head]]
    if len(deltas) > head + tail:
        lines.append(Mark("gap", f"{len(deltas) - head - tail} deltas\n"))
    lines += [Mark("", f"{_field(delta)}\n") for delta in (deltas[-tail:] if tail else ())]
    return Block(
        f"stream, {len(deltas)} delta{'' if len(deltas) == 1 else 's'}", ((label, (Stretch(False, tuple(lines)),)),)
    )


def ending_text(ending: Ending) -> str:
    """Return how a stage ended that has no value, with its log."""
    if ending.kind == "failure":
        return "\n".join((ending.describe(), *ending.log))
    if ending.kind == "error":
        return f"an error of our own: {ending.describe()}"
    return f"{ending.error}: {ending.message}" if ending.kind == "refusal" else f"unobserved: {ending.reason}"


def _shown(text: str) -> list[Mark]:
    """Split text that was made visible into what stands for itself and what stands for a character."""
    return [Mark("cp" if i % 2 else "", part) for i, part in enumerate(_CODE_POINT.split(text)) if part]


def _cut(text: str, most: int, *, last: bool = True) -> tuple[Mark, ...]:
    head, tail = ends(len(text), most)
    if head + tail >= len(text):
        return marks(text, last=last)
    gap = Mark("gap", f"{len(text) - head - tail:,} characters")
    return (*marks(text[:head], last=False), gap, *marks(text[len(text) - tail :], last=last))


def _one_sided(text: str | None) -> tuple[Stretch, ...]:
    if text is None:
        return (Stretch(False, (Mark("nil", "none"),)),)
    return (Stretch(True, _cut(text, _SAME_TEXT)),)


def _two_sided(expected: str, observed: str) -> tuple[tuple[Stretch, ...], tuple[Stretch, ...]]:
    one, other = units(expected), units(observed)
    left: list[Stretch] = []
    right: list[Stretch] = []
    spans = align(one, other)
    for span in spans[: 2 * _SPANS]:
        here, there = "".join(one[slice(*span.expected)]), "".join(other[slice(*span.observed)])
        pair = (_cut(here, _NEAR_TEXT, last=span is spans[-1]),) * 2 if span.same else _changed(here, there)
        left.append(Stretch(not span.same, pair[0]))
        right.append(Stretch(not span.same, pair[1]))
    if len(spans) > 2 * _SPANS:
        gap = Stretch(False, (Mark("gap", f"{len(spans) - 2 * _SPANS} more stretches"),))
        left.append(gap)
        right.append(gap)
    return tuple(left), tuple(right)


def _changed(one: str, other: str) -> tuple[tuple[Mark, ...], tuple[Mark, ...]]:
    if not one or not other:
        nothing = (Mark("nil", "\u2205"),)
        return (_cut(one, _CHANGED_TEXT) or nothing, _cut(other, _CHANGED_TEXT) or nothing)
    shown = visible_pair(one, other)
    if shown != (visible(one), visible(other)):
        # They would look the same: escapes that differ.
        return (Mark("cp", shown[0][:_CHANGED_TEXT]),), (Mark("cp", shown[1][:_CHANGED_TEXT]),)
    return _cut(one, _CHANGED_TEXT), _cut(other, _CHANGED_TEXT)


def _chips(ids: Sequence[int], most: int, pieces: Mapping[int, str]) -> tuple[Chip, ...]:
    head, tail = ends(len(ids), most)
    chips = [_chip(i, pieces) for i in ids[:head]]
    if len(ids) > head + tail:
        chips.append(Chip(None, f"{len(ids) - head - tail} ids"))
    chips += [_chip(i, pieces) for i in (ids[-tail:] if tail else ())]
    return tuple(chips)


def _chip(token: int, pieces: Mapping[int, str]) -> Chip:
    piece = pieces.get(token, "")
    return Chip(token, visible(piece), _CONTROL.fullmatch(piece) is not None)


def _pretty(value: Request | Reply | None, name: str) -> str | None:
    """Return a part as JSON, an item a line."""
    part = None if value is None else value.model_dump(mode="json")[name]
    items = part if isinstance(part, list) else [] if part is None else [part]
    return "\n".join(json.dumps(item, ensure_ascii=False) for item in items) if part is not None else None


def _field(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return visible(said[:_FIELD]) + ("\u2026" if len(said) > _FIELD else "")
