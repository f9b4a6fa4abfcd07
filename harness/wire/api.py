"""An HTTP API whose answers are untrusted: every way an answer can be wrong is told apart, and none hangs or floods."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from harness.errors import MissingPackageError, NotRunningError, UserError
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, Json, Refusal
from harness.wire.limits import Deadline, Patience, failure_of, parts_of, said
from harness.wire.secrets import is_a_key
from harness.wire.untrusted import check_texts, holds_in_pieces, key_patterns, parsed, without_key_of

try:
    import httpx
except ImportError as error:
    raise MissingPackageError("speaking to a server", "httpx", "servers") from error

_SHOWN = 200
_KEY_REFUSED = (401, 403)
_NOT_FOUND, _METHOD_NOT_ALLOWED, _NOT_IMPLEMENTED = 404, 405, 501
_MODEL = re.compile(r"(?<![a-z])model(?![a-z])", re.IGNORECASE)
_CHAT = "/chat/completions"


class Api:
    """A server's API.

    Args:
        url: The address, with or without a path.
        key_variable: The environment variable that holds the API key, or None. The key goes into one header and
            nowhere else.
        seconds: How long one answer may take in all.
        start: How to start the server, where someone else runs it: that it never ran is theirs to mend.
        patience: Begins the wait for one answer of a server of ours, which then counts in the clock's stead.

    Raises:
        UserError: the variable is named and not set, or the address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        key_variable: str | None = None,
        seconds: float = 120.0,
        start: str = "",
        patience: Callable[[], Patience] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._key_variable = key_variable
        self._seconds = seconds
        self._start = start
        self._patience = patience
        headers = {}
        if key_variable is not None:
            if not os.environ.get(key_variable):
                raise UserError(f"the environment variable {key_variable} is to hold the API key and is not set")
            is_a_key(key_variable)
            headers["Authorization"] = f"Bearer {os.environ[key_variable]}"
        self._http = connection(seconds if patience is None else None, headers, url=self.url)

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
            StageUnobservedError: it has no such route.
            StageFailedError: it cannot be reached, takes too long, or answers what no protocol allows.
            UserError: it wants another API key.
            NotRunningError: someone else runs it, and nothing has listened there yet.
        """
        return self._json(self._ask("POST", path, body))

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Json]:
        """Post JSON and return the objects of the event stream that comes back. Raises as `post` does."""
        found = events(self._ask("POST", path, body))
        check_pieces(found, self._key_variable)
        return found

    def exchange(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Post JSON and return the status and the whole of what comes back, whatever the status says.

        Raises as `post` does, but neither for what the server refuses nor for a route that it does not have.
        """
        response, data = self._exchange("POST", path, body)
        return response.status_code, data

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        response, data = self._exchange(method, path, body)
        missing = missing_route(response.status_code, data, path)
        if missing:
            raise StageUnobservedError(missing)
        if response.status_code >= 400:
            raise StageRefusedError(refusal(response.status_code, data))
        return data

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[httpx.Response, bytes]:
        content = None if body is None else json.dumps(body, ensure_ascii=True).encode("ascii")
        headers = {} if content is None else {"Content-Type": "application/json"}
        url = self.url + path
        with Deadline(self._seconds, self._patience and self._patience()) as deadline:
            more = deadline.extensions
            try:
                with self._http.stream(method, url, content=content, headers=headers, extensions=more) as response:
                    data = b"".join(parts_of(response))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failure = ended_by(error, deadline, self.url, self._key_variable)
                if failure.reason == "start" and self._start:
                    raise NotRunningError(str(failure.message), self._start) from error
                raise StageFailedError(failure) from error
        # What has run once and is gone has ended by what it was asked.
        self._start = ""
        if deadline.passed:
            raise StageFailedError(deadline.failure)
        check_status(response, self.url, self._key_variable)
        return response, without_key(data, self._key_variable)

    def _json(self, data: bytes) -> Any:
        found = decoded(data, "the answer")
        check_pieces([found], self._key_variable)
        return found


def connection(seconds: float | None, headers: Mapping[str, str] | None = None, *, url: str = "") -> httpx.Client:
    """Return what speaks HTTP to a server under test.

    A proxy of the environment comes between where the server is on another machine; nothing else of the environment
    does. No connection is kept: a server that closes one after a stream would answer the next request on it with
    nothing.

    Raises:
        UserError: there is such a proxy, and it cannot be used.
    """
    proxy = _proxy_to(url)
    # Without a number of seconds a pause is not limited; the deadline of the exchange is.
    try:
        return httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(seconds, connect=5.0),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=_trusted(),
            proxy=proxy,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        if proxy is None:
            raise
        raise UserError(
            f"the proxy that the environment names for {url} cannot be used ({said(error)})",
            "mend HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or name the server's host in NO_PROXY",
        ) from error


@cache
def _trusted() -> ssl.SSLContext:
    """Return whose certificates are believed: read once, as that takes longer than most answers."""
    return httpx.create_ssl_context(trust_env=False)


