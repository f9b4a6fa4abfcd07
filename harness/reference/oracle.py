"""Transformers in NumPy: the reference that engines' numbers are held against.

The graphs are those of llama.cpp (`src/models/<architecture>.cpp`), whose names the intermediate tensors have; the
formulas' sources stand in `operations`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.errors import UserError, unknown_name
from harness.reference.model_config import ModelConfig
from harness.reference.nodes import Given, Nodes, See, node_names
from harness.reference.operations import (
    ACTIVATIONS,
    attention,
    attention_mask,
    experts,
    feed_forward,
    project,
    rms_norm,
    rotate,
    rotation,
    softmax,
)
from harness.reference.weights import Array, LayerWeights, ModelWeights, load_weights

# A long prompt goes through in pieces of this many positions, which bounds the memory of the attention scores.
_BATCH: Final = 512


class Oracle:
    """A model's exact answer to token ids.

    Args:
        weights: The model; the oracle keeps it and makes no copy.
        n_ctx: The engine's context length, as it says it itself: llama.cpp rounds what it is given up to a multiple of
            256. It matters to LongRoPE models alone, whose long factors llama.cpp takes where it is greater than
            `rope.scaling.original_context_length`, whatever the length of the prompt (`get_rope_factors`). Where it is
            None, the short factors apply, and longer sequences are refused.
    """

    def __init__(self, weights: ModelWeights, *, n_ctx: int | None = None) -> None:
        self._weights = weights
        self._n_ctx = n_ctx

    @classmethod
    def from_file(cls, path: Path, *, n_ctx: int | None = None, finite: bool = True) -> Oracle:
        """Load a GGUF; `n_ctx` as of the class, `finite` as of `harness.reference.weights.load_weights`.

        Raises:
            ModelFileError: as `harness.reference.weights.load_weights`.
            MissingPackageError: the package `gguf` is not installed.
        """
        return cls(load_weights(path, finite=finite), n_ctx=n_ctx)

    @property
    def config(self) -> ModelConfig:
        """The model's numbers."""
        return self._weights.config

    @property
    def node_names(self) -> tuple[str, ...]:
        """Every name that `Session.observe` knows, as llama.cpp's graph gives them: `Qcur-3`, `result_output`."""
        return node_names(self.config)

    def logits(self, ids: Sequence[int], *, last: int | None = None) -> Array:
        """Compute a fresh sequence's logits.

        Args:
            ids: The tokens, from position 0 on.
            last: Return only the rows of this many last positions; all where None.

        Returns:
            `(positions, n_vocab)`; row `i` predicts the token after `ids[i]`.

        Raises:
            UserError: an id is not in the vocabulary, or `n_ctx` has to be given for a sequence of this length.
            ValueError: no ids, or `last` is not between 1 and their number.
        """
        return self.session().feed(ids, last=last)

    def session(self) -> Session:
        """Start an empty sequence that can be fed piece by piece."""
        return Session(self._weights, n_ctx=self._n_ctx)


