"""A recording proxy on loopback: it stands between a client and a server and keeps what passed.

What the client sent is kept as it left the client; fields that make the server show more are added after that. What it
shows because of them is kept, and taken out of a whole answer before the client sees it; a stream passes as it is.
Without a server behind it, it gives one valid answer of its own, so that a client can be looked at alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from harness.errors import MissingPackageError, UserError
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Failure, Json
from harness.wire.api import check_pieces, check_status, connection, decoded, ended_by, events, without_key
from harness.wire.limits import Deadline, Patience, parts_of
from harness.wire.untrusted import parsed

try:
    import httpx
except ImportError as error:
    raise MissingPackageError("speaking to a server", "httpx", "servers") from error

CHAT = "/chat/completions"
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
        failure: How the server failed to give a whole answer, if it did.
        error: What the user can mend: the server wants another API key.
    """

    body: Json
    status: int = 0
    data: bytearray = field(default_factory=bytearray)
    failure: Failure | None = None
    error: UserError | None = None

    def answer(self) -> Json | Sequence[Json] | None:
        """Return the answer, or a stream's chunks; None where it is neither."""
        try:
            return self.read()
        except (StageFailedError, StageRefusedError):
            return None

    def read(self) -> Json | Sequence[Json] | None:
        """Return as `answer` does, or raise what is wrong with an answer that says it is a success.

        Raises:
            StageFailedError: it is not what it says.
            StageRefusedError: it is a stream that holds an error.
        """
        return self._read if self.status == 200 else None

    @cached_property
    def _read(self) -> Json | Sequence[Json]:
        if self.body.get("stream"):
            return events(bytes(self.data))
        found = decoded(bytes(self.data), "the answer")
        if not isinstance(found, dict):
            raise StageFailedError(Failure(reason="broken", message="the answer is no object"))
        return found


class RecordingProxy:
    """A proxy in front of a server's OpenAI API, or in front of nothing.

    Args:
        upstream: The server's address, ending in `/v1`; None answers every chat call with one short answer.
        key_variable: The environment variable with the server's API key. Clients behind the proxy need none.
        seconds: How long an answer may take in all.

    Attributes:
        patience: Begins the wait for one answer of a server of ours, which then counts in the clock's stead.
        exchanges: What passed, oldest first.
        error: What code of ours raised while it passed something on.
        additions: Fields to add to the body of a chat call.
        added: Fields of an answer, and of its choices, that are there because of them. A client that asked for one of
            the same name itself gets it.
    """

    def __init__(self, upstream: str | None, *, key_variable: str | None = None, seconds: float = 120.0) -> None:
        # Only who was told it can ask, and so spend the user's key: the address is on loopback, but for every process.
        self.root = f"/{secrets.token_hex(16)}/v1"
        self.upstream = upstream
        self.key_variable = key_variable
        self.exchanges: list[Exchange] = []
        self.error: Exception | None = None
        self.additions: Mapping[str, Any] = {}
        self.added: frozenset[str] = frozenset()
        self.seconds = seconds
        self.patience: Callable[[], Patience] | None = None
        self._server = _Listener(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> RecordingProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self) -> None:
        """Forget what passed, and what was raised."""
        self.exchanges.clear()
        self.error = None

    @property
    def url(self) -> str:
        """Where clients find it; it ends in `/v1`."""
        return f"http://{self.host}{self.root}"

    @property
    def host(self) -> str:
        """The host and the port, as its client names them."""
        return f"127.0.0.1:{self._server.server_address[1]}"


