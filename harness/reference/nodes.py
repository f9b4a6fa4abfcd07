"""Intermediate tensors under the names that llama.cpp's graphs give them with `cb(cur, "name", il)`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import numpy as np

from harness.reference.model_config import ModelConfig
from harness.reference.weights import Array

_ORDER: Final = (
    "attn_norm",
    "Qcur_normed",
    "Kcur_normed",
    "Qcur",
    "Kcur",
    "Vcur",
    "kqv_out",
    "attn_out",
    "attn_post_norm",
    "sa_out",
    "ffn_inp",
    "ffn_norm",
    "ffn_moe_logits",
    "ffn_moe_probs",
    "ffn_moe_out",
    "ffn_out",
    "ffn_post_norm",
    "l_out",
)
See = Callable[[str, Array], None]
"""Takes a tensor `(positions, ...)` and its name, which lacks the number of the block."""


def node_names(config: ModelConfig) -> tuple[str, ...]:
    """Name the nodes of a model's graph that can be observed, each after those that it is computed from."""
    block = sorted(config.architecture.block_nodes, key=_ORDER.index)
    inputs = ("embd", "inp_scaled") if config.architecture.scaled_embedding else ("embd",)
    blocks = (f"{name}-{i}" for i in range(config.n_layer) for name in block)
    return (*inputs, *blocks, "result_norm", "result_output")


class Nodes:
    """Collects the wanted tensors while a prompt goes through the graph in pieces.

    Args:
        wanted: Their names.
    """

    def __init__(self, wanted: Collection[str] = ()) -> None:
        self._pieces: dict[str, list[Array]] = {name: [] for name in wanted}

    def see(self, name: str, tensor: Array) -> None:
        """Keep a copy of a tensor `(positions, ...)` if it is wanted."""
        if name in self._pieces:
            self._pieces[name].append(tensor.reshape(len(tensor), -1).copy())

    def of_block(self, index: int) -> See:
        """Return what sees the tensors of a block."""
        if not self._pieces:
            return _unseen
        return lambda name, tensor: self.see(f"{name}-{index}", tensor)

    def tensors(self) -> dict[str, Array]:
        """Return what was collected, `(positions, features)`."""
        return {name: np.concatenate(pieces) for name, pieces in self._pieces.items()}


class Given:
    """Puts an engine's tensors in the place of the oracle's, and keeps what the oracle had there.

    Args:
        tensors: The engine's, `(positions, features)`, or their last positions only.
    """

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors
        self.expected: dict[str, Array] = {}

    def see(self, name: str, tensor: Array) -> None:
        """Keep a copy of a tensor `(positions, ...)` that the engine shows, and overwrite it with the engine's."""
        given = self._tensors.get(name)
        if given is not None:
            rows = tensor[len(tensor) - len(given) :]
            self.expected[name] = rows.reshape(len(given), -1).copy()
            rows[...] = given.reshape(rows.shape)

    def of_block(self, index: int) -> See:
        """Return what sees the tensors of a block."""
        return lambda name, tensor: self.see(f"{name}-{index}", tensor)


def _unseen(_name: str, _tensor: Array) -> None:
    """Nothing is wanted."""
