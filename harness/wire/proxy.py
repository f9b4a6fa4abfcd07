"""A recording proxy on loopback: it stands between a client and a server and keeps what passed.

What the client sent is kept as it left the client; fields that make the server show more are added after that. Without
a server behind it, it gives one valid answer of its own, so that a client can be looked at alone.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from harness.errors import MissingPackageError
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Json
from harness.wire.api import MOST_BYTES, connection, events

try:
    import httpx
except ImportError as error:
    raise MissingPackageError("speaking to a server", "httpx", "servers") from error

_CHAT = "/chat/completions"
_HELD_BACK = frozenset(
    {"content-length", "transfer-encoding", "connection", "host", "accept-encoding", "authorization"}
)


@dataclass
class Exchange:
    """One chat call.

    Attributes:
        body: What the client sent.
        status: The status of the answer; 0 where the server could not be reached.
        data: The answer's bytes, as far as they came.
    """

    body: Json
    status: int = 0
    data: bytearray = field(default_factory=bytearray)

    def answer(self) -> Json | Sequence[Json] | None:
        """Return the answer, or a stream's chunks; None where it is neither."""
        if self.status != 200:
            return None
        try:
            if self.body.get("stream"):
                return events(bytes(self.data))
            found = json.loads(self.data)
        except (ValueError, StageFailedError, StageRefusedError):
            return None
        return found if isinstance(found, dict) else None


class RecordingProxy:
    """A proxy in front of a server's OpenAI API, or in front of nothing.

    Args:
        upstream: The server's address, ending in `/v1`; None answers every chat call with one short answer.
        key_variable: The environment variable with the server's API key. Clients behind the proxy need none.
        seconds: How long an answer may pause.
    """

    def __init__(self, upstream: str | None, *, key_variable: str | None = None, seconds: float = 120.0) -> None:
        self.upstream = upstream
        self.key_variable = key_variable
        self.exchanges: list[Exchange] = []
        self.additions: Mapping[str, Any] = {}
        self.http = connection(seconds)
        self._server = _Listener(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> RecordingProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.http.close()

    @property
    def url(self) -> str:
        """Where clients find it; it ends in `/v1`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: RecordingProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up early is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_POST(self) -> None:
        proxy = self.server.proxy
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.endswith(_CHAT):
            self._pass_on(proxy, None, sent)
            return
        exchange = Exchange(json.loads(sent))
        proxy.exchanges.append(exchange)
        if proxy.upstream is None:
            self._canned(exchange)
        else:
            self._pass_on(proxy, exchange, json.dumps({**exchange.body, **proxy.additions}).encode("ascii"))

    def do_GET(self) -> None:
        self._pass_on(self.server.proxy, None, None)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing is logged: a header may hold a key."""

    def _pass_on(self, proxy: RecordingProxy, exchange: Exchange | None, content: bytes | None) -> None:
        if proxy.upstream is None:
            self.send_error(404)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HELD_BACK}
        if proxy.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[proxy.key_variable]}"
        target = proxy.upstream + self.path.removeprefix("/v1")
        try:
            with proxy.http.stream(self.command, target, content=content, headers=headers) as answer:
                if exchange is not None:
                    exchange.status = answer.status_code
                self._answer(answer.status_code, answer.headers.get("content-type"), self._kept(answer, exchange))
        except httpx.HTTPError:
            # The client sees what it would have seen: a connection that ends.
            self.close_connection = True

    @staticmethod
    def _kept(answer: httpx.Response, exchange: Exchange | None) -> Iterator[bytes]:
        kept = bytearray() if exchange is None else exchange.data
        for part in answer.iter_bytes():
            kept += part
            yield part
            if len(kept) > MOST_BYTES:
                raise httpx.ReadError("the answer does not end")

    def _answer(self, status: int, kind: str | None, parts: Iterator[bytes]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _canned(self, exchange: Exchange) -> None:
        whole = {"id": "canned", "created": 0, "model": str(exchange.body.get("model"))}
        if exchange.body.get("stream"):
            choice = {"index": 0, "delta": {"role": "assistant", "content": "."}, "finish_reason": None}
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            chunks = [{**whole, "object": "chat.completion.chunk", "choices": [one]} for one in (choice, end)]
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            kind, data = "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode("ascii")
        else:
            message = {"role": "assistant", "content": "."}
            answer = {
                **whole,
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
            kind, data = "application/json", json.dumps(answer).encode("ascii")
        exchange.status = 200
        exchange.data += data
        self._answer(200, kind, iter([data]))
