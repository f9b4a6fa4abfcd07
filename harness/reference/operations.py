"""The operations of a transformer in NumPy, float32, summed as BLAS sums.

Sources of the formulas:

* RMSNorm: arXiv 1910.07467, equation 4.
* Rotary position embedding: arXiv 2104.09864, equation 34. Which dimensions are a pair is the architecture's.
* Division of each rotary frequency by a factor: Meta's code for Llama 3.1 (`rope_freqs.weight`) and LongRoPE, arXiv
  2402.13753 (`rope_factors_long.weight`, `rope_factors_short.weight`); the file holds the factors.
* Grouped-query attention: arXiv 2305.13245; of the query heads, in order, each key/value head serves an equal share.
* Sliding window attention: arXiv 2310.06825, section 2.
* SwiGLU and GEGLU: arXiv 2002.05202, equation 6, without biases; GELU's approximation by tanh: arXiv 1606.08415.
* Experts: `llm_graph_context::build_moe_ffn` in llama.cpp's `src/llama-graph.cpp`, softmax before the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

import numpy as np

from harness.reference.weights import Array

Activation = Callable[[Array], Array]

# So many queries attend at a time, to no key that is ahead of all of them: a quarter less time for a prompt of 256.
_TILE: Final = 64


def project(x: Array, matrix: Array, bias: Array | None = None) -> Array:
    """Apply a matrix `(outputs, inputs)` and a bias `(outputs,)` to rows `(positions, inputs)`."""
    product: Array = x @ matrix.T
    if bias is not None:
        product += bias
    return product


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Divide by the root of the mean square over the last dimension, which `weight` scales."""
    mean_square: Array = np.mean(np.square(x), axis=-1, keepdims=True)
    normed: Array = x * (1.0 / np.sqrt(mean_square + eps))
    normed *= weight
    return normed


def rotation(
    start: int, end: int, *, width: int, base: float, scale: float, magnitude: float, factors: Array | None
) -> tuple[Array, Array]:
    """Compute the cosines and sines of the positions from `start` to before `end`.

    Args:
        start: The first position.
        end: The position after the last one.
        width: How many dimensions of a head are rotated.
        base: Base of the frequencies.
        scale: What positions are multiplied by.
        magnitude: What cosines and sines are multiplied by.
        factors: `(width / 2,)`, what each frequency is divided by, or None.

    Returns:
        Cosines and sines, both `(positions, 1, width / 2)`.
    """
    # In float64 up to here: at position 8000 a float32 angle is wrong in its fourth decimal.
    frequencies = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    if factors is not None:
        frequencies /= factors
    angles = np.arange(start, end, dtype=np.float64)[:, None, None] * scale * frequencies
    return (magnitude * np.cos(angles)).astype(np.float32), (magnitude * np.sin(angles)).astype(np.float32)


