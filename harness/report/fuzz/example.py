"""An input as it is read: of a conversation who says what, whatever else stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from harness.report.visible import shorten, visible

_BLANK: Final = "\u2420"
_LABEL, _LONGEST = 80, 400
"""Characters of a label and of a text."""
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Turn:
    """A part of an input.

    Attributes:
        who: Who says it, or what it is. As it was given.
        text: What it says, as it was given.
        ours: Whether the text is a word for what is no text.
    """

    who: str
    text: str
    ours: bool = False

    @property
    def label(self) -> str:
        """Who says it, made visible."""
        return visible(shorten(self.who, _LABEL))

    @property
    def said(self) -> str:
        """What it says on one line, made visible."""
        return one_line(self.text)


def one_line(text: str) -> str:
    """Return text on one line and not too long, in which blanks at its ends show, and that there is none."""
    shown = visible(shorten(text, _LONGEST))
    inner = shown.strip(" ")
    start = len(shown) - len(shown.lstrip(" "))
    return f"{_BLANK * start}{inner}{_BLANK * (len(shown) - len(inner) - start)}" if shown else "\u2205"


def turns(example: Any) -> list[Turn]:
    """Return an input as it is read: of a conversation who says what, and the tools by name.

    Args:
        example: A value that JSON can hold, of whatever form.
    """
    if example is None:
        return []
    return list(_part("input", example) if not _is_object(example) or "role" in example else _parts(example))


def _parts(example: Mapping[str, Any]) -> Iterator[Turn]:
    for name, value in example.items():
        yield from _part(name, value)


def _part(name: str, value: Any) -> Iterator[Turn]:
    if isinstance(value, str):
        yield Turn(name, value)
    elif _is_object(value) and "role" in value:
        yield from _message(value)
    elif isinstance(value, list) and value and all(_is_object(one) and "role" in one for one in value):
        for one in value:
            yield from _message(one)
    elif name == "tools" and isinstance(value, list) and value:
        yield Turn(name, ", ".join(map(_name_of, value)))
    else:
        yield Turn(name, _json(value), ours=True)


def _message(message: Mapping[str, Any]) -> Iterator[Turn]:
    role, name = message["role"], message.get("name")
    who = f"{role if isinstance(role, str) else _json(role)}{f' {name}' if isinstance(name, str) else ''}"
    left = {key: value for key, value in message.items() if key not in ("role", "name", "tool_call_id")}
    for key in _REASONING:
        if isinstance(left.get(key), str):
            yield Turn(f"{who}, {key}", left.pop(key))
    if "content" in left:
        yield from _content(who, left.pop("content"))
    elif not left:
        yield Turn(who, "no content", ours=True)
    calls = left.pop("tool_calls", None)
    if isinstance(calls, list):
        for call in calls:
            function = call.get("function", call) if _is_object(call) else call
            arguments = function.get("arguments", "") if _is_object(function) else ""
            said = arguments if isinstance(arguments, str) else _json(arguments)
            yield Turn(f"{who} calls", f"{_name_of(call)} {said}".rstrip())
    elif calls is not None:
        left["tool_calls"] = calls
    for key, value in left.items():
        yield from _part(f"{who}, {key}", value)


def _content(who: str, content: Any) -> Iterator[Turn]:
    if isinstance(content, str):
        yield Turn(who, content)
    elif isinstance(content, list) and content:
        for one in content:
            # A list of one text is another input than the text.
            part = f"{who}, {one.get('type', 'untyped')} part" if _is_object(one) else f"{who}, part"
            text = one.get("text") if _is_object(one) else one
            yield Turn(part, text) if isinstance(text, str) else Turn(part, _json(one), ours=True)
    else:
        yield Turn(who, _json(content), ours=True)


def _name_of(tool: Any) -> str:
    inner = tool.get("function", tool) if _is_object(tool) else None
    name = inner.get("name") if _is_object(inner) else None
    return name if isinstance(name, str) else _json(tool)


def _is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def raw(example: Any, indent: int | None = None) -> str:
    """Return an input as JSON, in ASCII: to be copied."""
    return json.dumps(example, ensure_ascii=True, indent=indent, default=str)
