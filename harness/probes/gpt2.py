"""The skeleton of both probes: GPT-2 with one layer, because it learns absolute positions (llama.cpp, `gpt2`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "probe"
"""What both probes are called (`general.name`)."""
_FEED_FORWARD = 32


def skeleton(width: int, context: int, vocabulary: int) -> tuple[dict[str, str | int | float], dict[str, NDArray[Any]]]:
    """Return the keys and the tensors of a network that computes nothing: all weights zero, all scales one.

    Args:
        width: Of the embeddings.
        context: The most positions.
        vocabulary: The number of tokens.
    """
    values: dict[str, str | int | float] = {
        "general.architecture": "gpt2",
        "general.name": NAME,
        "gpt2.context_length": context,
        "gpt2.embedding_length": width,
        "gpt2.feed_forward_length": _FEED_FORWARD,
        "gpt2.block_count": 1,
        "gpt2.attention.head_count": 1,
        "gpt2.attention.layer_norm_epsilon": 1e-5,
    }

    def zeros(*shape: int) -> NDArray[np.float32]:
        return np.zeros(shape, dtype=np.float32)

    layer = {
        "attn_norm.weight": zeros(width) + 1,
        "attn_norm.bias": zeros(width),
        "attn_qkv.weight": zeros(3 * width, width),
        "attn_qkv.bias": zeros(3 * width),
        "attn_output.weight": zeros(width, width),
        "attn_output.bias": zeros(width),
        "ffn_norm.weight": zeros(width) + 1,
        "ffn_norm.bias": zeros(width),
        "ffn_up.weight": zeros(_FEED_FORWARD, width),
        "ffn_up.bias": zeros(_FEED_FORWARD),
        "ffn_down.weight": zeros(width, _FEED_FORWARD),
        "ffn_down.bias": zeros(width),
    }
    tensors: dict[str, NDArray[Any]] = {
        "token_embd.weight": np.zeros((vocabulary, width), dtype=np.float16),
        "position_embd.weight": zeros(context, width),
        "output_norm.weight": zeros(width) + 1,
        "output_norm.bias": zeros(width),
        "output.weight": np.zeros((vocabulary, width), dtype=np.float16),
        **{f"blk.0.{name}": tensor for name, tensor in layer.items()},
    }
    return values, tensors
