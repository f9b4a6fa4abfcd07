"""The server that runs: started in a child process when it is first needed, asked over HTTP."""

from __future__ import annotations

import contextlib
import tempfile

from harness.components.vllm_server._options import Options
from harness.process.serving import Server
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.values import Json, ModelRef


class Running(Server):
    """A server and its API.

    Args:
        model: The model.
        options: How the server is started.
    """

    def __init__(self, model: ModelRef, options: Options) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True)
        init: Json = {
            "file": str(model.path),
            "chat_template": model.chat_template,
            "calls": model.calls,
            "folder": self._folder.name,
            **options.model_dump(),
        }
        # Beyond the server's own time for an answer, so that a slow answer is not taken for a dead process.
        worker = Worker("harness.components.vllm_server._server:Server", init, seconds=options.seconds + 30)
        super().__init__(worker, options.seconds)

    def close(self) -> None:
        """End the server."""
        if self.child.worker.pid is not None:
            with contextlib.suppress(RemoteError, WorkerDiedError):
                self.child.worker.call("stop")
        super().close()
        self._folder.cleanup()
