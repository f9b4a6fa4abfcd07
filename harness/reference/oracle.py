"""The Llama architecture in NumPy: the reference that engines' numbers are held against.

Everything is float32, summed as BLAS sums. Sources of the formulas:

* RMSNorm: arXiv 1910.07467, equation 4; before each block and before the output matrix.
* Rotary position embedding: arXiv 2104.09864, equation 34. GGUF orders the rows of the query and key matrices so that
  the pairs that rotate together are neighbours, `(2i, 2i + 1)`, as in the paper.
* Grouped-query attention: arXiv 2305.13245; of the query heads, in order, each key/value head serves an equal share.
* SwiGLU: arXiv 2002.05202, equation 6, without biases.
* Division of each rotary frequency by a factor (`rope_freqs.weight`): Meta's code for Llama 3.1, whose result the file
  holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.errors import UserError
from harness.reference.weights import Array, LayerWeights, LlamaConfig, LlamaWeights, load_weights

# A long prompt goes through in pieces of this many positions, which bounds the memory of the attention scores.
_BATCH: Final = 512


class Oracle:
    """A model's exact answer to token ids.

    Args:
        weights: The model; the oracle keeps it and makes no copy.
    """

    def __init__(self, weights: LlamaWeights) -> None:
        self._weights = weights

    @classmethod
    def from_file(cls, path: Path) -> Oracle:
        """Load a GGUF.

        Raises:
            ModelFileError: as `harness.reference.weights.load_weights`.
            MissingPackageError: the package `gguf` is not installed.
        """
        return cls(load_weights(path))

    @property
    def config(self) -> LlamaConfig:
        """The model's numbers."""
        return self._weights.config

    def logits(self, ids: Sequence[int], *, last: int | None = None) -> Array:
        """Compute a fresh sequence's logits.

        Args:
            ids: The tokens, from position 0 on.
            last: Return only the rows of this many last positions; all where None.

        Returns:
            `(positions, n_vocab)`; row `i` predicts the token after `ids[i]`.

        Raises:
            UserError: an id is not in the vocabulary.
            ValueError: no ids, or `last` is not between 1 and their number.
        """
        return self.session().feed(ids, last=last)

    def session(self) -> Session:
        """Start an empty sequence that can be fed piece by piece."""
        return Session(self._weights)


