"""Defects of llama.cpp's operators: what they are told, and the mask that attention is given. Of the child's `Engine`.

Which operators there are, and with which parameters, was read in the graph of llama-cpp-python 0.3.36 without flash
attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.defects.catalogue._nodes import COMPONENT, before, float_parameter
from harness.defects.defect import defect
from harness.llama.ggml import Watcher, data_of, sources
from harness.llama.layout import (
    RMS_NORM_EPS,
    ROPE_ATTN_FACTOR,
    ROPE_FREQ_BASE,
    ROPE_FREQ_SCALE,
    ROPE_MODE,
    ROPE_N_DIMS,
    SOFT_MAX_SCALE,
    Tensor,
)
from harness.stage import Stage

_ENGINE: dict[str, Any] = {
    "stage": Stage.INFERENCE,
    "kind": "engine",
    "component": COMPONENT,
    "watches_nodes": True,
}
_CONFIGURED: dict[str, Any] = {**_ENGINE, "cause": "configuration"}
_LLAMA_31 = ("ggml-org/llama.cpp#8676", "ggml-org/llama.cpp#8650")
_WRONG_BASES = {"": 10_000.0, "-500": 500.0, "-half": 50_000.0, "-million": 1_000_000.0}
"""SmolLM2 was trained with 100,000; 10,000 is the architecture's default."""


def _bases() -> None:
    for suffix, base in _WRONG_BASES.items():
        defect(
            f"eng-rope-base{suffix}",
            sentence=f"Every RoPE operator in llama.cpp's graph runs with a base of {base:,.0f} instead of 100,000.",
            references=_LLAMA_31,
            base=base,
            **_CONFIGURED,
        )(rope_base)


def rope_base(engine: Any, base: float = 10_000.0) -> None:
    """Edit the operator's parameters right before each of its runs."""
    before(engine, "ROPE", float_parameter(ROPE_FREQ_BASE, lambda _: base))


_bases()


@defect(
    "eng-rope-scale-quarter",
    sentence="Positions are divided by four, as for a context four times as long.",
    references=("ggml-org/llama.cpp#8676",),
    factor=0.25,
    **_CONFIGURED,
)
@defect(
    "eng-rope-scale-double",
    sentence="Positions count double in every RoPE operator.",
    factor=2.0,
    **_CONFIGURED,
)
def rope_scale(engine: Any, factor: float) -> None:
    """Scale the frequencies."""
    before(engine, "ROPE", float_parameter(ROPE_FREQ_SCALE, lambda scale: scale * factor))


@defect(
    "eng-yarn-attention-factor",
    sentence="YaRN's factor of attention, 1.4, is applied to a model that has no YaRN.",
    **_CONFIGURED,
)
def rope_attention_factor(engine: Any) -> None:
    """Scale what RoPE gives."""
    before(engine, "ROPE", float_parameter(ROPE_ATTN_FACTOR, lambda factor: factor * 1.4))


@defect(
    "eng-partial-rotary",
    sentence="Only half of the dimensions of each head are rotated, in every layer.",
    references=("ml-explore/mlx-lm#1698", "vllm-project/vllm#16912", "ggml-org/llama.cpp#12957"),
    **_CONFIGURED,
)
@defect(
    "eng-partial-rotary-one-layer",
    sentence="Only half of the dimensions of each head are rotated, in one layer.",
    references=("vllm-project/vllm#11883",),
    layer=7,
    **_CONFIGURED,
)
def partial_rotary(engine: Any, layer: int | None = None) -> None:
    """Halve the operator's dimensions."""

    def edit(tensor: Tensor) -> None:
        tensor.op_params[ROPE_N_DIMS] //= 2

    before(engine, "ROPE", edit, layer)


@defect(
    "eng-rope-style",
    sentence="RoPE pairs a dimension with the one half a head away, not with its neighbour.",
    references=("ggml-org/llama.cpp#3364", "huggingface/transformers#31766"),
    **{**_ENGINE, "cause": "algorithm"},
)
def rope_style(engine: Any) -> None:
    """Switch between the two ways to pair (`GGML_ROPE_TYPE_NEOX` is 2)."""

    def edit(tensor: Tensor) -> None:
        tensor.op_params[ROPE_MODE] ^= 2

    before(engine, "ROPE", edit)


def _at_positions(engine: Any, nodes: str, edit: Any) -> None:
    """Edit the positions, `(rows,)`, that RoPE is given for the nodes whose names begin so, and put them back."""
    kept: list[tuple[Any, Any]] = []

    def plant(tensor: Tensor) -> None:
        positions = data_of(sources(tensor)[1])
        kept.append((positions, positions.copy()))
        edit(positions.reshape(-1))

    def undo(tensor: Tensor) -> None:
        del tensor
        positions, was = kept.pop()
        positions[...] = was

    def wants(name: str, operator: str) -> bool:
        return operator == "ROPE" and name.startswith(nodes)

    engine.nodes.watchers.append(Watcher(wants, before=plant, after=undo))


@defect(
    "eng-kv-shift-delta",
    sentence="Keys are turned to positions two before their own, as after a shift that was counted once too often.",
    references=("ggml-org/llama.cpp#3825", "ggml-org/llama.cpp#3835"),
    fixed="ggml-org/llama.cpp#3835",
    **{**_ENGINE, "cause": "algorithm"},
)
def keys_shifted(engine: Any) -> None:
    """Take two from the positions of keys that are far enough from the start."""

    def edit(positions: Any) -> None:
        positions[positions >= 8] -= 2

    _at_positions(engine, "Kcur", edit)