def rotate(x: Array, cos: Array, sin: Array, pairs: Literal["neighbours", "halves"]) -> Array:
    """Turn the pairs of the first dimensions of each head; `x` is `(positions, heads, head_dim)`."""
    half = cos.shape[-1]
    halves = (slice(half), slice(half, 2 * half))
    neighbours = (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
    one, other = halves if pairs == "halves" else neighbours
    turned = x.copy()
    turned[..., one] = x[..., one] * cos - x[..., other] * sin
    turned[..., other] = x[..., one] * sin + x[..., other] * cos
    return turned


def attention_mask(queries: range, keys: range, window: int) -> Array:
    """What to add to scores `(queries, keys)`: 0, or minus infinity for what is ahead or has left the window.

    Args:
        queries: The positions that attend.
        keys: The positions that are there to be attended to.
        window: How many positions a query attends to, its own included; 0: all up to its own.
    """
    distance = np.arange(queries.start, queries.stop)[:, None] - np.arange(keys.start, keys.stop)
    hidden = distance < 0
    if window:
        hidden |= distance >= window
    mask: Array = np.zeros(hidden.shape, dtype=np.float32)
    mask[hidden] = -np.inf
    return mask


def attention(query: Array, keys: Array, values: Array, mask: Array) -> Array:
    """Attend with `query` `(positions, n_head, head_dim)`, which is already scaled.

    Keys and values are `(n_head_kv, keys, head_dim)`, the last of them those of the queries' own positions, the mask
    `(positions, keys)`; returns `(positions, n_head * head_dim)`.
    """
    count, before = len(query), len(mask[0]) - len(query)
    tiles = []
    for start in range(0, count, _TILE):
        end = min(start + _TILE, count)
        seen = slice(before + end)
        tiles.append(_attention_tile(query[start:end], keys[:, seen], values[:, seen], mask[start:end, seen]))
    return np.concatenate(tiles)


def _attention_tile(query: Array, keys: Array, values: Array, mask: Array) -> Array:
    count, _, head_dim = query.shape
    n_head_kv, n_keys, _ = keys.shape
    # Stack the query heads that share a key/value head, (n_head_kv, group * positions, head_dim): one product for each.
    grouped = query.reshape(count, n_head_kv, -1, head_dim).transpose(1, 2, 0, 3).reshape(n_head_kv, -1, head_dim)
    scores: Array = (grouped @ keys.swapaxes(-1, -2)).reshape(n_head_kv, -1, count, n_keys)
    scores += mask
    weights = softmax(scores).reshape(n_head_kv, -1, n_keys)
    mixed: Array = weights @ values
    return mixed.reshape(n_head_kv, -1, count, head_dim).transpose(2, 0, 1, 3).reshape(count, -1)


def softmax(x: Array) -> Array:
    """Normalize over the last dimension, in place."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def silu(x: Array) -> Array:
    """`x / (1 + exp(-x))`, in place."""
    # Where exp overflows to infinity the quotient is the right one, 0.
    with np.errstate(over="ignore"):
        x /= 1.0 + np.exp(-x)
    return x


def gelu_tanh(x: Array) -> Array:
    """`x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2`."""
    gate: Array = np.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * np.square(x)))
    return 0.5 * x * (1.0 + gate)


ACTIVATIONS: Final[dict[str, Activation]] = {"silu": silu, "gelu_tanh": gelu_tanh}
"""The activations by their names."""


def feed_forward(x: Array, gate: Array, up: Array, down: Array, activation: Activation) -> Array:
    """Run `x` `(positions, n_embd)` through a gated feed-forward block; the matrices are `(outputs, inputs)`."""
    gated = activation(project(x, gate))
    gated *= project(x, up)
    return project(gated, down)


def experts(
    x: Array, probabilities: Array, n_used: int, gate: Array, up: Array, down: Array, activation: Activation
) -> Array:
    """Run each position through its most probable experts and add their outputs up, weighted.

    The weights of a position's experts are their probabilities, scaled to the sum 1, which is `norm_w` of llama.cpp and
    `norm_topk_prob` of transformers.

    Args:
        x: `(positions, n_embd)`.
        probabilities: `(positions, n_expert)`.
        n_used: How many experts a position goes through.
        gate: `(n_expert, n_ff, n_embd)`.
        up: `(n_expert, n_ff, n_embd)`.
        down: `(n_expert, n_embd, n_ff)`.
        activation: What the gate goes through.

    Returns:
        `(positions, n_embd)`.
    """
    chosen = np.argsort(-probabilities, axis=-1, kind="stable")[:, :n_used]
    weights = np.take_along_axis(probabilities, chosen, axis=-1)
    weights /= weights.sum(axis=-1, keepdims=True)
    total = np.zeros_like(x)
    for expert in np.unique(chosen):
        rows, ranks = np.nonzero(chosen == expert)
        output = feed_forward(x[rows], gate[expert], up[expert], down[expert], activation)
        total[rows] += weights[rows, ranks, None] * output
    return total
