"""What llama.cpp refuses: the doctor's knowledge held against llama.cpp itself."""

from __future__ import annotations

import importlib.util
import struct

import pytest

from harness.doctor import examine
from harness.errors import ModelFileError
from tests.doctor.gguf_bytes import BOOL, F32, F64, I32, STRING, U16, U32, Entry, Tensor, bytes_of
from tests.doctor.healthy import MIXTRAL, NAMES, healthy
from tests.doctor.llama_cpp_load import COMPUTES, try_files
from tests.doctor.mutations import mutants

with_llama_cpp = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is missing")


def written(tmp_path, file):
    path = tmp_path / "m.gguf"
    path.write_bytes(file.encoded())
    return path


def said(path):
    """Return the worst status and what is bad."""
    try:
        diagnosis = examine(path)
    except ModelFileError as error:
        return "bad", str(error)
    bad = [f"{check.name}: {check.found}" for check in diagnosis.checks if check.status == "bad"]
    return diagnosis.worst, "; ".join(bad)


@with_llama_cpp
def test_healthy_files_of_every_architecture_compute_and_are_ok(tmp_path):
    paths = []
    for number, name in enumerate(NAMES):
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(healthy(name, ("gpt2", "llama")[number % 2]).encoded())
    outcomes = [outcome for _, outcome, _ in try_files(paths)]
    assert outcomes == [COMPUTES] * len(NAMES)
    assert [said(path) for path in paths] == [("ok", "")] * len(NAMES)


@with_llama_cpp
def test_what_llama_cpp_does_not_take_is_not_ok(tmp_path):
    """The campaign of `benchmarks.mutated_files`, small."""
    paths, names = [], {}
    for number, (name, content) in enumerate(mutants(200, seed=3)):
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(content)
        names[paths[-1]] = name
    judged = {path: said(path) for path in paths}
    refused = [path for path, outcome, _ in try_files(paths) if outcome != COMPUTES]
    missed = [names[path] for path in refused if judged[path][0] == "ok"]
    assert len(refused) > 130
    assert len(missed) <= 0.02 * len(refused), missed


@pytest.mark.parametrize("name", ["llama", MIXTRAL, "qwen2", "gemma3", "phi3", "gpt2", "gpt-oss", "falcon"])
def test_each_tensor_is_missed_and_its_shape_is_known(tmp_path, name):
    for number in range(len(healthy(name).tensors)):
        file = healthy(name).copy()
        gone = file.tensors.pop(number)
        assert f"missing: {gone.name.decode()!r}" in said(written(tmp_path, file))[1]
        sizes = (*gone.sizes[:-1], gone.sizes[-1] + 1)
        file.tensors.insert(number, Tensor(gone.name, sizes, 0, bytes(bytes_of(sizes, 0))))
        assert "of a wrong shape: " in said(written(tmp_path, file))[1]


def renamed(old, new):
    def change(file):
        next(one for one in file.tensors if one.name == old).name = new

    return change


def keyed(key, type_, value, *, array=False):
    def change(file):
        file.entries = [one for one in file.entries if one.key != key.encode()]
        file.entries.append(Entry(key.encode(), type_, value, array))

    return change


def typed(name, type_, size):
    def change(file):
        one = next(one for one in file.tensors if one.name == name)
        one.type, one.data = type_, bytes(size)

    return change


def twice(file):
    file.tensors.append(file.tensors[0])


def twice_by_a_zero(file):
    file.tensors.append(Tensor(file.tensors[0].name + b"\0", (32,), 0, bytes(128)))


def key_twice(file):
    file.entries.append(file.entries[3])


def too_many(file):
    file.tensors.append(Tensor(b"blk.0.foo.weight", (32,), 0, bytes(128)))


def hole(file):
    file.tensors[-1].begin = 2**20
    file.tail = bytes(2**21)