def _proxy_to(url: str) -> str | None:
    """Return the proxy that the environment names for a server; None for one on this machine."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if not host or host == "localhost" or host.endswith(".localhost") or urllib.request.proxy_bypass(host):
        return None
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_loopback or address.is_unspecified:
            return None
    found = urllib.request.getproxies()
    return found.get(parts.scheme) or found.get("all")


def check_status(response: httpx.Response, url: str, key_variable: str | None) -> None:
    """Raise where a status says that the server was not asked as it wants to be.

    Raises:
        UserError: it wants another API key.
        StageFailedError: it redirects. That is not followed: a key or a prompt would go where nobody sent it.
    """
    status = response.status_code
    if status in _KEY_REFUSED:
        remedy = f"put the right one into the environment variable {key_variable}"
        raise UserError(
            f"the server at {url} refuses the API key (HTTP {status})",
            remedy if key_variable else "name the environment variable that holds one: api_key_variable",
        )
    if 300 <= status < 400:
        where = _shown(response.headers.get("location", "nowhere").encode("utf-8", "replace"))
        raise _failed("broken", f"it redirects to {without_key(where.encode(), key_variable).decode()} (HTTP {status})")


def without_key(data: bytes, key_variable: str | None) -> bytes:
    """Return what a server said without the API key, which some repeat in their errors."""
    key = os.environ.get(key_variable, "") if key_variable else ""
    return without_key_of(data, key_patterns(key)) if key else data


def check_pieces(values: Sequence[Any], key_variable: str | None) -> None:
    """Raise where the events of a stream, or the pieces of an answer, hold the API key together and none does alone.

    Raises:
        StageFailedError: they do; nothing of them is to be shown.
    """
    key = os.environ.get(key_variable, "") if key_variable else ""
    if key and holds_in_pieces(values, key_patterns(key)):
        raise _failed("broken", "it repeats the API key, in pieces: nothing of its answer is shown")


def ended_by(error: Exception, deadline: Deadline, url: str, key_variable: str | None) -> Failure:
    """Return how an exchange ended that raised an error of httpx, which may quote what the server sent."""
    failure = failure_of(error, deadline, url)
    if failure.message is None:
        return failure
    return failure.model_copy(update={"message": without_key(failure.message.encode(), key_variable).decode()})


def missing_route(status: int, data: bytes, path: str) -> str:
    """Return what is said of a route that a server does not have; nothing where it has it.

    A model that it does not know is a 404 too, and so a refusal: the error then speaks of a model.
    """
    if status == _NOT_FOUND:
        error = _error_in(data)
        if error is not None and _MODEL.search(json.dumps(error)):
            return ""
    elif status not in (_METHOD_NOT_ALLOWED, _NOT_IMPLEMENTED):
        return ""
    what = "chat completions route" if path.endswith(_CHAT) else f"route {path}"
    return f"this server has no {what} (HTTP {status})"


def _error_in(data: bytes) -> Any:
    """Return the error that an answer holds as JSON; None where there is none."""
    try:
        found = parsed(data)
        check_texts(found, data)
    except (ValueError, RecursionError):
        return None
    return (found.get("error") or found) if isinstance(found, dict) else found


def refusal(status: int, data: bytes) -> Refusal:
    """Return what a server says with an HTTP status that is no success."""
    error = _error_in(data)
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return Refusal.of(f"HTTP {status}", _shown(data) if message is None else str(message))


def events(data: bytes) -> list[Json]:
    """Return the JSON objects of an event stream (WHATWG HTML, server-sent events), which must end with `[DONE]`.

    Raises:
        StageFailedError: it is no such stream, or ends before its end.
        StageRefusedError: it holds an error instead of an answer.
    """
    chunks: list[Json] = []
    for payload in _payloads(data):
        if payload.strip() == "[DONE]":
            return chunks
        chunk = decoded(payload.encode("utf-8"), f"event {len(chunks)} of the stream")
        if not isinstance(chunk, dict):
            raise _failed("broken", f"event {len(chunks)} of the stream is no object")
        if chunk.get("error") is not None:
            raise StageRefusedError(refusal(200, payload.encode("utf-8")))
        chunks.append(chunk)
    what = f"after {len(chunks)} events" if chunks else f"and no event: {_shown(data)}"
    raise _failed("broken", f"the stream ended without [DONE] {what}")


def _payloads(data: bytes) -> Iterator[str]:
    """Yield the data of each event; lines of data that no empty line parts belong together."""
    lines: list[str] = []
    for line in (*_lines(data), ""):
        name, _, value = line.partition(":")
        if name == "data":
            lines.append(value.removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


def _lines(data: bytes) -> Iterator[str]:
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _failed("broken", f"the stream is not UTF-8 at byte {error.start}") from error
    # Only these end a line of an event stream; `splitlines` would also cut at U+2028 inside a text.
    yield from text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def decoded(data: bytes, what: str) -> Any:
    """Return the JSON that `what` is.

    Raises:
        StageFailedError: it is none.
    """
    try:
        value = parsed(data)
        check_texts(value, data)
        return value
    except UnicodeDecodeError as error:
        raise _failed("broken", f"{what} is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _failed("broken", f"{what} is not JSON: {_shown(data)}") from error
    except ValueError as error:
        raise _failed("broken", f"{what} cannot be read: {error}") from error
    except RecursionError as error:
        raise _failed("broken", f"{what} is not JSON: {_shown(data)}") from error


def _failed(reason: Any, message: str) -> StageFailedError:
    return StageFailedError(Failure(reason=reason, message=message))


def _shown(data: bytes) -> str:
    text = " ".join(data[: 4 * _SHOWN].decode("utf-8", errors="replace").split())
    return f"{text[:_SHOWN]}..." if len(text) > _SHOWN else text or "(empty)"
