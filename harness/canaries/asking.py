"""Asking a server: each question once, whoever wants its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from harness.values import Json
from harness.wire.api import Api
from harness.wire.form import field, reading

_CHAT: Final = "/v1/chat/completions"
GREEDY: Final[Json] = {"temperature": 0}
PLAIN: Final = "Name three animals that live in a forest, and say a few words on each."


class Asking:
    """A server's chat route, asked by the name of a model.

    Args:
        api: The server.
        model: The name to ask for.
    """

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model
        self._whole: dict[str, Json] = {}
        self._streams: dict[str, list[Json]] = {}

    def chat(self, messages: Sequence[Json] | str = PLAIN, *, again: int = 0, **more: Any) -> Json:
        """Return the answer to a conversation, or to one message of a user's.

        Args:
            messages: The conversation.
            again: Asks anew, where this number is another one.
            more: The rest of the body; without a temperature it is 0, without a limit 24 tokens.

        Raises:
            StageFailedError: the answer is none.
            StageRefusedError: the server says no.
            StageUnobservedError: it has no such route.
        """
        body = self._body(messages, more)
        key = json.dumps([body, again], sort_keys=True)
        if key not in self._whole:
            found = self._api.post(_CHAT, body)
            with reading("the answer is no chat completion"):
                _ = found["choices"][0]["message"]["role"]
            self._whole[key] = found
        return self._whole[key]

    def stream(self, messages: Sequence[Json] | str = PLAIN, *, again: int = 0, **more: Any) -> list[Json]:
        """Return the chunks of a stream; as `chat`."""
        body = {**self._body(messages, more), "stream": True}
        key = json.dumps([body, again], sort_keys=True)
        if key not in self._streams:
            self._streams[key] = self._api.stream(_CHAT, body)
        return self._streams[key]

    def raw(self, body: Json) -> Any:
        """Return the answer to a body as it stands. Raises as `chat` does."""
        return self._api.post(_CHAT, {"model": self._model, **body})

    def _body(self, messages: Sequence[Json] | str, more: Json) -> Json:
        turns = user(messages) if isinstance(messages, str) else list(messages)
        limit = {} if "max_completion_tokens" in more else {"max_tokens": 24}
        return {"model": self._model, "messages": turns, **limit, **GREEDY, **more}


def user(text: str) -> list[Json]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": text}]


def words(count: int, seed: str = "") -> str:
    """Return so many different words; the count of their tokens grows with it."""
    names = ("stone", "river", "apple", "seven", "green", "window", "paper", "horse", "silver", "garden")
    return " ".join(f"{names[at % len(names)]} {seed}{at}" for at in range(count))


def content(answer: Json) -> str:
    """Return the text of an answer; empty where it has none."""
    with reading("the answer has no message"):
        return str(answer["choices"][0]["message"].get("content") or "")


def finish(answer: Json) -> str:
    """Return why an answer ended."""
    with reading("the answer has no finish_reason"):
        return str(answer["choices"][0].get("finish_reason"))


def counts(answer: Json) -> tuple[int, int, int]:
    """Return the numbers of prompt tokens, of generated ones, and their sum, as the answer says.

    Raises:
        StageFailedError: it does not.
    """
    usage = field(answer, "usage", dict)
    return field(usage, "prompt_tokens", int), field(usage, "completion_tokens", int), field(usage, "total_tokens", int)


def prompt_count(answer: Json) -> int:
    """Return the number of prompt tokens, as the answer says."""
    return counts(answer)[0]


def deltas(chunks: Sequence[Json]) -> list[Json]:
    """Return the deltas of the first choice of a stream."""
    with reading("a chunk is none"):
        return [one["choices"][0].get("delta") or {} for one in chunks if one.get("choices")]


def joined(chunks: Sequence[Json]) -> str:
    """Return the text that a stream adds up to."""
    with reading("a delta is none"):
        return "".join(str(one.get("content") or "") for one in deltas(chunks))