def _object(data: bytes) -> Json | None:
    """Return the object that a body is, whatever its texts hold; None where it is none."""
    try:
        found = parsed(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _values_in(data: bytes) -> list[Any]:
    """Return what a body, or each line of a stream, holds as JSON; what is none is left out."""
    found = []
    for line in (data, *data.splitlines()):
        with contextlib.suppress(ValueError, RecursionError):
            found.append(parsed(line.removeprefix(b"data:")))
    return found


def _without(answer: Json, names: frozenset[str]) -> bytes:
    """Return an answer without these fields of it and of its choices."""

    def left(one: Any) -> Any:
        return {name: value for name, value in one.items() if name not in names} if isinstance(one, dict) else one

    answer = left(answer)
    if isinstance(answer.get("choices"), list):
        answer["choices"] = [left(choice) for choice in answer["choices"]]
    return json.dumps(answer).encode("ascii")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: RecordingProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as the library calls it
        """Note an error of ours. A client that hangs up early is no news."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.proxy.error = error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_POST(self) -> None:
        proxy = self.server.proxy
        if not self._is_own():
            return
        sent = self._sent()
        if sent is None:
            self._refuse(400)
            return
        if not self.path.endswith(CHAT):
            self._pass_on(proxy, None, sent)
            return
        asked = _object(sent)
        exchange = Exchange(asked or {})
        proxy.exchanges.append(exchange)
        if asked is None:
            exchange.status, exchange.data = 400, bytearray(b"the client sent no JSON object")
            self._refuse(400)
        elif proxy.upstream is None:
            self._canned(exchange)
        else:
            self._pass_on(proxy, exchange, json.dumps({**exchange.body, **proxy.additions}).encode("ascii"))

    def _sent(self) -> bytes | None:
        """Return the request's body, its length told before it or with each chunk; None where it is told wrongly."""
        try:
            if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sent = bytearray()
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                sent += self.rfile.read(max(size, 0))
                self.rfile.readline()
        except ValueError:
            return None
        # Fields may follow the last chunk, and an empty line.
        while self.rfile.readline().strip():
            pass
        return bytes(sent)

    def do_GET(self) -> None:
        if self._is_own():
            self._pass_on(self.server.proxy, None, None)

    def _is_own(self) -> bool:
        """Tell whether the proxy's own client asks, by a path that means what it says; else refuse."""
        proxy = self.server.proxy
        path = self.path.partition("?")[0]
        plain = not any(odd in path for odd in ("%", "\\", "//", "/."))
        if self.headers.get("Host") != proxy.host or "Origin" in self.headers or not plain:
            self._refuse(403)
        elif not path.startswith(f"{proxy.root}/"):
            self._refuse(404)
        else:
            return True
        return False

    def _refuse(self, status: int) -> None:
        # What it sent is not read.
        self.close_connection = True
        self.send_error(status)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing is logged: a header may hold a key."""

    def _pass_on(self, proxy: RecordingProxy, exchange: Exchange | None, content: bytes | None) -> None:
        if proxy.upstream is None:
            self.send_error(404)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HELD_BACK}
        if proxy.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[proxy.key_variable]}"
        exchange = exchange or Exchange({})
        target = proxy.upstream + self.path.removeprefix(proxy.root)
        pause = None if proxy.patience else proxy.seconds
        more: dict[str, Any] = {"timeout": httpx.Timeout(pause, connect=5.0)}
        with Deadline(proxy.seconds, proxy.patience and proxy.patience()) as deadline:
            try:
                more["extensions"] = deadline.extensions
                with (
                    connection(pause, url=proxy.upstream) as http,
                    http.stream(self.command, target, content=content, headers=headers, **more) as answer,
                ):
                    exchange.status = answer.status_code
                    check_status(answer, proxy.upstream, proxy.key_variable)
                    kind = without_key(answer.headers.get("content-type", "").encode(), proxy.key_variable).decode()
                    self._answer(exchange.status, kind, self._kept(answer, exchange, deadline))
            except UserError as error:
                exchange.error = error
            except StageFailedError as failed:
                exchange.failure = failed.failure
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                exchange.failure = ended_by(error, deadline, proxy.upstream, proxy.key_variable)
            else:
                return
            # The client sees what it would have seen: a connection that ends.
            self.close_connection = True

    def _kept(self, answer: httpx.Response, exchange: Exchange, deadline: Deadline) -> Iterator[bytes]:
        proxy = self.server.proxy
        if proxy.key_variable or (proxy.added and not exchange.body.get("stream")):
            yield from self._kept_whole(answer, exchange)
        else:
            for part in parts_of(answer):
                exchange.data += part
                yield part
        if deadline.passed:
            raise StageFailedError(deadline.failure)

    def _kept_whole(self, answer: httpx.Response, exchange: Exchange) -> Iterator[bytes]:
        """Read to the end first: the key may stand anywhere, and what was added must be taken out."""
        proxy = self.server.proxy
        whole, ended = bytearray(), None
        try:
            for part in parts_of(answer):
                whole += part
        except (httpx.HTTPError, StageFailedError) as error:
            ended = error
        said = without_key(bytes(whole), proxy.key_variable)
        check_pieces(_values_in(said), proxy.key_variable)
        exchange.data += said
        shown = None if exchange.status >= 400 or exchange.body.get("stream") else _object(said)
        yield said if shown is None else _without(shown, proxy.added - exchange.body.keys())
        if ended is not None:
            raise ended

    def _answer(self, status: int, kind: str | None, parts: Iterator[bytes]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in filter(None, parts):
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
