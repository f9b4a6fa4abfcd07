"""What two model files differ in: exactly the keys and tensors that were edited."""

from __future__ import annotations

import pytest

from harness.defects.model_copy import ModelCopy
from harness.errors import UserError
from harness.models.file_difference import FileDifference, difference


@pytest.fixture
def edited(smollm, tmp_path):
    """A function that returns an edited copy of the model's file."""

    def made(edit):
        copy = ModelCopy(smollm.path)
        edit(copy)
        return copy.save(tmp_path / "copy.gguf")

    return made


def flip(copy, name):
    copy.tensor(name)[0, 0] ^= 1


def test_a_file_differs_in_nothing_from_itself(smollm):
    assert difference(smollm.path, smollm.path) == FileDifference((), ())


def test_edits_are_named_and_nothing_else(smollm, edited):
    def edit(copy):
        copy.set("tokenizer.ggml.pre", "gpt-2")
        copy.remove("general.name")
        flip(copy, "blk.3.attn_q.weight")

    found = difference(smollm.path, edited(edit))
    assert set(found.keys) == {"tokenizer.ggml.pre", "general.name"}
    assert found.tensors == ("blk.3.attn_q.weight",)
    assert found.describe().endswith(" and the tensor blk.3.attn_q.weight")


def test_many_are_counted(smollm, edited):
    names = [f"blk.{layer}.attn_q.weight" for layer in range(5)]
    found = difference(smollm.path, edited(lambda copy: [flip(copy, name) for name in names]))
    assert set(found.tensors) == set(names)
    assert found.keys == ()
    assert found.describe().startswith("it differs in the tensors blk.0.attn_q.weight, ")
    assert found.describe().endswith(" and 2 more")


def test_what_is_no_model_file_is_refused(smollm, tmp_path):
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError):
        difference(smollm.path, tmp_path / "none.gguf")
