"""Mutations of what a template decides: conditions, loops, tests, indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from harness.fuzz.template._edits import (
    Edit,
    Rule,
    Template,
    closing,
    each,
    inner,
    is_operand_end,
    looped,
    wrapped,
)
from harness.fuzz.template.source import Tag, Token

_ROLES = {"user": "assistant", "assistant": "user", "system": "user", "tool": "user", "developer": "user"}
_THINKING = ("reasoning", "thinking", "think")


def _swap(pairs: Mapping[str, str], kind: str) -> Callable[[Tag, int], Edit | None]:
    """Return what makes tokens of a kind others."""

    def make(tag: Tag, at: int) -> Edit | None:
        token = tag.tokens[at]
        new = pairs.get(token.text) if token.kind == kind else None
        return None if new is None else Edit(token.start, token.end, new)

    return make


def _after(tag: Tag, at: int) -> str:
    return tag.tokens[at + 1].text if at + 1 < len(tag.tokens) else ""


def _before(tag: Tag, at: int) -> str:
    return tag.tokens[at - 1].text if at else ""


def _generation_prompt_always(template: Template) -> Iterator[Edit]:
    """The assistant's turn is always opened."""
    return each(template.code, _swap({"add_generation_prompt": "true"}, "name"))


def _generation_prompt_never(template: Template) -> Iterator[Edit]:
    """The assistant's turn is never opened."""
    return each(template.code, _swap({"add_generation_prompt": "false"}, "name"))


def _tool_results_dropped(template: Template) -> Iterator[Edit]:
    """A test for the role `tool` never holds."""

    def make(tag: Tag, at: int) -> Edit | None:
        token = tag.tokens[at]
        compared = token.literal in ("tool", "ipython") and _before(tag, at) == "=="
        return Edit(token.start, token.end, "'no such role'") if compared else None

    return each(template.tests, make)


def _wrong_role(template: Template) -> Iterator[Edit]:
    """A role is compared with another role's name."""

    def make(tag: Tag, at: int) -> Edit | None:
        token = tag.tokens[at]
        compared = token.literal in _ROLES and _before(tag, at) in ("==", "!=", "[", "(", ",")
        # A key is no comparison.
        if not compared or (_before(tag, at) == "[" and at > 1 and is_operand_end(tag.tokens[at - 2])):
            return None
        return Edit(token.start + 1, token.end - 1, _ROLES[token.literal])

    return each(template.code, make)


def _reasoning_kept(template: Template) -> Iterator[Edit]:
    """Reasoning is written in all turns: its test of the place in the conversation always holds."""
    for arms in template.arms:
        for arm in arms:
            names = [token.text for token in arm.tag.tokens if token.kind == "name"]
            placed = any(name == "loop" or "last" in name for name in names)
            body = template.text(arm.tag.end, arm.end.start)
            if arm.tag.name != "else" and placed and any(word in body for word in _THINKING):
                yield Edit(*inner(arm.tag), "true")


def _condition_negated(template: Template) -> Iterator[Edit]:
    """A condition is negated."""
    for tag in template.tests:
        yield wrapped(template, inner(tag), "not (", ")")


def _condition_always(template: Template) -> Iterator[Edit]:
    """A condition always holds."""
    for tag in template.tests:
        yield Edit(*inner(tag), "true")


def _condition_never(template: Template) -> Iterator[Edit]:
    """A condition never holds."""
    for tag in template.tests:
        yield Edit(*inner(tag), "false")


def _arms_swapped(template: Template) -> Iterator[Edit]:
    """What is done in two neighbouring arms of a condition with `elif` is exchanged."""
    for arms in template.arms:
        for left, right in pairwise(arms) if len(arms) > 2 else ():
            first = template.text(left.tag.end, left.end.start)
            second = template.text(right.tag.end, right.end.start)
            yield Edit(left.tag.end, right.end.start, second + right.tag.text + first)


def _else_dropped(template: Template) -> Iterator[Edit]:
    """What is done otherwise is dropped."""
    for arms in template.arms:
        if arms[-1].tag.name == "else":
            yield Edit(arms[-1].tag.end, arms[-1].end.start, "")


