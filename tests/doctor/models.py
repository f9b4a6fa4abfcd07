"""A tiny healthy GGUF, and how to spoil it."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np

from harness.doctor import Check, examine

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "c", "abc"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
METADATA = {
    "general.architecture": "llama",
    "general.file_type": 7,
    "general.quantization_version": 2,
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 8,
    "llama.vocab_size": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3, 3, 1, 1, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b", "ab c"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}


_ROWS = {"attn_q": 32, "attn_k": 16, "attn_v": 16, "attn_output": 32, "ffn_gate": 32, "ffn_up": 32, "ffn_down": 32}


class _Writer(gguf.GGUFWriter):
    """The writer refuses what the format allows: an array without elements."""

    def _pack_val(self, val, vtype, add_vtype, sub_type=None):
        if val == []:
            return struct.pack("<IIQ", vtype, gguf.GGUFValueType.INT32, 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)


def weights(rows: int, columns: int = 32) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)


def tensors() -> dict[str, np.ndarray]:
    """Vectors are written as they are, matrices as Q8_0."""
    made = {"token_embd.weight": weights(8)}
    for block in ("blk.0", "blk.1"):
        made |= {f"{block}.{name}.weight": np.ones(32, np.float32) for name in ("attn_norm", "ffn_norm")}
        made |= {f"{block}.{name}.weight": weights(rows) for name, rows in _ROWS.items()}
    return made | {"output_norm.weight": np.ones(32, np.float32)}


def write(
    path: Path,
    changes: dict[str, object] | None = None,
    tensor_changes: dict[str, np.ndarray | None] | None = None,
    quantize: bool = True,
) -> Path:
    """Write the healthy file with some keys and tensors changed; None removes."""
    writer = _Writer(path, "")
    writer.kv_data[0].clear()  # the writer's own general.architecture
    for key, value in (METADATA | (changes or {})).items():
        if value is not None:
            writer.add_key_value(key, value, _type_of(value))
    for name, array in (tensors() | (tensor_changes or {})).items():
        if array is None:
            continue
        if quantize and array.ndim > 1 and array.dtype == np.float32:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _type_of(value: object) -> gguf.GGUFValueType:
    types = gguf.GGUFValueType
    if isinstance(value, bool):
        return types.BOOL
    if isinstance(value, int):
        return types.UINT32 if 0 <= value < 2**32 else types.INT64 if value < 2**63 else types.UINT64
    return {str: types.STRING, float: types.FLOAT32, list: types.ARRAY}[type(value)]


def check(path: Path, name: str) -> Check:
    """Return the one check of that name."""
    (found,) = [check for check in examine(path).checks if check.name == name]
    return found
