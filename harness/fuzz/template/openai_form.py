"""Which conversations a server must take: what OpenAI's API accepts, so that nobody is accused over what it refuses.

After OpenAI's API reference of chat completions. Two things that go beyond it are common and taken too: an answer's
`reasoning_content`, and arguments as a mapping, which transformers documents as the form for templates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness.values import Json

_SAYING = ("system", "developer", "user")


def in_openai_form(messages: Sequence[Json], tools: Sequence[Json] | None) -> bool:
    """Return whether OpenAI's API would take messages and tools."""
    if tools is not None and not (tools and all(_is_tool(tool) for tool in tools)):
        return False
    open_calls: set[str] = set()
    for message in messages:
        role = message.get("role")
        if role == "tool":
            if message.get("tool_call_id") not in open_calls or not _is_text(message.get("content")):
                return False
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            # Every call is answered before anything else is said.
            return False
        if role == "assistant":
            calls = message.get("tool_calls")
            if not _is_answer(message, calls):
                return False
            open_calls = {call["id"] for call in calls or ()}
        elif role not in _SAYING or not _is_text(message.get("content")):
            return False
    return bool(messages)


def _is_answer(message: Json, calls: Any) -> bool:
    if calls is not None and not (isinstance(calls, list) and calls and all(_is_call(call) for call in calls)):
        return False
    content = message.get("content")
    return _is_text(content) or (content is None and bool(calls))


def _is_text(content: Any) -> bool:
    if isinstance(content, list):
        return bool(content) and all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content
        )
    return isinstance(content, str)


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(call.get("id"), str):
        return False
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return False
    return isinstance(function.get("name"), str) and isinstance(arguments, dict)


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)
