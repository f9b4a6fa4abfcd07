"""The server that runs: started in a child process when it is first needed, asked over HTTP."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from harness.components.vllm_server._options import Options
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Failure, Json, ModelRef
from harness.wire.api import Api
from harness.worker import RemoteError, Worker, WorkerDiedError

Answer = TypeVar("Answer")


class Running:
    """A server and its API.

    Args:
        model: The model.
        options: How the server is started.
    """

    def __init__(self, model: ModelRef, options: Options) -> None:
        self._seconds = options.seconds
        self._folder = tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True)
        init: Json = {
            "file": str(model.path),
            "sha256": model.sha256,
            "chat_template": model.chat_template,
            "calls": model.calls,
            "folder": self._folder.name,
            **options.model_dump(),
        }
        # Beyond the server's own time for an answer, so that a slow answer is not taken for a dead process.
        self._worker = Worker("harness.components.vllm_server._server:Server", init, seconds=options.seconds + 30)
        self._api: Api | None = None
        self._no_start: Failure | None = None

    def close(self) -> None:
        """End the server."""
        if self._api is not None:
            self._api.close()
        if self._worker.pid is not None:
            with contextlib.suppress(RemoteError, WorkerDiedError):
                self._worker.call("stop")
        self._worker.close()
        self._folder.cleanup()

    def identity(self) -> dict[str, str]:
        """Return versions."""
        self._connected()
        found: dict[str, str] = self._worker.call("identity")
        return found

    def url(self) -> str:
        """Return where it listens.

        Raises:
            StageFailedError: it does not start, or has died.
        """
        return self._connected().url

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
        except (StageFailedError, StageRefusedError):
            # A server that is about to end refuses what it is asked.
            self._look_for_a_death()
            raise

    def _look_for_a_death(self) -> None:
        """Where the server's process is gone, say how it ended, not that the connection did."""
        try:
            self._worker.call("url")
        except WorkerDiedError as death:
            self._api = None
            raise StageFailedError(death.failure) from death
        except RemoteError as error:
            self._api = None
            failure = Failure(reason="crash", message=error.message, log=error.log)
            self._worker.close()
            raise StageFailedError(failure) from error

    def _connected(self) -> Api:
        """Start the server where none runs. What once failed to start is not tried again for every case."""
        if self._no_start is not None:
            raise StageFailedError(self._no_start)
        if self._api is None:
            self._api = Api(self._started(), seconds=self._seconds)
        return self._api

    def _started(self) -> str:
        try:
            return str(self._worker.call("url"))
        except RemoteError as error:
            message = f"{error.error}: {error.message}".splitlines()[0]
            self._no_start = Failure(reason="start", message=message, log=error.log)
        except WorkerDiedError as death:
            self._no_start = death.failure
        raise StageFailedError(self._no_start)
