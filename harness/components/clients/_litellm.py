"""The child's side of the `litellm` SDK, which turns one call into the dialect of many servers."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

# It fetches a price list from the network at import unless told to use its own.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from harness.process.owner import the_parts_own


class Client:
    """`litellm.completion` with the provider `openai`.

    Args:
        model: The model's name in the request.
        arguments: Keyword arguments beside the case's own.
    """

    def __init__(self, model: str, arguments: Mapping[str, Any]) -> None:
        self._model = model
        self._arguments = arguments
        litellm.telemetry = False

    def identity(self) -> dict[str, str]:
        """Return the version."""
        return {"litellm": importlib.metadata.version("litellm")}

    def call(self, body: Mapping[str, Any], url: str, stream: bool) -> Any:
        """Call the server and return what the SDK returned, as JSON."""
        given = {**body, **self._arguments}
        with the_parts_own():
            made: Any = litellm.completion(
                model=f"openai/{self._model}",
                api_base=url,
                api_key="none",
                max_retries=0,
                stream=stream,
                **given,
            )
            if stream:
                return [chunk.model_dump(mode="json", exclude_unset=True) for chunk in made]
            return made.model_dump(mode="json", exclude_unset=True)
