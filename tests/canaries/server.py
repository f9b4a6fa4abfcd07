"""A server of OpenAI's API that does all that the canaries ask, with a model that says what they can be told by."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

from tests.wire.servers import Asked, Handler

WORDS = ("The", "fox", "lives", "in", "a", "den", "and", "the", "owl", "in", "a", "hollow", "tree")
MOST = 4000
"""Prompt tokens that its context takes."""
Change = Callable[[dict[str, Any], dict[str, Any]], Any]
"""Given the body and the answer, or the chunk, changes the answer."""


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


def prompt_tokens(body: dict[str, Any]) -> int:
    texts = [text_of(one) for one in body["messages"]]
    texts += [json.dumps(one) for one in body.get("tools") or ()]
    return sum(4 + sum(2 + max(0, len(word) - 8) // 4 for word in text.split()) for text in texts)


def generated(body: dict[str, Any]) -> tuple[list[str], str]:
    """Return the words of the answer and why it ended."""
    words = list(WORDS)
    if body.get("temperature", 1) > 0:
        turn = int(body.get("seed") or 0) % len(words)
        words = words[turn:] + words[:turn]
    limit = body.get("max_tokens", body.get("max_completion_tokens", 99))
    words, end = (words[:limit], "length") if limit < len(words) else (words, "stop")
    stops = body.get("stop") or ()
    stops = [stops] if isinstance(stops, str) else stops
    for at in range(len(words)):
        if any(f" {words[at]}".startswith(stop) for stop in stops) and at:
            return words[:at], "stop"
    return words, end


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """Return the whole answer to a body."""
    words, end = generated(body)
    message: dict[str, Any] = {"role": "assistant", "content": " ".join(words)}
    form = body.get("response_format")
    if form is not None:
        message["content"], end = '{"colour": "zq-amber", "count": 2}', "stop"
    if body.get("tool_choice") == "required" or isinstance(body.get("tool_choice"), dict):
        call = {"id": "call_7", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "amber"}'}}
        message, end = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": end}
    if body.get("logprobs"):
        texts = [word if at == 0 else f" {word}" for at, word in enumerate(words)]
        best = math.log(0.6)
        choice["logprobs"] = {
            "content": [
                {
                    "token": text,
                    "bytes": list(text.encode()),
                    "logprob": best,
                    "top_logprobs": [{"token": text, "logprob": best}, {"token": "?", "logprob": math.log(0.05)}],
                }
                for text in texts
            ]
        }
    prompt = prompt_tokens(body)
    usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
    usage["prompt_tokens_details"] = {"cached_tokens": 3}
    choices = [copy.deepcopy({**choice, "index": at}) for at in range(body.get("n", 1))]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**head, "choices": choices, "usage": usage}


def chunks_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a stream."""
    whole = answer_to(body)
    head = {**whole, "object": "chat.completion.chunk"}
    usage, choice = head.pop("usage"), head.pop("choices")[0]
    words = (choice["message"]["content"] or "").split(" ")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word if at == 0 else f" {word}"} for at, word in enumerate(words) if word]
    for call in choice["message"].get("tool_calls") or ():
        whole_call = call["function"]
        deltas.append({"tool_calls": [{**call, "index": 0, "function": {**whole_call, "arguments": ""}}]})
        halves = (whole_call["arguments"][:9], whole_call["arguments"][9:])
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": half}}]} for half in halves]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": usage})
    return chunks


def refused(body: dict[str, Any]) -> str:
    """Return why a body is refused; empty where it is taken."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "'messages' is required, and is a list of messages"
    if any(one["role"] not in ("system", "user", "assistant", "tool") for one in messages):
        return "a role is none"
    if any(isinstance(one.get("content"), int) for one in messages):
        return "a content is a text, or a list of parts"
    if isinstance(body.get("temperature", 1), str):
        return "'temperature' is a number"
    return "the context is exceeded" if prompt_tokens(body) > MOST else ""


def server(before: Callable[[dict[str, Any]], Any] = lambda _: None, change: Change = lambda *_: None):
    """Return what answers.

    `before` changes the body that it is asked; what it returns, if anything, is answered in the place of all else: a
    text that stands for an answer to anything, or a status and a value, or bytes. `change` changes the answer or each
    chunk.
    """

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.path.endswith("/props"):
            handler.json({"default_generation_settings": {"n_ctx": MOST}})
            return
        body = asked.body
        if body is None:
            handler.json({"error": {"message": "no such route"}}, 404)
            return
        instead = before(body)
        if instead == "answers all":
            body = {**body, "messages": [{"role": "user", "content": "Hi"}]}
        elif instead == "cut":
            handler.cut()
            return
        elif instead is not None:
            status, value = instead
            handler.whole(value if isinstance(value, bytes) else json.dumps(value).encode(), status)
            return
        if why := refused(body):
            handler.json({"error": {"message": why, "type": "invalid_request_error"}}, 400)
            return
        if body.get("stream"):
            chunks = chunks_of(body)
            for chunk in chunks:
                change(body, chunk)
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            handler.whole("".join([*lines, "data: [DONE]\n\n"]).encode(), kind="text/event-stream")
            return
        whole = answer_to(body)
        change(body, whole)
        handler.json(whole)

    return answer
