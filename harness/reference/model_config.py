"""The numbers of a model, from a GGUF's metadata.

Whatever the file declares that changes the computation and is not implemented is refused: a reference that silently
ignored it would convict healthy engines. What llama.cpp itself ignores is ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from harness.errors import ModelFileError
from harness.models.gguf import ModelFile
from harness.reference.architectures import ARCHITECTURES, Architecture

# Keys (without the architecture's prefix) that the configuration of every architecture is made from.
_USED: Final = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "vocab_size",
    }
)
# Keys that do not change what llama.cpp computes. Where the architecture does not read it, that is so of the sliding
# window: `llama`, which Mistral is converted to, and the Qwens never look at the key, and models/phi3.cpp disables it.
_WITHOUT_EFFECT: Final = frozenset({"attention.sliding_window", "rope.scaling.finetuned", "tensor_data_layout"})
# Keys that change the computation unless they hold the value given here.
_NEUTRAL: Final[dict[str, Any]] = {
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scale_linear": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.factor": 1.0,
    "rope.scaling.type": "none",
}
_GEMMA3_27B_LAYERS: Final = 62
# Of so many blocks the last one sees all positions, where the file does not say it.
_GEMMA3_PATTERN: Final = 6


@dataclass(frozen=True)
class ModelConfig:
    """The numbers of a model.

    Attributes:
        architecture: What kind of model it is.
        n_layer: Transformer blocks.
        n_embd: Width of the residual stream.
        n_ff: Width inside a feed-forward block, or inside one expert.
        n_head: Query heads.
        n_head_kv: Key and value heads; each serves `n_head / n_head_kv` query heads.
        head_dim: Width of one head.
        attention_scale: What a query's products with the keys are multiplied by.
        windows: For each block, how many positions a query attends to, its own included; 0: all up to its own.
        rope_dim: How many of a head's dimensions, from the first on, are rotated.
        rope_base: Base of the rotary frequencies.
        rope_scale: What positions are multiplied by before they become angles.
        rope_base_swa: The base in blocks with a window, where positions are never scaled.
        rope_attn_factor: What the cosines and sines are multiplied by.
        n_ctx_orig: From this context length on, exclusively, LongRoPE's long factors apply.
        rms_eps: What RMSNorm adds to the mean square.
        logit_softcap: The bound of the logits, `c` in `c * tanh(logits / c)`; 0: none.
        n_expert: Experts of a block; 0: blocks are dense.
        n_expert_used: Experts that each position goes through.
        n_vocab: Tokens in the vocabulary.
        n_ctx_train: Positions that the model was trained for.
    """

    architecture: Architecture
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    attention_scale: float
    windows: tuple[int, ...]
    rope_dim: int
    rope_base: float
    rope_scale: float
    rope_base_swa: float
    rope_attn_factor: float
    n_ctx_orig: int
    rms_eps: float
    logit_softcap: float
    n_expert: int
    n_expert_used: int
    n_vocab: int
    n_ctx_train: int

    @classmethod
    def from_model_file(cls, model: ModelFile) -> ModelConfig:
        """Read the configuration from a GGUF's metadata; defaults are those of llama.cpp (`load_hparams`).

        Raises:
            ModelFileError: an unknown architecture, a missing or senseless value, or a declared computation that is not
                implemented.
        """
        architecture = _known_architecture(model)
        _refuse_unimplemented(model, architecture)
        n_layer = _integer(model, "block_count")
        n_embd = _integer(model, "embedding_length")
        n_head = _integer(model, "attention.head_count")
        n_head_kv = _integer(model, "attention.head_count_kv", default=n_head)
        if n_head % n_head_kv:
            raise _bad_value(model, "attention.head_count_kv", f"a divisor of the {n_head} query heads")
        head_dim = _head_dim(model, default=n_embd // n_head)
        n_expert, n_expert_used = _experts(model, architecture)
        n_ctx_train = _integer(model, "context_length")
        return cls(
            architecture=architecture,
            n_layer=n_layer,
            n_embd=n_embd,
            n_ff=_feed_forward_width(model, n_expert_used),
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim=head_dim,
            attention_scale=(n_embd // n_head if _is_gemma3_27b(architecture, n_layer) else head_dim) ** -0.5,
            windows=_windows(model, architecture, n_layer),
            rope_dim=_rope_dim(model, architecture, head_dim),
            rope_base=_positive(model, "rope.freq_base", default=10000.0),
            rope_scale=_rope_scale(model),
            rope_base_swa=_positive(model, "rope.freq_base_swa", default=10000.0),
            rope_attn_factor=_positive(model, "rope.scaling.attn_factor", default=1.0),
            n_ctx_orig=_integer(model, "rope.scaling.original_context_length", default=n_ctx_train),
            rms_eps=_positive(model, "attention.layer_norm_rms_epsilon"),
            logit_softcap=_logit_softcap(model),
            n_expert=n_expert,
            n_expert_used=n_expert_used,
            n_vocab=_vocabulary_size(model),
            n_ctx_train=n_ctx_train,
        )


def _known_architecture(model: ModelFile) -> Architecture:
    if model.architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{model.path} has general.architecture {model.architecture!r}; "
            f"the reference implementation knows {', '.join(map(repr, sorted(ARCHITECTURES)))}"
        )
    return ARCHITECTURES[model.architecture]


def _refuse_unimplemented(model: ModelFile, architecture: Architecture) -> None:
    if model.metadata.get("split.count", 0) not in (0, 1):
        raise ModelFileError(
            f"{model.path} is one part of a split model (split.count {model.metadata['split.count']})",
            "merge the parts with llama-gguf-split --merge",
        )
    prefix = f"{architecture.name}."
    accepted = _USED | _WITHOUT_EFFECT | architecture.keys
    for key, value in model.metadata.items():
        name = key.removeprefix(prefix)
        if name == key or name in accepted:
            continue
        if name not in _NEUTRAL:
            raise ModelFileError(
                f"{model.path} declares {key}, which the reference implementation of {architecture.name} does not know"
            )
        if value != _NEUTRAL[name]:
            raise ModelFileError(
                f"{model.path} declares {key} = {value!r}; "
                f"the reference implementation of {architecture.name} knows only {_NEUTRAL[name]!r}"
            )


def _head_dim(model: ModelFile, default: int) -> int:
    key_length = _integer(model, "attention.key_length", default=default)
    if _integer(model, "attention.value_length", default=default) != key_length:
        raise _bad_value(model, "attention.value_length", f"the key length, {key_length} (others are not implemented)")
    return key_length


def _experts(model: ModelFile, architecture: Architecture) -> tuple[int, int]:
    """Return how many experts a block has and how many of them a position goes through."""
    if "expert_count" not in architecture.keys:
        return 0, 0
    n_expert = _integer(model, "expert_count")
    n_expert_used = _integer(model, "expert_used_count")
    if n_expert_used > n_expert:
        raise _bad_value(model, "expert_used_count", f"at most the {n_expert} experts")
    return n_expert, n_expert_used


def _feed_forward_width(model: ModelFile, n_expert_used: int) -> int:
    if n_expert_used and _declared(model, "expert_feed_forward_length"):
        return _integer(model, "expert_feed_forward_length")
    return _integer(model, "feed_forward_length") // max(1, n_expert_used)


def _is_gemma3_27b(architecture: Architecture, n_layer: int) -> bool:
    """Tell the one model whose attention is not scaled by its heads' width, as models/gemma3.cpp tells it."""
    return architecture.name == "gemma3" and n_layer == _GEMMA3_27B_LAYERS


