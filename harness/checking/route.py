"""The chained route of a stack whose client and server are two parts: a real call, watched on the wire between them."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from harness.stage import Caller, Served, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, Failure, Observation, Refusal, Unobserved
from harness.wire.api import missing_route, refusal
from harness.wire.chat import reply_of, request_of
from harness.wire.proxy import CHAT, Exchange, RecordingProxy


@runtime_checkable
class Limited(Protocol):
    """A server whose answers have a time limit of their own."""

    def answer_seconds(self) -> float:
        """Return how long one answer may take in all."""


class ServedRoute:
    """A client, a recording proxy and a server.

    Args:
        client: Makes the call.
        server: Answers it.
    """

    def __init__(self, client: Caller, server: Served) -> None:
        self._client = client
        self._server = server
        self._proxy = RecordingProxy(None)

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._proxy.__exit__(kind, error, tb)

    def chat(self, case: Case, *, stream: bool) -> Observation:
        """Run the case and return what every stage produced, as far as it shows."""
        proxy = self._proxy
        proxy.upstream, proxy.key_variable = self._server.url(), self._server.key_variable()
        if isinstance(self._server, Limited):
            proxy.seconds = self._server.answer_seconds()
        proxy.patience = getattr(self._server, "patience", None)
        proxy.additions = self._server.additions(case, stream=stream)
        proxy.added = getattr(self._server, "added", frozenset())
        proxy.forget()
        found: dict[str, Any] = {}
        ended: Refusal | Failure | None = None
        try:
            found["reply"] = self._client.call(case, proxy.url, stream=stream)
        except StageRefusedError as refused:
            ended = refused.refusal
        except StageFailedError as failed:
            ended = failed.failure
        if proxy.error is not None:
            raise proxy.error
        if not proxy.exchanges:
            # Nothing left the client.
            return Observation(request=ended)
        exchange = proxy.exchanges[-1]
        if exchange.error is not None:
            raise exchange.error
        try:
            found["request"] = request_of(exchange.body)
        except StageFailedError as failed:
            # The server was asked for nothing that it could be held to.
            return Observation(request=failed.failure)
        missing = missing_route(exchange.status, bytes(exchange.data), CHAT)
        if missing:
            hidden = Unobserved(reason=missing)
            return Observation(request=found["request"], prompt=hidden, tokens=hidden, generation=hidden, reply=hidden)
        reply = found.get("reply")
        if ended is not None or reply is None or reply.finish_reason is None:
            # A client may take a stream that breaks off for one that ended.
            broke = self._said(exchange) or ended
            found |= {} if broke is None else {"broke": broke}
        answer = exchange.answer()
        if answer is not None:
            with contextlib.suppress(StageFailedError):
                found["answered"] = reply_of(answer)
        shown = self._seen(case, exchange)
        return shown.model_copy(update=found)

    def _seen(self, case: Case, exchange: Exchange) -> Observation:
        try:
            return self._server.seen(case, exchange.body, exchange.answer())
        except StageUnobservedError as hidden:
            return Observation(prompt=hidden.unobserved)
        except StageFailedError as failed:
            return Observation(broke=failed.failure)

    def _said(self, exchange: Exchange) -> Refusal | Failure | None:
        """Return the server's own words, which a client may have wrapped; and its death, if it died."""
        if exchange.status >= 400:
            return refusal(exchange.status, bytes(exchange.data))
        if exchange.failure is not None:
            try:
                self._server.url()
            except StageFailedError as failed:
                return failed.failure
            return exchange.failure
        try:
            exchange.read()
        except StageFailedError as failed:
            return failed.failure
        except StageRefusedError as refused:
            return refused.refusal
        return None
