"""Edits of conversations that a client makes as well as what stands between it and the template. All are pure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from harness.values import Json


def each(given: Json, edit: Callable[[Json], Json | None]) -> Json:
    """Return a body, or what a template is given, with each message edited; one that becomes None is left out."""
    edited = [edit(copy.deepcopy(message)) for message in given["messages"]]
    return {**given, "messages": [message for message in edited if message is not None]}


def each_text(given: Json, edit: Callable[[str], str]) -> Json:
    """Return the same with every text of a content edited, be it the content or a part of it."""

    def change(message: Json) -> Json:
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = edit(content)
        for part in parts_of(message):
            part["text"] = edit(part["text"])
        return message

    return each(given, change)


def each_call(given: Json, edit: Callable[[Json], None]) -> Json:
    """Return the same with every call of a tool in the history edited in place."""

    def change(message: Json) -> Json:
        for call in message.get("tool_calls") or ():
            edit(call)
        return message

    return each(given, change)


def parts_of(message: Json) -> list[Json]:
    """Return the text parts of a message whose content is a list."""
    content = message.get("content")
    found: list[Json] = content if isinstance(content, list) else []
    return [part for part in found if isinstance(part.get("text"), str)]


def text_of(message: Json) -> str:
    """Return what a message says."""
    content = message.get("content")
    return content if isinstance(content, str) else "".join(part["text"] for part in parts_of(message))


def with_text(message: Json, text: Any) -> Json:
    """Return a message with another content."""
    return {**message, "content": text}


def of_roles(messages: list[Json], *roles: str) -> list[Json]:
    """Return the messages of these roles."""
    return [message for message in messages if message["role"] in roles]


def system_folded(given: Json) -> Json:
    """Return the same with the first system message put before the first user's text."""
    messages = given["messages"]
    system = next(iter(of_roles(messages, "system")), None)
    user = next(iter(of_roles(messages, "user")), None)
    if system is None or user is None:
        return given
    folded = with_text(user, f"{text_of(system)}\n\n{text_of(user)}")
    return {
        **given,
        "messages": [folded if one is user else copy.deepcopy(one) for one in messages if one is not system],
    }


def same_role_merged(given: Json) -> Json:
    """Return the same with neighbouring messages of one role joined by a blank line."""
    merged: list[Json] = []
    for message in copy.deepcopy(given["messages"]):
        plain = set(message) <= {"role", "content"}
        if plain and merged and set(merged[-1]) <= {"role", "content"} and merged[-1]["role"] == message["role"]:
            merged[-1] = with_text(message, f"{text_of(merged[-1])}\n\n{text_of(message)}")
        else:
            merged.append(message)
    return {**given, "messages": merged}
