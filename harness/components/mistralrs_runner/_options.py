"""What a stack definition may set for mistral.rs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """How the engine is started; what is left out keeps its own default.

    Attributes:
        dtype: The type of activations.
        cache_f32: Keep the KV cache in float32; its own default on a CPU is float16.
        threads: Threads of its pool; they spin, so on a busy machine more are slower.
        prefix_cache_n: How many prompts it remembers.
        seconds: How long one answer, or a start, may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["auto", "f32", "f16", "bf16"] = "auto"
    cache_f32: bool = False
    threads: int | None = Field(default=None, gt=0)
    prefix_cache_n: int | None = Field(default=None, ge=0)
    seconds: float = Field(default=600.0, gt=0)

    def environment(self) -> dict[str, str]:
        """Return the variables for the child."""
        made = {"MISTRALRS_CPU_KV_F32": "1"} if self.cache_f32 else {}
        return made if self.threads is None else {**made, "RAYON_NUM_THREADS": str(self.threads)}