class Session:
    """One sequence and its key/value cache.

    Args:
        weights: The model.
        n_ctx: As of `Oracle`.
    """

    def __init__(self, weights: ModelWeights, *, n_ctx: int | None = None) -> None:
        config = weights.config
        self._weights = weights
        self._length = 0
        self._capacity: float = math.inf
        self._rope_factors = weights.rope_factors
        if weights.rope_factors_long is not None:
            if n_ctx is None:
                self._capacity = config.n_ctx_orig
            elif n_ctx > config.n_ctx_orig:
                self._rope_factors = weights.rope_factors_long
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
            UserError: an id is not in the vocabulary, or `n_ctx` has to be given for a sequence of this length; nothing
                was appended.
            ValueError: no ids, or `last` is not between 1 and their number; nothing was appended.
        """
        return self._run(ids, last, Nodes())

    def observe(self, ids: Sequence[int], nodes: Collection[str], *, last: int | None = None) -> dict[str, Array]:
        """Append tokens as `feed` does and return intermediate tensors under llama.cpp's names.

        A name that llama.cpp's graph gives several times in a block is the last tensor's that has it: `Qcur-3` is the
        query after its rotation, and of phi3 after its scaling too.

        Args:
            ids: The tokens that follow those fed before.
            nodes: Names out of `Oracle.node_names`.
            last: How many rows `result_norm` and `result_output` (the logits) have; all where None.

        Returns:
            A tensor for each name, `(positions, features)`; all but `result_norm` and `result_output` have a row for
            each of the ids.

        Raises:
            UserError: as `feed`, or the graph has no node of a name; nothing was appended.
            ValueError: as `feed`.
        """
        known = node_names(self._weights.config)
        for name in nodes:
            if name not in known:
                raise unknown_name(f"node of {self._weights.config.architecture.name}", name, known)
        seen = Nodes(nodes)
        self._run(ids, last, seen)
        return seen.tensors()

    def replay(self, ids: Sequence[int], tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Append tokens and compute each node from an engine's own tensors before it.

        An error of the engine then shows where it is made and nowhere after: what follows is computed from the wrong
        tensor, as the engine has done.

        Args:
            ids: The tokens; at most 512.
            tensors: The engine's, by names out of `Oracle.node_names`, `(positions, features)` or their last positions.

        Returns:
            What each of them should have been, in the order of the graph and in the same shape.

        Raises:
            UserError: as `feed`.
            ValueError: more ids than go through in one piece.
        """
        if len(ids) > _BATCH:
            raise ValueError(f"{len(ids)} ids do not go through in one piece of {_BATCH}")
        given = Given(tensors)
        self._run(ids, None, given)
        return given.expected

    def _run(self, ids: Sequence[int], last: int | None, nodes: Nodes | Given) -> Array:
        config = self._weights.config
        tokens = self._checked(ids)
        wanted = len(tokens) if last is None else last
        if not 1 <= wanted <= len(tokens):
            raise ValueError(f"last={last} of {len(tokens)} ids")
        self._reserve(self._length + len(tokens))
        hidden = np.concatenate([self._blocks(tokens[i : i + _BATCH], nodes) for i in range(0, len(tokens), _BATCH)])
        normed = rms_norm(hidden[-wanted:], self._weights.output_norm, config.rms_eps)
        nodes.see("result_norm", normed)
        logits = project(normed, self._weights.output)
        if config.logit_softcap:
            logits = config.logit_softcap * np.tanh(logits / config.logit_softcap)
        nodes.see("result_output", logits)
        return logits

    def _checked(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        n_vocab = self._weights.config.n_vocab
        # Checked here because NumPy takes a negative index as one from the end.
        for position, token in enumerate(ids):
            if not 0 <= token < n_vocab:
                raise UserError(
                    f"token id {token} (number {position} of those fed) is not in the vocabulary of {n_vocab}",
                    "the ids have to come from this model's tokenizer",
                )
        if self._length + len(ids) > self._capacity:
            raise UserError(
                f"a sequence of {self._length + len(ids)} tokens is longer than this model's original context, "
                f"{self._capacity}, from where on the rotary factors depend on the engine's context",
                "give the oracle the engine's n_ctx",
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

    def _blocks(self, tokens: npt.NDArray[np.int64], nodes: Nodes | Given) -> Array:
        """Run all blocks over the tokens, cache their keys and values; returns `(positions, n_embd)`."""
        config = self._weights.config
        places = range(self._length, self._length + len(tokens))
        spans = {window: _Span(config, self._rope_factors, places, window) for window in set(config.windows)}
        hidden = self._weights.token_embd[tokens]
        nodes.see("embd", hidden)
        if config.architecture.scaled_embedding:
            hidden *= math.sqrt(config.n_embd)
            nodes.see("inp_scaled", hidden)
        for i, layer in enumerate(self._weights.layers):
            see = nodes.of_block(i)
            hidden = self._attend(hidden, layer, self._cache[i], spans[config.windows[i]], see)
            hidden = self._transform(hidden, layer, see)
        self._length = places.stop
        return hidden

    def _attend(self, hidden: Array, layer: LayerWeights, cache: Array, span: _Span, see: See) -> Array:
        """Add the attention of a block to the residual stream."""
        config = self._weights.config
        pairs = config.architecture.rope
        normed = rms_norm(hidden, layer.attn_norm, config.rms_eps)
        see("attn_norm", normed)
        query, key, value = (
            project(normed, matrix, bias).reshape(len(hidden), -1, config.head_dim)
            for matrix, bias in (
                (layer.attn_q, layer.attn_q_bias),
                (layer.attn_k, layer.attn_k_bias),
                (layer.attn_v, layer.attn_v_bias),
            )
        )
        if layer.attn_q_norm is not None:
            query = rms_norm(query, layer.attn_q_norm, config.rms_eps)
            see("Qcur_normed", query)
        if layer.attn_k_norm is not None:
            key = rms_norm(key, layer.attn_k_norm, config.rms_eps)
            see("Kcur_normed", key)
        query = rotate(query, span.cos, span.sin, pairs)
        key = rotate(key, span.cos, span.sin, pairs)
        see("Kcur", key)
        see("Vcur", value)
        if not config.architecture.names_scaled_query:
            see("Qcur", query)
        query *= config.attention_scale
        if config.architecture.names_scaled_query:
            see("Qcur", query)

        cache[0, :, span.queries.start : span.queries.stop] = key.swapaxes(0, 1)
        cache[1, :, span.queries.start : span.queries.stop] = value.swapaxes(0, 1)
        keys, values = cache[:, :, span.keys.start : span.keys.stop]
        attended = attention(query, keys, values, span.mask)
        see("kqv_out", attended)
        output = project(attended, layer.attn_output)
        see("attn_out", output)
        if layer.post_attention_norm is not None:
            output = rms_norm(output, layer.post_attention_norm, config.rms_eps)
            see("attn_post_norm", output)
        output += hidden
        # One tensor: models/gemma3.cpp calls it sa_out, the others ffn_inp.
        see("ffn_inp", output)
        see("sa_out", output)
        return output

    def _transform(self, hidden: Array, layer: LayerWeights, see: See) -> Array:
        """Add the feed-forward block, or the experts, to the residual stream."""
        config = self._weights.config
        activation = ACTIVATIONS[config.architecture.activation]
        normed = rms_norm(hidden, layer.ffn_norm, config.rms_eps)
        see("ffn_norm", normed)
        matrices = (layer.ffn_gate, layer.ffn_up, layer.ffn_down)
        if layer.ffn_gate_inp is None:
            output = feed_forward(normed, *matrices, activation)
            see("ffn_out", output)
        else:
            router = project(normed, layer.ffn_gate_inp)
            see("ffn_moe_logits", router)
            probabilities = softmax(router)
            see("ffn_moe_probs", probabilities)
            output = experts(normed, probabilities, config.n_expert_used, *matrices, activation)
            see("ffn_moe_out", output)
        if layer.post_ffw_norm is not None:
            output = rms_norm(output, layer.post_ffw_norm, config.rms_eps)
            see("ffn_post_norm", output)
        output += hidden
        see("l_out", output)
        return output


class _Span:
    """What the blocks of one window share while some positions go through: their angles, and which keys they see."""

    def __init__(self, config: ModelConfig, rope_factors: Array | None, places: range, window: int) -> None:
        self.queries = places
        self.keys = range(max(0, places.start - window + 1) if window else 0, places.stop)
        self.mask = attention_mask(self.queries, self.keys, window)
        self.cos, self.sin = rotation(
            places.start,
            places.stop,
            width=config.rope_dim,
            base=config.rope_base_swa if window else config.rope_base,
            scale=1.0 if window else config.rope_scale,
            magnitude=config.rope_attn_factor,
            factors=rope_factors,
        )
