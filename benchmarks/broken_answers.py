"""Answers that no server should give, made up from a seed: what the reader of an untrusted server has to survive."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any

_PROMPT = "<|im_start|>user\nHi<|im_end|>\n"
_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Of the model that is asked for: a server with another one is asked no further."""
_TOP = [
    {"id": 28, "token": "token_id:28", "bytes": [65], "logprob": -0.5},
    {"id": 29, "token": "token_id:29", "bytes": [66], "logprob": -1},
]
_ROW = {**_TOP[0], "top_logprobs": _TOP}
_SETTINGS = {"temperature": 0.0, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": 7, "n_predict": 8, "stop": []}
_COMPLETION = {
    "content": "A",
    "tokens": [28, 2],
    "stop_type": "eos",
    "tokens_predicted": 2,
    "tokens_evaluated": 3,
    "generation_settings": _SETTINGS,
    "completion_probabilities": [_ROW, _ROW],
    "prompt": _PROMPT,
}
"""What llama-server answers, or shows of a chat answer's making."""
_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
_MESSAGE = {"role": "assistant", "content": "A", "tool_calls": [{"id": "c", "type": "function", "function": {}}]}
_CHOICE = {
    "index": 0,
    "message": _MESSAGE,
    "finish_reason": "stop",
    "logprobs": {"content": [_ROW, _ROW]},
    "token_ids": [28, 2],
}
_DELTA = {
    "index": 0,
    "delta": {"role": "assistant", "content": "A"},
    "finish_reason": None,
    "logprobs": {"content": [_ROW]},
    "token_ids": [28],
}
_OLDER = {
    "tokens": ["token_id:28"],
    "token_logprobs": [-0.5],
    "top_logprobs": [{"token_id:28": -0.5, "token_id:29": -1}],
}
_VLLM_SETTINGS = {"temperature": 0.0, "top_k": 40, "repetition_penalty": 1.0, "stop": None}
_WHOLE: Mapping[str, Any] = {
    "/props": {
        "default_generation_settings": {"params": _SETTINGS, "n_ctx": 2048},
        "chat_template": _TEMPLATE,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "build_info": "b1",
    },
    "/tokenize": {
        "tokens": [{"id": 1, "piece": "<|im_start|>"}, {"id": 28, "piece": "A"}, {"id": 2, "piece": [226, 130]}]
    },
    "/tokenize of a prompt": {"tokens": [1, 28, 2], "token_strs": ["<|im_start|>", "A", "\u0120b"]},
    "/apply-template": {"prompt": _PROMPT},
    "/completion": _COMPLETION,
    "/v1/models": {
        "object": "list",
        "data": [{"id": "m", "object": "model", "meta": {"n_vocab": 49152, "n_params": 134515008, "size": 96576768}}],
        "models": [{"name": "m"}],
    },
    "/v1/completions": {
        "id": "c",
        "object": "text_completion",
        "choices": [{"index": 0, "text": "A", "finish_reason": "stop", "token_ids": [28], "logprobs": _OLDER}],
        "usage": _USAGE,
    },
    "/v1/chat/completions/render": {"sampling_params": _VLLM_SETTINGS, "token_ids": [1, 28, 2]},
    "/api/show": {
        "details": {"quantization_level": "Q8_0"},
        "model_info": {"general.architecture": "llama", "tokenizer.ggml.tokens": [], "llama.vocab_size": 49152},
        "template": "{{ .Prompt }}",
        "parameters": "stop    x\n",
    },
    "/api/version": {"version": "0.30.0"},
    "/api/generate": {
        "response": "A",
        "done_reason": "stop",
        "prompt_eval_count": 3,
        "logprobs": [{"token": "A", "bytes": [65], "logprob": -0.5, "top_logprobs": _TOP}],
    },
    "/api/v0/models": {
        "data": [{"id": "m", "arch": "llama", "compatibility_type": "gguf", "quantization": "Q8_0", "state": "loaded"}]
    },
    "/v1/chat/completions": {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [_CHOICE],
        "usage": _USAGE,
        "__verbose": _COMPLETION,
        "prompt_text": _PROMPT,
        "prompt_token_ids": [1, 28, 2],
        "_debug_info": {"rendered_template": _PROMPT},
    },
}
"""A sound answer of each route, which the broken ones are made of."""
_CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [_DELTA],
    "prompt_text": _PROMPT,
    "prompt_token_ids": [1, 28, 2],
    "__verbose": _COMPLETION,
    "usage": _USAGE,
}
_NUMBERS = (-1, 2**31, 2**64, 10**400, -0.0, 1e308, float("nan"), float("inf"))
_TEXTS = ("", "\x00", "\ud800", "\u202e", "x" * 9999)
_VALUES: tuple[Any, ...] = (None, True, *_NUMBERS, *_TEXTS, [], {}, [[]], [None], {"": None}, [[[[[]]]]])