@defect(
    "eng-batched-rope",
    sentence="From the twentieth row of a batch on positions are one too large; a row alone is right.",
    references=("ml-explore/mlx-lm#1457", "ml-explore/mlx#3795"),
    **{**_ENGINE, "cause": "algorithm"},
)
def rows_off_by_one(engine: Any) -> None:
    """Add one to the positions of later rows."""

    def edit(positions: Any) -> None:
        positions[20:] += 1

    _at_positions(engine, "", edit)


@defect(
    "eng-positions-restart",
    sentence="Positions of generated tokens begin at nothing again.",
    references=("ggml-org/llama.cpp#23468",),
    **{**_ENGINE, "cause": "algorithm"},
)
def decoding_restarts(engine: Any) -> None:
    """Set the position of a batch of one."""

    def edit(positions: Any) -> None:
        if len(positions) == 1:
            positions[:] = 0

    _at_positions(engine, "", edit)


def _epsilons() -> None:
    for name, epsilon in {"1e-6": 1e-6, "1e-3": 1e-3, "1e-2": 1e-2}.items():
        defect(
            f"eng-rms-eps-{name}",
            sentence=f"Every RMS norm runs with an epsilon of {name} instead of 1e-5.",
            references=("ggml-org/llama.cpp#2373", "ggml-org/llama.cpp#2374"),
            fixed="ggml-org/llama.cpp#2384",
            epsilon=epsilon,
            **_CONFIGURED,
        )(rms_epsilon)


def rms_epsilon(engine: Any, epsilon: float) -> None:
    """Set the operator's parameter."""
    before(engine, "RMS_NORM", float_parameter(RMS_NORM_EPS, lambda _: epsilon))


_epsilons()


@defect(
    "eng-softmax-scale-1.1",
    sentence="The scores of attention are a tenth too large in every layer.",
    factor=1.1,
    **_ENGINE,
)
@defect(
    "eng-softmax-scale-half",
    sentence="The scores of attention are half as large as they should be in every layer.",
    factor=0.5,
    **_ENGINE,
)
@defect(
    "eng-softmax-unscaled",
    sentence="The scores of attention are not divided by the square root of a head's size (64).",
    references=("ollama/ollama#14075",),
    factor=8.0,
    **{**_ENGINE, "cause": "algorithm"},
)
@defect(
    "eng-softmax-scale-one-layer",
    sentence="The scores of attention are twice as large as they should be in one layer.",
    factor=2.0,
    layer=12,
    **_ENGINE,
)
def softmax_scale(engine: Any, factor: float, layer: int | None = None) -> None:
    """Scale what the softmax multiplies by."""
    before(engine, "SOFT_MAX", float_parameter(SOFT_MAX_SCALE, lambda scale: scale * factor), layer)


def _in_mask(engine: Any, edit: Any) -> None:
    """Edit the mask, `(rows, cells)`, for each softmax, and put it back."""
    kept: list[tuple[Any, Any]] = []

    def plant(tensor: Tensor) -> None:
        mask = data_of(sources(tensor)[1])
        kept.append((mask, mask.copy()))
        edit(mask[0, 0])

    def undo(tensor: Tensor) -> None:
        del tensor
        mask, was = kept.pop()
        mask[...] = was

    engine.nodes.watchers.append(Watcher(lambda _, operator: operator == "SOFT_MAX", before=plant, after=undo))


@defect(
    "eng-mask-first-hidden",
    sentence="The first token is hidden from every later one.",
    references=("huggingface/transformers#31775", "ggml-org/llama.cpp#8227"),
    **{**_ENGINE, "cause": "algorithm"},
)
def first_hidden(engine: Any) -> None:
    """Close the first cell to all rows but those that see nothing else."""

    def edit(mask: Any) -> None:
        several = np.isfinite(mask).sum(axis=1) > 1
        mask[several, 0] = -np.inf

    _in_mask(engine, edit)


@defect(
    "eng-window-16",
    sentence="Attention sees the last 16 tokens only, in a model that has no window.",
    references=("huggingface/transformers#31775", "Blaizzy/mlx-vlm#669"),
    window=16,
    **{**_ENGINE, "cause": "algorithm"},
)
@defect(
    "eng-window-64",
    sentence="Attention sees the last 64 tokens only, in a model that has no window.",
    references=("NVIDIA-NeMo/Speech#9672",),
    window=64,
    **{**_ENGINE, "cause": "algorithm"},
)
def window(engine: Any, window: int) -> None:
    """Close what lies further back."""

    def edit(mask: Any) -> None:
        for row in mask:
            seen = np.flatnonzero(np.isfinite(row))
            row[seen[:-window]] = -np.inf

    _in_mask(engine, edit)


@defect(
    "eng-mask-leak",
    sentence="Every token of a prompt sees the one after it.",
    **{**_ENGINE, "cause": "algorithm"},
)
def leak(engine: Any) -> None:
    """Open the next cell to each row but the last."""

    def edit(mask: Any) -> None:
        ends = [int(np.flatnonzero(np.isfinite(row))[-1]) if np.isfinite(row).any() else -1 for row in mask]
        for row, end in zip(mask, ends, strict=True):
            if 0 <= end < max(ends):
                row[end + 1] = 0

    _in_mask(engine, edit)
