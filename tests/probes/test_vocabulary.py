"""The vocabulary that is made up holds every byte, the words and the markers, each once."""

import pytest

pytest.importorskip("gguf", reason="writing a vocabulary needs the package gguf")

from harness.models.gguf import read_model_file
from harness.probes.alphabet import BYTES
from harness.probes.vocabulary import write_vocabulary


def test_every_byte_word_and_marker_has_an_id(tmp_path):
    path = tmp_path / "vocabulary.gguf"
    ids = write_vocabulary(path, [" wé", "<x>", "a"], ["<x>"], ["<y>", "<z>"], ["<end>", "<z>"], "<s>")
    found = read_model_file(path).metadata
    assert {text: number for text, number in ids.items() if number > 255} == {
        " wé".encode(): 256,
        b"<end>": 257,
        b"<z>": 258,
        b"<s>": 259,
        b"<x>": 260,
        b"<y>": 261,
    }
    assert [ids[bytes([byte])] for byte in range(256)] == list(range(256))
    tokens = list(found["tokenizer.ggml.tokens"])
    assert [BYTES[token] for token in tokens[:256]] == list(range(256))
    assert bytes(BYTES[character] for character in tokens[256]).decode() == " wé"
    # Normal, control (3) and user-defined (4) tokens.
    assert [int(kind) for kind in found["tokenizer.ggml.token_type"]] == [1] * 257 + [3, 4, 3, 3, 4]
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.eot_token_id"]) == (257, 258)
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.add_bos_token"]) == (259, False)
