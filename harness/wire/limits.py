"""Limits on an answer that comes over a wire: how much of it is read, and how long that may take in all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from harness.errors import MissingPackageError
from harness.stage import StageFailedError
from harness.values import Failure

try:
    import httpx
except ImportError as error:
    raise MissingPackageError("speaking to a server", "httpx", "servers") from error

MOST_BYTES = 256 << 20
"""The longest answer that is read, streamed or not."""
_CONNECTED = frozenset({"connection.connect_tcp.complete", "connection.start_tls.complete"})


class Deadline:
    """A limit on one exchange as a whole. httpx limits every pause: a server that drips would hold it for ever.

    Args:
        seconds: How long the exchange may take. After that its socket is shut down, and whatever waits on it goes on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._stream: Any = None
        self._lock = threading.Lock()
        self.passed = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._timer.cancel()

    @property
    def extensions(self) -> dict[str, Any]:
        """What to give to the request, so that its socket is known (httpcore's extension `trace`)."""
        return {"trace": self._seen}

    @property
    def failure(self) -> Failure:
        """What is said of an exchange that took too long."""
        return Failure(reason="hang", seconds=self._seconds)

    def _seen(self, event: str, info: Mapping[str, Any]) -> None:
        if event in _CONNECTED:
            with self._lock:
                self._stream = info["return_value"]
                if self.passed:
                    self._shut()

    def _end(self) -> None:
        with self._lock:
            self.passed = True
            self._shut()

    def _shut(self) -> None:
        connected = None if self._stream is None else self._stream.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


def failure_of(error: Exception, deadline: Deadline, url: str) -> Failure:
    """Return how an exchange ended that raised an error of httpx."""
    if deadline.passed:
        return deadline.failure
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Failure(reason="start", message=f"no server answers at {url} ({said(error)})")
    if isinstance(error, httpx.TimeoutException):
        return deadline.failure
    return Failure(reason="broken", message=f"the answer broke off ({said(error)})")


def parts_of(response: httpx.Response) -> Iterator[bytes]:
    """Yield an answer's content as it comes.

    Raises:
        StageFailedError: it does not end.
    """
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            message = f"the answer does not end: more than {MOST_BYTES >> 20} MB"
            raise StageFailedError(Failure(reason="broken", message=message))
        yield part


def said(error: Exception) -> str:
    """Return the first line of what an error says."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