def _equality_negated(template: Template) -> Iterator[Edit]:
    """`==` becomes `!=`, or the other way."""
    return each(template.code, _swap({"==": "!=", "!=": "=="}, "operator"))


def _and_or(template: Template) -> Iterator[Edit]:
    """`and` becomes `or`, or the other way."""
    return each(template.code, _swap({"and": "or", "or": "and"}, "name"))


def _boundary_shifted(template: Template) -> Iterator[Edit]:
    """A comparison of numbers takes or leaves its limit."""
    return each(template.code, _swap({"<": "<=", "<=": "<", ">": ">=", ">=": ">"}, "operator"))


def _not_dropped(template: Template) -> Iterator[Edit]:
    """A `not` is dropped."""

    def make(tag: Tag, at: int) -> Edit | None:
        token = tag.tokens[at]
        return Edit(token.start, token.end, "") if token.kind == "name" and token.text == "not" else None

    return each(template.code, make)


def _test_negated(template: Template) -> Iterator[Edit]:
    """A test of `is` or `in` is negated."""

    def make(tag: Tag, at: int) -> Edit | None:
        token, after, before = tag.tokens[at], _after(tag, at), _before(tag, at)
        if token.kind != "name" or "not" in (after, before) or tag.name == "for":
            return None
        return {"is": Edit(token.end, token.end, " not"), "in": Edit(token.start, token.start, "not ")}.get(token.text)

    return each(template.code, make)


def _defined_dropped(template: Template) -> Iterator[Edit]:
    """A test whether something is defined becomes one whether it is true."""

    def make(tag: Tag, at: int) -> Edit | None:
        if tag.tokens[at].text != "is" or _after(tag, at) not in ("defined", "none"):
            return None
        return Edit(tag.tokens[at].start, tag.tokens[at + 1].end, "")

    return each(template.code, make)


def _over(template: Template, *, first: tuple[str, ...], before: str, after: str) -> Iterator[Edit]:
    """Yield edits of what loops run over, where a name of it has one of some beginnings; "" is for all others."""
    known = ("messages", "tool_calls", "tools")
    for tag in template.tags:
        span = looped(tag)
        if span is None:
            continue
        names = {word for token in tag.tokens if span[0] <= token.start for word in (token.text, token.literal)}
        subject = next((word for word in known if any(name == word or name.endswith("_" + word) for name in names)), "")
        if subject in first:
            yield wrapped(template, span, before, after)


def _first_message_lost(template: Template) -> Iterator[Edit]:
    """The first message is lost."""
    return _over(template, first=("messages",), before="(", after=")[1:]")


def _last_message_lost(template: Template) -> Iterator[Edit]:
    """The last message is lost."""
    return _over(template, first=("messages",), before="(", after=")[:-1]")


def _messages_reversed(template: Template) -> Iterator[Edit]:
    """The messages come in the other order."""
    return _over(template, first=("messages",), before="(", after=")[::-1]")


def _tool_calls_dropped(template: Template) -> Iterator[Edit]:
    """Calls of tools are lost."""
    return _over(template, first=("tool_calls",), before="(", after=")[:0]")


def _first_tool_call_only(template: Template) -> Iterator[Edit]:
    """Of several calls only the first is written."""
    return _over(template, first=("tool_calls",), before="(", after=")[:1]")


def _tools_dropped(template: Template) -> Iterator[Edit]:
    """The tools are lost."""
    return _over(template, first=("tools",), before="(", after=")[:0]")


def _first_tool_only(template: Template) -> Iterator[Edit]:
    """Of several tools only the first is written."""
    return _over(template, first=("tools",), before="(", after=")[:1]")


def _loop_from_second(template: Template) -> Iterator[Edit]:
    """A loop begins with the second item."""
    return _over(template, first=("tool_calls", "tools", ""), before="((", after=") | list)[1:]")


def _loop_without_last(template: Template) -> Iterator[Edit]:
    """A loop leaves the last item out."""
    return _over(template, first=("tool_calls", "tools", ""), before="((", after=") | list)[:-1]")


