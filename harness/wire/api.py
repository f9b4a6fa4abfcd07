"""An HTTP API whose answers are untrusted: every way an answer can be wrong is told apart, and none hangs or floods."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import MissingPackageError, UserError
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Failure, Json, Refusal

try:
    import httpx
except ImportError as error:
    raise MissingPackageError("speaking to a server", "httpx", "servers") from error

MOST_BYTES = 256 << 20
"""The longest answer that is read, streamed or not."""
_SHOWN = 200
_CONTEXT_WORDS = (("exceed", "context"), ("maximum context length",))
"""What stands in a refusal of a prompt that does not fit: of llama.cpp, or of OpenAI and those who quote it."""


class Api:
    """A server's API.

    Args:
        url: The address, with or without a path.
        key_variable: The environment variable that holds the API key, or None. The key goes into one header and
            nowhere else.
        seconds: How long one answer may take in all.

    Raises:
        UserError: the variable is named and not set, or the address is none.
    """

    def __init__(self, url: str, *, key_variable: str | None = None, seconds: float = 120.0) -> None:
        self.url = url.rstrip("/")
        self._key_variable = key_variable
        self._seconds = seconds
        headers = {}
        if key_variable is not None:
            if not os.environ.get(key_variable):
                raise UserError(f"the environment variable {key_variable} is to hold the API key and is not set")
            headers["Authorization"] = f"Bearer {os.environ[key_variable]}"
        self._http = connection(seconds, headers)

    def close(self) -> None:
        """Close what is open."""
        self._http.close()

    def get(self, path: str) -> Any:
        """Return the JSON at a path. Raises as `post` does."""
        return self._json(self._ask("GET", path, None))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post JSON and return the JSON that comes back.

        Raises:
            StageRefusedError: the server said no, with its reason.
            StageFailedError: it cannot be reached, takes too long, or answers what no protocol allows.
            UserError: it wants another API key.
        """
        return self._json(self._ask("POST", path, body))

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Json]:
        """Post JSON and return the objects of the event stream that comes back. Raises as `post` does."""
        return events(self._ask("POST", path, body))

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        until = time.monotonic() + self._seconds
        content = None if body is None else json.dumps(body, ensure_ascii=True).encode("ascii")
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            with self._http.stream(method, self.url + path, content=content, headers=headers) as response:
                data = _read(response, until, self._seconds)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _failed("start", f"no server answers at {self.url} ({_said(error)})") from error
        except httpx.TimeoutException as error:
            raise StageFailedError(Failure(reason="hang", seconds=self._seconds)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failed("broken", f"the answer broke off ({_said(error)})") from error
        if response.status_code in (401, 403):
            where = f"the environment variable {self._key_variable}" if self._key_variable else "an API key"
            raise UserError(
                f"the server at {self.url} refuses the API key (HTTP {response.status_code})",
                f"put the right one into {where}" if self._key_variable else "name its variable: api_key_variable",
            )
        if response.status_code >= 400:
            raise StageRefusedError(refusal(response.status_code, data))
        return data

    def _json(self, data: bytes) -> Any:
        return _decoded(data, "the answer")


def connection(seconds: float, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """Return what speaks HTTP to a server under test.

    No proxy of the environment comes between, and no connection is kept: a server that closes one after a stream would
    answer the next request on it with nothing.
    """
    return httpx.Client(
        headers=headers,
        timeout=httpx.Timeout(seconds, connect=5.0),
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,
    )


def refusal(status: int, data: bytes) -> Refusal:
    """Return what a server says with an HTTP status that is no success."""
    try:
        said = json.loads(data)
    except ValueError:
        said = None
    error = said.get("error", said) if isinstance(said, dict) else said
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    text = _shown(data) if message is None else _first_line(str(message))
    context = any(all(word in text.lower() for word in words) for words in _CONTEXT_WORDS)
    return Refusal(error=f"HTTP {status}", message=text, context=context)


def events(data: bytes) -> list[Json]:
    """Return the JSON objects of an event stream (WHATWG HTML, server-sent events), which must end with `[DONE]`.

    Raises:
        StageFailedError: it is no such stream, or ends before its end.
        StageRefusedError: it holds an error instead of an answer.
    """
    chunks: list[Json] = []
    for line in _lines(data):
        if not line.startswith("data:"):
            continue
        payload = line[len("data:") :].strip()
        if payload == "[DONE]":
            return chunks
        chunk = _decoded(payload.encode("utf-8"), f"event {len(chunks)} of the stream")
        if not isinstance(chunk, dict):
            raise _failed("broken", f"event {len(chunks)} of the stream is no object")
        if "error" in chunk:
            raise StageRefusedError(refusal(200, payload.encode("utf-8")))
        chunks.append(chunk)
    what = f"after {len(chunks)} events" if chunks else f"and no event: {_shown(data)}"
    raise _failed("broken", f"the stream ended without [DONE] {what}")


def _lines(data: bytes) -> Iterator[str]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _failed("broken", f"the stream is not UTF-8 at byte {error.start}") from error
    # Only these end a line of an event stream; `splitlines` would also cut at U+2028 inside a text.
    yield from text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read(response: httpx.Response, until: float, seconds: float) -> bytes:
    parts = bytearray()
    for part in response.iter_bytes():
        parts += part
        if len(parts) > MOST_BYTES:
            raise _failed("broken", f"the answer does not end: more than {MOST_BYTES >> 20} MB")
        if time.monotonic() > until:
            raise StageFailedError(Failure(reason="hang", seconds=seconds))
    return bytes(parts)


def _decoded(data: bytes, what: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _failed("broken", f"{what} is not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise _failed("broken", f"{what} is not JSON: {_shown(data)}") from error


def _failed(reason: Any, message: str) -> StageFailedError:
    return StageFailedError(Failure(reason=reason, message=message))


def _shown(data: bytes) -> str:
    text = " ".join(data[: 4 * _SHOWN].decode("utf-8", errors="replace").split())
    return f"{text[:_SHOWN]}..." if len(text) > _SHOWN else text or "(empty)"


def _said(error: Exception) -> str:
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
