"""Planting in llama-server, in the component's child process: a facade before the real server, which is C++.

The facade passes everything on. A defect of the request or of the answer changes what passes the chat route; what the
server shows of itself in an answer (`__verbose`) is no part of the answer, and stays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from harness.defects.defect import Place
from harness.defects.places import Answer, DefectError, Generated, planted
from harness.errors import UserError
from harness.models.vocabulary.read import from_gguf
from harness.process.owner import our_own, the_parts_own
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Json
from harness.wire.api import connection, decoded, events

_RENDERING = ("/v1/chat/completions", "/apply-template")
_CHAT = "/v1/chat/completions"
_REQUEST = ("messages", "tools", "tool_choice")
_SHOWN = "__verbose"
_SECONDS = 600.0
"""The caller's own limit is what counts."""


def plant(served: Any, place: str, function: str, arguments: Mapping[str, Any]) -> None:
    """Plant a defect in the child's server.

    Args:
        served: What the child serves.
        place: Where; see `Place`.
        function: The defect's function, as `module:function`.
        arguments: Keywords for it.
    """
    edit = planted(function, arguments)
    if Place(place) is Place.PART:
        edit(served)
        return
    real = served.url
    facade = {Place.REQUEST: _Request, Place.ANSWER: _Answer}[Place(place)](real(), edit, Path(served.file))

    def url() -> str:
        # The real one raises once its server has ended.
        real()
        return facade.url

    served.url = url


class _Facade:
    """A server that passes everything on.

    Args:
        upstream: The address of the real server.
        edit: The defect's function.
        file: The GGUF that is served.
    """

    def __init__(self, upstream: str, edit: Callable[..., Any], file: Path) -> None:
        self.edit = edit
        self.file = file
        self._upstream = upstream
        self._http = connection(_SECONDS)
        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._listener.daemon_threads = True
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"

    def pass_on(self, method: str, path: str, sent: bytes | None) -> tuple[int, str, bytes]:
        """Return the status, the type and the bytes of the real server's answer."""
        headers = {} if sent is None else {"Content-Type": "application/json"}
        with the_parts_own():
            answer = self._http.request(method, self._upstream + path, content=sent, headers=headers)
        return answer.status_code, answer.headers.get("content-type", "application/json"), answer.content


class _Request(_Facade):
    """One that asks the server for something else than it was asked."""

    def pass_on(self, method: str, path: str, sent: bytes | None) -> tuple[int, str, bytes]:
        if path in _RENDERING and sent is not None:
            body = json.loads(sent)
            edited = self.edit({name: body.get(name) for name in _REQUEST})
            given = {name: value for name, value in edited.items() if value is not None or name in body}
            body = {**{name: value for name, value in body.items() if name not in _REQUEST}, **given}
            sent = json.dumps(body).encode("ascii")
        return super().pass_on(method, path, sent)


class _Answer(_Facade):
    """One that answers something else than the server did."""

    def pass_on(self, method: str, path: str, sent: bytes | None) -> tuple[int, str, bytes]:
        status, kind, data = super().pass_on(method, path, sent)
        if path != _CHAT or sent is None or status != 200:
            return status, kind, data
        body = json.loads(sent)
        try:
            answer = events(data) if body.get("stream") else decoded(data, "the answer")
        except (StageFailedError, StageRefusedError):
            return status, kind, data
        shown, answer = _without_shown(answer)
        edited = self.edit(answer, Generated(pieces=_pieces(self.file, shown, answer), body=body))
        return status, kind, _written(edited, shown)


def _without_shown(answer: Answer) -> tuple[Json | None, Answer]:
    chunks = [answer] if isinstance(answer, dict) else answer
    shown = next((chunk[_SHOWN] for chunk in reversed(chunks) if _SHOWN in chunk), None)
    left = [{name: value for name, value in chunk.items() if name != _SHOWN} for chunk in chunks]
    return shown, left[0] if isinstance(answer, dict) else left


def _written(answer: Answer, shown: Json | None) -> bytes:
    """Return an answer as bytes; what the server shows goes with its last chunk."""
    more = {} if shown is None else {_SHOWN: shown}
    if isinstance(answer, dict):
        return json.dumps({**answer, **more}).encode("ascii")
    chunks = [*answer[:-1], {**answer[-1], **more}] if answer else []
    return "".join(f"data: {one}\n\n" for one in (*map(json.dumps, chunks), "[DONE]")).encode("ascii")


def _pieces(file: Path, shown: Json | None, answer: Answer) -> tuple[bytes, ...]:
    """Return the bytes of each generated id, where the server shows every one."""
    if shown is None:
        return ()
    ids = shown.get("tokens") or () if isinstance(answer, dict) else _streamed_ids(answer)
    if len(ids) != shown.get("tokens_predicted"):
        return ()
    try:
        known = _vocabulary(file)
    except UserError:
        return ()
    return tuple(known[one] for one in ids)


def _streamed_ids(chunks: Sequence[Json]) -> list[int]:
    logprobs = [choice.get("logprobs") or {} for chunk in chunks for choice in chunk.get("choices") or ()]
    return [one["id"] for row in logprobs for one in row.get("content") or ()]


@cache
def _vocabulary(file: Path) -> tuple[bytes, ...]:
    return from_gguf(file).pieces


def _handler_of(facade: _Facade) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one piece: two small ones would wait for each other (Nagle's algorithm, delayed ACK).
        wbufsize = -1

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """The log is the real server's."""

        def _answer(self, sent: bytes | None) -> None:
            try:
                with our_own():
                    status, kind, data = facade.pass_on(self.command, self.path, sent)
            except DefectError as error:
                said = {"error": {"code": 500, "message": f"{DefectError.__name__}: {error}", "type": "server_error"}}
                status, kind, data = 500, "application/json", json.dumps(said).encode("ascii")
            except httpx.HTTPError:
                # The caller sees what it would have seen: a connection that ends.
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
