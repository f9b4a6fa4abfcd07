"""Planting in any component, in the caller's process: a wrapper that changes what passes one boundary.

The client's program is planted in here in every stack. A component that we cannot plant in from inside is called stage
by stage through the wrapper, so its own path from end to end, if it has one, is not what is held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

from harness.defects.defect import Defect, Place
from harness.defects.places import Generated, Tokenizing
from harness.stage import Component, StageUnobservedError
from harness.values import Case, CaseOptions, Generation, Json, Observation, Prompt, Reply, Request, Tokens
from harness.wire.chat import answer_of, reply_of


def planted_in_the_caller(part: Component, defect: Defect) -> Component:
    """Return a component with a defect at one of its boundaries."""
    edit = defect.planting()
    if defect.place is Place.BODY:
        ways = [way for name, way in (("call", _Call), ("chat", _Chat)) if hasattr(part, name)]
        return cast("Component", type("_Client", (*ways, _Body), {})(part, edit))
    return cast("Component", _WRAPPERS[defect.place](part, edit))


class _Around:
    """Everything of a component as it is."""

    def __init__(self, part: Any, edit: Callable[..., Any]) -> None:
        self._part = part
        self._edit = edit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


class _Body(_Around):
    """A client's program that sends another body."""

    def request(self, case: Case) -> Request:
        return cast("Request", self._part.request(self._case(case)))

    def _case(self, case: Case) -> Case:
        return case.model_copy(update={"body": self._edit(copy.deepcopy(case.body))})


class _Call(_Body):
    """One that calls a server."""

    def call(self, case: Case, url: str, *, stream: bool) -> Reply:
        return cast("Reply", self._part.call(self._case(case), url, stream=stream))


class _Received(_Around):
    """A client's program that gets another reply than its library made."""

    def call(self, case: Case, url: str, *, stream: bool) -> Reply:
        reply: Reply = self._part.call(case, url, stream=stream)
        return Reply.model_validate(self._edit(reply.model_dump()))


class _Chat(_Body):
    """One that is the whole stack."""

    def chat(self, case: Case, *, stream: bool) -> Observation:
        return cast("Observation", self._part.chat(self._case(case), stream=stream))


class _Stagewise(_Around):
    """A component without a path of its own from end to end, which would pass the wrapper by."""

    def __getattr__(self, name: str) -> Any:
        if name in ("chat", "url"):
            raise AttributeError(name)
        return getattr(self._part, name)


class _Request(_Stagewise):
    def render(self, request: Request, options: CaseOptions) -> Prompt:
        own = {name: getattr(request, name) for name in ("messages", "tools", "tool_choice")}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return cast("Prompt", self._part.render(request.model_copy(update=_tuples(self._edit(own))), options))


class _Prompt(_Stagewise):
    def render(self, request: Request, options: CaseOptions) -> Prompt:
        prompt: Prompt = self._part.render(request, options)
        return prompt.model_copy(update={"text": self._edit(prompt.text)})


class _Ids(_Stagewise):
    def tokenize(self, prompt: Prompt) -> Tokens:
        tokens: Tokens = self._part.tokenize(prompt)
        ids = self._edit(Tokenizing(text=prompt.text, ids=tokens.ids, encode=self._encode))
        return Tokens(ids=tuple(int(one) for one in ids))

    def _encode(self, text: str, parsed: bool) -> tuple[int, ...]:
        if not parsed:
            raise StageUnobservedError("this part's tokenizer is only known to parse control tokens")
        tokens: Tokens = self._part.tokenize(Prompt(text=text))
        return tokens.ids


class _Answer(_Stagewise):
    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        reply: Reply = self._part.reply(generation, tokens, request, stream=stream)
        body = {"tools": request.tools, **request.settings}
        return reply_of(self._edit(answer_of(reply), Generated(pieces=(), body=body)))


def _tuples(given: Json) -> Json:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


_WRAPPERS: Mapping[Place, Callable[[Any, Callable[..., Any]], _Around]] = {
    Place.RECEIVED: _Received,
    Place.REQUEST: _Request,
    Place.PROMPT: _Prompt,
    Place.IDS: _Ids,
    Place.ANSWER: _Answer,
}
"""By place; of what is in none of them nothing passes the caller."""
