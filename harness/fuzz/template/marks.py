"""Marks in the caller's texts, so that each is found again in a prompt: what stands around a mark is held verbatim."""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.values import Json

Policy = Literal["verbatim", "trimmed", "json"]
"""What a template may do with a text: nothing; take the white space around it away; write it as JSON does."""
_TAG = re.compile(r"<[^<>]*>?|\{[{%#].*?[}%#]\}", re.DOTALL)
_HTML_SAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}


@dataclass(frozen=True)
class Mark:
    """A mark in a text.

    Attributes:
        text: The mark itself.
        role: Whose text it is in.
        before: The part of the text before the mark.
        after: The part after it.
    """

    text: str
    role: str
    before: str
    after: str

    def found_in(self, prompt: str) -> str:
        """Return how the text stands in a prompt: a policy, or `dropped`, `repeated`, `changed`, `escaped as HTML`."""
        at = prompt.find(self.text)
        if at < 0:
            return "dropped"
        if prompt.find(self.text, at + 1) >= 0:
            return "repeated"
        before, after = prompt[:at], prompt[at + len(self.text) :]

        def stands(one: str, other: str) -> bool:
            return before.endswith(one) and after.startswith(other)

        if stands(self.before, self.after):
            return "verbatim"
        if stands(self.before.lstrip(), self.after.rstrip()):
            return "trimmed"
        for ascii_only in (False, True):
            one, other = (_in_json(part, ascii_only) for part in (self.before, self.after))
            if stands(one, other) or stands(_in_json(one, ascii_only), _in_json(other, ascii_only)):
                return "json"
            if stands(_html_safe(one), _html_safe(other)):
                return "escaped as HTML"
        if html.unescape(before).endswith(self.before) and html.unescape(after).startswith(self.after):
            return "escaped as HTML"
        return "changed"


def marked(messages: Sequence[Json]) -> tuple[list[Json], list[Mark]]:
    """Return the messages with a mark in every text that a caller wrote and a template shows, and the marks in order.

    Texts of white space only are left alone, and those with a reasoning block: templates take these apart.
    """
    copied = copy.deepcopy(list(messages))
    marks: list[Mark] = []
    for holder, key, role in _texts(copied):
        text = holder[key]
        if not text.strip() or "think>" in text:
            continue
        at = _middle(text)
        mark = f"zQ{len(marks)}Qz"
        marks.append(Mark(mark, role, text[:at], text[at:]))
        holder[key] = text[:at] + mark + text[at:]
    return copied, marks


def marked_calls(messages: Sequence[Json]) -> tuple[list[Json], list[Mark], list[Mark]]:
    """Return the messages with a mark in every call's name and texts, and the marks of the names and of the texts.

    Args:
        messages: Arguments of calls in them are mappings.
    """
    copied = copy.deepcopy(list(messages))
    names: list[Mark] = []
    values: list[Mark] = []
    functions = [call["function"] for message in copied for call in message.get("tool_calls") or ()]
    for function in functions:
        name, mark = function["name"], f"zN{len(names)}Nz"
        names.append(Mark(mark, "a call's name", "", name))
        function["name"] = mark + name
        for key, text in function["arguments"].items():
            if isinstance(text, str) and text.strip():
                at, mark = _middle(text), f"zA{len(values)}Az"
                values.append(Mark(mark, "an argument", text[:at], text[at:]))
                function["arguments"][key] = text[:at] + mark + text[at:]
    return copied, names, values


def _texts(messages: Sequence[Json]) -> Iterator[tuple[Any, str, str]]:
    for message in messages:
        content, role = message.get("content"), str(message.get("role"))
        if isinstance(content, str):
            yield message, "content", role
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
                    yield part, "text", role


def _middle(text: str) -> int:
    """Return a place inside a text that is in no tag and no run of white space at its ends."""
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    at = (start + end + 1) // 2
    for tag in _TAG.finditer(text):
        if tag.start() < at < tag.end():
            return tag.end() if tag.end() <= end else tag.start()
    return at


def _in_json(text: str, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _html_safe(text: str) -> str:
    return "".join(_HTML_SAFE.get(one, one) for one in text)
