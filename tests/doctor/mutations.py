"""Mutations of healthy files, of every part of a GGUF. The same seed gives the same files."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from tests.doctor.gguf_bytes import (
    BLOCKS,
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    Entry,
    File,
    Tensor,
    bytes_of,
)
from tests.doctor.healthy import NAMES, healthy

_INTEGERS = (U8, I8, U16, I16, U32, I32, U64, I64)
_NUMBERS = (*_INTEGERS, F32, F64, BOOL)
_ODD_INTEGERS = (0, 1, 2, 3, 5, 7, 31, 33, 255, 512, 513, 1023, 1024, 2**15, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_ODD_FLOATS = (0.0, -0.0, -1.0, 1.0, 0.5, 1e-12, 1e-3, 1e6, 1e30, float("inf"), float("-inf"), float("nan"))
_ODD_TEXTS = (
    b"",
    b" ",
    b"none",
    b"no_vocab",
    b"gpt2",
    b"llama",
    b"bert",
    b"t5",
    b"rwkv",
    b"default",
    b"qwen2",
    b"yarn",
)
_ODD_TEXTS += (b"linear", b"longrope", b"mrope", b"\xff\xfe", b"\x00", "caf\u00e9".encode(), b"x" * 70_000, b"phi-3")
_ODD_TEXTS += (b"qwen3", b"gemma3", b"clip", b"mamba", b"falcon", b"foo", b"{{ messages", b"{% for x in y %}")
# Keys that a healthy file need not have, with the type that they should have.
_FURTHER = {
    **dict.fromkeys(("split.count", "split.no"), U16),
    **dict.fromkeys(("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"), U32),
    **dict.fromkeys(("attention.key_length", "attention.value_length", "attention.sliding_window"), U32),
    **dict.fromkeys(("nextn_predict_layers", "pooling_type", "embedding_length_out", "vocab_size"), U32),
    **dict.fromkeys(("rope.scaling.original_context_length", "attention.key_length_swa"), U32),
    **dict.fromkeys(("rope.scaling.factor", "rope.scaling.attn_factor", "rope.scale_linear"), F32),
    **dict.fromkeys(("attention.causal", "rope.scaling.finetuned"), BOOL),
    **dict.fromkeys(("rope.scaling.type", "general.author"), STRING),
    **dict.fromkeys(("general.alignment", "general.file_type"), U32),
    **dict.fromkeys(("tokenizer.ggml.eot_token_id", "tokenizer.ggml.padding_token_id"), U32),
    **dict.fromkeys(("tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix"), BOOL),
    "tokenizer.ggml.token_type_count": U32,
}

Mutation = Callable[[random.Random, File], None]


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was done to which file, and the file. One in ten has bytes changed, the others one to three parts."""
    for number in range(count):
        noise = random.Random(f"{seed} {number}")
        name, tokenizer = noise.choice(NAMES), noise.choice(("gpt2", "gpt2", "llama"))
        file = healthy(name, tokenizer).copy()
        done = []
        if number % 10:
            # A second change often hides the first one, so most files have one.
            for _ in range(noise.choice((1, 1, 1, 1, 2, 3))):
                mutation = noise.choices(*_weighted())[0]
                mutation(noise, file)
                done.append(mutation.__name__.lstrip("_"))
            content = file.encoded()
        else:
            content = _bytes_changed(noise, file)
            done.append("bytes")
        yield f"{number:05} {name} {tokenizer} {'+'.join(done)}", content


def _weighted() -> tuple[list[Mutation], list[int]]:
    return list(_MUTATIONS), list(_MUTATIONS.values())


def _bytes_changed(noise: random.Random, file: File) -> bytes:
    content = bytearray(file.encoded())
    data = sum(len(one.data) for one in file.tensors)
    for _ in range(noise.choice((1, 1, 2, 4, 16))):
        place = (
            noise.randrange(0, max(1, len(content) - data)) if noise.random() < 0.9 else noise.randrange(len(content))
        )
        content[place] = noise.choice((0, 1, 0xFF, content[place] ^ (1 << noise.randrange(8)), noise.randrange(256)))
    return bytes(content)


