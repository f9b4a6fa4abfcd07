"""A GGUF's weights as float32 arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.errors import ModelFileError
from harness.models.gguf import read_model_file
from harness.reference.model_config import ModelConfig

Array = npt.NDArray[np.float32]

# Dequantizing makes several temporary arrays of the size of its result; this bounds each to 16 MB.
_CHUNK_ELEMENTS: Final = 1 << 22


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One block's weights; those that its architecture does not have are None.

    Matrices are `(outputs, inputs)`, so that a projection is `x @ matrix.T`. Where the file holds several as one, as
    that of phi3 does, each is a view of its rows.

    Attributes:
        attn_norm: `(n_embd,)`.
        attn_q: `(n_head * head_dim, n_embd)`, each head's rows ordered for its architecture's rotation.
        attn_k: `(n_head_kv * head_dim, n_embd)`, ordered as `attn_q`.
        attn_v: `(n_head_kv * head_dim, n_embd)`.
        attn_output: `(n_embd, n_head * head_dim)`.
        ffn_norm: `(n_embd,)`.
        ffn_gate: `(n_ff, n_embd)`, of experts `(n_expert, n_ff, n_embd)`.
        ffn_up: As `ffn_gate`.
        ffn_down: `(n_embd, n_ff)`, of experts `(n_expert, n_embd, n_ff)`.
        attn_q_bias: `(n_head * head_dim,)`.
        attn_k_bias: `(n_head_kv * head_dim,)`.
        attn_v_bias: `(n_head_kv * head_dim,)`.
        attn_q_norm: `(head_dim,)`, the same for every head.
        attn_k_norm: `(head_dim,)`.
        post_attention_norm: `(n_embd,)`.
        post_ffw_norm: `(n_embd,)`.
        ffn_gate_inp: `(n_expert, n_embd)`, the router.
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
    attn_q_bias: Array | None = None
    attn_k_bias: Array | None = None
    attn_v_bias: Array | None = None
    attn_q_norm: Array | None = None
    attn_k_norm: Array | None = None
    post_attention_norm: Array | None = None
    post_ffw_norm: Array | None = None
    ffn_gate_inp: Array | None = None


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """A model ready to be computed with: float32, C-contiguous, nothing memory-mapped.

    Attributes:
        config: The numbers.
        token_embd: `(n_vocab, n_embd)`.
        layers: One entry a block.
        output_norm: `(n_embd,)`.
        output: `(n_vocab, n_embd)`; the same array as `token_embd` where the file ties them.
        rope_factors: `(rope_dim / 2,)`, what each rotary frequency is divided by (Llama 3.1 and later; LongRoPE's
            factors for short contexts), or None.
        rope_factors_long: `(rope_dim / 2,)`, the same for contexts longer than `config.n_ctx_orig`, or None where the
            length of the context makes no difference.
    """

    config: ModelConfig
    token_embd: Array
    layers: tuple[LayerWeights, ...]
    output_norm: Array
    output: Array
    rope_factors: Array | None
    rope_factors_long: Array | None


def load_weights(path: Path, *, finite: bool = True) -> ModelWeights:
    """Read and dequantize a GGUF of a known architecture.

    Args:
        path: The file.
        finite: Refuse values that are not finite; else what is computed with them is not a number either.

    Raises:
        ModelFileError: the file cannot be read, is of an unknown architecture, lacks a key or tensor, has a tensor of a
            wrong shape, an unknown type or with values that are not finite, or declares or holds something that changes
            the computation and is not implemented.
        MissingPackageError: the package `gguf` is not installed.
    """
    model = read_model_file(path)
    config = ModelConfig.from_model_file(model)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    shapes = _expected_shapes(config, tensors)
    _check_tensors(path, tensors, shapes)
    arrays = {name: _dequantize(path, tensors[name], shapes[name], finite=finite) for name in shapes}
    return ModelWeights(
        config=config,
        token_embd=arrays["token_embd.weight"],
        layers=tuple(_layer(config, arrays, i) for i in range(config.n_layer)),
        output_norm=arrays["output_norm.weight"],
        output=arrays.get("output.weight", arrays["token_embd.weight"]),
        rope_factors=arrays.get("rope_freqs.weight", arrays.get("rope_factors_short.weight")),
        rope_factors_long=arrays.get("rope_factors_long.weight"),
    )


def _block_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a block, without `blk.N.`, and its shape, outermost first."""
    q_width = config.n_head * config.head_dim
    kv_width = config.n_head_kv * config.head_dim
    has_gate = "ffn_gate.weight" in config.architecture.block_tensors
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (config.n_embd,),
        "attn_q.weight": (q_width, config.n_embd),
        "attn_k.weight": (kv_width, config.n_embd),
        "attn_v.weight": (kv_width, config.n_embd),
        "attn_qkv.weight": (q_width + 2 * kv_width, config.n_embd),
        "attn_q.bias": (q_width,),
        "attn_k.bias": (kv_width,),
        "attn_v.bias": (kv_width,),
        "attn_q_norm.weight": (config.head_dim,),
        "attn_k_norm.weight": (config.head_dim,),
        "attn_output.weight": (config.n_embd, q_width),
        "post_attention_norm.weight": (config.n_embd,),
        "ffn_norm.weight": (config.n_embd,),
        "ffn_gate.weight": (config.n_ff, config.n_embd),
        "ffn_up.weight": (config.n_ff if has_gate else 2 * config.n_ff, config.n_embd),
        "ffn_down.weight": (config.n_embd, config.n_ff),
        "ffn_gate_inp.weight": (config.n_expert, config.n_embd),
        "ffn_gate_exps.weight": (config.n_expert, config.n_ff, config.n_embd),
        "ffn_up_exps.weight": (config.n_expert, config.n_ff, config.n_embd),
        "ffn_down_exps.weight": (config.n_expert, config.n_embd, config.n_ff),
        "post_ffw_norm.weight": (config.n_embd,),
    }
    return {name: shapes[name] for name in config.architecture.block_tensors}


