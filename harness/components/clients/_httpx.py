"""The child's side of plain HTTP: the body as it is, the answer as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from harness.process.owner import the_parts_own
from harness.wire.api import Api

_LONG = 3600.0
"""Seconds. How long a server may take is limited on the way to it."""


class Client:
    """A program that speaks HTTP itself.

    Args:
        model: The model's name in the request.
        arguments: Fields of the body beside the case's own.
    """

    def __init__(self, model: str, arguments: Mapping[str, Any]) -> None:
        self._model = model
        self._arguments = arguments

    def identity(self) -> dict[str, str]:
        """Return the version."""
        return {"httpx": httpx.__version__}

    def call(self, body: Mapping[str, Any], url: str, stream: bool) -> Any:
        """Call the server and return its answer."""
        sent = {"model": self._model, **body, **self._arguments, "stream": stream}
        with the_parts_own():
            api = Api(url, seconds=_LONG)
            try:
                return (api.stream if stream else api.post)("/chat/completions", sent)
            finally:
                api.close()
