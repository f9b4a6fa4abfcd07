"""A part in a child process, as a stage sees it: started once, and what ends a call told in a stage's words."""

from __future__ import annotations

from typing import Any

from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Failure, Refusal


class Child:
    """A child process that is started when it is first called. What once failed to start is not tried again.

    Args:
        worker: The process.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._no_start: Failure | None = None

    def close(self) -> None:
        """End it."""
        self.worker.close()

    def start(self) -> None:
        """Start it where it does not run.

        Raises:
            StageFailedError: it does not start, now or before.
        """
        if self._no_start is None:
            try:
                self.worker.start()
            except RemoteError as error:
                said = Refusal.of(error.error, error.message)
                self._no_start = Failure(reason="start", message=f"{said.error}: {said.message}", log=error.log)
            except WorkerDiedError as death:
                ended = death.failure.model_copy(update={"log": ()}).describe()
                self._no_start = death.failure.model_copy(update={"reason": "start", "message": ended})
        if self._no_start is not None:
            raise StageFailedError(self._no_start)

    def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method of what it serves.

        Raises:
            StageFailedError: it does not start, died, or took too long.
            RemoteError: the method raised: a defect of ours, where the part's own errors are caught in the child.
        """
        self.start()
        try:
            return self.worker.call(method, **arguments)
        except WorkerDiedError as death:
            raise StageFailedError(death.failure) from death

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """Call a method that lets the part's own errors through.

        Raises:
            StageRefusedError: the part raised an error.
            StageFailedError: it does not start, died, or took too long.
        """
        try:
            return self.call(method, **arguments)
        except RemoteError as error:
            raise StageRefusedError(Refusal.of(error.error, error.message)) from error