class Broken(BaseHTTPRequestHandler):
    """Answers every request in the way that its server is told to.

    Attributes:
        stream: Whether a stream is asked for.
        route: The path. `/tokenize` is vLLM's where a prompt is to be tokenized, else llama-server's.
    """

    protocol_version = "HTTP/1.1"
    server: Any
    stream = False
    route = ""

    def do_POST(self) -> None:
        """Answer."""
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self) -> None:
        """Answer."""
        self._answer(b"{}")

    def log_message(self, *_: Any) -> None:
        """Write no log."""

    def _answer(self, sent: bytes) -> None:
        with suppress(OSError, ValueError):
            body = json.loads(sent or b"{}")
            self.stream = bool(body.get("stream"))
            self.route = f"{self.path} of a prompt" if self.path == "/tokenize" and "prompt" in body else self.path
            self.server.answer(self)


Answer = Callable[[Broken], None]
"""Answers a request, whose path and whether a stream is asked for the handler knows."""


def broken_answers(count: int, seed: int) -> Iterator[tuple[str, Answer]]:
    """Yield broken ways to answer, each with its name; the same for the same seed."""
    random = Random(seed)
    kinds = (*[_of_another_form] * 20, *[_of_other_bytes] * 8, *[_cut] * 4, *_WIRE)
    for at in range(count):
        kind = kinds[at % len(kinds)]
        yield f"{at} {kind.__name__.strip('_')}", kind(random.randrange(2**32))


def sound(path: str, stream: bool) -> bytes | None:
    """Return a sound answer; None for a route that is not there."""
    if stream:
        return b"".join(b"data: %s\n\n" % _bytes(one) for one in (_CHUNK, _CHUNK)) + b"data: [DONE]\n\n"
    value = _WHOLE.get(path)
    return None if value is None else _bytes(value)


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def send(handler: Broken, data: bytes, status: int = 200, **headers: str) -> None:
    """Answer with these bytes."""
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def _begin(handler: Broken) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    yield path
    for key, one in items:
        yield from _places(one, (*path, key))


def _changed(value: Any, random: Random) -> Any:
    """Return a copy of JSON with one place of it changed."""
    copy = json.loads(json.dumps(value))
    path = random.choice(list(_places(copy)))
    if not path:
        return random.choice(_VALUES)
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    what = random.randrange(4)
    if what == 0 and isinstance(holder, dict):
        del holder[path[-1]]
    elif what == 1 and isinstance(holder, list):
        holder.extend([holder[path[-1]]] * random.randint(1, 40))
    else:
        holder[path[-1]] = random.choice(_VALUES)
    return copy


def _of_another_form(seed: int) -> Answer:
    def answer(handler: Broken) -> None:
        random = Random(f"{seed} {handler.route} {handler.stream}")
        if handler.stream:
            events = [_bytes(_changed(_CHUNK, random)), _bytes(_CHUNK), b"[DONE]"]
            send(handler, b"".join(b"data: %s\n\n" % one for one in events))
        else:
            send(handler, _bytes(_changed(_WHOLE.get(handler.route, {}), random)))

    return answer


def _of_other_bytes(seed: int) -> Answer:
    def answer(handler: Broken) -> None:
        random = Random(f"{seed} {handler.route} {handler.stream}")
        data = bytearray(sound(handler.route, handler.stream) or b"{}")
        for _ in range(random.randint(1, 6)):
            at = random.randrange(len(data))
            data[at : at + random.randint(0, 3)] = random.choice(
                (b"\xff", b"\x00", b'"', b"\\", b"}", b"[", b"\n", b"9")
            )
        send(handler, bytes(data))

    return answer


