"""Tiny model files: an architecture's metadata as converters write it, and random weights of a few dozen dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingPackageError

Tensor = NDArray[Any]

COMMON: Final[Mapping[str, Any]] = {
    "block_count": 3,
    "context_length": 512,
    "embedding_length": 48,
    "feed_forward_length": 40,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 500.0,
}
"""Keys without the architecture's prefix, of a model that says nothing else."""


@dataclass(frozen=True)
class TinyModel:
    """A model's metadata; its weights follow from it.

    Attributes:
        id: Its name.
        architecture: `general.architecture`.
        n_vocab: How many tokens it has.
        special: Keys, without the architecture's prefix, besides `COMMON` or in their place.
        extra: Tensors outside the blocks besides the embedding and the last norm, and their shapes.
    """

    id: str
    architecture: str
    n_vocab: int
    special: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, Any]:
        """The metadata of the architecture."""
        return {f"{self.architecture}.{key}": value for key, value in {**COMMON, **self.special}.items()}

    def number(self, key: str) -> int:
        """Return a key's value, without the architecture's prefix."""
        return int({**COMMON, **self.special}[key])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape, outermost dimension first."""
        n_embd = self.number("embedding_length")
        shapes = {"token_embd.weight": (self.n_vocab, n_embd), "output_norm.weight": (n_embd,), **self.extra}
        for i in range(self.number("block_count")):
            shapes |= {f"blk.{i}.{name}": shape for name, shape in self._block().items()}
        return shapes

    def _block(self) -> dict[str, tuple[int, ...]]:
        n_embd, n_ff = self.number("embedding_length"), self.number("feed_forward_length")
        n_head, n_head_kv = self.number("attention.head_count"), self.number("attention.head_count_kv")
        head_dim = int(self.special.get("attention.key_length", n_embd // n_head))
        q, kv = n_head * head_dim, n_head_kv * head_dim
        block: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (n_embd,),
            "ffn_norm.weight": (n_embd,),
            "attn_output.weight": (n_embd, q),
        }
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

    def tensors(self) -> dict[str, Tensor]:
        """Return random weights, float32, large enough that every part of the computation moves the logits."""
        bits = np.random.PCG64(11)
        return {name: _random(bits, name, shape) for name, shape in self.shapes().items()}

    def write(self, path: Path, vocabulary: Mapping[str, Any]) -> Path:
        """Write the model file, with the metadata of its vocabulary.

        Raises:
            MissingPackageError: the package `gguf` is not installed.
        """
        return write_gguf(path, {**self.keys, **vocabulary}, self.tensors(), self.architecture)


def _random(bits: np.random.PCG64, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return numbers of standard deviation 0.3. NumPy keeps a generator's bits from version to version, no more."""
    uniform = (bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - 1
    values = (uniform * np.float32(0.3 * math.sqrt(3))).reshape(shape)
    return 1 + np.abs(values) if name.endswith("norm.weight") or name.startswith("rope_") else values


def write_gguf(path: Path, keys: Mapping[str, Any], tensors: Mapping[str, Any], architecture: str = "llama") -> Path:
    """Write a model file.

    Args:
        path: The file.
        keys: The metadata: texts, numbers, truth values and lists of one kind.
        tensors: Arrays, or pairs of bytes and a `gguf.GGMLQuantizationType`.
        architecture: `general.architecture`.

    Raises:
        MissingPackageError: the package `gguf` is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingPackageError("writing a model file", "gguf", "doctor") from error
    writer = gguf.GGUFWriter(path, architecture)
    add: dict[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    for key, value in keys.items():
        add.get(type(value), writer.add_array)(key, value)
    for name, tensor in tensors.items():
        data, kind = tensor if isinstance(tensor, tuple) else (tensor, None)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
