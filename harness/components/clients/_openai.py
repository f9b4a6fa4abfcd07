"""The child's side of the `openai` SDK: `chat.completions.create`, as programs call it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import openai
from openai.resources.chat.completions import Completions

from harness.process.owner import the_parts_own

_ARGUMENTS = frozenset(inspect.signature(Completions.create).parameters)
"""What the SDK has an argument for; programs pass everything else in `extra_body`."""


class Client:
    """One SDK client, without its own retries: a retry would hide what the server did.

    Args:
        model: The model's name in the request.
        arguments: Keyword arguments beside the case's own.
    """

    def __init__(self, model: str, arguments: Mapping[str, Any]) -> None:
        self._model = model
        self._arguments = arguments
        self._clients: dict[str, openai.OpenAI] = {}

    def identity(self) -> dict[str, str]:
        """Return the version."""
        return {"openai": openai.__version__}

    def call(self, body: Mapping[str, Any], url: str, stream: bool) -> Any:
        """Call the server and return what the SDK returned, as JSON."""
        if url not in self._clients:
            with the_parts_own():
                self._clients[url] = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        arguments = {key: value for key, value in body.items() if key in _ARGUMENTS}
        extra = {key: value for key, value in body.items() if key not in _ARGUMENTS}
        given = {**arguments, **({"extra_body": extra} if extra else {}), **self._arguments}
        with the_parts_own():
            create: Any = self._clients[url].chat.completions.create
            made = create(model=self._model, stream=stream, **given)
            if stream:
                return [chunk.model_dump(mode="json", exclude_unset=True) for chunk in made]
            return made.model_dump(mode="json", exclude_unset=True)
