"""In which way a reply is not the one that is due, without the text of either: it tells one root cause from another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness.fuzz.finding import Output, cause_of
from harness.parts import PartError
from harness.values import Json, Reply

Given = Reply | PartError
"""What a parser gave: a reply, or how it ended without one."""


def calls_of(reply: Reply) -> list[tuple[str, str]]:
    """Return the names of a reply's calls and their arguments as they were given."""
    functions = (call["function"] for call in reply.tool_calls or ())
    return [(str(function.get("name") or ""), function.get("arguments") or "") for function in functions]


def same_json(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON: `true` is not 1, while 1 and 1.0 are one number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def same_arguments(one: str, other: str) -> bool:
    """Return whether two texts are the same JSON; texts that are none are the same where they are equal."""
    try:
        return same_json(json.loads(one), json.loads(other))
    except (ValueError, RecursionError):
        return one == other


def difference(want: Given, got: Given) -> str:
    """Return how a reply differs from the one that is due; empty where it does not.

    White space around content and reasoning does not count, nor does that in arguments.
    """
    if isinstance(want, PartError) and isinstance(got, PartError):
        return "" if _raised(want) == _raised(got) else f"raises: {_raised(got)}"
    if isinstance(got, PartError):
        return f"raises: {_raised(got)}"
    if isinstance(want, PartError):
        return "an answer where an error is due"
    found = [
        _of_text("content", want.content, got.content),
        _of_text("reasoning", want.reasoning, got.reasoning),
        _of_calls(calls_of(want), calls_of(got)),
    ]
    return ", ".join(one for one in found if one)


def shown(by: str, given: Given) -> Output:
    """Return what a parser gave, for a human."""
    if isinstance(given, PartError):
        return Output(by=by, error=f"{given.name}: {given.message}" if given.name else given.message)
    parts: Json = {"content": given.content, "reasoning": given.reasoning, "calls": calls_of(given)}
    return Output(by=by, text=json.dumps({name: part for name, part in parts.items() if part}, ensure_ascii=False))


def _raised(error: PartError) -> str:
    return cause_of(f"{error.name} {error.message}".strip())


def _of_text(name: str, want: str | None, got: str | None) -> str:
    want, got = (want or "").strip(), (got or "").strip()
    if want == got:
        return ""
    if not got:
        return f"{name} is lost"
    if not want:
        return f"{name} where none is due"
    if want in got:
        return f"{name} has more"
    return f"{name} is cut" if got in want else f"another {name}"


def _of_calls(want: Sequence[tuple[str, str]], got: Sequence[tuple[str, str]]) -> str:
    if len(got) != len(want):
        return f"{'fewer' if len(got) < len(want) else 'more'} calls" if got else "no call"
    if [name for name, _ in want] != [name for name, _ in got]:
        return "other names of calls"
    same = all(same_arguments(one, other) for (_, one), (_, other) in zip(want, got, strict=True))
    return "" if same else "other arguments"
