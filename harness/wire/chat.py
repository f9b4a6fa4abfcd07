"""Chat completions in OpenAI's format: a body as a request, an answer or a stream as a reply.

Source: OpenAI's OpenAPI description, `CreateChatCompletionRequest`, `CreateChatCompletionResponse` and
`CreateChatCompletionStreamResponse`; `reasoning_content` is the name that servers of open models have given to what
was split off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.values import Case, Json, Reply, Request, Usage
from harness.wire.form import reading

_NOT_SETTINGS = frozenset({"messages", "tools", "tool_choice", "model", "user", "metadata", "stream", "stream_options"})
_REASONING = ("reasoning_content", "reasoning")


def body_of(case: Case) -> Json:
    """Return the body that a program sends for a case, without `model` and `stream`.

    Template variables travel as `chat_template_kwargs`, the name that vLLM gave them and llama.cpp took over.
    """
    more: Json = {}
    if case.options.template_kwargs:
        more["chat_template_kwargs"] = case.options.template_kwargs
    return {**case.body, **more}


def body_of_request(request: Request) -> Json:
    """Return the body that asks for a request again."""
    body: Json = {"messages": list(request.messages)}
    if request.tools is not None:
        body["tools"] = list(request.tools)
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    return {**body, **request.settings}


def request_of(body: Mapping[str, Any]) -> Request:
    """Return what a body on the wire asks for, none of it by default; `stop` as a list, whichever form it came in.

    Raises:
        StageFailedError: it asks for no chat completion.
    """
    settings = {name: value for name, value in body.items() if name not in _NOT_SETTINGS}
    if isinstance(settings.get("stop"), str):
        settings["stop"] = [settings["stop"]]
    tools = body.get("tools")
    with reading("no request for a chat completion"):
        return Request(
            messages=tuple(body["messages"]),
            tools=None if tools is None else tuple(tools),
            tool_choice=body.get("tool_choice"),
            settings=settings,
            defaults=(),
        )


def reply_of(answer: Json | Sequence[Json]) -> Reply:
    """Return the reply that a response is, or that the chunks of a stream add up to.

    Raises:
        StageFailedError: it is no chat completion.
    """
    with reading("no chat completion"):
        return _whole(answer) if isinstance(answer, dict) else _streamed(answer)


def answer_of(reply: Reply) -> Json | list[Json]:
    """Return the response, or the chunks of a stream, that a reply is; the opposite of `reply_of`."""
    if reply.deltas is not None:
        ends: list[str | None] = [*[None] * (len(reply.deltas) - 1), reply.finish_reason]
        return [
            {"choices": [{"index": 0, "delta": dict(delta), "finish_reason": end}]}
            for delta, end in zip(reply.deltas, ends, strict=True)
        ]
    message: Json = {"role": "assistant", "content": reply.content}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls is not None:
        message["tool_calls"] = list(reply.tool_calls)
    usage = None if reply.usage is None else reply.usage.model_dump()
    return {"choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}], "usage": usage}


def _whole(answer: Json) -> Reply:
    choice = answer["choices"][0]
    message = choice["message"]
    if message["role"] != "assistant":
        raise ValueError(f"the role is {message['role']!r}")
    calls = message.get("tool_calls")
    return Reply(
        content=message.get("content"),
        reasoning=_reasoning(message),
        tool_calls=tuple(calls) if calls else None,
        finish_reason=choice["finish_reason"],
        usage=_usage(answer.get("usage")),
    )


def _streamed(chunks: Sequence[Json]) -> Reply:
    choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
    deltas = [choice["delta"] for choice in choices]
    content = [delta["content"] for delta in deltas if delta.get("content") is not None]
    reasoning = [text for text in (_reasoning(delta) for delta in deltas) if text is not None]
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason") is not None]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return Reply(
        content="".join(content) if content else None,
        reasoning="".join(reasoning) if reasoning else None,
        tool_calls=_added_up(deltas),
        finish_reason=ends[-1] if ends else None,
        usage=_usage(usages[-1]) if usages else None,
        deltas=tuple(deltas),
    )


def _added_up(deltas: Sequence[Json]) -> tuple[Json, ...] | None:
    """Add up the pieces of tool calls by their index: texts grow, everything else that is no null is set."""
    calls: dict[int, Json] = {}
    for delta in deltas:
        for piece in delta.get("tool_calls") or ():
            call = calls.setdefault(piece["index"], {"function": {"arguments": ""}})
            more = {key: value for key, value in piece.items() if key not in ("index", "function")}
            call.update({key: value for key, value in more.items() if value is not None})
            function = piece.get("function") or {}
            call["function"]["arguments"] += function.get("arguments") or ""
            if function.get("name"):
                # Every text grows, as OpenAI's own client adds it up: a name that comes twice is no name any more.
                call["function"]["name"] = call["function"].get("name", "") + function["name"]
    return tuple(calls[index] for index in sorted(calls)) or None


def _reasoning(message: Json) -> str | None:
    found = (message.get(name) for name in _REASONING)
    return next((text for text in found if text is not None), None)


def _usage(usage: Json | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"])
