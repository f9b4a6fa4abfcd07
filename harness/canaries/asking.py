"""Asking a server: each question once, whoever wants its answer, and no more where it answers nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Json
from harness.wire.api import Api
from harness.wire.form import field, reading

_CHAT: Final = "/v1/chat/completions"
_LATE: Final = 2
"""Questions that may go without an answer in time, before no more are asked: each takes all of its time."""
GREEDY: Final[Json] = {"temperature": 0}
PLAIN: Final = "Name three animals that live in a forest, and say a few words on each."
Answer = TypeVar("Answer")


class Asking:
    """A server's chat route, asked by the name of a model.

    Args:
        api: The server.
        model: The name to ask for.

    Attributes:
        answered: Whether any question was answered.
        absent: What was said of the chat route, where there is none.
    """

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model
        self._known: dict[str, Any] = {}
        self._stopped = ""
        self._late = 0
        self.answered = False
        self.absent = ""

    def chat(self, messages: Sequence[Json] | str = PLAIN, *, again: int = 0, **more: Any) -> Json:
        """Return the answer to a conversation, or to one message of a user's.

        Args:
            messages: The conversation.
            again: Asks anew, where this number is another one.
            more: The rest of the body; without a temperature it is 0, without a limit 24 tokens.

        Raises:
            StageFailedError: the answer is none.
            StageRefusedError: the server says no.
            StageUnobservedError: it has no such route, the same question had no answer before, or no more are asked.
        """
        body = self._body(messages, more)
        return self._once([body, again], lambda: self._completion(body))

    def stream(self, messages: Sequence[Json] | str = PLAIN, *, again: int = 0, **more: Any) -> list[Json]:
        """Return the chunks of a stream; as `chat`."""
        body = {**self._body(messages, more), "stream": True}
        return self._once([body, again], lambda: self._api.stream(_CHAT, body))

    def raw(self, body: Json) -> Any:
        """Return the answer to a body as it stands. Raises as `chat` does."""
        return self._once(["raw", body], lambda: self._api.post(_CHAT, {"model": self._model, **body}))

    def exchange(self, body: Json) -> tuple[int, bytes]:
        """Return the status and the answer to a body as it stands, also where it is refused. Raises as `chat` does."""
        return self._once(["exchange", body], lambda: self._api.exchange(_CHAT, {"model": self._model, **body}))

    def shown(self, path: str) -> Any:
        """Return the JSON at another path; None where there is none."""
        try:
            return self._once(["shown", path], lambda: self._api.get(path))
        except (StageFailedError, StageRefusedError, StageUnobservedError):
            return None

    def alive(self) -> bool:
        """Return whether it still takes requests."""
        try:
            self._api.exchange(_CHAT, self._body("Hi", {"max_tokens": 1}))
        except StageFailedError as failed:
            return failed.failure.reason == "hang"
        return True

    def stop(self, why: str) -> None:
        """Ask nothing more: every further question is unobserved, for this reason."""
        self._stopped = why

    def _completion(self, body: Json) -> Json:
        try:
            found = self._api.post(_CHAT, body)
        except StageUnobservedError as hidden:
            self.absent = hidden.unobserved.reason
            raise
        with reading("the answer is no chat completion"):
            _ = found["choices"][0]["message"]["role"]
        answer: Json = found
        return answer

    def _once(self, question: Any, ask: Callable[[], Answer]) -> Answer:
        key = json.dumps(question, sort_keys=True)
        found = self._known.get(key)
        if self._stopped and (found is None or isinstance(found, Exception)):
            raise StageUnobservedError(self._stopped)
        if isinstance(found, StageRefusedError):
            raise StageRefusedError(found.refusal)
        if isinstance(found, StageFailedError):
            # It was told of whoever asked first.
            raise StageUnobservedError(f"the same question had no answer before: {found.failure.describe()}")
        if found is None:
            found = self._known[key] = self._asked(key, ask)
        answer: Answer = found
        return answer

    def _asked(self, key: str, ask: Callable[[], Answer]) -> Answer:
        try:
            found = ask()
        except StageRefusedError as refused:
            self._known[key] = refused
            raise
        except StageFailedError as failed:
            self._known[key] = failed
            if failed.failure.reason == "hang":
                self._late += 1
                if self._late >= _LATE:
                    self.stop(f"{self._late} questions had no answer in time, so no more were asked")
            raise
        self.answered = True
        return found

    def _body(self, messages: Sequence[Json] | str, more: Json) -> Json:
        turns = user(messages) if isinstance(messages, str) else list(messages)
        limit = {} if "max_completion_tokens" in more else {"max_tokens": 24}
        return {"model": self._model, "messages": turns, **limit, **GREEDY, **more}


def user(text: str) -> list[Json]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": text}]


def words(count: int, start: int = 0) -> str:
    """Return so many words with numbers; the count of their tokens grows with it.

    Texts with another start have no beginning in common, so that none is in a cache for another.
    """
    names = ("stone", "river", "apple", "seven", "green", "window", "paper", "horse", "silver", "garden")
    return " ".join(f"{names[at % len(names)]} {at}" for at in range(start, start + count))


def content(answer: Json) -> str:
    """Return the text of an answer; empty where it has none."""
    with reading("the answer has no message"):
        return str(answer["choices"][0]["message"].get("content") or "")


def finish(answer: Json) -> str:
    """Return why an answer ended."""
    with reading("the answer has no finish_reason"):
        return str(answer["choices"][0].get("finish_reason"))


def usage_of(answer: Json) -> tuple[int, int, int]:
    """Return the numbers of prompt tokens, of generated ones, and their sum, as the answer says.

    Raises:
        StageFailedError: it says something else.
        StageUnobservedError: it says nothing.
    """
    if answer.get("usage") is None:
        raise StageUnobservedError("the answer has no usage, which the API does not require")
    usage = field(answer, "usage", dict)
    return field(usage, "prompt_tokens", int), field(usage, "completion_tokens", int), field(usage, "total_tokens", int)


def counts(answer: Json) -> tuple[int, int, int]:
    """Return what `usage_of` does, to whom it is not about the usage.

    Raises:
        StageUnobservedError: the answer says nothing, or nothing that can be.
    """
    try:
        found = usage_of(answer)
    except StageFailedError as failed:
        raise StageUnobservedError(f"the usage cannot be believed: {failed.failure.describe()}") from failed
    if not found[0]:
        raise StageUnobservedError("the usage cannot be believed: it says that the prompt has no tokens")
    return found


def prompt_count(answer: Json) -> int:
    """Return the number of prompt tokens, as the answer says. Raises as `counts` does."""
    return counts(answer)[0]


def deltas(chunks: Sequence[Json]) -> list[Json]:
    """Return the deltas of the first choice of a stream."""
    with reading("a chunk is none"):
        return [one["choices"][0].get("delta") or {} for one in chunks if one.get("choices")]


def joined(chunks: Sequence[Json]) -> str:
    """Return the text that a stream adds up to."""
    with reading("a delta is none"):
        return "".join(str(one.get("content") or "") for one in deltas(chunks))
