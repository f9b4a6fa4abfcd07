from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.facts import Facts
from harness.doctor.pre_tokenizers import PRE_TOKENIZERS
from harness.doctor.vocabulary import vocabulary_checks
from harness.models.gguf import read_model_file
from tests.doctor.models import TOKENS, check, write

TOKEN_KEY = "tokenizer.ggml.tokens"
TYPES = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"
SCORES = "tokenizer.ggml.scores"
BOS, EOS = "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"
SPM = {"tokenizer.ggml.model": "llama"}


@pytest.mark.parametrize(
    ("name", "changes", "status", "found"),
    [
        ("tokenizer", {"tokenizer.ggml.model": None}, "bad", "tokenizer.ggml.model is missing"),
        ("tokenizer", {"tokenizer.ggml.model": "gpt3"}, "bad", "tokenizer.ggml.model is 'gpt3'"),
        ("tokenizer", {"tokenizer.ggml.model": "none", TOKEN_KEY: None}, "unobserved", "no vocabulary"),
        ("pre-tokenizer", {"tokenizer.ggml.pre": None}, "bad", "missing pre-tokenizer type"),
        ("pre-tokenizer", {"tokenizer.ggml.pre": "default"}, "warning", "'default'"),
        ("pre-tokenizer", {"tokenizer.ggml.pre": "smolm"}, "bad", "'smolm' is unknown to llama.cpp"),
        ("pre-tokenizer", {"tokenizer.ggml.pre": None, **SPM}, "ok", "not used"),
        ("pre-tokenizer", {"tokenizer.ggml.pre": None, "tokenizer.ggml.model": "gemma4"}, "ok", "not used"),
        ("tokens", {TOKEN_KEY: None}, "bad", "missing or empty"),
        ("tokens", {TOKEN_KEY: []}, "bad", "missing or empty"),
        ("tokens", {TOKEN_KEY: "abc"}, "bad", "is 'abc' (str), not an array of texts"),
        ("tokens", {TOKEN_KEY: [1, 2]}, "bad", "tokens[0]' is 1 (int), not one of texts"),
        ("tokens", {TOKEN_KEY: [*TOKENS[:-1], "a"]}, "bad", "repeated texts: 'a'"),
        ("tokens", {TOKEN_KEY: [*TOKENS[:-2], "", ""]}, "warning", "empty texts: 2"),
        ("vocabulary size", {"llama.vocab_size": 9}, "bad", "vocab_size is 9, but there are 8 tokens"),
        ("vocabulary size", {"llama.vocab_size": None}, "ok", "not declared"),
        ("token types", {TYPES: None}, "bad", "token_type is missing"),
        ("token types", {TYPES: None, TOKEN_KEY: list("abcdefgh")}, "warning", "token_type is missing"),
        ("token types", {TYPES: [3, 3, 3, 1]}, "bad", "4 types for 8 tokens"),
        ("token types", {TYPES: [3, 3, 3, 1, 1, 1, 9, 0]}, "bad", "0, 9 is no token type"),
        ("token types", {TYPES: [3, 3, 3, 1, 1, 1, 4, 6]}, "ok", "3 normal, 3 control, 1 user_defined, 1 byte"),
        (
            "control tokens",
            {TYPES: [1, 3, 3, 1, 1, 1, 1, 1]},
            "warning",
            "look like control tokens: '<|endoftext|>' (0)",
        ),
        ("control tokens", {TYPES: [4, 3, 3, 1, 1, 1, 1, 1]}, "ok", "1 user-defined: '<|endoftext|>'"),
        ("control tokens", {TYPES: None}, "unobserved", "no token types"),
        ("byte tokens", {TYPES: [3, 3, 3, 1, 1, 1, 1, 6]}, "ok", "right"),
        ("byte tokens", {TYPES: [3, 3, 3, 1, 1, 6, 1, 1]}, "bad", "llama.cpp finds no byte in them: 'ab'"),
        ("byte tokens", {"tokenizer.ggml.model": "bert", TYPES: [3, 3, 3, 1, 1, 1, 1, 6]}, "bad", "no byte in them"),
        ("byte tokens", SPM, "bad", "there is none for 0x00, 0x01"),
        ("tokens", {"general.name": "Phi-3 mini"}, "bad", "general.name says Phi 3, of whose tokens '</s>'"),
        ("tokens", {TOKEN_KEY: [*TOKENS[:-1], "a\0b"]}, "bad", "repeated texts: 'a'"),
        ("tokenizer", {"tokenizer.ggml.model": "none"}, "bad", "is 'none', but there are 8 tokens"),
        ("scores", {}, "ok", "not used"),
        ("scores", SPM, "bad", "scores is missing"),
        ("scores", {**SPM, SCORES: [0.0] * 8}, "ok", "one for each"),
        ("scores", {SCORES: [0.0] * 7}, "bad", "7 scores for 8 tokens"),
        ("scores", {SCORES: [0.0] * 7 + [float("nan")]}, "bad", "the scores of tokens 7 are NaN"),
        ("merges", {MERGES: None}, "bad", "missing or empty"),
        ("merges", {MERGES: []}, "bad", "missing or empty"),
        ("merges", {MERGES: None, "tokenizer.ggml.pre": "kimi-k2"}, "ok", "not used"),
        ("merges", {MERGES: None, **SPM}, "ok", "not used"),
        ("merges", {MERGES: ["a b", "abc"]}, "bad", "1 of 2 merges are not two texts: 'abc'"),
        ("merges", {MERGES: ["a b", "ab "]}, "bad", "1 of 2 merges are not two texts: 'ab '"),
        ("merges", {MERGES: ["a b", "ab d"]}, "bad", "a half or a result that is no token: 'ab d'"),
        ("merges", {MERGES: ["a b", "d ab"]}, "bad", "a half or a result that is no token: 'd ab'"),
        ("merges", {MERGES: ["a b", "b c"]}, "bad", "a half or a result that is no token: 'b c'"),
        ("merges", {MERGES: ["a b", "a bc"]}, "bad", "a half or a result that is no token: 'a bc'"),
        ("merges", {MERGES: ["x b"], TOKEN_KEY: [*TOKENS[:-1], "xb"]}, "bad", "no token: 'x b'"),
        ("merges", {MERGES: ["a b", "a b"]}, "warning", "repeated merges: 1"),
        ("merges", {MERGES: ["  a"], TOKEN_KEY: [" ", "a", " a", *TOKENS[:3], "x", "y"]}, "ok", "all of them"),
        ("special tokens", {EOS: 8}, "bad", "eos is 8, outside the 8 tokens"),
        ("special tokens", {EOS: -1}, "bad", "eos is -1, outside"),
        ("special tokens", {EOS: "2"}, "bad", "is '2' (str), not an integer"),
        ("special tokens", {EOS: 3}, "bad", "eos is 3 'a', typed normal, not control"),
        ("special tokens", {"tokenizer.ggml.eot_token_id": 3}, "bad", "eot is 3 'a', typed normal"),
        ("special tokens", {"tokenizer.ggml.padding_token_id": 3}, "warning", "padding is 3 'a', typed normal"),
        ("special tokens", {"tokenizer.ggml.unknown_token_id": 2**40}, "bad", "unknown is 1099511627776, outside"),
        ("special tokens", {TYPES: None}, "ok", "eos 2 '<|im_end|>'"),
        ("special tokens", {TYPES: [2, 3, 3, 1, 1, 1, 1, 1]}, "ok", "padding 0"),
        ("special tokens", {TYPES: [3, 3, 4, 1, 1, 1, 1, 1]}, "warning", "eos is 2 '<|im_end|>', typed user_defined"),
        (
            "special tokens",
            dict.fromkeys([BOS, EOS, "tokenizer.ggml.padding_token_id"]),
            "unobserved",
            "no special token",
        ),
        ("end of sequence", {EOS: None}, "bad", "the EOS is 11, outside the 8 tokens"),
        ("end of sequence", {EOS: None, **SPM}, "warning", "the engine takes 2 '<|im_end|>'"),
        ("end of sequence", {EOS: 1}, "bad", "EOS and BOS are both 1 '<|im_start|>'"),
        ("end of sequence", {EOS: 1, BOS: None, **SPM}, "bad", "EOS and BOS are both 1"),
        ("end of sequence", {EOS: 0, BOS: 0}, "ok", "0 '<|endoftext|>', the BOS as well"),
        ("end of sequence", {EOS: None, "tokenizer.ggml.model": "rwkv"}, "ok", "has none"),
    ],
)
def test_vocabulary(tmp_path, name, changes, status, found):
    judged = check(write(tmp_path / "m.gguf", changes), name)
    assert (judged.status, found in judged.found) == (status, True), judged
    assert judged.advice or status in ("ok", "unobserved")


def test_the_names_known_to_the_engine_are_well_formed():
    assert {"smollm", "llama-bpe", "sarvam-moe", "qwen2"} <= PRE_TOKENIZERS
    assert "default" not in PRE_TOKENIZERS
    assert not [name for name in PRE_TOKENIZERS if name.startswith("-") or name.endswith("-")]


def test_a_file_for_another_purpose_has_no_vocabulary_to_judge(tmp_path: Path):
    nothing = dict.fromkeys((TOKEN_KEY, TYPES, MERGES, "tokenizer.ggml.model", "tokenizer.ggml.pre"))
    path = write(tmp_path / "m.gguf", {**nothing, "general.type": "mmproj"})
    judged = {check.name: check.status for check in vocabulary_checks(Facts(read_model_file(path)))}
    assert set(judged.values()) == {"unobserved"}, judged
