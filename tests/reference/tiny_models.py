"""Tiny model files of every architecture that the oracle knows, with no vocabulary."""

from __future__ import annotations

from pathlib import Path

from harness.models.families.tiny import TinyModel

N_VOCAB = 97
N_CTX = 256
"""The engine's context, which llama.cpp rounds up to multiples of this; the original one of `phi3 short`."""

# A head's width is not n_embd / n_head where the architecture leaves it open.
_WIDE_HEADS = {"attention.key_length": 16, "attention.value_length": 16}
_GEMMA3 = {"attention.sliding_window": 5, "rope.freq_base": 4000.0, **_WIDE_HEADS}
_PHI3 = {
    "rope.dimension_count": 8,  # of 12
    "attention.sliding_window": 5,
    "rope.scaling.attn_factor": 1.19,
}


class VocabularyFree(TinyModel):
    """A model that is fed ids only."""

    @property
    def keys(self) -> dict:
        return {**super().keys, f"{self.architecture}.vocab_size": N_VOCAB, "tokenizer.ggml.model": "no_vocab"}

    def write(self, path: Path) -> Path:
        return super().write(path, {})


def _model(name: str, architecture: str, special: dict | None = None, extra: dict | None = None) -> TinyModel:
    return VocabularyFree(name, architecture, N_VOCAB, special or {}, extra or {})


def _output(n_embd: int = 48) -> dict:
    return {"output.weight": (N_VOCAB, n_embd)}


_FACTORS = {"rope_factors_long.weight": (4,), "rope_factors_short.weight": (4,)}

MODELS = (
    _model("llama", "llama", _WIDE_HEADS, _output() | {"rope_freqs.weight": (8,)}),
    # Mistral's first version: llama.cpp does not read the window.
    _model("mistral", "llama", {**_WIDE_HEADS, "attention.sliding_window": 5}, _output()),
    _model("qwen2", "qwen2", extra=_output()),
    _model("qwen3", "qwen3", _WIDE_HEADS),
    _model(
        "qwen3moe",
        "qwen3moe",
        {**_WIDE_HEADS, "expert_count": 8, "expert_used_count": 3, "expert_feed_forward_length": 24},
        _output(),
    ),
    # Blocks 0 to 4 and 6 have the window: every sixth sees all, where the file does not say it.
    _model("gemma3", "gemma3", {**_GEMMA3, "block_count": 7}),
    _model(
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
    _model("gemma3 with the scale of 27B", "gemma3", {**_GEMMA3, "block_count": 62}),
    _model("gemma3 without a window", "gemma3", _WIDE_HEADS),
    _model("phi3 short", "phi3", {**_PHI3, "rope.scaling.original_context_length": N_CTX}, _output() | _FACTORS),
    _model("phi3 long", "phi3", {**_PHI3, "rope.scaling.original_context_length": 16}, _output() | _FACTORS),
    _model("phi3 without factors", "phi3", extra=_output()),
)