def _loop_reversed(template: Template) -> Iterator[Edit]:
    """A loop runs the other way."""
    return _over(template, first=("tool_calls", "tools", ""), before="((", after=") | list)[::-1]")


def _loop_edge_swapped(template: Template) -> Iterator[Edit]:
    """What is for the first round of a loop is for the last one, or the other way."""
    pairs = {"first": "last", "last": "first", "previtem": "nextitem", "nextitem": "previtem"}
    return _of_loop(template, pairs)


def _loop_index_shifted(template: Template) -> Iterator[Edit]:
    """The number of a round is one higher or lower."""
    pairs = {"index0": "index", "index": "index0", "revindex0": "revindex", "revindex": "revindex0"}
    return _of_loop(template, pairs)


def _of_loop(template: Template, pairs: Mapping[str, str]) -> Iterator[Edit]:
    def make(tag: Tag, at: int) -> Edit | None:
        token = tag.tokens[at]
        if token.text not in pairs or at < 2 or [one.text for one in tag.tokens[at - 2 : at]] != ["loop", "."]:
            return None
        return Edit(token.start, token.end, pairs[token.text])

    return each(template.code, make)


def _index_off_by_one(template: Template) -> Iterator[Edit]:
    """A number is one higher."""

    def make(tag: Tag, at: int) -> Edit | None:
        token = tag.tokens[at]
        if token.kind != "integer" or not token.text.isdecimal():
            return None
        return Edit(token.start, token.end, str(int(token.text) + 1))

    return each(template.code, make)


def _slice_dropped(template: Template) -> Iterator[Edit]:
    """What was a part of a list or of a text is all of it."""

    def make(tag: Tag, at: int) -> Edit | None:
        tokens = tag.tokens
        if tokens[at].text != "[" or not at or not is_operand_end(tokens[at - 1]):
            return None
        end = closing(tokens, at)
        return Edit(tokens[at].start, tokens[end].end, "") if _has_colon(tokens[at:end]) else None

    return each(template.code, make)


def _has_colon(tokens: tuple[Token, ...]) -> bool:
    return any(token.text == ":" for token in tokens)


def _assignment_dropped(template: Template) -> Iterator[Edit]:
    """What was noted for later is not."""
    for tag in template.tags:
        if tag.name == "set" and tag.has("=") and tag.tokens[2].text == ".":
            left, right = tag.opening.replace("%", "#"), tag.closing.replace("%", "#")
            yield Edit(tag.start, tag.end, f"{left} {right}")


RULES: Final[Mapping[str, Rule]] = {
    "generation-prompt-always": _generation_prompt_always,
    "generation-prompt-never": _generation_prompt_never,
    "tool-results-dropped": _tool_results_dropped,
    "wrong-role": _wrong_role,
    "reasoning-kept": _reasoning_kept,
    "condition-negated": _condition_negated,
    "condition-always": _condition_always,
    "condition-never": _condition_never,
    "arms-swapped": _arms_swapped,
    "else-dropped": _else_dropped,
    "equality-negated": _equality_negated,
    "and-or": _and_or,
    "boundary-shifted": _boundary_shifted,
    "not-dropped": _not_dropped,
    "test-negated": _test_negated,
    "defined-dropped": _defined_dropped,
    "first-message-lost": _first_message_lost,
    "last-message-lost": _last_message_lost,
    "messages-reversed": _messages_reversed,
    "tool-calls-dropped": _tool_calls_dropped,
    "first-tool-call-only": _first_tool_call_only,
    "tools-dropped": _tools_dropped,
    "first-tool-only": _first_tool_only,
    "loop-from-second": _loop_from_second,
    "loop-without-last": _loop_without_last,
    "loop-reversed": _loop_reversed,
    "loop-edge-swapped": _loop_edge_swapped,
    "loop-index-shifted": _loop_index_shifted,
    "index-off-by-one": _index_off_by_one,
    "slice-dropped": _slice_dropped,
    "assignment-dropped": _assignment_dropped,
}
