"""Defects of what llama.cpp keeps between calls: its cache of keys and values, and how far a prompt is taken as known.

They show where a call finds what an earlier one left, so mostly in the stack's own path. Of the child's `Engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.defects.catalogue._nodes import COMPONENT
from harness.defects.defect import defect
from harness.stage import Stage

_ENGINE: dict[str, Any] = {"stage": Stage.INFERENCE, "kind": "engine", "component": COMPONENT, "cause": "algorithm"}


@defect(
    "eng-prefix-cache-stale",
    sentence="A prompt that begins like the last one is taken to be the last one for four tokens too many.",
    references=("vllm-project/vllm#5543", "sgl-project/sglang#22819"),
    **_ENGINE,
)
def prefix_too_long(engine: Any) -> None:
    """Write the new prompt's ids over those that the cache is known to hold, so that more seem to be the same."""
    real = engine._generate

    def generate(tokens: Sequence[int], **others: Any) -> Any:
        held = engine.llm.input_ids[: engine.llm.n_tokens]
        same = next((at for at, (a, b) in enumerate(zip(held, tokens, strict=False)) if a != b), len(held))
        more = [int(token) for token in tokens[same : same + 4]][: len(held) - same]
        held[same : same + len(more)] = more
        return real(tokens, **others)

    engine._generate = generate


@defect(
    "eng-cells-not-removed",
    sentence="The cells of the last prompt stay where the new one leaves it; llama.cpp then refuses the new one.",
    references=("ggml-org/llama.cpp#4902", "am17an/llama.cpp#38"),
    **{**_ENGINE, "symptom": "crash"},
)
def cells_not_removed(engine: Any) -> None:
    """Remove nothing from the cache."""
    engine.llm._ctx.kv_cache_seq_rm = lambda *_: True


@defect(
    "eng-cell-lost",
    sentence="One cell in the middle of the prompt is lost from the cache after the prompt was computed.",
    references=("ggml-org/llama.cpp#4902",),
    **_ENGINE,
)
def cell_lost(engine: Any) -> None:
    """Remove a cell after a batch of several tokens."""
    real = engine.llm.eval

    def evaluate(tokens: Sequence[int]) -> None:
        real(tokens)
        if len(tokens) > 8:
            at = engine.llm.n_tokens - 5
            engine.llm._ctx.kv_cache_seq_rm(-1, at, at + 1)

    engine.llm.eval = evaluate


@defect(
    "eng-state-restore",
    sentence="A prompt's last token is computed again at the next position, as after a state that was restored.",
    references=("ggml-org/llama.cpp#23468", "ggml-org/llama.cpp#23400"),
    fixed="ggml-org/llama.cpp#23468",
    **_ENGINE,
)
def last_twice(engine: Any) -> None:
    """Evaluate the last token again, and let the binding count as if it had not been."""
    real = engine.llm.eval

    def evaluate(tokens: Sequence[int]) -> None:
        real(tokens)
        if len(tokens) > 1:
            real([tokens[-1]])
            engine.llm.n_tokens -= 1

    engine.llm.eval = evaluate


@defect(
    "eng-sequence-shared",
    sentence="The first tokens of a prompt are computed as those of another conversation.",
    references=("ggml-org/llama.cpp#28537", "ggml-org/llama.cpp#10072"),
    **_ENGINE,
)
def other_s_cells(engine: Any) -> None:
    """Evaluate another prompt's first tokens in the place of this one's."""
    real = engine.llm.eval

    def evaluate(tokens: Sequence[int]) -> None:
        hurt = [(token + 1) % engine.llm.n_vocab() for token in tokens[:4]] if len(tokens) > 16 else []
        real([*hurt, *tokens[len(hurt) :]])

    engine.llm.eval = evaluate
