"""Tiny model files of every architecture that the oracle knows: keys as converters write them, and random weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.reference.test_weights import write_gguf

N_VOCAB = 97
N_CTX = 256
"""The engine's context, which llama.cpp rounds up to multiples of this; the original one of `phi3 short`."""

_COMMON = {
    "block_count": 3,
    "context_length": 512,
    "embedding_length": 48,
    "feed_forward_length": 40,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 500.0,
    "vocab_size": N_VOCAB,
}
# A head's width is not n_embd / n_head where the architecture leaves it open.
_WIDE_HEADS = {"attention.key_length": 16, "attention.value_length": 16}
_GEMMA3 = {"attention.sliding_window": 5, "rope.freq_base": 4000.0, **_WIDE_HEADS}
_PHI3 = {
    "rope.dimension_count": 8,  # of 12
    "attention.sliding_window": 5,
    "rope.scaling.attn_factor": 1.19,
}


@dataclass(frozen=True)
class TinyModel:
    """A model's metadata; its weights follow from it.

    Attributes:
        id: Its name in the tests.
        architecture: `general.architecture`.
        special: Keys, without the architecture's prefix, besides the common ones or in their place.
        extra: Tensors outside the blocks besides the embedding and the last norm, and their shapes.
    """

    id: str
    architecture: str
    special: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)

    @property
    def keys(self) -> dict:
        named = {f"{self.architecture}.{key}": value for key, value in (_COMMON | self.special).items()}
        return named | {"tokenizer.ggml.model": "no_vocab"}

    def number(self, key: str) -> int:
        return (_COMMON | self.special)[key]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n_embd = self.number("embedding_length")
        shapes = {"token_embd.weight": (N_VOCAB, n_embd), "output_norm.weight": (n_embd,), **self.extra}
        for i in range(self.number("block_count")):
            shapes |= {f"blk.{i}.{name}": shape for name, shape in self._block().items()}
        return shapes

    def _block(self) -> dict[str, tuple[int, ...]]:
        n_embd, n_ff = self.number("embedding_length"), self.number("feed_forward_length")
        n_head, n_head_kv = self.number("attention.head_count"), self.number("attention.head_count_kv")
        head_dim = self.special.get("attention.key_length", n_embd // n_head)
        q, kv = n_head * head_dim, n_head_kv * head_dim
        block = {"attn_norm.weight": (n_embd,), "ffn_norm.weight": (n_embd,), "attn_output.weight": (n_embd, q)}
        if self.architecture == "phi3":
            block |= {"attn_qkv.weight": (q + 2 * kv, n_embd)}
            return block | {"ffn_up.weight": (2 * n_ff, n_embd), "ffn_down.weight": (n_embd, n_ff)}
        block |= {"attn_q.weight": (q, n_embd), "attn_k.weight": (kv, n_embd), "attn_v.weight": (kv, n_embd)}
        if self.architecture == "qwen2":
            block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if self.architecture in ("qwen3", "qwen3moe", "gemma3"):
            block |= {"attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,)}
        if self.architecture == "gemma3":
            block |= {"post_attention_norm.weight": (n_embd,), "post_ffw_norm.weight": (n_embd,)}
        if self.architecture == "qwen3moe":
            n_expert, width = self.number("expert_count"), self.number("expert_feed_forward_length")
            block |= {"ffn_gate_inp.weight": (n_expert, n_embd), "ffn_down_exps.weight": (n_expert, n_embd, width)}
            return block | dict.fromkeys(("ffn_gate_exps.weight", "ffn_up_exps.weight"), (n_expert, width, n_embd))
        block |= {"ffn_gate.weight": (n_ff, n_embd), "ffn_up.weight": (n_ff, n_embd)}
        return block | {"ffn_down.weight": (n_embd, n_ff)}

    def tensors(self) -> dict[str, np.ndarray]:
        """Random weights large enough that every part of the computation moves the logits."""
        rng = np.random.default_rng(11)
        return {name: _random(rng, name, shape) for name, shape in self.shapes().items()}

    def write(self, path: Path) -> Path:
        return write_gguf(path, self.keys, self.tensors(), self.architecture)


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.normal(0, 0.3, shape).astype(np.float32)
    return 1 + np.abs(values) if name.endswith("norm.weight") or name.startswith("rope_") else values


def _output(n_embd: int = 48) -> dict:
    return {"output.weight": (N_VOCAB, n_embd)}


_FACTORS = {"rope_factors_long.weight": (4,), "rope_factors_short.weight": (4,)}

MODELS = (
    TinyModel("llama", "llama", _WIDE_HEADS, _output() | {"rope_freqs.weight": (8,)}),
    # Mistral's first version: llama.cpp does not read the window.
    TinyModel("mistral", "llama", {**_WIDE_HEADS, "attention.sliding_window": 5}, _output()),
    TinyModel("qwen2", "qwen2", extra=_output()),
    TinyModel("qwen3", "qwen3", _WIDE_HEADS),
    TinyModel(
        "qwen3moe",
        "qwen3moe",
        {**_WIDE_HEADS, "expert_count": 8, "expert_used_count": 3, "expert_feed_forward_length": 24},
        _output(),
    ),
    # Blocks 0 to 4 and 6 have the window: every sixth sees all, where the file does not say it.
    TinyModel("gemma3", "gemma3", {**_GEMMA3, "block_count": 7}),
    TinyModel(
        "gemma3 with all its keys",
        "gemma3",
        {
            **_GEMMA3,
            "attention.sliding_window_pattern": [True, False, True],
            "final_logit_softcapping": 8.0,
            "rope.freq_base_swa": 300.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    TinyModel("gemma3 with the scale of 27B", "gemma3", {**_GEMMA3, "block_count": 62}),
    TinyModel("gemma3 without a window", "gemma3", _WIDE_HEADS),
    TinyModel("phi3 short", "phi3", {**_PHI3, "rope.scaling.original_context_length": N_CTX}, _output() | _FACTORS),
    TinyModel("phi3 long", "phi3", {**_PHI3, "rope.scaling.original_context_length": 16}, _output() | _FACTORS),
    TinyModel("phi3 without factors", "phi3", extra=_output()),
)
