"""What a stack definition may set for vLLM."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """How vLLM's server is started.

    Attributes:
        n_ctx: The context, in tokens.
        dtype: Of weights and activations. A GGUF's weights are dequantized to float32.
        threads: How many threads compute; None takes one for each processor.
        cache_gb: Memory for keys and values.
        arguments: Further arguments of the program.
        seconds: How long one answer, or a start, may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: int = Field(default=2048, gt=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(default=None, gt=0)
    cache_gb: int = Field(default=1, gt=0)
    arguments: tuple[str, ...] = ()
    seconds: float = Field(default=600.0, gt=0)
