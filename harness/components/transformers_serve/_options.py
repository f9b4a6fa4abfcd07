"""What a stack definition may set for `transformers serve`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """How the server is started; what is left out keeps its own default.

    Attributes:
        device: Where the model runs, as `--device` takes it.
        dtype: The type of weights and activations; None takes the server's own.
        attn_implementation: The attention code; None takes the model's own.
        threads: PyTorch's threads within an operation.
        name_architecture: Name the model's class where the file's configuration does not. Without it the server does
            not start with a GGUF.
        seconds: How long one answer, or a start, may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    attn_implementation: str | None = None
    threads: int | None = Field(default=None, gt=0)
    name_architecture: bool = True
    seconds: float = Field(default=300.0, gt=0)

    def for_serve(self) -> dict[str, Any]:
        """Return the keywords for `transformers.cli.serve.Serve`."""
        return self.model_dump(include={"device", "dtype", "attn_implementation"}, exclude_none=True)
