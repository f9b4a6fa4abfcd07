"""The fingerprint model: its first-token numbers tell which ids it was fed.

A random network over all positions: change, drop or add one id of the prompt and every log-probability of the next
token is another. The same server gives the same numbers for the same ids, so what its chat route computes can be held
against what it computes when fed ids directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.probes.file import vocabulary_size, write_probe
from harness.probes.gpt2 import skeleton
from harness.values import ModelRef

WIDTH = 64
SAME = 1e-3
"""Nats within which two log-probabilities are of the same prompt: servers sum in other orders for other batches (seen:
up to 1e-5), while another prompt moves them by far more (seen: at least 1e-2)."""
_SEED = 20251122


def write_fingerprint(model: ModelRef, path: Path, context: int) -> None:
    """Write a fingerprint model.

    Args:
        model: The model whose vocabulary and template it has.
        path: Where to write it.
        context: The most positions.

    Raises:
        ModelFileError: the model's file is damaged.
    """
    vocabulary = vocabulary_size(model.path)
    values, tensors = skeleton(WIDTH, context, vocabulary)
    draw = np.random.Generator(np.random.PCG64(_SEED))

    def normal(name: str, scale: float) -> None:
        shape, kind = tensors[name].shape, tensors[name].dtype
        tensors[name] = (draw.standard_normal(shape, dtype=np.float32) * scale).astype(kind)

    normal("token_embd.weight", 1.0)
    normal("position_embd.weight", 0.5)
    normal("output.weight", 0.6)
    # Queries and keys large enough that a few positions dominate, values large enough to outweigh the last token.
    normal("blk.0.attn_qkv.weight", 0.3)
    normal("blk.0.attn_output.weight", 0.6)
    normal("blk.0.ffn_up.weight", 0.2)
    normal("blk.0.ffn_down.weight", 0.3)
    write_probe(path, model.path, model.chat_template, values, tensors)


def same(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Return whether two sets of first-token log-probabilities, by id, are of the same prompt."""
    shared = one.keys() & other.keys()
    # At the end of both lists, ids within the tolerance of each other may change places.
    return len(shared) >= min(len(one), len(other)) - 1 > 0 and all(abs(one[i] - other[i]) < SAME for i in shared)