# Keys


def _a_key(noise: random.Random, file: File) -> Entry:
    """Return one of the entries, those of the architecture and the vocabulary more often than the others."""
    if not file.entries:
        file.entries.append(Entry(b"general.architecture", STRING, b"llama"))
    return noise.choice(file.entries)


def _key_dropped(noise: random.Random, file: File) -> None:
    file.entries.remove(_a_key(noise, file))


def _key_twice(noise: random.Random, file: File) -> None:
    one = _a_key(noise, file)
    file.entries.insert(noise.randrange(len(file.entries) + 1), Entry(one.key, one.type, one.value, one.array))


def _key_renamed(noise: random.Random, file: File) -> None:
    one = _a_key(noise, file)
    one.key = noise.choice(
        (one.key[:-1], one.key + b"x", b"", one.key.upper(), b"llama." + one.key, one.key * 30, one.key + b"\0")
    )


def _key_of_other_type(noise: random.Random, file: File) -> None:
    one = _a_key(noise, file)
    if one.array:
        _array_of_other_type(noise, one)
    elif one.type == STRING:
        one.type = noise.choice(_NUMBERS)
        one.value = 1
    else:
        value = one.value if one.value == one.value and abs(one.value) < 2**31 else 1
        one.type = noise.choice([type_ for type_ in (*_NUMBERS, STRING) if type_ != one.type])
        one.value = str(value).encode() if one.type == STRING else value
        if noise.random() < 0.2:
            one.array, one.value = True, [one.value] * noise.choice((0, 1, 2, 3))


def _array_of_other_type(noise: random.Random, one: Entry) -> None:
    if noise.random() < 0.25:
        one.array = False
        one.type, one.value = noise.choice(((STRING, b"x"), (U32, 1), (BOOL, 1)))
        return
    one.type = noise.choice([type_ for type_ in (*_NUMBERS, STRING) if type_ != one.type])
    one.value = [b"x%d" % number if one.type == STRING else 1 for number in range(len(one.value))]


