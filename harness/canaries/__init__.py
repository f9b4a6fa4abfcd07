"""Canaries: what any server of OpenAI's API can be held against by its address alone.

Each is one question and one row. A row convicts only what the API reference says plainly; what it leaves open, what a
model may do otherwise, and what a server refuses, is not seen. No answer is judged for what a model knows.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.canaries import answers, arriving, choosing, forms, refusing, streams, tools
from harness.canaries.asking import Asking
from harness.canaries.canary import CANARIES
from harness.checking.rows import Row
from harness.errors import NotRunningError
from harness.wire.api import Api

__all__ = ["canaries"]

_MODULES = (answers, arriving, choosing, forms, refusing, streams, tools)


def canaries(
    url: str,
    *,
    model: str,
    key_variable: str | None = None,
    seconds: float = 60.0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[Row, ...]:
    """Ask a server and return a row a canary.

    Args:
        url: The server, with or without `/v1`.
        model: The name to ask for.
        key_variable: The environment variable with the API key.
        seconds: How long one answer may take.
        progress: Told of every canary.

    Raises:
        NotRunningError: nothing listens there, or what does has no chat route.
        UserError: it wants another API key.
    """
    api = Api(url.rstrip("/").removesuffix("/v1"), key_variable=key_variable, seconds=seconds, start="start the server")
    try:
        asking = Asking(api, model)
        rows = []
        for done, one in enumerate(CANARIES):
            progress(f"canary {one.name}", done, len(CANARIES))
            rows.append(one.row(asking))
            if asking.absent:
                remedy = "name the address of a server of OpenAI's API, without a path"
                raise NotRunningError(f"{url} cannot be asked: {asking.absent}", remedy)
        return tuple(rows)
    finally:
        api.close()
