"""A server on loopback that answers whatever a test tells it to, well or badly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.values import Case

CASE = Case(
    name="asked",
    description="",
    covers=(),
    body={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0},
)
KEY = "sk-very-secret-0123456789"


@dataclass
class Asked:
    """What reached the server."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Fake:
    """A running server.

    Attributes:
        url: Its address, ending in `/v1`.
        asked: What reached it, in order.
    """

    url: str
    asked: list[Asked] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Hands every request to the test's own function, with ways to answer."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.command, self.path, dict(self.headers), json.loads(sent) if sent else None)
        self.server.fake.asked.append(asked)
        self.server.answer(self, asked)

    def whole(self, data: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Answer with a body of known length."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def json(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.whole(json.dumps(value).encode(), status)

    def begin(self, kind: str = "text/event-stream") -> None:
        """Begin an answer whose end is the end of the connection."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def cut(self) -> None:
        """End the connection so that it is seen as broken."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


Answer = Callable[[Handler, Asked], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(answer: Answer) -> Iterator[Fake]:
    """Run a server that answers as told."""
    server: Any = _Server(("127.0.0.1", 0), Handler)
    server.answer = answer
    server.fake = Fake(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> str:
    """Return the address of a server that is down."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


# Good answers


def completion(content: str = "Hi!", **choice: Any) -> dict[str, Any]:
    """Return a chat completion."""
    whole = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    made = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**made, "choices": [whole], "usage": usage}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a piece of a streamed one."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def event(value: Any) -> bytes:
    """Return an event of a stream."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


GOOD = (chunk(role="assistant"), chunk(content="Hi"), chunk(content="!"), chunk("stop"))
STREAM = b"".join(event(one) for one in (*GOOD, "[DONE]"))


def healthy(handler: Handler, asked: Asked) -> None:
    """Answer as a good server does."""
    if not asked.path.endswith("/chat/completions"):
        handler.json({"error": {"message": "no such route"}}, 404)
    elif asked.body.get("stream"):
        handler.whole(STREAM, kind="text/event-stream")
    else:
        handler.json(completion())


# Bad answers, each for a call that is streamed or not


def slow(handler: Handler, asked: Asked) -> None:
    time.sleep(5)


def html(handler: Handler, asked: Asked) -> None:
    handler.whole(b"<!doctype html><title>Welcome</title>", kind="text/html")


def cut_in_the_middle(handler: Handler, asked: Asked) -> None:
    if asked.body.get("stream"):
        handler.begin()
        handler.wfile.write(STREAM[: len(STREAM) // 2])
    else:
        data = json.dumps(completion()).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:20])
        handler.cut()


def no_json(handler: Handler, asked: Asked) -> None:
    data = event('{"id": ') + event("[DONE]") if asked.body.get("stream") else b'{"id": '
    handler.whole(data, kind="text/event-stream" if asked.body.get("stream") else "application/json")


def no_utf8(handler: Handler, asked: Asked) -> None:
    data = STREAM if asked.body.get("stream") else json.dumps(completion()).encode()
    handler.whole(data.replace(b"Hi", b"\xff\xfe"), kind="text/event-stream")


def endless(handler: Handler, asked: Asked) -> None:
    handler.begin()
    while True:
        handler.wfile.write(event(chunk(content="x" * 4096)))


def drip(handler: Handler, asked: Asked) -> None:
    """Never pauses for long, never ends."""
    handler.begin()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        handler.wfile.write(b": wait\n")
        time.sleep(0.05)


def drip_of_headers(handler: Handler, asked: Asked) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        handler.wfile.write(b"X-A: 1\r\n")
        time.sleep(0.05)


def closes_at_once(handler: Handler, asked: Asked) -> None:
    handler.cut()


def wants_a_key(handler: Handler, asked: Asked) -> None:
    given = asked.headers.get("Authorization", "none")
    handler.json({"error": {"message": f"invalid key {given}", "code": "invalid_api_key"}}, 401)


def traceback(handler: Handler, asked: Asked) -> None:
    text = f"Traceback (most recent call last):\n  File x\nValueError: no {asked.headers.get('Authorization')}"
    handler.whole(text.encode(), 500, "text/plain")


def redirect(handler: Handler, asked: Asked) -> None:
    handler.whole(b"", 307, Location="http://127.0.0.1:1/elsewhere")


def error_in_the_stream(handler: Handler, asked: Asked) -> None:
    if not asked.body.get("stream"):
        handler.json({"error": {"message": "out of memory"}}, 500)
        return
    handler.whole(event(GOOD[1]) + event({"error": {"message": "out of memory"}}), kind="text/event-stream")


def huge_header(handler: Handler, asked: Asked) -> None:
    handler.whole(json.dumps(completion()).encode(), Big="x" * 1_000_000)
