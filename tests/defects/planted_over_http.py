"""Defects that the tests plant in llama-server; their functions are called in its child process."""

from __future__ import annotations

from typing import Any


def said_twice(given: dict[str, Any]) -> dict[str, Any]:
    """Say the last message twice."""
    return {**given, "messages": [*given["messages"], given["messages"][-1]]}


def all_that_was_generated(answer: Any, seen: Any) -> Any:
    """Answer with the bytes of every id, where they are shown; of a stream drop every delta but the first and last."""
    if isinstance(answer, list):
        return [answer[0], answer[-1]]
    choice = answer["choices"][0]
    content = f"{seen.body['max_tokens']} {b'|'.join(seen.pieces)!r}"
    return {**answer, "choices": [{**choice, "message": {**choice["message"], "content": content}}]}


def renamed(server: Any, name: str) -> None:
    """Give the server's process another identity."""
    server.identity = lambda: {"name": name}


def broken(given: Any, seen: Any = None) -> Any:
    """Raise."""
    raise KeyError("messages")


def other_parameters(options: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Start the server with other parameters."""
    return {**options, "parameters": {**options.get("parameters", {}), **changed}}


def closed(template: str) -> str:
    """End the template with a mark."""
    return template + "(end)"


def shouted(reply: dict[str, Any]) -> dict[str, Any]:
    """Get the answer in capitals."""
    return {**reply, "content": reply["content"].upper()}