def _windows(model: ModelFile, architecture: Architecture, n_layer: int) -> tuple[int, ...]:
    """Return each block's window; the rule is `load_swa_pattern` and `set_swa_pattern` of llama.cpp."""
    if "attention.sliding_window" not in architecture.keys or not _declared(model, "attention.sliding_window"):
        return (0,) * n_layer
    window = _integer(model, "attention.sliding_window")
    pattern = _value(model, "attention.sliding_window_pattern", default=_GEMMA3_PATTERN)
    if isinstance(pattern, list):
        if len(pattern) < n_layer or not all(local in (0, 1) for local in pattern):
            raise _bad_value(model, "attention.sliding_window_pattern", f"true or false for each of {n_layer} blocks")
        return tuple(window if local else 0 for local in pattern[:n_layer])
    pattern = _integer(model, "attention.sliding_window_pattern", default=_GEMMA3_PATTERN)
    return tuple(0 if i % pattern == pattern - 1 else window for i in range(n_layer))


def _rope_dim(model: ModelFile, architecture: Architecture, head_dim: int) -> int:
    rope_dim = _integer(model, "rope.dimension_count", default=head_dim)
    if rope_dim % 2 or rope_dim > head_dim:
        raise _bad_value(model, "rope.dimension_count", f"even and at most the head's width, {head_dim}")
    if rope_dim != head_dim and not architecture.partial_rope:
        raise _bad_value(model, "rope.dimension_count", f"the head's width, {head_dim}")
    return rope_dim


def _rope_scale(model: ModelFile) -> float:
    """Return the scale of positions; an architecture that does not read the keys has been held to no scaling."""
    kind = _value(model, "rope.scaling.type", default="linear")
    if kind not in ("none", "linear"):
        raise _bad_value(model, "rope.scaling.type", "'none' or 'linear' (others are not implemented)")
    return 1.0 if kind == "none" else 1.0 / _positive(model, "rope.scaling.factor", default=1.0)


def _logit_softcap(model: ModelFile) -> float:
    name = "final_logit_softcapping"
    return _positive(model, name) if _declared(model, name) else 0.0


def _vocabulary_size(model: ModelFile) -> int:
    """Count the vocabulary's entries, as engines do; files without one state a size."""
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    return len(tokens) if tokens is not None else _integer(model, "vocab_size")


def _value(model: ModelFile, name: str, default: Any = None) -> Any:
    key = f"{model.architecture}.{name}"
    value = model.metadata.get(key, default)
    if value is None:
        raise ModelFileError(f"{model.path} lacks the key {key}", "convert the model again")
    return value


def _bad_value(model: ModelFile, name: str, expected: str) -> ModelFileError:
    key = f"{model.architecture}.{name}"
    return ModelFileError(f"{model.path} has {key} = {model.metadata.get(key)!r}; it has to be {expected}")


def _integer(model: ModelFile, name: str, default: int | None = None) -> int:
    value = _value(model, name, default)
    # An array here means a value per layer; a bool is an int to Python but not to GGUF.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _bad_value(model, name, "one positive integer")
    return value


def _positive(model: ModelFile, name: str, default: float | None = None) -> float:
    value = _value(model, name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise _bad_value(model, name, "one positive number")
    return float(value)


def _declared(model: ModelFile, name: str) -> bool:
    """Whether a key is there; llama.cpp takes these keys' 0 for absent."""
    return bool(model.metadata.get(f"{model.architecture}.{name}", 0) != 0)