class Session:
    """One sequence and its key/value cache.

    Args:
        weights: The model.
    """

    def __init__(self, weights: LlamaWeights) -> None:
        self._weights = weights
        self._length = 0
        config = weights.config
        # (layer, key or value, head, position, dimension); positions beyond the length are room to grow.
        self._cache: Array = np.empty((config.n_layer, 2, config.n_head_kv, 0, config.head_dim), dtype=np.float32)

    @property
    def length(self) -> int:
        """How many positions were fed so far."""
        return self._length

    def feed(self, ids: Sequence[int], *, last: int | None = None) -> Array:
        """Append tokens and compute their logits.

        Args:
            ids: The tokens that follow those fed before.
            last: Return only the rows of this many last of them; all where None.

        Returns:
            `(positions, n_vocab)`; row `i` predicts the token after `ids[i]`.

        Raises:
            UserError: an id is not in the vocabulary; nothing was appended.
            ValueError: no ids, or `last` is not between 1 and their number; nothing was appended.
        """
        tokens = self._checked(ids)
        wanted = len(tokens) if last is None else last
        if not 1 <= wanted <= len(tokens):
            raise ValueError(f"last={last} of {len(tokens)} ids")
        self._reserve(self._length + len(tokens))
        hidden = np.concatenate([self._blocks(tokens[i : i + _BATCH]) for i in range(0, len(tokens), _BATCH)])
        normed = _rms_norm(hidden[-wanted:], self._weights.output_norm, self._weights.config.rms_eps)
        return _project(normed, self._weights.output)

    def _checked(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        n_vocab = self._weights.config.n_vocab
        # Checked here because NumPy takes a negative index as one from the end.
        for position, token in enumerate(ids):
            if not 0 <= token < n_vocab:
                raise UserError(
                    f"token id {token} (number {position} of those fed) is not in the vocabulary of {n_vocab}",
                    "the ids have to come from this model's tokenizer",
                )
        return np.asarray(ids, dtype=np.int64)

    def _reserve(self, end: int) -> None:
        room = self._cache.shape[3]
        if end > room:
            # At least doubling keeps the copying that one token costs constant.
            shape = (*self._cache.shape[:3], max(end, 2 * room), self._cache.shape[4])
            grown: Array = np.empty(shape, dtype=np.float32)
            grown[..., : self._length, :] = self._cache[..., : self._length, :]
            self._cache = grown

    def _blocks(self, tokens: npt.NDArray[np.int64]) -> Array:
        """Run all blocks over the tokens, cache their keys and values; returns `(positions, n_embd)`."""
        config = self._weights.config
        start, end = self._length, self._length + len(tokens)
        cos, sin = _rotation(config, self._weights.rope_factors, start, end)
        mask = _causal_mask(start, end)
        hidden = self._weights.token_embd[tokens]
        for layer, cache in zip(self._weights.layers, self._cache, strict=True):
            normed = _rms_norm(hidden, layer.attn_norm, config.rms_eps)
            query, key, value = (
                _project(normed, matrix).reshape(len(tokens), -1, config.head_dim)
                for matrix in (layer.attn_q, layer.attn_k, layer.attn_v)
            )
            cache[0, :, start:end] = _rotate(key, cos, sin).swapaxes(0, 1)
            cache[1, :, start:end] = value.swapaxes(0, 1)
            attended = _attention(_rotate(query, cos, sin), cache[0, :, :end], cache[1, :, :end], mask)
            hidden += _project(attended, layer.attn_output)
            hidden += _feed_forward(_rms_norm(hidden, layer.ffn_norm, config.rms_eps), layer)
        self._length = end
        return hidden


def _project(x: Array, matrix: Array) -> Array:
    """Apply a matrix `(outputs, inputs)` to rows `(positions, inputs)`."""
    return x @ matrix.T


def _rms_norm(x: Array, weight: Array, eps: float) -> Array:
    mean_square: Array = np.mean(np.square(x), axis=-1, keepdims=True)
    scale: Array = 1.0 / np.sqrt(mean_square + eps)
    return x * scale * weight


def _rotation(config: LlamaConfig, factors: Array | None, start: int, end: int) -> tuple[Array, Array]:
    """Cosine and sine of each position's angles, both `(positions, 1, rope_dim / 2)`."""
    # In float64 up to here: at position 8000 a float32 angle is wrong in its fourth decimal.
    frequencies = config.rope_base ** (-np.arange(0, config.rope_dim, 2, dtype=np.float64) / config.rope_dim)
    if factors is not None:
        frequencies /= factors
    angles = np.arange(start, end, dtype=np.float64)[:, None, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn each head's pairs of neighbouring dimensions; `x` is `(positions, heads, head_dim)`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.empty_like(x)
    turned[..., 0::2] = even * cos - odd * sin
    turned[..., 1::2] = even * sin + odd * cos
    return turned


def _causal_mask(start: int, end: int) -> Array:
    """What to add to scores `(positions fed, positions so far)`: 0, or minus infinity for what lies ahead."""
    ahead = np.arange(end) > np.arange(start, end)[:, None]
    mask: Array = np.zeros(ahead.shape, dtype=np.float32)
    mask[ahead] = -np.inf
    return mask


def _attention(query: Array, keys: Array, values: Array, mask: Array) -> Array:
    """Attend with `query` `(positions, n_head, head_dim)`.

    Keys and values are `(n_head_kv, positions so far, head_dim)`; returns `(positions, n_head * head_dim)`.
    """
    count, _, head_dim = query.shape
    n_head_kv, so_far, _ = keys.shape
    # Stack the query heads that share a key/value head, (n_head_kv, group * positions, head_dim): one product for each.
    grouped = query.reshape(count, n_head_kv, -1, head_dim).transpose(1, 2, 0, 3).reshape(n_head_kv, -1, head_dim)
    scores: Array = (grouped * head_dim**-0.5) @ keys.swapaxes(-1, -2)
    scores = scores.reshape(n_head_kv, -1, count, so_far) + mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: Array = scores.reshape(n_head_kv, -1, so_far) @ values
    return mixed.reshape(n_head_kv, -1, count, head_dim).transpose(2, 0, 1, 3).reshape(count, -1)


def _feed_forward(x: Array, layer: LayerWeights) -> Array:
    gate = _project(x, layer.ffn_gate)
    # SiLU is x / (1 + exp(-x)); where exp overflows to infinity the quotient is the right one, 0.
    with np.errstate(over="ignore"):
        gate /= 1.0 + np.exp(-gate)
    gate *= _project(x, layer.ffn_up)
    return _project(gate, layer.ffn_down)
