"""One llama-server that runs: started in a child process when it is first needed, or somewhere else already."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.components.llama_server._options import Options
from harness.errors import MissingPackageError
from harness.process.patience import Limit
from harness.process.serving import Server
from harness.process.worker import Worker
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Json, ModelRef, Tokens
from harness.wire.api import Api
from harness.wire.form import bytes_of, reading
from harness.wire.limits import Patience

_START = "start llama-server there, or mend its address in the stack's file"
_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})


class Running:
    """A server and its API.

    Args:
        model: The model; its template is served too.
        options: How the server is started.
        file: A GGUF to serve instead of the model's: a probe.
        plants: Defects in a server of ours, as `(module:function, keywords)`.

    Raises:
        MissingPackageError: the package that carries the server is not installed.
    """

    def __init__(
        self,
        model: ModelRef,
        options: Options,
        file: Path | None = None,
        plants: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        self._model = model
        self._options = options
        self._own: Server | None = None
        self._other: Api | None = None
        self._file = file or options.file or model.path
        if options.url is None:
            limit = Limit.of(options.seconds, self._file)
            self._own = Server(_worker(model, options, self._file, plants), limit.seconds)

    def close(self) -> None:
        """End the server, if it is ours."""
        if self._own is not None:
            self._own.close()
        if self._other is not None:
            self._other.close()

    def identity(self) -> dict[str, str]:
        """Return what carries the server."""
        if self._own is None:
            return {"url": str(self._options.url)}
        return self._own.identity()

    def model_file(self) -> Path | None:
        """Return the file that it has, as far as it shows that; of a server elsewhere only if that is this machine.

        Raises:
            StageFailedError: it does not start, or has died.
        """
        try:
            shown = self.properties().get("model_path")
        except (StageRefusedError, StageUnobservedError):
            shown = None
        here = self._options.url is None or urlsplit(self._options.url).hostname in _THIS_MACHINE
        # No path of this machine has a zero byte.
        if here and isinstance(shown, str) and "\0" not in shown and Path(shown).is_absolute():
            return Path(shown)
        # A program may be a script around the real one; the package is loaded with this file and no other.
        return self._file if self._options.url is None and self._options.binary is None else None

    def url(self) -> str:
        """Return where it listens.

        Raises:
            StageFailedError: it does not start, or has died.
        """
        return self._own.url() if self._own is not None else self._elsewhere().url

    @property
    def patience(self) -> Callable[[], Patience] | None:
        """What begins the wait for one answer of a server of ours; None of one that runs elsewhere."""
        return None if self._own is None else self._own.patience

    def log_head(self) -> str:
        """Return what a server of ours wrote to its log as it started; nothing of one that runs elsewhere."""
        return "" if self._own is None else self._own.log_head()

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        return self._asked().get(path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post JSON and return what comes back."""
        return self._asked().post(path, body)

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Json]:
        """Post JSON and return the events that come back."""
        return self._asked().stream(path, body)

    def properties(self) -> Json:
        """Return what `/props` shows.

        Raises:
            StageUnobservedError: the server does not show it.
        """
        found = self.get("/props")
        if not isinstance(found, dict):
            raise StageUnobservedError("the answer of /props is no object")
        return found

    def shown(self, path: str, body: Mapping[str, Any], name: str) -> Any:
        """Return one field of an answer.

        Raises:
            StageUnobservedError: the answer has no such field: another version, or another server, does not show it.
        """
        answer = self.post(path, body)
        if not isinstance(answer, dict) or name not in answer:
            raise StageUnobservedError(f"the answer of {path} has no {name!r}")
        return answer[name]

    def tokenize(self, text: str, *, parsed: bool = True) -> Tokens:
        """Return the ids of a text, with a BOS if one is due, and control tokens parsed or read as text."""
        body = {"content": text, "add_special": True, "parse_special": parsed, "with_pieces": True}
        found = self.shown("/tokenize", body, "tokens")
        try:
            with reading("no ids with their pieces"):
                return Tokens(ids=tuple(one["id"] for one in found), pieces=tuple(_text(one["piece"]) for one in found))
        except StageFailedError as error:
            raise StageUnobservedError("the answer of /tokenize shows no ids with their pieces") from error

    def last_id(self, text: str) -> int:
        """Return the id of a text that is one token, or the last of several.

        Raises:
            StageUnobservedError: `/tokenize` makes no id of it.
        """
        ids = self.tokenize(text).ids
        if not ids:
            raise StageUnobservedError(f"/tokenize makes no id of {text!r}")
        return ids[-1]

    def complete(self, ids: Sequence[int], settings: Mapping[str, Any], top: int) -> Json:
        """Return the answer of `/completion` to ids."""
        body = {"cache_prompt": False, **settings, "prompt": list(ids), "n_probs": top, "return_tokens": True}
        answer = self.post("/completion", body)
        if not isinstance(answer, dict) or "tokens" not in answer:
            raise StageUnobservedError("the answer of /completion has no 'tokens'")
        return answer

    def _asked(self) -> Server | Api:
        return self._own or self._elsewhere()

    def _elsewhere(self) -> Api:
        """Return the API of a server that runs already, once it has answered."""
        if self._other is None:
            url = str(self._options.url).removesuffix("/v1")
            api = Api(url, key_variable=self._options.api_key_variable, seconds=self._options.seconds, start=_START)
            # It may be told not to show this (`--no-props`), and still has answered.
            with contextlib.suppress(StageRefusedError, StageUnobservedError):
                api.get("/props")
            self._other = api
        return self._other


def _text(piece: Any) -> str:
    """Return the text of a piece: one that is no UTF-8 comes as a list of bytes."""
    return piece if isinstance(piece, str) else bytes_of(piece).decode("utf-8", errors="replace")


def _worker(model: ModelRef, options: Options, file: Path, plants: Sequence[tuple[str, Mapping[str, Any]]]) -> Worker:
    init: Json = {"file": str(file), "chat_template": model.chat_template, "n_ctx": options.n_ctx, "plants": plants}
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
        file=file,
        environment={"GGML_NO_BACKTRACE": "1"},
    )


def _need_package() -> None:
    try:
        importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError("the component 'llama-server'", "xllamacpp", "servers") from error
