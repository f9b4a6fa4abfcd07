"""A copy of a model file differs from it in what was edited and in nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from harness.defects.model_copy import ModelCopy
from harness.errors import UserError
from harness.models.gguf import read_metadata, read_model_file, tensor_places

gguf = pytest.importorskip("gguf")

TEXTS = ["<s>", "a", "\u00e9\u4e2d", ""]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small file with every kind of value, and tensors whose sizes are no multiples of the alignment."""
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.eps", 0.5)
    writer.add_bool("tokenizer.flag", True)
    writer.add_array("tokenizer.texts", TEXTS)
    writer.add_array("tokenizer.types", [3, 1, 1, -1])
    generator = np.random.default_rng(0)
    writer.add_tensor("norm", generator.standard_normal(3).astype(np.float32))
    packed = generator.integers(0, 256, (5, 34), dtype=np.uint8)
    writer.add_tensor("matrix", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("last", generator.standard_normal((2, 7)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def contents(path: Path) -> tuple[dict[str, object], dict[str, tuple[object, ...]]]:
    """All that a file holds, read by the package itself."""
    read = read_model_file(path)
    tensors = {one.name: (tuple(one.shape), int(one.tensor_type), one.data.tobytes()) for one in read.tensors}
    return read.metadata, tensors


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unedited_copy_is_the_file(model, tmp_path):
    saved = ModelCopy(model).save(tmp_path / "copy.gguf")
    assert saved == tmp_path / "copy.gguf"
    assert saved.read_bytes() == model.read_bytes()


def test_a_header_that_is_written_anew_holds_the_same(model, tmp_path):
    copy = ModelCopy(model)
    copy.set("llama.block_count", 2)
    assert copy.save(tmp_path / "copy.gguf").read_bytes() == model.read_bytes()


def test_metadata_and_tensors_are_shown(model):
    copy = ModelCopy(model)
    assert copy.metadata == read_metadata(model)
    assert copy.metadata["tokenizer.texts"] == TEXTS
    assert copy.tensor_names == ("norm", "matrix", "last")
    assert [copy.tensor_type(name) for name in copy.tensor_names] == [0, 8, 0]
    assert [copy.tensor(name).shape for name in copy.tensor_names] == [(1, 12), (5, 34), (2, 28)]
    with pytest.raises(TypeError):
        copy.metadata["new"] = 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 7),
        ("llama.eps", 0.25),
        ("tokenizer.flag", False),
        ("general.architecture", "another"),
        ("tokenizer.texts", ["x", "\u00e9"]),
        ("tokenizer.types", [1, -2]),
    ],
)
def test_a_key_is_set_and_nothing_else(model, tmp_path, key, value):
    before, tensors = contents(model)
    copy = ModelCopy(model)
    copy.set(key, value)
    assert copy.metadata[key] == value
    after = contents(copy.save(tmp_path / "copy.gguf"))
    assert after == ({**before, key: value}, tensors)


def test_a_key_is_added_with_its_type(model, tmp_path):
    copy = ModelCopy(model)
    copy.set("llama.more", 3, "UINT16")
    copy.set("llama.list", ["p", "q"], "STRING[]")
    path = copy.save(tmp_path / "copy.gguf")
    metadata, tensors = contents(path)
    assert (metadata, tensors) == (
        {**contents(model)[0], "llama.more": 3, "llama.list": ["p", "q"]},
        contents(model)[1],
    )
    assert gguf.GGUFReader(path).fields["llama.more"].types == [gguf.GGUFValueType.UINT16]


def test_a_key_is_removed(model, tmp_path):
    copy = ModelCopy(model)
    copy.remove("tokenizer.texts")
    before, tensors = contents(model)
    del before["tokenizer.texts"]
    assert contents(copy.save(tmp_path / "copy.gguf")) == (before, tensors)


@pytest.mark.parametrize("anew", [False, True])
def test_a_tensors_bytes_are_changed_in_place(model, tmp_path, anew):
    metadata, tensors = contents(model)
    copy = ModelCopy(model)
    if anew:
        copy.set("llama.block_count", 2)
    matrix = copy.tensor("matrix")
    matrix[[1, 3]] = matrix[[3, 1]]
    copy.tensor("norm").view("<f4")[:] *= 2
    after, changed = contents(copy.save(tmp_path / "copy.gguf"))
    assert after == metadata
    rows = np.frombuffer(tensors["matrix"][2], np.uint8).reshape(5, 34)
    norm = np.frombuffer(tensors["norm"][2], "<f4") * np.float32(2)
    assert changed == {
        "norm": (*tensors["norm"][:2], norm.tobytes()),
        "matrix": (*tensors["matrix"][:2], rows[[0, 3, 2, 1, 4]].tobytes()),
        "last": tensors["last"],
    }


def test_a_tensor_is_dropped_and_the_others_move_up(model, tmp_path):
    copy = ModelCopy(model)
    copy.drop("matrix")
    path = copy.save(tmp_path / "copy.gguf")
    metadata, tensors = contents(model)
    del tensors["matrix"]
    assert contents(path) == (metadata, tensors)
    first, second = tensor_places(path).values()
    assert second.begin - first.begin == 32


def test_a_type_that_is_not_known_any_more(model, tmp_path):
    copy = ModelCopy(model)
    copy.retype("matrix", 31)
    assert copy.tensor_type("matrix") == 31
    with pytest.raises(UserError, match="31"):
        tensor_places(copy.save(tmp_path / "copy.gguf"))


def test_the_version_and_the_end(model, tmp_path):
    copy = ModelCopy(model)
    copy.version, copy.cut = 99, 10
    whole = model.read_bytes()
    assert copy.save(tmp_path / "copy.gguf").read_bytes() == whole[:4] + b"\x63\0\0\0" + whole[8:-10]


def test_what_is_not_there_is_said(model, tmp_path):
    copy = ModelCopy(model)
    for call in (lambda: copy.set("llama.block_cout", 1), lambda: copy.remove("llama.block_cout")):
        with pytest.raises(UserError, match=r"no key named 'llama.block_cout'; did you mean 'llama.block_count'\?"):
            call()
    for call in (copy.tensor, copy.tensor_type, copy.drop, lambda name: copy.retype(name, 1)):
        with pytest.raises(UserError, match="no tensor named 'matix'; did you mean 'matrix'"):
            call("matix")
    with pytest.raises(UserError, match=r"'three' is no UINT32, which llama.block_count is to hold"):
        copy.set("llama.block_count", "three")
    with pytest.raises(UserError, match="3 is no NUMBER"):
        copy.set("llama.new", 3, "NUMBER")
    before = digest(model)
    with pytest.raises(UserError, match="is the model file itself"):
        copy.save(model.parent / "." / model.name)
    assert digest(model) == before
    with pytest.raises(UserError, match="cannot be written"):
        copy.save(tmp_path / "none" / "copy.gguf")