def _key_of_other_value(noise: random.Random, file: File) -> None:
    one = _a_key(noise, file)
    if one.array:
        _array_spoiled(noise, one)
    elif one.type == STRING:
        one.value = noise.choice((*_ODD_TEXTS, one.value[:-1], one.value * 2, one.value.swapcase()))
    elif one.type == F32:
        one.value = noise.choice((*_ODD_FLOATS, one.value * 2))
    elif one.type == BOOL:
        one.value = noise.choice((0, 1, 2, 255))
    else:
        one.value = noise.choice((*_ODD_INTEGERS, one.value + 1, one.value - 1, one.value * 2, one.value // 2))


def _array_spoiled(noise: random.Random, one: Entry) -> None:
    """Change an array: its length, or one of its values."""
    values = one.value
    place = noise.randrange(len(values)) if values else 0
    kind = noise.randrange(6)
    if kind == 0 or not values:
        one.value = values[: noise.choice((0, 1, len(values) // 2, max(0, len(values) - 1)))]
    elif kind == 1:
        one.value = values + values[: noise.choice((1, 2, len(values)))]
    elif kind == 2:
        values[place] = values[noise.randrange(len(values))]
    elif one.type == STRING:
        values[place] = noise.choice(
            (b"", b" ", b"a", b"ab", b"\xff", b"\x00", b"<|im_end|>", b"x" * 4096, values[place] + b" ")
        )
    elif one.type == F32:
        values[place] = noise.choice(_ODD_FLOATS)
    else:
        values[place] = noise.choice((-1, 0, 1, 2, 3, 4, 5, 6, 7, 100, -(2**31)))


def _key_more(noise: random.Random, file: File) -> None:
    """Give the file a key that it need not have."""
    name = noise.choice(list(_FURTHER))
    architecture = file.entry("general.architecture")
    prefix = architecture.value if architecture and isinstance(architecture.value, bytes) else b"llama"
    key = name.encode() if name.startswith(("general.", "tokenizer.", "split.")) else prefix + b"." + name.encode()
    type_ = _FURTHER[name] if noise.random() < 0.7 else noise.choice((*_NUMBERS, STRING))
    value = {STRING: noise.choice(_ODD_TEXTS), BOOL: noise.choice((0, 1))}.get(type_, noise.choice(_ODD_INTEGERS))
    if type_ in (F32, F64):
        value = noise.choice(_ODD_FLOATS)
    file.entries = [one for one in file.entries if one.key != key]
    file.entries.append(Entry(key, type_, value))


def _array_length_forged(noise: random.Random, file: File) -> None:
    one = _a_key(noise, file)
    length = noise.choice((2**20, 2**31, 2**40, 2**60, 2**63, 2**64 - 1, 3))
    if one.array:
        elements = Entry(b"", one.type, one.value, array=True).encoded()[8 + 16 :]
        one.raw = struct.pack("<IIQ", 9, noise.choice((one.type, 9, 13, 99)), length) + elements
    elif one.type == STRING:
        one.raw = struct.pack("<IQ", STRING, length) + one.value
    else:
        one.raw = struct.pack("<I", noise.choice((13, 99, 2**31, 9))) + bytes(8)


# Tensors


def _a_tensor(noise: random.Random, file: File) -> Tensor:
    if not file.tensors:
        file.tensors.append(Tensor(b"token_embd.weight", (32, 1), 0, bytes(128)))
    return noise.choice(file.tensors)


def _tensor_dropped(noise: random.Random, file: File) -> None:
    file.tensors.remove(_a_tensor(noise, file))


def _tensor_twice(noise: random.Random, file: File) -> None:
    one = _a_tensor(noise, file)
    name = one.name + noise.choice((b"", b"", b"\0"))
    file.tensors.insert(noise.randrange(len(file.tensors) + 1), Tensor(name, one.sizes, one.type, one.data))


def _tensor_renamed(noise: random.Random, file: File) -> None:
    one = _a_tensor(noise, file)
    name = one.name
    one.name = noise.choice(
        (
            *(name[:-1], name + b"s", name.replace(b"weight", b"bias"), name.replace(b"blk.0", b"blk.7"), b""),
            *(name.replace(b"attn", b"atn"), name + b"x" * 64, b"\xff" + name, name.replace(b".", b"_")),
        )
    )


def _tensors_swapped(noise: random.Random, file: File) -> None:
    one, other = _a_tensor(noise, file), _a_tensor(noise, file)
    one.name, other.name = other.name, one.name


def _tensor_of_other_shape(noise: random.Random, file: File) -> None:
    one = _a_tensor(noise, file)
    sizes = list(one.sizes)
    place = noise.randrange(len(sizes)) if sizes else 0
    kind = noise.randrange(6)
    if kind == 0 or not sizes:
        sizes.reverse()
    elif kind == 1:
        sizes[place] += noise.choice((1, -1, 32, -8))
    elif kind == 2:
        sizes.append(noise.choice((1, 1, 2, 0)))
    elif kind == 3:
        sizes[place] = noise.choice((0, 1, 2**31, 2**40, 2**62, 2**63, 2**64 - 1))
    elif kind == 4:
        sizes = [sizes[0] * (sizes[1] if len(sizes) > 1 else 1), *sizes[2:]]
    else:
        sizes = [sizes[0] * 2, *sizes[1:]]
    one.sizes = tuple(sizes)
    if noise.random() < 0.7 and all(0 < size < 2**16 for size in sizes):
        needed = bytes_of(sizes, one.type)
        if needed < 2**20:
            one.data = (one.data * (needed // max(1, len(one.data)) + 1))[:needed]


def _tensor_of_other_type(noise: random.Random, file: File) -> None:
    one = _a_tensor(noise, file)
    one.type = noise.choice((*BLOCKS, 4, 5, 9, 15, 16, 31, 38, 39, 40, 41, 42, 99, 2**31, 2**32 - 1))
    needed = bytes_of(one.sizes, one.type)
    if one.type in BLOCKS and noise.random() < 0.8 and needed < 2**20:
        one.data = bytes(needed)


def _tensor_elsewhere(noise: random.Random, file: File) -> None:
    one = _a_tensor(noise, file)
    place, begins = 0, []
    for other in file.tensors:
        begins.append(place)
        place += -(-len(other.data) // 32) * 32
    begin = next(at for at, other in zip(begins, file.tensors, strict=True) if other is one)
    one.begin = noise.choice(
        (0, begin + 1, begin + 32, begin - 32, begin + 4, place, place + 2**20, 2**40, 2**63, 2**64 - 32)
    )
    if one.begin == begin:
        one.begin = begin + 32


def _tensor_dimensions_forged(noise: random.Random, file: File) -> None:
    one = _a_tensor(noise, file)
    one.dimensions = noise.choice((0, 1, 3, 4, 5, 100, 2**31, 2**32 - 1))


def _tensor_more(noise: random.Random, file: File) -> None:
    names = (b"output.weight", b"output.bias", b"rope_freqs.weight", b"blk.0.attn_q.bias", b"blk.0.ffn_gate.weight")
    names += (b"blk.2.attn_norm.weight", b"foo.weight", b"blk.0.attn_q.scale", b"position_embd.weight", b"blk.0.x")
    names += (b"blk.0.attn_qkv.weight", b"blk.0.attn_q_norm.weight", b"output_norm.bias", b"token_embd_norm.weight")
    sizes = noise.choice(((32,), (16,), (8,), (32, 32), (1,), (32, 270), (64, 32)))
    present = {one.name for one in file.tensors}
    name = noise.choice([name for name in names if name not in present])
    data = struct.pack("<f", 0.01) * (bytes_of(sizes, 0) // 4)
    file.tensors.insert(noise.randrange(len(file.tensors) + 1), Tensor(name, sizes, 0, data))


# The whole


def _header_forged(noise: random.Random, file: File) -> None:
    kind = noise.randrange(4)
    if kind == 0:
        file.magic = noise.choice((b"GGML", b"gguf", b"\0\0\0\0", b"GGUE"))
    elif kind == 1:
        file.version = noise.choice((0, 1, 4, 5, 2**16, 2**24 * 3, 2**32 - 1))
    else:
        odd = (0, 1, 2**20, 2**31, 2**40, 2**60, 2**63, 2**64 - 1)
        tensors, entries = len(file.tensors), len(file.entries)
        if noise.random() < 0.5:
            file.counts = noise.choice((*odd, tensors + 1, max(0, tensors - 1))), entries
        else:
            file.counts = tensors, noise.choice((*odd, entries + 1, max(0, entries - 1)))


def _end_cut(noise: random.Random, file: File) -> None:
    file.cut = noise.choice((1, 31, 32, 33, 100, 1000, 20_000, 60_000))


def _end_longer(noise: random.Random, file: File) -> None:
    file.tail = noise.randbytes(noise.choice((1, 32, 4096)))


def _alignment_of_another(noise: random.Random, file: File) -> None:
    """Declare an alignment; half of the files are written with it."""
    alignment = noise.choice((0, 1, 2, 4, 8, 16, 33, 64, 128, 4096, 2**31))
    file.entries = [one for one in file.entries if one.key != b"general.alignment"]
    type_ = noise.choice((U32, U32, U32, U64, I32, STRING, U16))
    value = str(alignment).encode() if type_ == STRING else alignment
    file.entries.insert(noise.randrange(len(file.entries) + 1), Entry(b"general.alignment", type_, value))
    if 0 < alignment <= 4096 and noise.random() < 0.5:
        file.alignment = alignment


_MUTATIONS: dict[Mutation, int] = {
    _key_dropped: 8,
    _key_twice: 3,
    _key_renamed: 4,
    _key_of_other_type: 14,
    _key_of_other_value: 18,
    _key_more: 12,
    _array_length_forged: 3,
    _tensor_dropped: 5,
    _tensor_twice: 3,
    _tensor_renamed: 5,
    _tensors_swapped: 3,
    _tensor_of_other_shape: 8,
    _tensor_of_other_type: 6,
    _tensor_elsewhere: 4,
    _tensor_dimensions_forged: 2,
    _tensor_more: 4,
    _header_forged: 2,
    _end_cut: 2,
    _end_longer: 1,
    _alignment_of_another: 4,
}
