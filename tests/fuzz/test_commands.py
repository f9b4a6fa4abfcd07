"""`harness fuzz tokenizer` and `harness fuzz parser`: what they find and tell, and what they say to a wrong call."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.fuzz import try_parser, try_tokenizers
from harness.fuzz.parser.properties import PROPERTIES as PARSER
from harness.fuzz.template.properties import PROPERTIES as TEMPLATE
from harness.fuzz.tokenizer.properties import PROPERTIES as TOKENIZER

pytest.importorskip("llama_cpp", reason="llama.cpp's tokenizer needs the package llama-cpp-python")
pytest.importorskip("mistral_common", reason="a tokenizer of its own needs the package mistral-common")


def run(*words):
    return CliRunner().invoke(app, ["fuzz", *map(str, words)])


def report_of(result):
    return json.loads(result.stdout)["report"]


def test_two_libraries_over_one_vocabulary_agree(tmp_path):
    words = ("tokenizer", "smollm2-135m-instruct", "--examples", 30, "--texts-only", "--database", tmp_path)
    result = run(*words, "--format", "json")
    assert result.exit_code == 0, result.output
    report = report_of(result)
    assert report["findings"] == []
    assert set(report["facts"]) == {"texts", "hf-tokenizers", "llama-tokenize"}
    assert all(count >= 20 for count in report["held"].values())


MARK = "e\u0301.a"
"""A text that llama.cpp's own code for Mistral's pre-tokenizer cuts otherwise than the regex in Mistral's file."""


def test_a_disagreement_is_found_told_and_reproduced(tmp_path):
    words = ("tokenizer", "mistral-common:tekken_240718", "--only", "agreement")
    result = run(*words, "--example", json.dumps(MARK), "--format", "json")
    assert result.exit_code == 1, result.output
    findings = report_of(result)["findings"]
    found = next(one for one in findings if one["broken"]["path"] == "mistral-common tekken_240718 / llama-tokenize")
    shown = {
        one["by"].split(",")[0]: [token[0] for token in json.loads(one["text"])] for one in found["broken"]["shown"]
    }
    assert shown["mistral-common tekken_240718"] == [1101, 1204, 1129, 15664]
    assert shown["llama-tokenize"] == [1101, 1204, 1129, 1046, 1097]
    assert found["command"].startswith("harness fuzz tokenizer mistral-common:tekken_240718 --only agreement --example")
    compile(found["test"], "test.py", "exec")
    assert "try_tokenizers('mistral-common:tekken_240718', text, properties=['agreement']) == []" in found["test"]


def test_one_text_tried_again():
    assert try_tokenizers("smollm2-135m-instruct", "plain words", properties=["agreement"]) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tokenizer", "no-such"), "no tokenizer named 'no-such'"),
        (("tokenizer", "mistral-common:v9"), "no variant of mistral-common named 'v9'"),
        (("tokenizer", "llama-tokenize"), "needs a file"),
        (("tokenizer", "none.json"), "no file none.json"),
        (("tokenizer", "smollm2-135m-instruct", "--only", "none"), "no property named 'none'"),
        (("tokenizer", "smollm2-135m-instruct", "--example", "[1]"), "--example is no text"),
        (("parser", "known", "--parser", "none"), "no parser named 'none'"),
        (("parser", "known", "--only", "none"), "no known defect named 'none'"),
        (
            ("parser", "Qwen/Qwen3-8C"),
            "no model with a template and fixtures, and no file named 'Qwen/Qwen3-8C'; did you mean",
        ),
        (("parser", "no-such"), "no template at 'no-such'"),
        (("parser", "smollm2-135m-instruct-tools", "--parser", "reference", "--example", "[]"), "has no conversation"),
    ],
)
def test_a_wrong_call_is_one_clear_line(words, says):
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


WORD_PIECE = {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "continuing_subword_prefix": "##"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no tokenizer that the library reads"),
        (
            json.dumps({"version": "1.0", "added_tokens": [], "model": {**WORD_PIECE, "max_input_chars_per_word": 9}}),
            "has a tokenizer model of the type 'WordPiece'",
        ),
    ],
    ids=["damaged", "of an unknown type"],
)
def test_a_file_that_is_no_tokenizer_of_a_known_kind_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    result = run("tokenizer", path, "--examples", 1)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_reference_parser_gives_back_what_is_rendered(tmp_path):
    words = ("parser", "smollm2-135m-instruct-tools", "--parser", "reference", "--examples", 80, "--database", tmp_path)
    result = run(*words, "--format", "json")
    assert result.exit_code == 0, result.output
    report = report_of(result)
    assert report["held"]["round-trip"] > 20
    assert report["held"]["arguments"] > 3


def test_a_known_defect_of_a_real_parser_is_reproduced():
    pytest.importorskip("xllamacpp", reason="llama-server needs the package xllamacpp")
    result = run("parser", "known", "--only", "end-lost", "--format", "json")
    assert result.exit_code == 1, result.output
    (found,) = report_of(result)["findings"]
    assert [one["text"] for one in found["broken"]["shown"]] == ['{"content": "a <"}', '{"content": "a "}']
    assert found["command"] == "harness fuzz parser known --parser llama-server --only end-lost"


def test_one_reply_tried_again():
    conversation = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert try_parser("smollm2-135m-instruct-tools", {"conversation": conversation}, parser="reference") == []


@pytest.mark.parametrize("properties", [TEMPLATE, TOKENIZER, PARSER], ids=["template", "tokenizer", "parser"])
def test_the_document_lists_every_property(project, properties):
    text = (project.root / "docs" / "properties.md").read_text(encoding="utf-8")
    for name, one in properties.items():
        assert f"| `{name}` | {one.sentence} |" in text


def test_an_engine_without_its_npm_package_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_NODE_MODULES", str(tmp_path))
    template = tmp_path / "a.jinja"
    template.write_text("{{ messages[0].content }}")
    result = run("template", template, "--engine", "huggingface-jinja")
    assert result.exit_code == 2, result.output
    assert "run: npm install @huggingface/jinja" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
