"""What must be refused, and how. A server that takes more than the API does is not accused, unless the API says so."""

from __future__ import annotations

from typing import Any, Final

from harness.canaries.asking import Asking, user
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.stage import Stage, StageFailedError, StageRefusedError
from harness.values import Json
from harness.wire.api import decoded

_BAD: Final[dict[str, Json]] = {
    "an unknown role": {"messages": [{"role": "wizard", "content": "Hi"}]},
    "a temperature that is a text": {"messages": user("Hi"), "temperature": "hot"},
    "a content that is a number": {"messages": [{"role": "user", "content": 7}]},
    "no message": {"messages": []},
}


@canary("a body without messages", Stage.POSTPROCESS, "an error with HTTP 4xx", "messages, required")
def _no_messages(ask: Asking) -> Said:
    try:
        ask.raw({"max_tokens": 1})
    except StageRefusedError as refused:
        status = refused.refusal.error
        if status.startswith("HTTP 4"):
            return right(status)
        return unseen(f"it refuses it, with {status}")
    return wrong("an answer", "it answers a body without messages, which the API requires")


@canary("form of an error", Stage.POSTPROCESS, "an object error with a message", "errors: error.message")
def _form(ask: Asking) -> Said:
    status, data = ask.exchange({"messages": "Hi", "max_tokens": 1})
    if status < 400:
        return unseen("it takes messages that are a text, so that no error is seen")
    try:
        found: Any = decoded(data, "the error")
    except StageFailedError as failed:
        return wrong(data[:80], f"an error (HTTP {status}) is no JSON: {failed.failure.describe()}")
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return right(f"HTTP {status}, error.message")
    shown = sorted(found) if isinstance(found, dict) else found
    return wrong(shown, f"an error (HTTP {status}) has no error.message, which clients show: {shown}")


@canary("bad requests", Stage.POSTPROCESS, "are refused, and the next one is answered", "errors")
def _bad(ask: Asking) -> Said:
    statuses = {what: ask.exchange({**body, "max_tokens": 1})[0] for what, body in _BAD.items()}
    ask.chat("Hi", max_tokens=1, again=5)
    taken = [what for what, status in statuses.items() if status < 400]
    if taken:
        return unseen(f"it takes {', '.join(taken)}; the API does not say that it must not")
    return right(", ".join(f"HTTP {status}" for status in statuses.values()))
