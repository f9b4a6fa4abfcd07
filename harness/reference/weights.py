"""A GGUF's weights as float32 arrays, and the numbers that say how to compute with them.

Whatever the file declares that changes the computation and is not implemented here is refused: a reference that
silently ignored it would convict healthy engines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.errors import ModelFileError
from harness.model_file import ModelFile, read_model_file

Array = npt.NDArray[np.float32]

_ARCHITECTURE: Final = "llama"

# Keys (without the architecture's prefix) that the configuration below is made from.
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
# Keys that describe where the model came from, not what is computed.
_DESCRIPTIVE: Final = frozenset({"rope.scaling.finetuned", "tensor_data_layout"})
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
# Dequantizing makes several temporary arrays of the size of its result; this bounds each to 16 MB.
_CHUNK_ELEMENTS: Final = 1 << 22


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers of a Llama model.

    Attributes:
        n_layer: Transformer blocks.
        n_embd: Width of the residual stream.
        n_ff: Width inside a feed-forward block.
        n_head: Query heads.
        n_head_kv: Key and value heads; each serves `n_head / n_head_kv` query heads.
        head_dim: Width of one head.
        rope_dim: How many of a head's dimensions are rotated (all of them: `head_dim`).
        rope_base: Base of the rotary frequencies.
        rms_eps: What RMSNorm adds to the mean square.
        n_vocab: Tokens in the vocabulary.
        n_ctx_train: Positions that the model was trained for.
    """

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    rope_dim: int
    rope_base: float
    rms_eps: float
    n_vocab: int
    n_ctx_train: int

    @classmethod
    def from_model_file(cls, model: ModelFile) -> LlamaConfig:
        """Read the configuration from a GGUF's metadata; defaults are those of llama.cpp.

        Raises:
            ModelFileError: another architecture, a missing or senseless value, or a declared computation that is not
                implemented.
        """
        _refuse_unimplemented(model)
        n_embd = _integer(model, "embedding_length")
        n_head = _integer(model, "attention.head_count")
        n_head_kv = _integer(model, "attention.head_count_kv", default=n_head)
        head_dim = _integer(model, "attention.key_length", default=n_embd // n_head)
        rope_dim = _integer(model, "rope.dimension_count", default=head_dim)
        value_dim = _integer(model, "attention.value_length", default=n_embd // n_head)
        if n_head % n_head_kv:
            raise _bad_value(model, "attention.head_count_kv", f"a divisor of the {n_head} query heads")
        if value_dim != head_dim:
            raise _bad_value(
                model, "attention.value_length", f"the key length, {head_dim} (others are not implemented)"
            )
        if rope_dim != head_dim or head_dim % 2:
            raise _bad_value(model, "rope.dimension_count", f"even and the head's width, {head_dim}")
        return cls(
            n_layer=_integer(model, "block_count"),
            n_embd=n_embd,
            n_ff=_integer(model, "feed_forward_length"),
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim=head_dim,
            rope_dim=rope_dim,
            rope_base=_positive(model, "rope.freq_base", default=10000.0),
            rms_eps=_positive(model, "attention.layer_norm_rms_epsilon"),
            n_vocab=_vocabulary_size(model),
            n_ctx_train=_integer(model, "context_length"),
        )


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One block's weights. Matrices are `(outputs, inputs)`, so that a projection is `x @ matrix.T`.

    Attributes:
        attn_norm: `(n_embd,)`.
        attn_q: `(n_head * head_dim, n_embd)`, each head's rows ordered for rotation of pairs `(2i, 2i + 1)`.
        attn_k: `(n_head_kv * head_dim, n_embd)`, ordered as `attn_q`.
        attn_v: `(n_head_kv * head_dim, n_embd)`.
        attn_output: `(n_embd, n_head * head_dim)`.
        ffn_norm: `(n_embd,)`.
        ffn_gate: `(n_ff, n_embd)`.
        ffn_up: `(n_ff, n_embd)`.
        ffn_down: `(n_embd, n_ff)`.
    """

    attn_norm: Array
    attn_q: Array
    attn_k: Array
    attn_v: Array
    attn_output: Array
    ffn_norm: Array
    ffn_gate: Array
    ffn_up: Array
    ffn_down: Array


@dataclass(frozen=True, eq=False)
class LlamaWeights:
    """A model ready to be computed with: float32, C-contiguous, nothing memory-mapped.

    Attributes:
        config: The numbers.
        token_embd: `(n_vocab, n_embd)`.
        layers: One entry a block.
        output_norm: `(n_embd,)`.
        output: `(n_vocab, n_embd)`; the same array as `token_embd` where the file ties them.
        rope_factors: `(rope_dim / 2,)`, what each rotary frequency is divided by (Llama 3.1 and later), or None.
    """

    config: LlamaConfig
    token_embd: Array
    layers: tuple[LayerWeights, ...]
    output_norm: Array
    output: Array
    rope_factors: Array | None


def load_weights(path: Path) -> LlamaWeights:
    """Read and dequantize a GGUF of the Llama architecture.

    Raises:
        ModelFileError: the file cannot be read, is of another architecture, lacks a key or tensor, has a tensor of a
            wrong shape, an unknown type or with values that are not finite, or declares or holds something that changes
            the computation and is not implemented.
        MissingPackageError: the package `gguf` is not installed.
    """
    model = read_model_file(path)
    config = LlamaConfig.from_model_file(model)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    shapes = _expected_shapes(config, tensors)
    _check_tensors(path, tensors, shapes)
    arrays = {name: _dequantize(path, tensors[name], shapes[name]) for name in shapes}
    layers = tuple(
        LayerWeights(**{part: arrays[f"blk.{i}.{part}.weight"] for part in _layer_shapes(config)})
        for i in range(config.n_layer)
    )
    return LlamaWeights(
        config=config,
        token_embd=arrays["token_embd.weight"],
        layers=layers,
        output_norm=arrays["output_norm.weight"],
        output=arrays.get("output.weight", arrays["token_embd.weight"]),
        rope_factors=arrays.get("rope_freqs.weight"),
    )


def _refuse_unimplemented(model: ModelFile) -> None:
    if model.architecture != _ARCHITECTURE:
        raise ModelFileError(
            f"{model.path} has general.architecture {model.architecture!r}; "
            f"the reference implementation knows only {_ARCHITECTURE!r}"
        )
    if model.metadata.get("split.count", 0) not in (0, 1):
        raise ModelFileError(
            f"{model.path} is one part of a split model (split.count {model.metadata['split.count']})",
            "merge the parts with llama-gguf-split --merge",
        )
    prefix = f"{_ARCHITECTURE}."
    for key, value in model.metadata.items():
        name = key.removeprefix(prefix)
        if name == key or name in _USED or name in _DESCRIPTIVE:
            continue
        if name not in _NEUTRAL:
            raise ModelFileError(f"{model.path} declares {key}, which the reference implementation does not know")
        if value != _NEUTRAL[name]:
            raise ModelFileError(
                f"{model.path} declares {key} = {value!r}; the reference implementation knows only {_NEUTRAL[name]!r}"
            )


def _value(model: ModelFile, name: str, default: float | None) -> Any:
    key = f"{_ARCHITECTURE}.{name}"
    value = model.metadata.get(key, default)
    if value is None:
        raise ModelFileError(f"{model.path} lacks the key {key}", "convert the model again")
    return value


def _bad_value(model: ModelFile, name: str, expected: str) -> ModelFileError:
    key = f"{_ARCHITECTURE}.{name}"
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


def _vocabulary_size(model: ModelFile) -> int:
    """Count the vocabulary's entries, as engines do; files without one state a size."""
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    return len(tokens) if tokens is not None else _integer(model, "vocab_size")


def _layer_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    q_width = config.n_head * config.head_dim
    kv_width = config.n_head_kv * config.head_dim
    return {
        "attn_norm": (config.n_embd,),
        "attn_q": (q_width, config.n_embd),
        "attn_k": (kv_width, config.n_embd),
        "attn_v": (kv_width, config.n_embd),
        "attn_output": (config.n_embd, q_width),
        "ffn_norm": (config.n_embd,),
        "ffn_gate": (config.n_ff, config.n_embd),
        "ffn_up": (config.n_ff, config.n_embd),
        "ffn_down": (config.n_embd, config.n_ff),
    }


def _expected_shapes(config: LlamaConfig, tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor to read and its shape, outermost first; optional ones only where the file has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.n_vocab, config.n_embd),
        "output_norm.weight": (config.n_embd,),
    }
    for i in range(config.n_layer):
        shapes |= {f"blk.{i}.{part}.weight": shape for part, shape in _layer_shapes(config).items()}
    optional = {"output.weight": (config.n_vocab, config.n_embd), "rope_freqs.weight": (config.rope_dim // 2,)}
    return shapes | {name: shape for name, shape in optional.items() if name in tensors}


def _check_tensors(path: Path, tensors: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelFileError(f"{path} lacks the tensor {name}", "convert the model again")
        found = tuple(int(size) for size in reversed(tensors[name].shape))
        if found != shape:
            raise ModelFileError(f"{path}: tensor {name} has the shape {found}; the metadata says {shape}")
    for name in tensors:
        if name not in shapes:
            raise ModelFileError(f"{path} holds the tensor {name}, which the reference implementation does not know")


def _dequantize(path: Path, tensor: Any, shape: tuple[int, ...]) -> Array:
    from gguf.quants import dequantize

    result: Array = np.empty(shape, dtype=np.float32)
    rows = max(1, _CHUNK_ELEMENTS // math.prod(shape[1:])) if len(shape) > 1 else shape[0]
    for start in range(0, shape[0], rows):
        chunk = result[start : start + rows]
        try:
            # A one-dimensional tensor's data counts bytes, not rows, where it is quantized: take it whole.
            data = tensor.data[start : start + rows] if len(shape) > 1 else tensor.data
            # A scale that is not finite is told below, in words, instead of by NumPy's warning.
            with np.errstate(invalid="ignore", over="ignore"):
                chunk[...] = dequantize(data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ModelFileError(
                f"{path}: tensor {tensor.name} has the type {tensor.tensor_type.name}, which gguf cannot dequantize"
            ) from error
        if not np.isfinite(chunk).all():
            raise ModelFileError(f"{path}: tensor {tensor.name} holds values that are not finite", "copy it again")
    return result
