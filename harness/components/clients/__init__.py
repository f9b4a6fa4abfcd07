"""Clients as programs use them: each makes its real HTTP call, in a child process, through a recording proxy."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import Stage, StageFailedError, StageRefusedError
from harness.values import Case, Failure, ModelRef, Reply, Request
from harness.wire.chat import body_of, reply_of, request_of
from harness.wire.proxy import RecordingProxy

_NO_PROXY = {
    **{name: "" for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (proxy, proxy.lower())},
    "NO_PROXY": "*",
    "no_proxy": "*",
}
"""A client is called through a recording proxy on this machine, which no other proxy can reach. That one takes the
user's, where the server is elsewhere."""


class Options(BaseModel):
    """What a stack definition may set.

    Attributes:
        model: The model's name in the request.
        seconds: How long a call may take: far longer than any server is waited for, whose time it is that passes.
        arguments: Keyword arguments for the client's call beside the case's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "local"
    seconds: float = Field(default=3600.0, gt=0)
    arguments: dict[str, Any] = Field(default_factory=dict)


class _Client:
    """A client in a child process: its `call` there returns the answer as the program gets it."""

    name: ClassVar[str]
    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.CLIENT})
    requires: ClassVar[tuple[str, str]]
    _target: ClassVar[str]

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - a component's signature
        self._options = Options.model_validate(options)
        init = {"model": self._options.model, "arguments": self._options.arguments}
        target = f"harness.components.clients.{self._target}"
        self._child = Child(Worker(target, init, seconds=self._options.seconds, environment=_NO_PROXY))
        self._alone = RecordingProxy(None)

    def __enter__(self) -> Self:
        self._alone.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.close()
        self._alone.__exit__(kind, error, tb)

    def identity(self) -> Mapping[str, str]:
        """Return the version of the library."""
        found: Mapping[str, str] = self._child.call("identity")
        return found

    def request(self, case: Case) -> Request:
        """What leaves the client for a server that answers at once."""
        self._alone.forget()
        try:
            self.call(case, self._alone.url, stream=False)
        except StageRefusedError:
            if self._alone.exchanges:
                # Refused by the proxy, for a body that is no request: then this says so.
                request_of(self._alone.exchanges[-1].body)
            raise
        finally:
            if self._alone.error is not None:
                raise self._alone.error
        if not self._alone.exchanges:
            raise StageFailedError(Failure(reason="broken", message="it returns without having asked the server"))
        return request_of(self._alone.exchanges[-1].body)

    def call(self, case: Case, url: str, *, stream: bool) -> Reply:
        """Make the call as a program does, and return what that program gets."""
        return reply_of(self._child.call("call", body=body_of(case), url=url, stream=stream))


class OpenAiClient(_Client):
    """The `openai` SDK."""

    name: ClassVar[str] = "openai"
    requires: ClassVar[tuple[str, str]] = ("openai", "servers")
    _target: ClassVar[str] = "_openai:Client"


class HttpxClient(_Client):
    """Plain HTTP by `httpx`: the body as it is."""

    name: ClassVar[str] = "httpx"
    requires: ClassVar[tuple[str, str]] = ("httpx", "servers")
    _target: ClassVar[str] = "_httpx:Client"


class LiteLlmClient(_Client):
    """The `litellm` SDK, told that the server is OpenAI-compatible."""

    name: ClassVar[str] = "litellm"
    requires: ClassVar[tuple[str, str]] = ("litellm", "litellm")
    _target: ClassVar[str] = "_litellm:Client"
