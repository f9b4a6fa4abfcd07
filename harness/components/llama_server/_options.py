"""What a stack definition may set for llama-server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_FILE_ARGUMENTS = frozenset({"-m", "--model"})
"""Arguments of `llama-server` that name its model file (llama.cpp, `common/arg.cpp`)."""
_FILE_PARAMETERS = frozenset({"model.path"})


class Options(BaseModel):
    """Where the server is and how it is started; without `url` and `binary` the package `xllamacpp` serves.

    Attributes:
        n_ctx: The context, in tokens.
        parameters: Of the package: attributes of `xllamacpp.CommonParams`, nested ones with dots.
        binary: A `llama-server` program to start.
        arguments: Of the program: further arguments.
        file: A GGUF to serve instead of the model's: a copy with other metadata.
        url: A server that runs already; it is not started, not stopped, and gets no probes.
        any_model: Of a server that runs already: it may have another model than the one given.
        api_key_variable: The environment variable that holds its API key.
        seconds: How long one answer, or a start, may take with a file of up to 256 MB; a larger one gets more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: int = Field(default=2048, gt=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
    binary: str | None = None
    arguments: tuple[str, ...] = ()
    file: Path | None = None
    url: str | None = Field(default=None, pattern="^https?://")
    any_model: bool = False
    api_key_variable: str | None = None
    seconds: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.url is not None and (self.binary or self.parameters or self.arguments or self.file):
            raise ValueError("a server that runs already (url) takes no binary, parameters, arguments or file")
        if self.binary is None and self.arguments:
            raise ValueError("'arguments' are of a 'binary'; the package takes 'parameters'")
        if self.binary is not None and self.parameters:
            raise ValueError("'parameters' are of the package; a 'binary' takes 'arguments'")
        return self


def around_its_model(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without what names another file than the model's."""
    left = {name: value for name, value in options.items() if name != "file"}
    if isinstance(parameters := left.get("parameters"), dict):
        left["parameters"] = {name: value for name, value in parameters.items() if name not in _FILE_PARAMETERS}
    if isinstance(arguments := left.get("arguments"), list | tuple):
        left["arguments"] = _without_file(arguments)
    return left


def _without_file(arguments: Sequence[Any]) -> list[Any]:
    """Return arguments without those that name a file, and without what follows these."""
    left: list[Any] = []
    skipped = False
    for one in arguments:
        if not skipped and one not in _FILE_ARGUMENTS and not str(one).startswith("--model="):
            left.append(one)
        skipped = not skipped and one in _FILE_ARGUMENTS
    return left