def _cut(seed: int) -> Answer:
    def answer(handler: Broken) -> None:
        data = sound(handler.route, handler.stream) or b"{}"
        at = Random(f"{seed} {handler.route} {handler.stream}").randrange(len(data))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:at])
        handler.close_connection = True

    return answer


def _of_json(*texts: bytes) -> Callable[[int], Answer]:
    def make(seed: int) -> Answer:
        text = texts[seed % len(texts)]

        def answer(handler: Broken) -> None:
            send(handler, b"data: %s\n\ndata: [DONE]\n\n" % text if handler.stream else text)

        return answer

    return make


def _deep(seed: int) -> Answer:
    depth = (254, 5_000, 200_000)[seed % 3]
    return _of_json(b"[" * depth + b"]" * depth, b'{"choices":' * depth + b"0" + b"}" * depth)(seed >> 8)


def _many(seed: int) -> Answer:
    return _of_json(b'{"choices": [' + b"[]," * (8 << 20) + b"[]]}", b"[" + b"{}," * (20 << 20) + b"0]")(seed)


def _twice(seed: int) -> Answer:
    return _of_json(b'{"choices": 7, "choices": []}', b'{"tokens": [1], "tokens": "x"}')(seed)


def _compressed(seed: int) -> Answer:
    bomb = gzip.compress(b'{"choices": [' + b" " * (1 << (20 + seed % 10)) + b"]}", 9)

    def answer(handler: Broken) -> None:
        send(handler, bomb if seed % 2 else bomb[: len(bomb) // 2], Content_Encoding="gzip")

    return answer


def _lengths(seed: int) -> Answer:
    said = ("-1", "x", "99999999999999999999", "1", "0", "7, 8")[seed % 6]

    def answer(handler: Broken) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", said)
        handler.end_headers()
        handler.wfile.write(sound(handler.route, handler.stream) or b"{}")
        handler.close_connection = True

    return answer


def _chunks(seed: int) -> Answer:
    pieces = (b"5\r\n{", b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n", b"ffffffffffffffff\r\n{}\r\n", b"-1\r\n{}\r\n")

    def answer(handler: Broken) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(pieces[seed % len(pieces)])
        handler.close_connection = True

    return answer


def _statuses(seed: int) -> Answer:
    status = (100, 199, 204, 301, 307, 308, 400, 404, 405, 418, 500, 501, 503, 599)[seed % 14]
    body = (b"", b"{}", b'{"error": []}', b'{"error": {"message": {"a": 1}}}', b"<html>", b'{"error": null}')[seed % 6]

    def answer(handler: Broken) -> None:
        send(handler, body, status, Location="http://127.0.0.1:1/elsewhere")

    return answer


def _headers(seed: int) -> Answer:
    lines = (b"X: " + b"y" * (1 << 20), b"no colon", b"X: 1\r\n" * 5000, b"\xff: \x00", b"Content-Encoding: nonsense")

    def answer(handler: Broken) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + lines[seed % len(lines)] + b"\r\nContent-Length: 2\r\n\r\n{}")
        handler.close_connection = True

    return answer


def _no_http(seed: int) -> Answer:
    said = (
        b"",
        b"\x00" * 100,
        b"SSH-2.0-x\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
    )

    def answer(handler: Broken) -> None:
        handler.wfile.write(said[seed % len(said)])
        handler.close_connection = True

    return answer


def _endless(seed: int) -> Answer:
    """A stream, a text or headers that never end; quick ones are bounded by their size, slow ones by the clock."""
    piece = (b"data: {}\n\n", b" ", b": wait\n", _bytes(_CHUNK).join((b"data: ", b"\n\n")))[seed % 4]
    pause = (0.0, 0.02)[seed % 2]

    def answer(handler: Broken) -> None:
        _begin(handler)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            handler.wfile.write(piece if pause else piece * 1000)
            time.sleep(pause)

    return answer


SLOW = ("endless", "many")
"""How the names end of those that take their reader the most time that there is."""
_WIRE = (_deep, _many, _twice, _compressed, _lengths, _chunks, _statuses, _headers, _no_http, _endless)