def narrow(file):
    """Write everything aligned to eight bytes, the data at one that is no multiple of 32."""
    keyed("general.alignment", U32, 8)(file)
    file.alignment = 8
    for extra in range(32):
        keyed("general.author", STRING, b"x" * extra)(file)
        head = len(file.encoded()) - sum(-(-len(one.data) // 8) * 8 for one in file.tensors)
        if head % 32:
            return


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (renamed(b"blk.1.ffn_up.weight", b"blk.1.ffn_upp.weight"), "of no use to the architecture: 'blk.1.ffn_upp"),
        (too_many, "of no use to the architecture: 'blk.0.foo.weight'"),
        (twice, "tensor 'token_embd.weight' is there twice"),
        (twice_by_a_zero, "holds a zero byte"),
        (key_twice, "is there twice"),
        (hole, "behind where llama.cpp wants it"),
        (narrow, "at which llama.cpp aborts"),
        (renamed(b"output_norm.weight", b"o" * 64), "has a name of 64 bytes"),
        (keyed("general.alignment", U32, 24), "not a power of two"),
        (keyed("general.alignment", I32, 32), "general.alignment is INT32, not UINT32"),
        (keyed("general.name", BOOL, 1), "'general.name' is BOOL, not STRING"),
        (keyed("split.count", U32, 1), "'split.count' is UINT32, not UINT16"),
        (keyed("llama.block_count", I32, 2), "'llama.block_count' is INT32, not UINT32"),
        (keyed("llama.block_count", U32, 513), "block_count is 513, not 1 to 512"),
        (keyed("llama.rope.freq_base", F64, 1e4), "'llama.rope.freq_base' is FLOAT64, not FLOAT32"),
        (keyed("llama.feed_forward_length", U32, [64] * 3, array=True), "has 3 values, not 2"),
        (keyed("llama.feed_forward_length", F32, [64.0] * 2, array=True), "is FLOAT32[], not UINT32[]"),
        (keyed("llama.attention.key_length", U32, 8), "of values 16"),
        (keyed("llama.expert_count", U32, 4), "expert_used_count is 0 of 4 experts"),
        (keyed("llama.nextn_predict_layers", U32, 3), "nextn_predict_layers is 3"),
        (keyed("tokenizer.ggml.scores", F64, [0.0] * 270, array=True), "is FLOAT64[], not FLOAT32[] or INT32[]"),
        (keyed("tokenizer.ggml.scores", F32, [0.0] * 9, array=True), "has 9 values for 270 tokens"),
        (keyed("tokenizer.ggml.eos_token_id", I32, 1), "'tokenizer.ggml.eos_token_id' is INT32, not UINT32"),
        (keyed("tokenizer.ggml.add_bos_token", U16, 1), "is UINT16, not BOOL"),
        (keyed("tokenizer.ggml.model", STRING, b"none"), "llama.cpp aborts where a text is to be tokenized"),
        (keyed("general.name", STRING, b"my phi-3"), "general.name says Phi 3, of whose tokens '</s>'"),
        (typed(b"output_norm.weight", 1, 64), "'output_norm.weight' is F16"),
        (typed(b"blk.0.attn_q.weight", 26, 4096), "'blk.0.attn_q.weight' is I32"),
    ],
)
def test_what_is_refused_is_named(tmp_path, change, found):
    file = healthy("llama").copy()
    change(file)
    status, what = said(written(tmp_path, file))
    assert status == "bad"
    assert found in what


@pytest.mark.parametrize(
    "change",
    [
        keyed("llama.feed_forward_length", I32, [64] * 2, array=True),
        keyed("tokenizer.ggml.scores", I32, [0] * 270, array=True),
        keyed("general.alignment", U32, 32),
        keyed("split.count", U16, 1),
        keyed("general.author", BOOL, 1),
        keyed("llama.expert_feed_forward_length", STRING, b"not read"),
        lambda file: file.tensors.append(Tensor(b"output.weight", (32, 270), 0, struct.pack("<f", 0.1) * 8640)),
        lambda file: file.tensors.append(Tensor(b"rope_freqs.weight", (8,), 0, struct.pack("<f", 1.0) * 8)),
        lambda file: file.tensors.append(Tensor(b"blk.0.attn_q.bias", (32,), 0, struct.pack("<f", 0.1) * 32)),
        lambda file: file.tensors.append(Tensor(b"blk.0.attn_q.scale", (1,), 0, struct.pack("<f", 1.0))),
        typed(b"blk.0.attn_q.weight", 8, 32 * 34),
    ],
)
@with_llama_cpp
def test_what_llama_cpp_takes_is_not_refused(tmp_path, change):
    file = healthy("llama").copy()
    change(file)
    path = written(tmp_path, file)
    assert [outcome for _, outcome, _ in try_files([path])] == [COMPUTES]
    assert said(path)[0] != "bad"


def test_an_architecture_that_is_not_known_is_said_to_be(tmp_path):
    file = healthy("llama").copy()
    for one in file.entries:
        one.key = one.key.replace(b"llama.", b"mamba.")
    keyed("general.architecture", STRING, b"mamba")(file)
    (tensors,) = [check for check in examine(written(tmp_path, file)).checks if check.name == "tensors"]
    assert tensors.status == "unobserved"
    assert "its tensors were not held against anything" in tensors.found
