"""A GGUF as the folder of files that vLLM loads: weights in float32, configuration, tokenizer, template.

vLLM does not read GGUF, and what a GGUF says of its tokenizer is less than a `tokenizer.json`: of the pre-tokenizer a
name only. The names that are known here are of pre-tokenizers that `tokenizer.json` of the models' authors spells out;
a file with another name is refused, not guessed at. The folder is made once, and kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import platformdirs
from numpy.typing import NDArray

from harness.models.gguf import ModelFile, read_model_file
from harness.stage import StageUnobservedError

_VERSION = "1"
"""Of this module's way to write a folder."""
_CONTROL, _USER_DEFINED = 3, 4  # gguf.TokenType

_DIGITS = {"type": "Digits", "individual_digits": True}
_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_PRE_TOKENIZERS: Mapping[str, list[dict[str, Any]]] = {
    "gpt-2": [_WORDS],
    "refact": [_DIGITS, _WORDS],
    "smollm": [_DIGITS, _WORDS],
    "starcoder": [_DIGITS, _WORDS],
}

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def folder_of(file: Path, sha256: str, chat_template: str | None) -> Path:
    """Return the folder of a model, which is made if it is not there.

    Args:
        file: The GGUF.
        sha256: Its hash.
        chat_template: A template that replaces the file's own.

    Raises:
        ModelFileError: the file is damaged.
        StageUnobservedError: it is of a kind that cannot be turned into such a folder here.
    """
    key = hashlib.sha256("\0".join((_VERSION, sha256, chat_template or "")).encode("utf-8")).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("llm-stack-harness")) / "vllm" / key
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        try:
            _write(made, file, chat_template)
            os.replace(made, folder)  # noqa: PTH105 - atomic
        except BaseException as error:
            shutil.rmtree(made, ignore_errors=True)
            # Another process may have been faster.
            if not (isinstance(error, OSError) and folder.is_dir()):
                raise
    return folder


def _write(folder: Path, file: Path, chat_template: str | None) -> None:
    model = read_model_file(file)
    metadata = model.metadata
    if model.architecture != "llama":
        raise StageUnobservedError(f"no folder for vLLM can be made of the architecture {model.architecture!r}")
    shapes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in model.tensors}
    config = _config(metadata, shapes)
    documents = {
        "config.json": config,
        "tokenizer.json": _tokenizer(metadata),
        "tokenizer_config.json": _tokenizer_config(metadata),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    template = chat_template if chat_template is not None else metadata.get("tokenizer.chat_template")
    if template is not None:
        # Written as bytes: no line end of it may change.
        (folder / "chat_template.jinja").write_bytes(template.encode("utf-8"))
    _write_weights(folder / "model.safetensors", model, shapes, config)


def _config(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    if any(name.startswith(("llama.rope.scaling", "rope_freqs")) for name in (*metadata, *shapes)):
        raise StageUnobservedError("no folder for vLLM can be made of a model with scaled RoPE")
    heads = int(metadata["llama.attention.head_count"])
    width = int(metadata["llama.embedding_length"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": int(metadata["llama.feed_forward_length"]),
        "num_hidden_layers": int(metadata["llama.block_count"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(metadata.get("llama.attention.head_count_kv", heads)),
        "head_dim": int(metadata.get("llama.attention.key_length", width // heads)),
        "max_position_embeddings": int(metadata["llama.context_length"]),
        "rms_norm_eps": float(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(metadata.get("llama.rope.freq_base", 1e4))},
        "tie_word_embeddings": "output.weight" not in shapes,
        "vocab_size": shapes["token_embd.weight"][0],
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
    }


def _tokenizer(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or not isinstance(pre, str) or pre not in _PRE_TOKENIZERS:
        raise StageUnobservedError(
            f"no tokenizer.json can be made of a vocabulary {kind!r} with the pre-tokenizer {pre!r}"
        )
    texts, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": text, **plain, "special": kind == _CONTROL}
            for token, (text, kind) in enumerate(zip(texts, types, strict=True))
            if kind in (_CONTROL, _USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: token for token, text in enumerate(texts)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    texts = metadata["tokenizer.ggml.tokens"]
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
    tokens = {f"{role}_token": texts[token] for role, token in named.items() if token is not None}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **tokens}


def _write_weights(
    path: Path, model: ModelFile, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> None:
    """Write a safetensors file: the length of a JSON header, the header, the tensors' bytes."""
    header: dict[str, Any] = {}
    place = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[_name(name)] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    head = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode("ascii")
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in _weights(model, shapes, config):
            file.write(np.ascontiguousarray(array, dtype="<f4").tobytes())


def _weights(
    model: ModelFile, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> Iterator[NDArray[np.float32]]:
    """Yield every tensor; of queries and keys with the rows in the order of Hugging Face.

    llama.cpp's conversion has interleaved the two halves of each head's rows, as its RoPE turns neighbours.
    """
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in model.tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shapes[tensor.name])
        count = heads.get(tensor.name.split(".")[-2])
        if count is not None:
            array = array.reshape(count, array.shape[0] // count // 2, 2, *array.shape[1:]).swapaxes(1, 2)
        yield array.reshape(shapes[tensor.name])


def _name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    block, layer, kind, *rest = name.split(".")
    if block != "blk" or kind not in _INNER or rest != ["weight"]:
        raise StageUnobservedError(f"no folder for vLLM can be made of a model with the tensor {name!r}")
    return f"model.layers.{layer}.{_INNER[kind]}.weight"
