"""What sets each known architecture apart, under the names of llama.cpp: tensors, metadata keys, rotation, nodes.

The truth is llama.cpp's `src/models/<architecture>.cpp`, and `create_tensor_qkv` in `src/llama-model.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_ATTENTION: Final = ("attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight")
_ATTENTION_BIASES: Final = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
_HEAD_NORMS: Final = ("attn_q_norm.weight", "attn_k_norm.weight")
_FEED_FORWARD: Final = ("ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
_ROUTED_EXPERTS: Final = ("ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")
_POST_NORMS: Final = ("post_attention_norm.weight", "post_ffw_norm.weight")
# Query, key and value are one matrix, gate and up another.
_FUSED_ATTENTION: Final = ("attn_norm.weight", "attn_qkv.weight", "attn_output.weight")
_FUSED_FEED_FORWARD: Final = ("ffn_norm.weight", "ffn_up.weight", "ffn_down.weight")

_BLOCK_NODES: Final = ("attn_norm", "Qcur", "Kcur", "Vcur", "kqv_out", "ffn_norm", "l_out")
_HEAD_NORM_NODES: Final = ("Qcur_normed", "Kcur_normed")
_EXPERT_NODES: Final = ("ffn_moe_logits", "ffn_moe_probs", "ffn_moe_out")


@dataclass(frozen=True)
class Architecture:
    """How one architecture differs from the others; what a block does follows from the tensors that it has.

    Attributes:
        name: The value of `general.architecture`.
        rope: Which dimensions of a head rotate together: `neighbours`, `2i` and `2i + 1`, which is llama.cpp's
            `LLAMA_ROPE_TYPE_NORM`, or `halves`, `i` and `i + rope_dim / 2`, its `LLAMA_ROPE_TYPE_NEOX`.
        partial_rope: Whether a file may rotate only the first `rope.dimension_count` dimensions of a head.
        activation: What the gate of a feed-forward block goes through.
        scaled_embedding: Whether the embedding is multiplied by the square root of its width.
        block_tensors: Every tensor of a block, without `blk.N.`; each is required.
        optional_tensors: Tensors outside the blocks that a file may hold, besides `output.weight`.
        keys: Metadata keys, without the architecture's prefix, that it reads besides those that all read.
        block_nodes: What llama.cpp's graph names in a block, without `-N`.
        names_scaled_query: Whether the last tensor that the graph names `Qcur` is already multiplied by the scale of
            the attention scores.
    """

    name: str
    rope: Literal["neighbours", "halves"]
    block_tensors: tuple[str, ...]
    block_nodes: tuple[str, ...]
    partial_rope: bool = False
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scaled_embedding: bool = False
    optional_tensors: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    names_scaled_query: bool = False


_ALL: Final = (
    # Mistral's dense models are this architecture too; llama.cpp's `mistral3` is another.
    Architecture(
        name="llama",
        rope="neighbours",
        block_tensors=(*_ATTENTION, *_FEED_FORWARD),
        block_nodes=(*_BLOCK_NODES, "attn_out", "ffn_inp", "ffn_out"),
        optional_tensors=("rope_freqs.weight",),
    ),
    Architecture(
        name="qwen2",
        rope="halves",
        block_tensors=(*_ATTENTION, *_ATTENTION_BIASES, *_FEED_FORWARD),
        block_nodes=(*_BLOCK_NODES, "ffn_inp", "ffn_out"),
    ),
    Architecture(
        name="qwen3",
        rope="halves",
        block_tensors=(*_ATTENTION, *_HEAD_NORMS, *_FEED_FORWARD),
        block_nodes=(*_BLOCK_NODES, *_HEAD_NORM_NODES, "ffn_inp", "ffn_out"),
    ),
    Architecture(
        name="qwen3moe",
        rope="halves",
        block_tensors=(*_ATTENTION, *_HEAD_NORMS, "ffn_norm.weight", *_ROUTED_EXPERTS),
        block_nodes=(*_BLOCK_NODES, *_HEAD_NORM_NODES, "ffn_inp", *_EXPERT_NODES),
        keys=frozenset({"expert_count", "expert_used_count", "expert_feed_forward_length"}),
    ),
    Architecture(
        name="gemma3",
        rope="halves",
        block_tensors=(*_ATTENTION, *_HEAD_NORMS, *_FEED_FORWARD, *_POST_NORMS),
        block_nodes=(*_BLOCK_NODES, *_HEAD_NORM_NODES, "attn_post_norm", "sa_out", "ffn_out", "ffn_post_norm"),
        activation="gelu_tanh",
        scaled_embedding=True,
        keys=frozenset(
            {
                "attention.sliding_window",
                "attention.sliding_window_pattern",
                "final_logit_softcapping",
                "rope.freq_base_swa",
                "rope.scaling.factor",
                "rope.scaling.type",
            }
        ),
    ),
    Architecture(
        name="phi3",
        rope="halves",
        partial_rope=True,
        block_tensors=(*_FUSED_ATTENTION, *_FUSED_FEED_FORWARD),
        block_nodes=(*_BLOCK_NODES, "ffn_out"),
        optional_tensors=("rope_factors_long.weight", "rope_factors_short.weight"),
        keys=frozenset({"rope.scaling.attn_factor", "rope.scaling.original_context_length"}),
        names_scaled_query=True,
    ),
)
ARCHITECTURES: Final = {architecture.name: architecture for architecture in _ALL}
"""The known architectures by their names."""
