"""Tiny healthy files of every architecture whose tensors the doctor knows, with a vocabulary and a chat template."""

from __future__ import annotations

import functools
import random
import struct
from pathlib import Path

from harness.doctor.architectures import ARCHITECTURES, NORM
from harness.doctor.facts import Facts
from harness.doctor.loading import wanted_tensors
from harness.models.gguf import ModelFile
from harness.models.vocabulary import gguf_keys
from tests.doctor.gguf_bytes import BOOL, F32, I32, STRING, U32, Entry, File, Tensor
from tests.doctor.models import TEMPLATE
from tests.tiny_vocabulary import tiny

_TYPES = {U32: "UINT32", F32: "FLOAT32", BOOL: "BOOL", STRING: "STRING", I32: "INT32"}
KEYS = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
    "rope.dimension_count": 16,
}
_EXPERTS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32}
SPECIAL = {
    "gemma2": {"attention.sliding_window": 32},
    "gemma3": {"attention.sliding_window": 32},
    "cohere2": {"attention.sliding_window": 32, "logit_scale": 0.25},
    "gpt-oss": {"attention.sliding_window": 32},
    "granite": {"logit_scale": 4.0},
    "granitemoe": {"logit_scale": 4.0, "expert_count": 4, "expert_used_count": 2},
    "olmoe": {"attention.head_count_kv": 2},
    "gptneox": {"use_parallel_residual": True},
}
_DEEPSEEK = {"leading_dense_block_count": 1, "expert_shared_count": 1}
_LOW_RANK = {**_DEEPSEEK, "attention.q_lora_rank": 16, "attention.kv_lora_rank": 32, "expert_weights_scale": 1.0}
SPECIAL |= {
    "deepseek": _DEEPSEEK,
    "deepseek2": {
        **_LOW_RANK,
        "attention.head_count_kv": 2,
        "attention.key_length": 24,
        "attention.value_length": 16,
        "rope.dimension_count": 8,
    },
    "deepseek2 with absorbed matrices": {
        **_LOW_RANK,
        "attention.head_count_kv": 1,
        "attention.key_length": 40,
        "attention.value_length": 32,
        "attention.key_length_mla": 24,
        "attention.value_length_mla": 16,
        "rope.dimension_count": 8,
    },
}
ABSORBED = "deepseek2 with absorbed matrices"
MIXTRAL = "llama with experts"
WITHOUT_ROPE = ("gpt2", "starcoder", "bloom", "mpt", "refact")
NAMES = (*ARCHITECTURES, MIXTRAL, ABSORBED)


@functools.cache
def healthy(name: str, tokenizer: str = "gpt2") -> File:
    """Return the file of an architecture; with the tokenizer `llama` its vocabulary has scores."""
    architecture = name.partition(" with ")[0]
    keys: dict[str, object] = dict(KEYS)
    if name in WITHOUT_ROPE:
        del keys["rope.freq_base"], keys["rope.dimension_count"]
    # Files have one of the two.
    of_other = NORM if f"!{NORM}" not in ARCHITECTURES[architecture].keys else "attention.layer_norm_rms_epsilon"
    del keys[of_other]
    if ARCHITECTURES[architecture].experts:
        keys |= _EXPERTS
    if name == MIXTRAL:
        keys |= {"expert_count": 4, "expert_used_count": 2}
    keys |= SPECIAL.get(name, {})
    general = {"general.architecture": architecture, "general.type": "model", "general.name": "tiny"}
    general |= {"general.file_type": 0, "general.quantization_version": 2}
    whole = {**general, **{f"{architecture}.{key}": value for key, value in keys.items()}, **vocabulary(tokenizer)}
    entries = [_entry(key, value) for key, value in whole.items()]
    # The keys alone say what the tensors are.
    declared = ModelFile(Path("tiny.gguf"), whole, [], {one.key.decode(): _type_name(one) for one in entries})
    wanted = wanted_tensors(Facts(declared))
    assert wanted is not None, name
    return File(entries, [_tensor(name, shape) for name, shape in wanted.required.items()])


def vocabulary(tokenizer: str) -> dict[str, object]:
    """Return the keys of a vocabulary of some 270 tokens."""
    if tokenizer == "gpt2":
        keys = dict(gguf_keys(tiny()))
        texts = list(keys["tokenizer.ggml.tokens"])
        texts[-2:] = ["<|im_start|>", "<|im_end|>"]
        keys |= {"tokenizer.ggml.tokens": texts, "tokenizer.ggml.add_bos_token": False}
        return {**keys, "tokenizer.chat_template": TEMPLATE}
    words = ["\u2581hello", "\u2581world", "he", "ll", "o", "\u2581", "a", "e", "<|im_start|>", "<|im_end|>"]
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(words))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 8 + [3, 3],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": len(texts) - 1,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


def _entry(key: str, value: object) -> Entry:
    first = value[0] if isinstance(value, list) else value
    type_ = {bool: BOOL, int: U32, float: F32, str: STRING}[type(first)]
    if isinstance(value, list):
        type_ = I32 if type_ == U32 else type_
        return Entry(key.encode(), type_, [_stored(one) for one in value], array=True)
    return Entry(key.encode(), type_, _stored(value))


def _stored(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


def _type_name(entry: Entry) -> str:
    return _TYPES[entry.type] + ("[]" if entry.array else "")


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    count = 1
    for size in shape:
        count *= size
    noise = random.Random(name)
    norm = "norm" in name and name.endswith("weight")
    values = [1.0] * count if norm else [noise.uniform(-0.1, 0.1) for _ in range(count)]
    return Tensor(name.encode(), shape, 0, struct.pack(f"<{count}f", *values))
