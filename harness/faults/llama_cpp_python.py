"""Defects of llama-cpp-python and the llama.cpp inside it. Each is called with the child's `Engine`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.faults import defect
from harness.ggml import ROPE_FREQ_BASE, Tensor, Watcher, float_parameters
from harness.stage import Stage

COMPONENT = "llama-cpp-python"
_WRONG_ROPE_BASE = 10_000.0  # the default of the architecture; SmolLM2 was trained with 100,000


@defect(
    "tpl-generation-prompt-lost",
    stage=Stage.TEMPLATE,
    kind="integration",
    component=COMPONENT,
    sentence="The formatter renders without add_generation_prompt: the assistant's turn is never opened.",
)
def generation_prompt_lost(engine: Any) -> None:
    """Switch the generation prompt off in the formatter."""
    engine.formatter.add_generation_prompt = False


@defect(
    "tok-parse-special-ignored",
    stage=Stage.TOKENIZATION,
    kind="integration",
    component=COMPONENT,
    sentence="The tokenizer is called without parse_special: control tokens become ordinary text.",
)
def parse_special_ignored(engine: Any) -> None:
    """Tokenize the prompt as plain text."""
    real: Callable[..., list[int]] = engine.tokenize
    engine.tokenize = lambda text, add_bos, special: real(text, add_bos, False)  # noqa: ARG005


@defect(
    "eng-rope-base",
    stage=Stage.INFERENCE,
    kind="engine",
    component=COMPONENT,
    sentence="Every RoPE operator in llama.cpp's graph runs with a base of 10,000 instead of 100,000.",
    watches_nodes=True,
)
def rope_base(engine: Any) -> None:
    """Edit the operator's parameters right before each of its runs."""

    def edit(tensor: Tensor) -> None:
        float_parameters(tensor)[ROPE_FREQ_BASE] = _WRONG_ROPE_BASE

    engine.nodes.watchers.append(Watcher(lambda name, operator: operator == "ROPE", before=edit))  # noqa: ARG005
