"""The reference of the parsers: what of a generated text is reasoning, what is a tool call, and what is left.

*think*: reasoning stands in a `<think>` block that opens the answer, or that the prompt has opened already; one that is
not closed reaches to the end. *hermes*: a call is a JSON object with `name` and `arguments` between `<tool_call>` and
`</tool_call>`; what stands outside of calls is content. White space around the parts belongs to none of them.
Source: the formats' own descriptions, Qwen's for `<think>` and NousResearch's Hermes-Function-Calling for the other.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from harness.values import Json

_OPEN, _CLOSE = "<think>", "</think>"
_CALL_OPEN, _CALL_CLOSE = re.compile(r"<tool_call>\s*"), re.compile(r"\s*</tool_call>")
_ARGUMENTS = re.compile(r'"arguments"\s*:\s*')


@dataclass(frozen=True)
class Parsed:
    """The parts of a text.

    Attributes:
        content: What is neither.
        reasoning: The reasoning, or None.
        calls: The calls, in OpenAI form without ids.
    """

    content: str
    reasoning: str | None = None
    calls: tuple[Json, ...] = ()


def parse(text: str, *, calls: bool, reasoning: bool, prompt: str) -> Parsed:
    """Take a text apart.

    Args:
        text: What was generated.
        calls: Whether calls are looked for.
        reasoning: Whether reasoning is looked for.
        prompt: The prompt, which may have opened a block.
    """
    thoughts: str | None = None
    if reasoning:
        opened = prompt.rstrip().endswith(_OPEN)
        rest = text.lstrip()
        if opened or rest.startswith(_OPEN):
            body = text if opened else rest.removeprefix(_OPEN)
            before, closed, after = body.partition(_CLOSE)
            thoughts, text = before.strip(), after.strip() if closed else ""
    content, found = _calls(text) if calls else (text, ())
    return Parsed(content.strip() if found else content, thoughts, found)


def _calls(text: str) -> tuple[str, tuple[Json, ...]]:
    """Return what stands outside of the calls, and the calls. What is opened and is no call stays where it is."""
    outside: list[str] = []
    found: list[Json] = []
    place = 0
    for opened in _CALL_OPEN.finditer(text):
        if opened.start() < place:
            # Inside the call before, in one of its texts.
            continue
        try:
            call, end = json.JSONDecoder().raw_decode(text, opened.end())
        except ValueError:
            continue
        closed = _CALL_CLOSE.match(text, end)
        if closed is None or not isinstance(call, dict) or not {"name", "arguments"} <= call.keys():
            continue
        arguments = _written(text[opened.end() : end], call["arguments"])
        found.append({"type": "function", "function": {"name": call["name"], "arguments": arguments}})
        outside.append(text[place : opened.start()])
        place = closed.end()
    return "".join([*outside, text[place:]]), tuple(found)


def _written(call: str, arguments: object) -> str:
    """Return a call's arguments in the characters that the model wrote: the key may stand in other values too."""
    for key in _ARGUMENTS.finditer(call):
        try:
            value, end = json.JSONDecoder().raw_decode(call, key.end())
        except ValueError:
            continue
        if value == arguments:
            return call[key.end() : end]
    return json.dumps(arguments, ensure_ascii=False)
