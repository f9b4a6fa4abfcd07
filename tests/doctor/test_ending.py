"""Where a reply ends, and whether it ends at all."""

from __future__ import annotations

import ctypes
import importlib.util

import pytest

from harness.doctor.ending import ends_of_generation
from harness.doctor.facts import Facts
from harness.models.gguf import read_model_file
from tests.doctor.models import TEMPLATE, check, write

TOKENS = "tokenizer.ggml.tokens"
KEY = "tokenizer.chat_template"
EOS, EOT = "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"
OWN = {
    TOKENS: ["<|start_of_text|>", "<|turn|>", "<|turn_end|>", "a", "b", "ab", "c", "abc"],
    KEY: TEMPLATE.replace("<|im_start|>", "<|turn|>").replace("<|im_end|>", "<|turn_end|>"),
}
ENDS = {**OWN, TOKENS: ["<|endoftext|>", *OWN[TOKENS][1:]]}


@pytest.mark.parametrize(
    ("changes", "status", "found"),
    [
        ({}, "ok", "'<|im_end|>'"),
        ({EOS: 0}, "ok", "'<|im_end|>', at which llama.cpp stops; an engine that goes by the declared EOS alone"),
        (
            {**OWN, EOS: 0},
            "warning",
            "closes turns with '<|turn_end|>', but llama.cpp stops at 0 '<|start_of_text|>' only",
        ),
        ({**ENDS, EOS: 0}, "warning", "but llama.cpp stops at 0 '<|endoftext|>' only: a reply does not end"),
        ({**OWN, EOS: 2}, "ok", "'<|turn_end|>'"),
        ({**OWN, EOS: 0, EOT: 2}, "ok", "'<|turn_end|>', at which llama.cpp stops"),
        ({**OWN, EOS: 0, KEY: OWN[KEY] + "{{ eos_token }}"}, "ok", "'<|turn_end|>'"),
        # The mark of the next turn is no end of this one.
        ({**OWN, EOS: 0, KEY: "{{ messages[0].content }}<|turn|>assistant"}, "ok", "closes no turn"),
        ({**OWN, EOS: 0, KEY: "{% if m.content %}<|turn_end|>{% endif %}"}, "ok", "closes no turn"),
        ({**OWN, EOS: 0, KEY: "{{ m.content | trim }}{% if x %}\n<|turn_end|>{% endif %}"}, "warning", "<|turn_end|>"),
        ({KEY: "{{ x"}, "unobserved", "no chat template"),
        ({KEY: 5}, "unobserved", "no chat template"),
    ],
)
def test_the_end_of_a_turn(tmp_path, changes, status, found):
    judged = check(write(tmp_path / "m.gguf", changes), "turn ending")
    assert (judged.status, found in judged.found) == (status, True), judged


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is missing")
@pytest.mark.parametrize(
    ("texts", "changes"),
    [
        (["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "c", "abc"], {EOS: 0}),
        (["<|end|>", "<|return|>", "<|call|>", "a", "b", "ab", "c", "abc"], {EOS: 1}),
        (["<|end|>", "<|return|>", "x", "a", "b", "ab", "c", "abc"], {EOS: 1}),
        (["<eos>", "<end_of_turn>", "</s>", "a", "b", "ab", "<|fim_pad|>", "<EOT>"], {EOS: 99}),
        (["<|file_sep|>", "<|repo_name|>", "[EOS]", "a", "b", "ab", "[PAD]", "<|flush|>"], {EOS: 3, EOT: 4}),
        (["q", "w", "e", "a", "b", "ab", "<turn|>", "[e~["], {EOS: 3, "tokenizer.ggml.eom_token_id": 5}),
    ],
)
def test_the_ends_are_those_of_llama_cpp(tmp_path, texts, changes):
    import llama_cpp

    path = write(tmp_path / "m.gguf", {TOKENS: texts, **changes})
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    stops = {id_ for id_ in range(len(texts)) if llama_cpp.llama_vocab_is_eog(vocabulary, ctypes.c_int32(id_))}
    llama_cpp.llama_model_free(model)
    assert ends_of_generation(Facts(read_model_file(path))) == stops
