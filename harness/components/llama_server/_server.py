"""The child's side: llama.cpp's own server, out of the package `xllamacpp` or as the program `llama-server`.

Both log everything (verbosity 10), because only then the server adds to an answer what its model was really fed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from harness.process.owner import as_the_parts, the_parts_own
from harness.process.ports import check_ours, free_port
from harness.process.worker import imported

_EVERYTHING = 10
_POLL = 0.05


class Package:
    """The server inside this process.

    Args:
        file: The GGUF.
        chat_template: A template that replaces the file's own.
        n_ctx: The context, in tokens.
        parameters: Attributes of `xllamacpp.CommonParams`, nested ones with dots.
        plants: Defects to plant once it runs, as `(module:function, keywords)`.
    """

    def __init__(
        self,
        file: str,
        chat_template: str | None,
        n_ctx: int,
        parameters: Mapping[str, Any],
        plants: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        import xllamacpp

        with the_parts_own():
            settings = xllamacpp.CommonParams()
        settings.model.path = file
        settings.n_ctx = n_ctx
        settings.n_parallel = 1
        settings.port = 0
        settings.warmup = False
        settings.use_jinja = True
        settings.verbosity = _EVERYTHING
        if chat_template is not None:
            settings.chat_template = chat_template
        for name, value in parameters.items():
            _set(settings, name, value)
        self.file = file
        with the_parts_own():
            self._server = xllamacpp.Server(settings)
        _plant(self, plants)

    def url(self) -> str:
        """Return where the server listens."""
        return str(self._server.listening_address)

    def identity(self) -> dict[str, str]:
        """Return the version of what carries the server."""
        return {"xllamacpp": importlib.metadata.version("xllamacpp")}


class Program:
    """The server as a program of its own; it ends with this process.

    Args:
        binary: The program.
        file: The GGUF.
        chat_template: A template that replaces the file's own.
        n_ctx: The context, in tokens.
        arguments: Further arguments.
        seconds: How long its start may take.
        plants: Defects to plant once it runs, as `(module:function, keywords)`.

    Raises:
        OSError: it does not start.
        StageUnobservedError: another program took its port.
    """

    def __init__(
        self,
        binary: str,
        file: str,
        chat_template: str | None,
        n_ctx: int,
        arguments: Sequence[str],
        seconds: float,
        plants: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        port = self._port = free_port()
        command = [binary, "--model", file, "--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(n_ctx)]
        command += ["--parallel", "1", "--jinja", "--no-warmup", "--log-verbosity", str(_EVERYTHING)]
        if chat_template is not None:
            command += ["--chat-template", chat_template]
        self._url = f"http://127.0.0.1:{port}"
        self._binary = binary
        self.file = file
        with the_parts_own():
            self._process = subprocess.Popen([*command, *arguments], stdin=subprocess.DEVNULL)
        try:
            self._await(time.monotonic() + seconds)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        _plant(self, plants)

    def url(self) -> str:
        """Return where the server listens.

        Raises:
            OSError: the program has ended.
        """
        self._check()
        return self._url

    def identity(self) -> dict[str, str]:
        """Return which program it is."""
        return {"program": self._binary}

    def _await(self, until: float) -> None:
        while True:
            self._check()
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self._url}/health", timeout=1, trust_env=False).raise_for_status()
                check_ours(self._process.pid, self._port)
                return
            if time.monotonic() > until:
                raise as_the_parts(OSError(f"{self._binary} did not become ready in time"))
            time.sleep(_POLL)

    def _check(self) -> None:
        status = self._process.poll()
        if status is not None:
            check_ours(self._process.pid, self._port)
            raise as_the_parts(OSError(f"{self._binary} ended with status {status}"))


def _plant(served: Package | Program, plants: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    for hook, keywords in plants:
        imported(hook)(served, **keywords)


def _set(settings: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    with the_parts_own():
        for step in path:
            settings = getattr(settings, step)
    if not hasattr(settings, last):
        raise as_the_parts(AttributeError(f"the server has no parameter {name!r}"))
    with the_parts_own():
        setattr(settings, last, value)
