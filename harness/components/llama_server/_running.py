"""One llama-server that runs: started in a child process when it is first needed, or somewhere else already."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.components.llama_server._options import Options
from harness.components.llama_server._same_model import check_model
from harness.errors import MissingPackageError
from harness.stage import StageFailedError
from harness.values import Failure, Json, ModelRef, Tokens
from harness.wire.api import Api
from harness.worker import RemoteError, Worker, WorkerDiedError

Answer = TypeVar("Answer")


class Running:
    """A server and its API.

    Args:
        model: The model; its template is served too.
        options: How the server is started.
        file: A GGUF to serve instead of the model's: a probe.

    Raises:
        MissingPackageError: the package that carries the server is not installed.
    """

    def __init__(self, model: ModelRef, options: Options, file: Path | None = None) -> None:
        self._options = options
        self._model = model
        self._worker = None if options.url is not None else _worker(model, options, file or options.file or model.path)
        self._api: Api | None = None
        self._no_start: Failure | None = None

    def close(self) -> None:
        """End the server, if it is ours."""
        if self._api is not None:
            self._api.close()
        if self._worker is not None:
            self._worker.close()

    def identity(self) -> dict[str, str]:
        """Return what carries the server."""
        if self._worker is None:
            return {"url": str(self._options.url)}
        self._connected()
        found: dict[str, str] = self._worker.call("identity")
        return found

    def url(self) -> str:
        """Return where it listens.

        Raises:
            StageFailedError: it does not start, or has died.
        """
        url = self._connected().url
        self._look_for_a_death()
        return url

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        return self._ask(lambda api: api.get(path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post JSON and return what comes back."""
        return self._ask(lambda api: api.post(path, body))

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Json]:
        """Post JSON and return the events that come back."""
        return self._ask(lambda api: api.stream(path, body))

    def tokenize(self, text: str, *, parsed: bool = True) -> Tokens:
        """Return the ids of a text, with a BOS if one is due, and control tokens parsed or read as text."""
        body = {"content": text, "add_special": True, "parse_special": parsed, "with_pieces": True}
        found = self.post("/tokenize", body)["tokens"]
        pieces = (one["piece"] for one in found)
        return Tokens(
            ids=tuple(one["id"] for one in found),
            # A piece that is no UTF-8 comes as a list of bytes.
            pieces=tuple(p if isinstance(p, str) else bytes(p).decode("utf-8", errors="replace") for p in pieces),
        )

    def complete(self, ids: Sequence[int], settings: Mapping[str, Any], top: int) -> Json:
        """Return the answer of `/completion` to ids."""
        body = {"cache_prompt": False, **settings, "prompt": list(ids), "n_probs": top, "return_tokens": True}
        answer: Json = self.post("/completion", body)
        return answer

    def _ask(self, call: Callable[[Api], Answer]) -> Answer:
        api = self._connected()
        try:
            return call(api)
        except StageFailedError:
            self._look_for_a_death()
            raise

    def _look_for_a_death(self) -> None:
        """Where the server's process is gone, say how it ended, not that the connection did."""
        if self._worker is None:
            return
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
            url = self._options.url or self._started()
            variable, seconds = self._options.api_key_variable, self._options.seconds
            api = Api(url.removesuffix("/v1"), key_variable=variable, seconds=seconds)
            if self._options.url is not None and not self._options.any_model:
                check_model(self._model, api.url, api.get)
            self._api = api
        return self._api

    def _started(self) -> str:
        assert self._worker is not None
        try:
            return str(self._worker.call("url"))
        except RemoteError as error:
            message = f"{error.error}: {error.message}".splitlines()[0]
            self._no_start = Failure(reason="start", message=message, log=error.log)
        except WorkerDiedError as death:
            self._no_start = death.failure
        raise StageFailedError(self._no_start)


def _worker(model: ModelRef, options: Options, file: Path) -> Worker:
    init: Json = {"file": str(file), "chat_template": model.chat_template, "n_ctx": options.n_ctx}
    if options.binary is not None:
        init |= {"binary": options.binary, "arguments": options.arguments, "seconds": options.seconds}
        target = "Program"
    else:
        init |= {"parameters": options.parameters}
        target = "Package"
        _need_package()
    # Beyond the server's own time for an answer, so that a slow answer is not taken for a dead process.
    return Worker(
        f"harness.components.llama_server._server:{target}",
        init,
        seconds=options.seconds + 10,
        environment={"GGML_NO_BACKTRACE": "1"},
    )


def _need_package() -> None:
    try:
        importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError("the component 'llama-server'", "xllamacpp", "servers") from error
