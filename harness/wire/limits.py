"""Limits on an answer that comes over a wire: how much of it is read, and how long that may take in all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

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


class Patience(Protocol):
    """What tells of a server of ours whether it still works, where a clock alone would not."""

    @property
    def failure(self) -> Failure:
        """What is said of a server whose time is over."""

    def left(self) -> float:
        """Return for how many seconds to wait before this is asked again; none are left at 0."""


class Deadline:
    """A limit on one exchange as a whole. httpx limits every pause: a server that drips would hold it for ever.

    Args:
        seconds: How long the exchange may take. After that its socket is shut down, and whatever waits on it goes on.
        patience: Tells of a server of ours when its time is over, in the clock's stead.
    """

    def __init__(self, seconds: float, patience: Patience | None = None) -> None:
        self._seconds = seconds
        self._patience = patience
        self._timer = self._timer_of(seconds if patience is None else patience.left())
        self._over = False
        self._stream: Any = None
        self._lock = threading.Lock()
        self.passed = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            self._over = True
            self._timer.cancel()

    @property
    def extensions(self) -> dict[str, Any]:
        """What to give to the request, so that its socket is known (httpcore's extension `trace`)."""
        return {"trace": self._seen}

    @property
    def failure(self) -> Failure:
        """What is said of an exchange that took too long."""
        return Failure(reason="hang", seconds=self._seconds) if self._patience is None else self._patience.failure

    def _seen(self, event: str, info: Mapping[str, Any]) -> None:
        if event in _CONNECTED:
            with self._lock:
                self._stream = info["return_value"]
                if self.passed:
                    self._shut()

    def _timer_of(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._end)
        timer.daemon = True
        return timer

    def _end(self) -> None:
        left = 0.0 if self._patience is None else self._patience.left()
        with self._lock:
            if self._over:
                return
            if left > 0:
                self._timer = self._timer_of(left)
                self._timer.start()
                return
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
