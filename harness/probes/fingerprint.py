"""The fingerprint model: its first-token numbers tell which ids it was fed.

A random network over all positions: change, drop or add one id of the prompt and every log-probability of the next
token is another. The same server gives the same numbers for the same ids, so what its chat route computes can be held
against what it computes when fed ids directly. Of a server that takes no ids, the numbers can be held against those
computed here: the network is small enough for NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.probes.file import vocabulary_size, write_probe
from harness.probes.gpt2 import skeleton
from harness.values import ModelRef

WIDTH = 64
SAME_SERVER = 1e-3
"""Nats within which two log-probabilities of one server are of the same prompt: it sums in another order for another
batch (seen: up to 1e-5), while two neighbours that change places move them by 0.01 and more."""
COMPUTED = 0.03
"""The same for numbers computed here: a server multiplies float16 weights with activations rounded to float16 (seen: up
to 0.013), while another id at any place moves them by 0.2 and more, even among 1,900."""
_SEED = 20251122
_EPSILON = 1e-5


class Fingerprint:
    """A fingerprint model.

    Args:
        model: The model whose vocabulary and template it has.
        context: The most positions.

    Raises:
        ModelFileError: the model's file is damaged.
    """

    def __init__(self, model: ModelRef, context: int) -> None:
        self._model = model
        self._values, self._tensors = skeleton(WIDTH, context, vocabulary_size(model.path))
        draw = np.random.Generator(np.random.PCG64(_SEED))

        def normal(name: str, scale: float) -> None:
            shape, kind = self._tensors[name].shape, self._tensors[name].dtype
            self._tensors[name] = (draw.standard_normal(shape, dtype=np.float32) * scale).astype(kind)

        normal("token_embd.weight", 1.0)
        normal("position_embd.weight", 0.5)
        normal("output.weight", 0.6)
        normal("blk.0.attn_qkv.weight", 0.3)
        # Queries and keys so small that every position counts alike, and the sum so large that it outweighs the last
        # token: the norm before the output makes it one again, so that of n ids each moves it by about one in sqrt(n).
        self._tensors["blk.0.attn_qkv.weight"][: 2 * WIDTH] *= 0.1
        normal("blk.0.attn_output.weight", 12.0)
        normal("blk.0.ffn_up.weight", 0.2)
        normal("blk.0.ffn_down.weight", 0.3)

    def write(self, path: Path) -> None:
        """Write it as a GGUF."""
        write_probe(path, self._model.path, self._model.chat_template, self._values, self._tensors)

    def logprobs(self, ids: Sequence[int], top: int) -> dict[int, float]:
        """Return the likeliest next ids of a prompt with their natural log-probabilities (GPT-2's forward pass)."""
        weight = {name: tensor.astype(np.float32) for name, tensor in self._tensors.items() if name.startswith("blk")}
        states = self._tensors["token_embd.weight"][list(ids)].astype(np.float32)
        states += self._tensors["position_embd.weight"][: len(ids)]
        query, key, value = np.split(_normed(states) @ weight["blk.0.attn_qkv.weight"].T, 3, axis=1)
        scores = query[-1] @ key.T / np.sqrt(np.float32(WIDTH))
        shares = np.exp(scores - scores.max())
        last = states[-1] + (shares / shares.sum()) @ value @ weight["blk.0.attn_output.weight"].T
        hidden = _gelu(_normed(last) @ weight["blk.0.ffn_up.weight"].T)
        last = last + hidden @ weight["blk.0.ffn_down.weight"].T
        logits = self._tensors["output.weight"].astype(np.float32) @ _normed(last)
        numbers = logits - logits.max()
        numbers -= np.log(np.exp(numbers).sum())
        best = np.argsort(-numbers, kind="stable")[:top]
        return {int(i): float(numbers[i]) for i in best}


def same(one: Mapping[int, float], other: Mapping[int, float], within: float) -> bool:
    """Return whether two sets of first-token log-probabilities, by id, are of the same prompt."""
    shared = one.keys() & other.keys()
    # At the end of both lists, ids within the tolerance of each other may change places.
    return len(shared) >= min(len(one), len(other)) - 1 > 0 and all(abs(one[i] - other[i]) < within for i in shared)


def _normed(states: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = states - states.mean(axis=-1, keepdims=True)
    result: NDArray[np.float32] = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
    return result


def _gelu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The approximation by tanh, as GPT-2 and ggml compute it."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (values + np.float32(0.044715) * values**3)
    result: NDArray[np.float32] = np.float32(0.5) * values * (1 + np.tanh(inner))
    return result