def _expected_shapes(config: ModelConfig, tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor to read and its shape, outermost first; optional ones only where the file has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.n_vocab, config.n_embd),
        "output_norm.weight": (config.n_embd,),
    }
    for i in range(config.n_layer):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in _block_shapes(config).items()}
    optional: dict[str, tuple[int, ...]] = {"output.weight": (config.n_vocab, config.n_embd)}
    optional |= dict.fromkeys(config.architecture.optional_tensors, (config.rope_dim // 2,))
    return shapes | {name: shape for name, shape in optional.items() if name in tensors}


def _layer(config: ModelConfig, arrays: Mapping[str, Array], index: int) -> LayerWeights:
    """One block's arrays under the names of the fields."""
    parts: dict[str, Array] = {}
    for name in config.architecture.block_tensors:
        part, _, kind = name.removesuffix("_exps.weight").partition(".")
        parts[f"{part}_bias" if kind == "bias" else part] = arrays[f"blk.{index}.{name}"]
    if "attn_qkv" in parts:
        q_width = config.n_head * config.head_dim
        ends = (q_width, q_width + config.n_head_kv * config.head_dim)
        parts["attn_q"], parts["attn_k"], parts["attn_v"] = np.split(parts.pop("attn_qkv"), ends)
    if "ffn_gate" not in parts:
        parts["ffn_gate"], parts["ffn_up"] = np.split(parts["ffn_up"], 2)
    return LayerWeights(**parts)


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


def _dequantize(path: Path, tensor: Any, shape: tuple[int, ...], *, finite: bool) -> Array:
    from gguf.quants import dequantize

    result: Array = np.empty(shape, dtype=np.float32)
    rows = max(1, _CHUNK_ELEMENTS // math.prod(shape[1:])) if len(shape) > 1 else shape[0]
    for start in range(0, shape[0], rows):
        chunk = result[start : start + rows]
        try:
            # A one-dimensional tensor's data counts bytes, not rows, where it is quantized: take it whole.
            data = tensor.data[start : start + rows] if len(shape) > 1 else tensor.data
            # As one row: of many, gguf takes sixteen at a time, which costs three times as much. A block is of one row.
            row = np.asarray(data).reshape(1, -1)
            # A scale that is not finite is told below, in words, instead of by NumPy's warning.
            with np.errstate(invalid="ignore", over="ignore"):
                chunk[...] = dequantize(row, tensor.tensor_type).reshape(chunk.shape)
        except NotImplementedError as error:
            raise ModelFileError(
                f"{path}: tensor {tensor.name} has the type {tensor.tensor_type.name}, which gguf cannot dequantize"
            ) from error
        if finite and not np.isfinite(chunk).all():
            raise ModelFileError(f"{path}: tensor {tensor.name} holds values that are not finite", "copy it again")
    return result
