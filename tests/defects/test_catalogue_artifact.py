"""Every defect of a model file edits what it says and nothing else, and names what the stack is without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.defects.catalogue import catalogue
from harness.defects.catalogue.not_planted import NOT_PLANTED
from harness.defects.defect import Defect, Place
from harness.defects.model_copy import ModelCopy
from harness.models.gguf import TensorPlace, raw_entries, sha256_of, tensor_places
from harness.stage import Stage

OURS = tuple(f"harness.defects.catalogue.{name}:" for name in ("artifact", "weights", "environment"))
DEFECTS = {name: one for name, one in catalogue().items() if one.hook.startswith(OURS)}
FILES = [one for one in DEFECTS.values() if one.place is Place.MODEL]


@pytest.fixture(scope="module")
def copy(smollm) -> ModelCopy:
    """The model, read once; each test edits what it gives back."""
    return ModelCopy(smollm.path)


class Edited:
    """What stands between a defect and a copy that is read once: edits are noted and not kept."""

    def __init__(self, copy: ModelCopy) -> None:
        self._copy = copy
        self.metadata = copy.metadata
        self.tensor_names = copy.tensor_names
        self.keys: dict[str, object] = {}
        self.removed: list[str] = []
        self.dropped: list[str] = []
        self.retyped: dict[str, int] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.version, self.cut = copy.version, copy.cut

    def tensor_type(self, name: str) -> int:
        return self._copy.tensor_type(name)

    def tensor(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            self.tensors[name] = self._copy.tensor(name).copy()
        return self.tensors[name]

    def set(self, key: str, value: object, type_name: str | None = None) -> None:
        assert (key in self.metadata) != (type_name is not None)
        self.keys[key] = value

    def remove(self, key: str) -> None:
        assert key in self.metadata
        self.removed.append(key)

    def drop(self, name: str) -> None:
        assert name in self.tensor_names
        self.dropped.append(name)

    def retype(self, name: str, number: int) -> None:
        assert name in self.tensor_names
        self.retyped[name] = number

    def changed(self) -> set[str]:
        """What is other than in the copy."""
        tensors = {name for name, data in self.tensors.items() if not np.array_equal(data, self._copy.tensor(name))}
        keys = {key for key, value in self.keys.items() if self.metadata.get(key) != value}
        marks = {f"copy.{name}" for name in ("version", "cut") if getattr(self, name) != getattr(self._copy, name)}
        return tensors | keys | marks | {*self.removed, *self.dropped, *self.retyped}


@pytest.mark.parametrize("one", FILES, ids=lambda one: one.id)
def test_a_defect_of_the_file_changes_it(copy, one: Defect):
    edited = Edited(copy)
    one.planting()(edited)
    changed = edited.changed()
    assert changed
    # A key that is set to what it was would be a defect that does less than it says.
    assert set(edited.keys) <= changed
    if one.stage in (Stage.TEMPLATE, Stage.TOKENIZATION, Stage.POSTPROCESS):
        assert all(name.startswith("tokenizer.") for name in changed)


@pytest.mark.parametrize(
    ("name", "tensor", "numbers"),
    [
        ("art-scale-nan", "blk.5.ffn_down.weight", 1),
        ("art-scale-negative", "blk.5.ffn_down.weight", 1),
        ("art-bit-quant", "blk.20.ffn_up.weight", 1),
        ("art-bits-quant", "blk.20.ffn_up.weight", 1000),
        ("art-bit-exponent", "blk.20.ffn_up.weight", 1),
        ("art-embedding-zero", "token_embd.weight", 18 * 2),
    ],
)
def test_as_many_bytes_are_changed_as_are_said(copy, name, tensor, numbers):
    edited = Edited(copy)
    DEFECTS[name].planting()(edited)
    different = np.flatnonzero(edited.tensors[tensor] != copy.tensor(tensor))
    assert len(different) in (numbers, 2 * numbers) if name == "art-scale-nan" else len(different) <= numbers
    assert set(edited.tensors) == {tensor}


def test_keys_rows_are_permuted_within_their_heads_and_back(copy):
    edited = Edited(copy)
    DEFECTS["art-k-permuted-block"].planting()(edited)
    before, after = copy.tensor("blk.3.attn_k.weight"), edited.tensors["blk.3.attn_k.weight"]
    for head in range(3):
        rows = slice(64 * head, 64 * (head + 1))
        assert np.array_equal(after[rows], np.concatenate([before[rows][0::2], before[rows][1::2]]))


def test_a_defect_is_saved_into_a_copy_and_the_file_stays(smollm, tmp_path: Path):
    before = sha256_of(smollm.path)
    for name in ("art-blocks-swapped", "art-merges-swapped"):
        copy = ModelCopy(smollm.path)
        DEFECTS[name].planting()(copy)
        path = copy.save(tmp_path / f"{name}.gguf")
        places: dict[str, TensorPlace] = tensor_places(path)
        assert list(places) == list(tensor_places(smollm.path))
        other = {key for key, raw in raw_entries(path).items() if raw != raw_entries(smollm.path)[key]}
        assert other == ({"tokenizer.ggml.merges"} if name == "art-merges-swapped" else set())
        assert path.stat().st_size == smollm.path.stat().st_size
    assert sha256_of(smollm.path) == before == smollm.sha256


def test_what_is_not_planted_says_why_and_is_not_there():
    assert all(len(reason.split()) > 3 for reason in NOT_PLANTED.values())
    assert not set(NOT_PLANTED) & set(catalogue())


def test_what_is_said_of_a_defect_is_a_sentence():
    for one in DEFECTS.values():
        assert one.sentence.endswith(".")
        assert one.kind in ("artifact", "environment") or one.id == "env-context-of-256"
        assert (one.kind == "artifact") == (one.place is Place.MODEL)
        assert all(reference.count("#") == 1 for reference in one.references)
