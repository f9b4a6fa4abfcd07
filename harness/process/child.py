"""A part in a child process, as a stage sees it: started once, and what ends a call told in a stage's words."""

from __future__ import annotations

from typing import Any

from harness.errors import UserError
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, Refusal


class Child:
    """A child process that is started when it is first called. What once failed to start is not tried again.

    Args:
        worker: The process.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._no_start: RemoteError | Failure | None = None

    def close(self) -> None:
        """End it."""
        self.worker.close()

    def start(self) -> None:
        """Start it where it does not run.

        Raises:
            StageFailedError: it does not start, now or before: its own constructor raised, its package cannot be
                imported, or it died.
            StageUnobservedError: it has changed inside, and cannot be looked at.
            UserError: the user can mend what keeps it from starting.
            RemoteError: code of ours raised.
        """
        if self._no_start is None:
            try:
                self.worker.start()
            except RemoteError as error:
                self._no_start = _start_of(error) if error.whose == "part" else error
            except WorkerDiedError as death:
                ended = death.failure.model_copy(update={"log": ()}).describe()
                self._no_start = death.failure.model_copy(update={"reason": "start", "message": ended})
        if isinstance(self._no_start, Failure):
            raise StageFailedError(self._no_start)
        if self._no_start is not None:
            raise _told(self._no_start)

    def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method of what it serves.

        Raises:
            StageRefusedError: the part raised an error of its own.
            StageFailedError: it does not start, died, or took too long.
            StageUnobservedError: it does not show what was to be seen.
            UserError: the user can mend what went wrong.
            RemoteError: code of ours raised.
        """
        self.start()
        try:
            return self.worker.call(method, **arguments)
        except WorkerDiedError as death:
            raise StageFailedError(death.failure) from death
        except RemoteError as error:
            raise _told(error) from error


def _told(error: RemoteError) -> Exception:
    """Return what an exception of the child is to a stage; one of ours stays what it is."""
    if error.whose == "part":
        return StageRefusedError(Refusal.of(error.error, error.message))
    if error.whose == "unobserved":
        return StageUnobservedError(error.message)
    return UserError(error.message) if error.whose == "user" else error


def _start_of(error: RemoteError) -> Failure:
    said = Refusal.of(error.error, error.message)
    return Failure(reason="start", message=f"{said.error}: {said.line}", log=error.log)
