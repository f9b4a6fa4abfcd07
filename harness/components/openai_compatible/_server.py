"""A server that is asked in OpenAI's way, and what it turns out to be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.components.openai_compatible._model import KnownModel
from harness.components.openai_compatible._read import Row, choice_of, count_of, rows_of
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Json
from harness.wire.api import Api

_CHAT = "/v1/chat/completions"
_COMPLETIONS = "/v1/completions"
_START = "start the server, or mend its address in the stack's file"
_WIDTHS = (256, 20, 5)
"""Log-probabilities asked for: as many as goldens keep, else OpenAI's limit, else the older one of completions."""
_TEXT = "Hi"
_MOST_OF_TEXT = 2
"""Ids of that text, with a BOS. Within any template it has more."""
_IDS = 5


@dataclass(frozen=True)
class Capabilities:
    """What a server was seen to do.

    Attributes:
        chat_top: How many log-probabilities the chat route gives at a position.
        chat_usage: Whether it counts tokens.
        completions: Whether `/v1/completions` answers at all.
        completions_top: How many log-probabilities that gives.
        raw: Whether it feeds a text to the model as it is, without a template; by the count of a short text.
        takes_ids: Whether it feeds ids to the model as they are; by their count.
    """

    chat_top: int
    chat_usage: bool
    completions: bool
    completions_top: int
    raw: bool
    takes_ids: bool

    def described(self) -> dict[str, str]:
        """Return them for a report."""
        return {name: str(value).lower() for name, value in vars(self).items()}


class Server:
    """One model of a server.

    Args:
        url: The address, ending in `/v1` or not.
        name: The name under which it has the model.
        known: The model.
        key_variable: The environment variable that holds the API key.
        seconds: How long one answer may take.
    """

    def __init__(self, url: str, name: str, known: KnownModel, key_variable: str | None, seconds: float) -> None:
        self.root = url.rstrip("/").removesuffix("/v1")
        self.name = name
        self.known = known
        self._key_variable = key_variable
        self._seconds = seconds

    @cached_property
    def api(self) -> Api:
        """The API under the server's root."""
        return Api(self.root, key_variable=self._key_variable, seconds=self._seconds, start=_START)

    def close(self) -> None:
        """Close what is open."""
        if "api" in vars(self):
            self.api.close()

    def chat(self, body: Mapping[str, Any], *, stream: bool = False) -> Any:
        """Return the chat route's answer, or the chunks of a stream."""
        asked = {**body, "model": self.name, "stream": stream}
        return self.api.stream(_CHAT, asked) if stream else self.api.post(_CHAT, asked)

    def complete(self, prompt: str | Sequence[int], settings: Mapping[str, Any]) -> Json:
        """Return what `/v1/completions` answers to a text or to ids, and make sure that it is one."""
        fed = prompt if isinstance(prompt, str) else list(prompt)
        answer = self.api.post(_COMPLETIONS, {**settings, "model": self.name, "prompt": fed, "stream": False})
        choice_of(answer)
        found: Json = answer
        return found

    def rows(self, choice: Json) -> list[Row]:
        """Return the positions that a choice shows."""
        return rows_of(choice.get("logprobs"), self.known.vocabulary)

    @cached_property
    def capabilities(self) -> Capabilities:
        """What it can do: asked once, never assumed.

        Raises:
            StageRefusedError: its chat route refuses the simplest question.
            StageUnobservedError: it has none.
        """
        chat_top, chat = self._chat_top()
        completions_top, completion = self._completions_top()
        return Capabilities(
            chat_top=chat_top,
            chat_usage=count_of(chat, "prompt_tokens") is not None,
            completions=completion is not None,
            completions_top=completions_top,
            raw=0 < (count_of(completion, "prompt_tokens") or 0) <= _MOST_OF_TEXT,
            takes_ids=completion is not None and self._takes_ids(),
        )

    def _chat_top(self) -> tuple[int, Any]:
        asked: Json = {"messages": [{"role": "user", "content": _TEXT}], "max_tokens": 1, "temperature": 0}
        for width in _WIDTHS:
            try:
                answer = self.chat({**asked, "logprobs": True, "top_logprobs": width})
            except StageRefusedError:
                continue
            return _width(self.rows(choice_of(answer))), answer
        answer = self.chat(asked)
        choice_of(answer)
        return 0, answer

    def _completions_top(self) -> tuple[int, Json | None]:
        asked: Json = {"max_tokens": 1, "temperature": 0}
        for width in _WIDTHS:
            answer = self._completed(_TEXT, {**asked, "logprobs": width})
            if answer is not None:
                return _width(self.rows(choice_of(answer))), answer
        return 0, self._completed(_TEXT, asked)

    def _takes_ids(self) -> bool:
        last = max(self.known.vocabulary.size - 1, 0)
        ids = [min(100 + step, last) for step in range(_IDS)]
        answer = self._completed(ids, {"max_tokens": 1, "temperature": 0})
        return count_of(answer, "prompt_tokens") == _IDS

    def _completed(self, prompt: str | Sequence[int], settings: Mapping[str, Any]) -> Json | None:
        """Return the answer, or None where the server has no such route; some say so with status 200."""
        fed = prompt if isinstance(prompt, str) else list(prompt)
        try:
            answer = self.api.post(_COMPLETIONS, {**settings, "model": self.name, "prompt": fed, "stream": False})
        except (StageRefusedError, StageUnobservedError):
            return None
        except StageFailedError as failed:
            # A page where the route would be; what hangs or is down is down for every route.
            if failed.failure.reason != "broken":
                raise
            return None
        return answer if isinstance(answer, dict) and answer.get("choices") else None


def _width(rows: Sequence[Row]) -> int:
    return len(rows[0].top) if rows else 0
