"""Reading a GGUF that is missing, cut or forged."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest

from harness.errors import ModelFileError
from harness.models.gguf import raw_entries, read_model_file
from tests.doctor import models


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("count", 7)
    writer.add_array("texts", ["a", "bc"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_tensor("first", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.add_tensor("second", np.arange(10, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def forge(path, before, layout, value, skip=0):
    """Overwrite the number that follows a text in the file."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.index(before) + len(before) + skip, value)
    path.write_bytes(content)


def test_a_healthy_file_is_read(model):
    read = read_model_file(model)
    assert read.architecture == "llama"
    assert (read.metadata["count"], read.metadata["texts"], read.metadata["numbers"]) == (7, ["a", "bc"], [1, 2, 3])
    assert [tensor.name for tensor in read.tensors] == ["first", "second"]


def test_what_is_no_model_file_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(ModelFileError, match="no model file at"):
        read_model_file(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        read_model_file(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 9, 0, 0))
    with pytest.raises(ModelFileError, match="has GGUF version 9"):
        read_model_file(path)
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    with pytest.raises(ModelFileError, match="big-endian"):
        read_model_file(path)


def test_every_truncation_is_refused_in_one_line(model):
    content = model.read_bytes()
    for length in range(0, len(content) - 32, 3):  # the writer pads the last tensor to 32 bytes
        model.write_bytes(content[:length])
        with pytest.raises(ModelFileError) as caught:
            read_model_file(model)
        assert "\n" not in str(caught.value)


def test_a_cut_download_names_the_tensor_that_is_not_there(model):
    model.write_bytes(model.read_bytes()[:-32])
    with pytest.raises(ModelFileError, match=r"tensor 'second' ends at byte .*copy or convert it again"):
        read_model_file(model)


@pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1, 4_000_000])
@pytest.mark.parametrize(("key", "skip"), [(b"numbers", 8), (b"texts", 8), (b"general.architecture", 4)])
def test_a_forged_length_is_refused_before_it_is_believed(model, key, skip, length):
    forge(model, key, "<Q", length, skip)
    with pytest.raises(ModelFileError, match=r"bytes are declared at byte|its tables declare"):
        read_model_file(model)


@pytest.mark.parametrize("place", [8, 16])
def test_a_forged_count_is_refused(model, place):
    content = bytearray(model.read_bytes())
    struct.pack_into("<Q", content, place, 2**50)
    model.write_bytes(content)
    with pytest.raises(ModelFileError, match="its tables declare"):
        read_model_file(model)


def test_more_entries_than_any_vocabulary_are_refused_even_if_they_fit(model):
    model.write_bytes(model.read_bytes() + bytes(4_000_000))
    forge(model, b"numbers", "<I", gguf.GGUFValueType.UINT8, 4)
    forge(model, b"numbers", "<Q", 3_500_000, 8)
    with pytest.raises(ModelFileError, match="its tables declare"):
        read_model_file(model)


def test_an_array_of_arrays_is_refused(model):
    forge(model, b"numbers", "<I", gguf.GGUFValueType.ARRAY, 4)
    with pytest.raises(ModelFileError, match="is an array of arrays"):
        read_model_file(model)


@pytest.mark.parametrize(
    ("layout", "value", "skip", "message"),
    [
        ("<I", 2**31, 0, "has 2,147,483,648 dimensions"),
        ("<Q", 2**40, 4, "tensor 'first' ends at byte"),
        ("<I", 999, 20, "999 is not a valid GGMLQuantizationType"),
        ("<Q", 2**63, 24, "tensor 'first' ends at byte"),
        ("<Q", 2**64 - 1, 24, "tensor 'first' ends at byte"),
    ],
)
def test_a_forged_tensor_is_refused(model, layout, value, skip, message):
    forge(model, b"first", layout, value, skip)
    with pytest.raises(ModelFileError, match=message):
        read_model_file(model)


def test_a_forged_alignment_moves_every_tensor(tmp_path, model):
    content = model.read_bytes().replace(struct.pack("<Q", 5) + b"count", struct.pack("<Q", 17) + b"general.alignment")
    path = tmp_path / "aligned.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="power of two"):
        read_model_file(path)
    forge(path, b"general.alignment", "<I", 2**31, 4)
    with pytest.raises(ModelFileError, match="ends at byte 2,147,483,904"):
        read_model_file(path)


# The entries as they stand in the file


def test_raw_entries_are_the_file_s_own_bytes(tmp_path):
    path = models.write(tmp_path / "m.gguf", {"caf\u00e9": "\U0001f98a", "empty": [], "yes": True, "large": 2**63})
    entries = raw_entries(path)
    reader = gguf.GGUFReader(path)
    known = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert list(entries) == list(known)
    content = path.read_bytes()
    for name, field in known.items():
        # The reader's parts are views of the file: name, type and value, one behind the other.
        raw = b"".join(part.tobytes() for part in field.parts)
        if field.types == [gguf.GGUFValueType.ARRAY] or name == "empty":
            continue
        assert entries[name] == raw, name
        assert content[field.offset : field.offset + len(raw)] == raw
    assert content[24:].startswith(b"".join(entries.values())), "side by side and in order, none left out"
    (first,) = struct.unpack_from("<Q", content, 24 + len(b"".join(entries.values())))
    assert first == len("token_embd.weight"), "and then come the tensors"


def test_a_file_made_of_raw_entries_says_the_same(tmp_path):
    path = models.write(tmp_path / "m.gguf")
    entries = raw_entries(path)
    made = tmp_path / "made.gguf"
    made.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(entries)) + b"".join(entries.values()) + bytes(32))
    assert read_model_file(made).metadata == read_model_file(path).metadata
    assert len(read_model_file(path).metadata) == len(models.METADATA)


def test_the_alignment_is_an_entry_like_the_others(tmp_path):
    entries = [struct.pack("<Q17sII", 17, b"general.alignment", 4, 64), struct.pack("<Q1sIB", 1, b"x", 7, 1)]
    path = tmp_path / "m.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + b"".join(entries) + bytes(64))
    assert raw_entries(path) == dict(zip(("general.alignment", "x"), entries, strict=True))


def test_raw_entries_of_a_damaged_file_are_refused(tmp_path):
    path = models.write(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelFileError, match="is truncated or damaged"):
        raw_entries(path)
    with pytest.raises(ModelFileError, match="no model file at"):
        raw_entries(tmp_path / "none.gguf")
