"""What must hold of every parser of replies, by name. None knows a format: what is due comes from the message."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.fuzz.finding import Broken
from harness.fuzz.parser.difference import Given, calls_of, difference, same_arguments, same_json, shown
from harness.fuzz.parser.trial import Trial
from harness.parts import PartError
from harness.values import Json, Reply

_BARE_CALLS = ("{", "[")
"""Formats without a marker take a text that begins so for a call, and cannot tell it from one."""
NOT_ASKED = ("unsupported", "refused")
"""How a parser ends without having parsed."""


class UnjudgedError(Exception):
    """An input does not allow to judge a property."""


@dataclass(frozen=True)
class Property:
    """A property.

    Attributes:
        name: Its name.
        sentence: What must hold.
        check: Returns how a trial breaks it. Raises `UnjudgedError` where that cannot be said.
    """

    name: str
    sentence: str
    check: Callable[[Trial], Broken | None]


def _chunks(trial: Trial) -> Broken | None:
    """However the stream is cut."""
    _need_stream(trial)
    one, other = _judged(trial.streamed), _judged(trial.cut_otherwise)
    cause = difference(one, other)
    return _broken(trial, "chunks", cause, {"cut into words": one, "cut otherwise": other})


def _stream(trial: Trial) -> Broken | None:
    _need_stream(trial)
    whole, streamed = _judged(trial.whole), _judged(trial.streamed)
    if isinstance(whole, Reply) and isinstance(streamed, Reply) and _taken_back(whole, streamed):
        raise UnjudgedError
    return _broken(trial, "stream", difference(whole, streamed), {"whole": whole, "streamed": streamed})


def _growth(trial: Trial) -> Broken | None:
    _need_stream(trial)
    whole, streamed = _judged(trial.whole), _judged(trial.streamed)
    if isinstance(whole, PartError) or isinstance(streamed, PartError):
        raise UnjudgedError
    return _broken(trial, "growth", _taken_back(whole, streamed), {"whole": whole, "streamed": streamed})


def _roundtrip(trial: Trial) -> Broken | None:
    if _is_ambiguous(trial):
        raise UnjudgedError
    want, got = _due(trial), _judged(trial.whole)
    cause = difference(want, got)
    as_reasoning = (got.reasoning or "").strip() if isinstance(got, Reply) else ""
    if want.content and not want.reasoning and as_reasoning == want.content.strip():
        # The template wrote it as reasoning.
        raise UnjudgedError
    if cause == "other arguments":
        # Another property's.
        cause = ""
    return _broken(trial, "round-trip", cause, {"the message": want, "parsed": got})


def _arguments(trial: Trial) -> Broken | None:
    got = _judged(trial.whole)
    if isinstance(got, PartError):
        raise UnjudgedError
    want = calls_of(_due(trial))
    given = calls_of(got)
    if not want or [name for name, _ in want] != [name for name, _ in given]:
        raise UnjudgedError
    causes = []
    for (_, due), (_, arguments) in zip(want, given, strict=True):
        carried = _carried(trial.text, json.loads(due))
        if not same_arguments(due, arguments):
            if not carried and _has_marker(trial, due):
                raise UnjudgedError
            causes.append("other values")
        elif carried and arguments not in carried:
            causes.append("other characters for the same values")
    outputs = {"the message": _due(trial), "parsed": got}
    return _broken(trial, "arguments", ", ".join(dict.fromkeys(causes)), outputs)


def _markers(trial: Trial) -> Broken | None:
    got = _judged(trial.whole)
    if isinstance(got, PartError) or _is_ambiguous(trial):
        raise UnjudgedError
    fields = {"content": got.content, "reasoning": got.reasoning, "name": " ".join(name for name, _ in calls_of(got))}
    leaks = [name for name, text in fields.items() if any(one in (text or "") for one in trial.format.markers)]
    cause = ", ".join(f"a marker in the {name}" for name in leaks)
    return _broken(trial, "markers", cause, {"the message": _due(trial), "parsed": got})


PROPERTIES: Mapping[str, Property] = {
    one.name: one
    for one in (
        Property("chunks", "however a stream is cut, it gives the same reply", _chunks),
        Property("stream", "a stream adds up to the reply that the whole text gives", _stream),
        Property("growth", "what a stream has said it does not take back", _growth),
        Property("round-trip", "a message that its template rendered is parsed back", _roundtrip),
        Property(
            "arguments",
            "the arguments of calls keep their values, and their characters where they are JSON",
            _arguments,
        ),
        Property("markers", "no marker of the format is left in what a caller gets", _markers),
    )
}
"""By name."""


def _need_stream(trial: Trial) -> None:
    if not trial.parser.streams:
        raise UnjudgedError


def _judged(given: Given) -> Given:
    if isinstance(given, PartError) and given.kind in NOT_ASKED:
        raise UnjudgedError
    return given


def _broken(trial: Trial, name: str, cause: str, outputs: Mapping[str, Given]) -> Broken | None:
    if not cause:
        return None
    shown_text = trial.text if len(trial.text) <= 120 else f"{trial.text[:117]}..."
    return Broken(
        name=name,
        path=trial.parser.name,
        cause=cause,
        message=f"{cause}: {shown_text!r}",
        shown=tuple(shown(by, given) for by, given in outputs.items()),
    )


# What a stream has said


def _taken_back(whole: Reply, streamed: Reply) -> str:
    """Return what a stream said at any time that is not the beginning of what the whole text gives."""
    calls = calls_of(whole)
    content, reasoning = "", ""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for delta in streamed.deltas or ():
        content += delta.get("content") or ""
        reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
        for index, name, more in _pieces(delta):
            if name and index in names:
                return "a call is named twice"
            names.update({index: name} if name else {})
            arguments[index] = arguments.get(index, "") + more
    for what, said, final in (("content", content, whole.content), ("reasoning", reasoning, whole.reasoning)):
        if not (final or "").startswith(said) and said.strip() != (final or "").strip():
            return f"{what} is taken back"
    if any(index >= len(calls) for index in (*names, *arguments)):
        return "a call is taken back"
    if any(calls[index][0] != name for index, name in names.items()):
        return "a name is taken back"
    if any(not calls[index][1].startswith(said) for index, said in arguments.items()):
        return "arguments are taken back"
    return ""


def _pieces(delta: Json) -> Iterator[tuple[int, str, str]]:
    for piece in delta.get("tool_calls") or ():
        function = piece.get("function") or {}
        yield piece["index"], function.get("name") or "", function.get("arguments") or ""


# What is due


def _due(trial: Trial) -> Reply:
    """Return the reply that the message is, without what the template did not render of it."""
    message = trial.message
    declared = {tool["function"]["name"] for tool in trial.tools}
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        given = function["arguments"]
        arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        if function["name"] not in declared:
            raise UnjudgedError
        calls.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    texts = message.get("content"), message.get("reasoning_content")
    if not all(isinstance(text, str | None) for text in texts):
        raise UnjudgedError
    return Reply(content=texts[0], reasoning=texts[1], tool_calls=tuple(calls) or None)


def _is_ambiguous(trial: Trial) -> bool:
    """Return whether the message spells what has a meaning in the format, so that no parser could tell them apart."""
    message = trial.message
    texts = [message.get("content"), message.get("reasoning_content")]
    texts += [call["function"]["name"] for call in message.get("tool_calls") or ()]
    spelled = [text for text in texts if isinstance(text, str)]
    if any(_has_marker(trial, text) or text.lstrip().startswith(_BARE_CALLS) for text in spelled):
        return True
    return any(
        _has_marker(trial, arguments) and not _carried(trial.text, json.loads(arguments))
        for _, arguments in calls_of(_due(trial))
    )


def _has_marker(trial: Trial, text: str) -> bool:
    return any(marker in text for marker in trial.format.markers)


def _carried(text: str, value: Any) -> Sequence[str]:
    """Return in which characters a text carries a value as JSON."""
    found = []
    place = text.find("{")
    while place >= 0:
        try:
            read, end = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError):
            pass
        else:
            if same_json(read, value):
                found.append(text[place:end])
        place = text.find("{", place + 1)
    return found
