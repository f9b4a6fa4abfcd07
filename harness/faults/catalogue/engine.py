"""Defects of llama.cpp's graph, planted in its operators' parameters. Each is called with the child's `Engine`."""

from __future__ import annotations

from typing import Any

from harness.faults.defect import defect
from harness.ggml import ROPE_FREQ_BASE, Tensor, Watcher, float_parameters
from harness.stage import Stage

_COMPONENT = "llama-cpp-python"
_WRONG_ROPE_BASE = 10_000.0  # the default of the architecture; SmolLM2 was trained with 100,000


@defect(
    "eng-rope-base",
    stage=Stage.INFERENCE,
    kind="engine",
    component=_COMPONENT,
    sentence="Every RoPE operator in llama.cpp's graph runs with a base of 10,000 instead of 100,000.",
    watches_nodes=True,
)
def rope_base(engine: Any) -> None:
    """Edit the operator's parameters right before each of its runs."""

    def edit(tensor: Tensor) -> None:
        float_parameters(tensor)[ROPE_FREQ_BASE] = _WRONG_ROPE_BASE

    engine.nodes.watchers.append(Watcher(lambda name, operator: operator == "ROPE", before=edit))  # noqa: ARG005
