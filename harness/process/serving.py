"""A server of ours: it runs in a child process, or a process of the child's, and is asked over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from harness.process.child import Child
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, Json
from harness.wire.api import Api
from harness.wire.limits import Patience

Answer = TypeVar("Answer")


class Server:
    """A server and its API, started when it is first asked.

    Args:
        worker: The child process; what it serves has methods `identity` and `url`, which raises once the server
            has ended.
        seconds: How long one answer may take.
    """

    def __init__(self, worker: Worker, seconds: float) -> None:
        self.child = Child(worker)
        self._seconds = seconds
        self._api: Api | None = None

    def close(self) -> None:
        """End it."""
        self._disconnect()
        self.child.close()

    def identity(self) -> dict[str, str]:
        """Return what it says it is."""
        found: dict[str, str] = self.child.call("identity")
        return found

    def url(self) -> str:
        """Return where it listens.

        Raises:
            StageFailedError: it does not start, or has died.
            RemoteError: code of ours raised.
        """
        self._connected()
        return self._where()

    def patience(self) -> Patience:
        """Begin the wait for one answer: a limit on what the server does, not on what keeps it from doing it."""
        return self.child.worker.wait()

    def log_head(self) -> str:
        """Return what it wrote to its log as it started."""
        return self.child.worker.log_head()

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        return self._ask(lambda api: api.get(path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post JSON and return what comes back."""
        return self._ask(lambda api: api.post(path, body))

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Json]:
        """Post JSON and return the events that come back."""
        return self._ask(lambda api: api.stream(path, body))

    def _ask(self, call: Callable[[Api], Answer]) -> Answer:
        api = self._connected()
        try:
            return call(api)
        except (StageFailedError, StageRefusedError, StageUnobservedError):
            # A server that is about to end refuses what it is asked.
            self._where()
            raise

    def _where(self) -> str:
        """Return where it listens. Where its process is gone, say how it ended, not that the connection did."""
        try:
            return str(self.child.worker.call("url"))
        except WorkerDiedError as death:
            self._disconnect()
            raise StageFailedError(death.failure) from death
        except RemoteError as error:
            self._disconnect()
            self.child.worker.close()
            if error.whose != "part":
                raise
            failure = Failure(reason="crash", message=error.message, log=error.log)
            raise StageFailedError(failure) from error

    def _connected(self) -> Api:
        if self._api is None:
            self.child.start()
            self._api = Api(self._where(), seconds=self._seconds, patience=self.patience)
        return self._api

    def _disconnect(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None
