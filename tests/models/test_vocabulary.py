"""Vocabularies: read, written, read again, and the ids that come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("gguf", reason="model files: pip install -e '.[doctor]'")

from harness.errors import ModelFileError, UserError
from harness.models.gguf import read_metadata, read_model_file
from harness.models.vocabulary import (
    Kind,
    Vocabulary,
    from_gguf,
    from_tekken,
    from_tiktoken,
    from_tokenizer_json,
    tokenizer_json,
    write_gguf,
)
from harness.models.vocabulary.byte_level import bytes_of, text_of
from harness.models.vocabulary.pre_tokenizers import (
    DEEPSEEK_V3,
    FAMILIES,
    LLAMA_3,
    O200K,
    QWEN_2,
    QWEN_35,
    TEKKEN,
    family_of,
    name_of,
    split,
)
from tests.tiny_vocabulary import LONGER, RANKS, SPECIAL, tiny

TEXTS = ("", "hello world", "aaaa hellhe", "a \u00e9\u00e8\n\n1234", "<s>hello<end>", "\x00\x7f \u3042")
BEGINS = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}
FACTS = ("texts", "kinds", "merges", "pre", "nfc", "ignore_merges", "bos", "eos", "adds_bos", "chat_template")


def facts(vocabulary: Vocabulary) -> dict[str, Any]:
    return {name: getattr(vocabulary, name) for name in FACTS}


def written(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


class TestByteLevel:
    def test_every_byte_has_its_character(self):
        pre_tokenizers = pytest.importorskip("tokenizers").pre_tokenizers
        text = text_of(bytes(range(256)))
        assert sorted(text) == sorted(pre_tokenizers.ByteLevel.alphabet())
        assert bytes_of(text) == bytes(range(256))
        assert text_of(b" \n") == "\u0120\u010a"

    def test_a_character_that_stands_for_no_byte(self):
        assert bytes_of("a\u2122") is None


class TestTiktoken:
    def test_every_way_to_cut_a_token_is_a_merge(self):
        assert tiny().merges == (
            ("h", "e"),
            ("l", "l"),
            ("he", "ll"),
            ("hell", "o"),
            ("\u0120", "w"),
            ("o", "r"),
            ("\u0120w", "or"),
            ("l", "d"),
            ("\u0120wor", "ld"),
            ("a", "a"),
            ("a", "aa"),
            ("aa", "a"),
            ("\u00c3", "\u00a9"),
        )

    def test_pieces_and_kinds(self):
        vocabulary = tiny()
        assert vocabulary.size == 270
        assert vocabulary.pieces[:256] == tuple(bytes([byte]) for byte in range(256))
        assert vocabulary.pieces[256:] == (*LONGER, b"<s>", b"<end>")
        assert vocabulary.kinds == (Kind.NORMAL,) * 268 + (Kind.CONTROL,) * 2
        assert vocabulary.of_kind(Kind.CONTROL) == SPECIAL

    def test_an_id_that_no_token_has_is_unused(self):
        vocabulary = from_tiktoken({b"a": 0, b"b": 2}, {}, LLAMA_3)
        assert vocabulary.kinds == (Kind.NORMAL, Kind.UNUSED, Kind.NORMAL)
        assert vocabulary.pieces == (b"a", b"", b"b")

    def test_two_tokens_of_one_id(self):
        with pytest.raises(UserError, match="'a' and '<s>' have the id 0"):
            from_tiktoken({b"a": 0}, {"<s>": 0}, LLAMA_3)

    @pytest.mark.parametrize("text", TEXTS)
    def test_ids_are_those_of_tiktoken(self, text):
        tiktoken = pytest.importorskip("tiktoken", reason="pip install -e '.[families]'")
        tokenizers = pytest.importorskip("tokenizers", reason="pip install -e '.[reference]'")
        encoding = tiktoken.Encoding("tiny", pat_str=LLAMA_3, mergeable_ranks=RANKS, special_tokens=SPECIAL)
        made = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(tiny())))
        assert made.encode(text, add_special_tokens=False).ids == encoding.encode(text, allowed_special="all")
        made.encode_special_tokens = True
        assert made.encode(text, add_special_tokens=False).ids == encoding.encode(text, disallowed_special=())


class TestPreTokenizers:
    @pytest.mark.parametrize(
        ("patterns", "name"),
        [
            ((LLAMA_3,), "llama-bpe"),
            ((O200K,), "llama4"),
            ((QWEN_2,), "qwen2"),
            ((QWEN_35,), "qwen35"),
            ((TEKKEN,), "tekken"),
            (DEEPSEEK_V3, "deepseek-v3"),
            (("x",), None),
        ],
    )
    def test_names(self, patterns, name):
        assert name_of(split(*patterns)) == name

    def test_names_that_mean_another(self):
        assert family_of("pixtral") is FAMILIES["llama-bpe"]
        assert family_of("deepseek-r1-qwen") is FAMILIES["qwen2"]
        assert family_of("bloom") is None

    @pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2", "qwen35", "smollm"])
    def test_families_are_those_of_the_reference(self, name):
        pytest.importorskip("tokenizers", reason="pip install -e '.[reference]'")
        from tokenizers import pre_tokenizers

        from harness.reference.tokenizer import PRE_TOKENIZERS

        proven = PRE_TOKENIZERS[name]
        steps = json.loads(pre_tokenizers.Sequence(list(proven.steps)).__getstate__())
        assert name_of(steps) == name
        known = FAMILIES[name]
        assert (known.nfc, known.ignore_merges, known.adds_bos) == (proven.nfc, proven.ignore_merges, proven.adds_bos)


class TestGguf:
    def test_it_comes_back(self, tmp_path):
        given = tiny()
        write_gguf(given, tmp_path / "a.gguf")
        assert facts(from_gguf(tmp_path / "a.gguf")) == facts(given)

    def test_a_pre_tokenizer_without_a_name(self, tmp_path):
        with pytest.raises(UserError, match="no known name"):
            write_gguf(tiny("x"), tmp_path / "a.gguf")
        assert not (tmp_path / "a.gguf").exists()

    def test_keys_are_those_of_the_other_reader(self, tmp_path):
        import gguf

        path = tmp_path / "a.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        numbers = {"uint8": 1, "int8": -1, "uint16": 2, "int16": -2, "uint32": 3, "int32": -3, "uint64": 4, "int64": -4}
        for name, value in {**numbers, "float32": 0.5, "float64": 0.25, "bool": True}.items():
            getattr(writer, f"add_{name}")(f"a.{name}", value)
        writer.add_string("a.text", "\u00e9")
        writer.add_array("a.texts", ["", "\u3042", "b"])
        writer.add_array("a.floats", [0.5, -1.0])
        writer.add_array("a.bools", [True, False])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        found = read_metadata(path)
        assert found == read_model_file(path).metadata
        assert found["a.texts"] == ["", "\u3042", "b"]
        assert found["a.int64"] == -4
        assert found["a.bool"] is True

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda writer: writer.add_tokenizer_model("llama"), "of the model 'llama'"),
            (lambda writer: writer.add_tokenizer_model("gpt2"), "no list of tokens"),
        ],
    )
    def test_other_vocabularies(self, tmp_path, change, complaint):
        import gguf

        path = tmp_path / "a.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        change(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with pytest.raises(UserError, match=complaint):
            from_gguf(path)

    def test_a_cut_file(self, tmp_path):
        write_gguf(tiny(), tmp_path / "a.gguf")
        data = (tmp_path / "a.gguf").read_bytes()
        (tmp_path / "b.gguf").write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelFileError, match="truncated or damaged"):
            from_gguf(tmp_path / "b.gguf")


class TestTokenizerJson:
    @pytest.mark.parametrize("given", [tiny(), tiny(QWEN_2, nfc=True)], ids=["llama-bpe", "qwen2"])
    def test_it_comes_back(self, tmp_path, given):
        path = written(tmp_path / "tokenizer.json", tokenizer_json(given))
        assert facts(from_tokenizer_json(path, eos="<end>")) == facts(given)

    @pytest.mark.parametrize(
        ("processor", "bos"),
        [
            (None, None),
            ({"type": "ByteLevel"}, None),
            ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, BEGINS]}, 268),
            ({"type": "Sequence", "processors": 1}, None),
            ({**BEGINS, "single": [{"Sequence": {"id": "A"}}]}, None),
            ({**BEGINS, "single": "x"}, None),
        ],
    )
    def test_a_post_processor_says_whether_a_bos_is_added(self, tmp_path, processor, bos):
        path = written(tmp_path / "tokenizer.json", {**tokenizer_json(tiny()), "post_processor": processor})
        found = from_tokenizer_json(path)
        assert (found.bos, found.adds_bos) == (bos, bos is not None)

    def test_merges_as_texts(self, tmp_path):
        data = tokenizer_json(tiny())
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
        assert from_tokenizer_json(written(tmp_path / "a.json", data)).merges == tiny().merges

    def test_added_tokens_that_are_not_special_are_user_defined(self, tmp_path):
        data = tokenizer_json(tiny())
        data["added_tokens"].append({"id": 270, "content": "<think>", "special": False})
        found = from_tokenizer_json(written(tmp_path / "a.json", data))
        assert found.of_kind(Kind.USER_DEFINED) == {"<think>": 270}
        assert found.pieces[270] == b"<think>"

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"model": {"type": "WordPiece"}}, "type 'WordPiece'; byte-level BPE alone"),
            ({"model": {"type": "Unigram", "vocab": [["a", 0]]}}, "type 'Unigram'; byte-level"),
            ({"model": None}, "type None"),
            ({"model": {"type": "BPE", "byte_fallback": True}}, "BPE, but byte_fallback"),
            ({"pre_tokenizer": {"type": "Metaspace"}}, "BPE, but not byte-level"),
            ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": 3}}, "BPE, but not byte-level"),
            ({"model": {"type": "BPE", "vocab": {}}}, "no vocabulary"),
            ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "'a' has the id '0'"),
            ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "has the id -1"),
            ({"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}}, "has the id 1099511627776"),
            ({"model": {"type": "BPE", "vocab": {"\ud800": 0}, "merges": []}, "added_tokens": []}, "lone surrogate"),
            ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["ab"]}, "added_tokens": []}, "no pair of texts"),
            ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": 7}, "added_tokens": []}, "no list of merges"),
            ({"added_tokens": [{"id": 3}]}, "an added token has no text"),
        ],
    )
    def test_what_is_damaged_or_of_another_kind_is_one_clear_error(self, tmp_path, change, complaint):
        path = written(tmp_path / "tokenizer.json", tokenizer_json(tiny()) | change)
        with pytest.raises(UserError, match=complaint) as caught:
            from_tokenizer_json(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
    def test_what_is_no_json_object(self, tmp_path, data):
        path = tmp_path / "tokenizer.json"
        path.write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            from_tokenizer_json(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="cannot be read: No such file"):
            from_tokenizer_json(tmp_path / "none.json")

    def test_a_role_for_a_text_that_is_no_token(self, tmp_path):
        path = written(tmp_path / "a.json", tokenizer_json(tiny()))
        with pytest.raises(UserError, match="no token '<bos>'"):
            from_tokenizer_json(path, bos="<bos>")


class TestTekken:
    DATA: ClassVar[dict[str, Any]] = {
        "config": {"pattern": TEKKEN, "default_vocab_size": 6, "default_num_special_tokens": 3},
        "vocab": [{"token_bytes": "YQ=="}, {"token_bytes": "Yg=="}, {"token_bytes": "YWI="}, {"token_bytes": "YmE="}],
    }

    def test_ids_stand_behind_the_control_tokens(self, tmp_path):
        found = from_tekken(written(tmp_path / "tekken.json", self.DATA), ["<unk>", "<s>"])
        assert found.texts == ("<unk>", "<s>", "<SPECIAL_2>", "a", "b", "ab")
        assert (found.merges, found.pre, found.bos, found.adds_bos) == ((("a", "b"),), "tekken", 1, True)

    def test_control_tokens_that_the_file_names(self, tmp_path):
        data = {**self.DATA, "special_tokens": [{"token_str": "<x>"}]}
        found = from_tekken(written(tmp_path / "tekken.json", data), ["<unk>"])
        assert found.texts[:3] == ("<x>", "<SPECIAL_1>", "<SPECIAL_2>")

    @pytest.mark.parametrize(
        "change", [{"config": {}}, {"vocab": [{"token_bytes": "*"}]}, {"vocab": None}, {"special_tokens": ["x"]}]
    )
    def test_what_is_damaged_is_one_clear_error(self, tmp_path, change):
        path = written(tmp_path / "tekken.json", self.DATA | change)
        with pytest.raises(UserError, match="is damaged"):
            from_tekken(path)

    def test_sizes_that_make_no_sense(self, tmp_path):
        config = {**self.DATA["config"], "default_vocab_size": 1 << 60}
        with pytest.raises(UserError, match="its sizes make no sense"):
            from_tekken(written(tmp_path / "tekken.json", {**self.DATA, "config": config}))
