from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest

from harness.doctor import tensors as tensors_module
from tests.doctor.models import METADATA, check, weights, write

FILE_TYPE = "general.file_type"


def with_value(value, row, column=0):
    array = weights(32)
    array[row, column] = value
    return array


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named_with_its_row(tmp_path, value):
    changes = {"blk.1.attn_q.weight": with_value(value, row=7)}
    path = write(tmp_path / "m.gguf", tensor_changes=changes, quantize=False)
    judged = check(path, "tensor values")
    assert judged.status == "bad"
    assert f"'blk.1.attn_q.weight' row 7 ({value})" in judged.found


@pytest.mark.parametrize("chunk", [32, 96, 1000, 1 << 20])
def test_the_row_is_right_wherever_the_tensor_is_cut(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(tensors_module, "_CHUNK", chunk)
    path = write(tmp_path / "m.gguf")
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blk.0.attn_q.weight")
    content = bytearray(path.read_bytes())
    # The half-precision scale of the only block of row 11.
    struct.pack_into("<e", content, tensor.data_offset + 11 * 34, float("nan"))
    path.write_bytes(content)
    assert "'blk.0.attn_q.weight' row 11 (nan)" in check(path, "tensor values").found


def test_a_tensor_of_zeros_is_odd(tmp_path):
    path = write(tmp_path / "m.gguf", tensor_changes={"blk.0.attn_q.weight": np.zeros((32, 32), np.float32)})
    judged = check(path, "zero tensors")
    assert (judged.status, judged.found) == ("warning", "all zero: 'blk.0.attn_q.weight'")


def test_a_tensor_is_not_zero_because_its_end_is(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors_module, "_CHUNK", 32)
    array = np.zeros((32, 32), np.float32)
    array[0] = 1.0
    assert (
        check(write(tmp_path / "m.gguf", tensor_changes={"blk.0.attn_q.weight": array}), "zero tensors").status == "ok"
    )


def test_vectors_do_not_count_as_the_commonest_type(tmp_path):
    more = {f"blk.0.norm_{number}.weight": np.ones(32, np.float32) for number in range(4)}
    assert check(write(tmp_path / "m.gguf", tensor_changes=more), "quantization").status == "ok"


def test_a_type_that_cannot_be_decoded_is_unobserved(tmp_path):
    path = write(tmp_path / "m.gguf", tensor_changes={"blk.0.index": np.arange(4, dtype=np.int32)})
    judged = check(path, "tensor values")
    assert judged.status == "unobserved"
    assert "'blk.0.index' (I32)" in judged.found


def test_a_bad_weight_outweighs_an_undecodable_type(tmp_path):
    changes = {"blk.0.index": np.arange(4, dtype=np.int32), "blk.1.attn_q.weight": with_value(np.nan, row=0)}
    assert check(write(tmp_path / "m.gguf", tensor_changes=changes, quantize=False), "tensor values").status == "bad"


@pytest.mark.parametrize(
    ("changes", "status", "found"),
    [
        ({FILE_TYPE: 2}, "warning", "file_type says MOSTLY_Q4_0, but most matrices are Q8_0"),
        ({FILE_TYPE: 99}, "warning", "file_type 99 is unknown"),
        ({FILE_TYPE: None}, "warning", "file_type is missing"),
        ({FILE_TYPE: "Q8_0"}, "bad", "is 'Q8_0' (str)"),
        ({FILE_TYPE: 1024}, "ok", "matrices: 15 Q8_0"),
        ({"general.quantization_version": None}, "warning", "quantization_version is missing"),
        ({"general.quantization_version": 1}, "warning", "quantization_version is 1, not 2"),
    ],
)
def test_quantization(tmp_path, changes, status, found):
    judged = check(write(tmp_path / "m.gguf", changes), "quantization")
    assert (judged.status, found in judged.found) == (status, True), judged


def test_an_unquantized_file_needs_no_quantization_version(tmp_path):
    path = write(tmp_path / "m.gguf", {FILE_TYPE: 0, "general.quantization_version": None}, quantize=False)
    assert check(path, "quantization").status == "ok"


@pytest.mark.parametrize(
    ("file_type", "tensor_type"),
    [
        ("MOSTLY_Q4_K_M", "Q4_K"),
        ("MOSTLY_Q6_K", "Q6_K"),
        ("MOSTLY_IQ4_XS", "IQ4_XS"),
        ("MOSTLY_IQ2_M", "IQ2_S"),
        ("ALL_F32", "F32"),
        ("MOSTLY_BF16", "BF16"),
        ("MOSTLY_MXFP4_MOE", "MXFP4"),
    ],
)
def test_the_tensor_type_behind_a_file_type(file_type, tensor_type):
    assert tensors_module._commonest_type_of(file_type) == tensor_type


@pytest.mark.parametrize(
    ("file_type", "kinds", "status", "found"),
    [
        # Rows of 32, which blocks of 256 do not divide.
        (15, dict.fromkeys(("attn_q", "ffn_down"), "Q5_0"), "ok", "Q5_0"),
        (18, dict.fromkeys(("attn_q", "ffn_down"), "Q8_0"), "ok", "Q8_0"),
        (
            15,
            dict.fromkeys(("attn_q", "ffn_down"), "Q4_0"),
            "warning",
            "says MOSTLY_Q4_K_M, but most matrices are Q4_0",
        ),
        # One matrix has rows of 256: it alone could have the type.
        (15, {"attn_q": "Q5_0", "ffn_down": "Q5_0", "wide": "Q4_K"}, "ok", "Q4_K"),
        (15, {"attn_q": "Q5_0", "ffn_down": "Q5_0", "wide": "Q5_0"}, "warning", "but most matrices are Q5_0"),
    ],
)
def test_the_engine_s_own_fallback_is_no_warning(tmp_path, file_type, kinds, status, found):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32(FILE_TYPE, file_type)
    writer.add_uint32("general.quantization_version", 2)
    for name, kind in kinds.items():
        type_ = gguf.GGMLQuantizationType[kind]
        rows = np.zeros((4, 256 if name == "wide" else 32), np.float32)
        if kind == "Q4_K":
            writer.add_tensor(f"blk.0.{name}.weight", np.zeros((4, 144), np.uint8), raw_dtype=type_)
        else:
            writer.add_tensor(f"blk.0.{name}.weight", gguf.quants.quantize(rows, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    judged = check(path, "quantization")
    assert (judged.status, found in judged.found) == (status, True), judged


def test_every_file_type_leads_to_a_tensor_type():
    known = {member.name for member in gguf.GGMLQuantizationType}
    named = {member.name for member in gguf.LlamaFileType} - {"GUESSED"}
    assert {tensors_module._commonest_type_of(name) for name in named} <= known


def set_offset(path, name, offset):
    """Overwrite where a tensor's data begins."""
    content = bytearray(path.read_bytes())
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    struct.pack_into("<Q", content, tensor.field.offset + sum(part.nbytes for part in tensor.field.parts) - 8, offset)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "found"),
    [(0, "overlaps 'token_embd.weight'"), (292, "is not aligned to 32 bytes")],
)
def test_layout(tmp_path, offset, found):
    # The first tensor has 272 bytes, the second 16 at byte 288, the third begins at byte 320.
    path = write(tmp_path / "m.gguf", tensor_changes={"blk.0.attn_norm.weight": np.ones(4, np.float32)})
    set_offset(path, "blk.0.attn_norm.weight", offset)
    judged = check(path, "tensor layout")
    assert judged.status == "bad"
    assert found in judged.found


def test_a_tensor_without_elements_is_bad(tmp_path):
    path = write(tmp_path / "m.gguf", tensor_changes={"empty": np.zeros((0,), np.float32)})
    judged = check(path, "tensor layout")
    assert judged.status == "bad"
    assert "'empty' has no elements" in judged.found
    assert check(path, "zero tensors").status == "ok"


def test_the_healthy_file_declares_what_it_is():
    assert tensors_module._commonest_type_of(gguf.LlamaFileType(METADATA[FILE_TYPE]).name) == "Q8_0"
