"""What was done to a request: to its messages, its tools, its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.checking.compare.client import pattern, summary
from harness.checking.compare.outcome import MESSAGE, Difference, Hunk
from harness.checking.compare.texts import changes
from harness.values import Json, Request

_AREAS = ("messages", "tool", "settings")
"""How the places begin that belong together; `tools` and `tool_choice` are one."""


class Seen(NamedTuple):
    """A mechanism.

    Attributes:
        words: What it is for a human.
        causes: What makes it the same in another case.
        perhaps: Causes that would explain the case as well.
    """

    words: str
    causes: tuple[str, ...]
    perhaps: tuple[str, ...] = ()


def parts(golden: Request, observed: Request, difference: Difference) -> Iterator[Difference]:
    """Yield the parts of a difference between requests."""
    for area in _AREAS:
        hunks = tuple(hunk for hunk in difference.hunks if hunk.at.startswith(area))
        if not hunks:
            continue
        seen = _messages(golden.messages, observed.messages, hunks) if area == "messages" else None
        own = tuple(dict.fromkeys(f"{pattern(hunk.at)}\0{hunk.observed == '(absent)'}" for hunk in hunks))
        yield Difference(
            summary=f"{seen.words}: {summary(hunks)}" if seen else summary(hunks),
            hunks=hunks,
            causes=seen.causes if seen else own,
            perhaps=seen.perhaps if seen else (),
            kind=difference.kind,
        )


def _messages(golden: Sequence[Json], observed: Sequence[Json], hunks: Sequence[Hunk]) -> Seen | None:
    wanted, found = [_dumped(one) for one in golden], [_dumped(one) for one in observed]
    if sorted(wanted) == sorted(found):
        return Seen("the messages are in another order", ("messages in another order",))
    missing = _left_out(found, wanted)
    if missing is not None:
        which = ", ".join(_which(index, golden) for index in missing)
        return Seen(f"{which} {'is' if len(missing) == 1 else 'are'} missing", ("messages missing",))
    added = _left_out(wanted, found)
    if added is not None:
        which = ", ".join(f"a message of role {observed[index].get('role')}" for index in added)
        return Seen(f"there is {which} that nobody sent", ("messages added",))
    if len(golden) == len(observed):
        return _fields(golden, observed, hunks)
    return _regrouped(golden, observed)


def _dumped(message: Json) -> str:
    return json.dumps(message, ensure_ascii=False)


def _left_out(shorter: Sequence[str], longer: Sequence[str]) -> list[int] | None:
    """Return the places of what one list has beside another one, which is a part of it in the same order."""
    left: list[int] = []
    rest = iter(shorter)
    waiting = next(rest, None)
    for index, one in enumerate(longer):
        if one == waiting:
            waiting = next(rest, None)
        else:
            left.append(index)
    return left if waiting is None and left and len(shorter) + len(left) == len(longer) else None


def _which(index: int, messages: Sequence[Json]) -> str:
    role = messages[index].get("role")
    if role == "system":
        return "the system message"
    if index in (0, len(messages) - 1) and len(messages) > 1:
        return f"the {'first' if index == 0 else 'last'} message ({role})"
    return f"the message of role {role}"


def _fields(golden: Sequence[Json], observed: Sequence[Json], hunks: Sequence[Hunk]) -> Seen | None:
    """Return what was done to the fields of messages that are as many as were sent."""
    texts = [
        (one.get("content"), other.get("content"))
        for one, other in zip(golden, observed, strict=True)
        if json.dumps(one.get("content")) != json.dumps(other.get("content"))
    ]
    others = [hunk for hunk in hunks if ".content" not in hunk.at]
    if others or not texts:
        return None
    return _contents(texts)


def _contents(pairs: Sequence[tuple[Any, Any]]) -> Seen | None:
    for words, look in _FORMS.items():
        if all(look(one, other) for one, other in pairs):
            return Seen(words, (words,))
    texts = [pair for one, other in pairs for pair in _paired(one, other)]
    if not texts or any(not isinstance(text, str) for pair in texts for text in pair):
        return None
    return of_texts(MESSAGE, [(one, other) for one, other in texts if one != other])


def of_texts(what: str, pairs: Sequence[tuple[str, str]]) -> Seen | None:
    """Return what was done to texts: to all of them the same, as far as that can be; None where nobody can say."""
    found = [changes(one, other) for one, other in pairs]
    if not pairs or not all(found):
        return None
    shared = [change for change in found[0] if all(change.key in {one.key for one in more} for more in found[1:])]
    leading = shared[:1] or list(dict.fromkeys(more[0] for more in found))
    # What is written as other characters differs from text to text, and each pair of them is a cause.
    if all("\0" in more[0].key for more in found):
        leading = list(dict.fromkeys(change for more in found for change in more if "\0" in change.key))
    perhaps = [change.key for change in shared[1:]] if shared else []
    return Seen(
        f"{what}: {leading[0].words}",
        tuple(f"{what}\0{change.key}" for change in leading),
        tuple(f"{what}\0{key}" for key in perhaps),
    )


def _paired(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """Return the texts of two contents in pairs; of contents of another form none."""
    if isinstance(one, str) and isinstance(other, str):
        return [(one, other)]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            (a.get("text"), b.get("text"))
            for a, b in zip(one, other, strict=True)
            if isinstance(a, dict) and isinstance(b, dict) and a != b
        ]
    return []


def text_of(content: Any) -> str:
    """Return the text of a message's content, its parts one after the other."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return ""


_FORMS: Mapping[str, Callable[[Any, Any], bool]] = {
    "a content that is a text is sent as a list of parts": lambda one, other: (
        isinstance(one, str) and isinstance(other, list)
    ),
    "the parts of a content are sent as one text": lambda one, other: isinstance(one, list) and isinstance(other, str),
    "the content of a message is null or missing": lambda one, other: one is not None and other is None,
}


def _regrouped(golden: Sequence[Json], observed: Sequence[Json]) -> Seen | None:
    """Return whether all texts are there in another number of messages."""
    texts = [text_of(one.get("content")) for one in golden]
    whole = "\n".join(text_of(one.get("content")) for one in observed)
    if not all(text.strip() in whole for text in texts):
        return None
    how = "put together into fewer" if len(observed) < len(golden) else "split into more"
    return Seen(f"the messages are {how}", (f"messages {how}",), (f"{MESSAGE}\0within",))
