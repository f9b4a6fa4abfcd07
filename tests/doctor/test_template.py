from __future__ import annotations

import pytest

from tests.doctor.models import TEMPLATE, check, write

KEY = "tokenizer.chat_template"
TYPES = "tokenizer.ggml.token_type"
ADD_BOS = "tokenizer.ggml.add_bos_token"
BOS = "tokenizer.ggml.bos_token_id"
LLAMA_3 = {"tokenizer.ggml.pre": "llama-bpe", ADD_BOS: None}


@pytest.mark.parametrize(
    ("name", "changes", "status", "found"),
    [
        ("chat template", {KEY: None}, "warning", "tokenizer.chat_template is missing"),
        ("chat template", {KEY: " \n"}, "bad", "tokenizer.chat_template is empty"),
        ("chat template", {KEY: 5}, "bad", "is 5 (int), not a text"),
        ("chat template", {f"{KEY}.tool_use": "x"}, "ok", "'tool_use' of 1 characters"),
        ("chat template", {f"{KEY}.rag": "x", "tokenizer.chat_templates": ["rag"]}, "ok", "'rag' of 1 characters"),
        ("chat template", {"tokenizer.chat_templates": ["rag"]}, "bad", "lists 'rag', but there is no such template"),
        (
            "chat template",
            {KEY: None, "tokenizer.ggml.tokens": None, "tokenizer.ggml.model": "none"},
            "unobserved",
            "no vocab",
        ),
        ("chat template", {f"{KEY}.{number}": "x" for number in range(16)}, "bad", "there are 17 chat templates"),
        ("template syntax", {KEY: None}, "unobserved", "no chat template"),
        ("template syntax", {KEY: "{% for x in y %}"}, "bad", "template 'default' is not valid Jinja: line 1"),
        ("template syntax", {f"{KEY}.rag": "{{ x"}, "bad", "template 'rag' is not valid Jinja"),
        ("template syntax", {KEY: "{{ " + "(" * 5000}, "bad", "template 'default' is nested too deeply"),
        (
            "template syntax",
            {KEY: "{{ " + "1" * 5000 + " }}"},
            "bad",
            "template 'default' is not valid Jinja: 'Exceeds",
        ),
        ("template syntax", {KEY: "x" * (256 * 1024 + 1)}, "bad", "template 'default' has 262,145 characters"),
        ("template syntax", {KEY: "{{ a" + "|b" * 30_000 + " }}"}, "ok", "1 parsed"),
        ("template syntax", {KEY: "{{ 9**9**9**9 }}{{ 'x' * 9999999999 }}"}, "ok", "1 parsed"),
        ("template syntax", {KEY: "{{ 'a\\d' }}"}, "ok", "1 parsed"),
        ("template syntax", {KEY: "{% for x in y %}{% break %}{% continue %}{% endfor %}"}, "ok", "1 parsed"),
        ("template syntax", {KEY: "{% generation %}{{ x }}{% endgeneration %}"}, "ok", "1 parsed"),
        ("template syntax", {KEY: "{% generation %}{{ x }}"}, "bad", "not valid Jinja"),
        ("generation prompt", {KEY: "{{ messages }}"}, "warning", "'default' never looks at add_generation_prompt"),
        ("generation prompt", {KEY: "{{ 'add_generation_prompt' }}"}, "warning", "'default' never looks at"),
        ("generation prompt", {KEY: "{{ x"}, "unobserved", "no chat template that could be read"),
        (
            "role markers",
            {KEY: TEMPLATE.replace("im_end", "im_stop")},
            "warning",
            "'<|im_stop|>' of the template is not in",
        ),
        (
            "role markers",
            {TYPES: [3, 1, 3, 1, 1, 1, 1, 1]},
            "bad",
            "'<|im_start|>' of the template is in the vocabulary, but",
        ),
        ("role markers", {TYPES: [3, 4, 3, 1, 1, 1, 1, 1]}, "ok", "'<|im_start|>'"),
        ("role markers", {TYPES: None}, "bad", "'<|im_end|>', '<|im_start|>' of the template"),
        ("role markers", {KEY: "<｜User｜>{{ x }}"}, "warning", "'<｜User｜>' of the template is not in"),
        ("role markers", {KEY: "{{ x"}, "unobserved", "no chat template that could be read"),
        ("role markers", {KEY: "{{ messages }}"}, "ok", "no <|...|> marker"),
        ("role markers", {KEY: "{% generation %}<|x|>{% endgeneration %}"}, "warning", "'<|x|>'"),
        (
            "double BOS",
            {ADD_BOS: True},
            "warning",
            "prepends a BOS (by add_bos_token), and so does the template 'default'",
        ),
        ("double BOS", {ADD_BOS: True, KEY: "{{ bos_token }}"}, "warning", "prepends a BOS (by add_bos_token)"),
        ("double BOS", {ADD_BOS: True, KEY: "{{ x }}"}, "ok", "the tokenizer (by add_bos_token) writes the BOS"),
        ("double BOS", {KEY: "{{ x }}"}, "ok", "nobody writes the BOS"),
        ("double BOS", {ADD_BOS: None}, "ok", "the template writes the BOS"),
        ("double BOS", {KEY: "{{ x"}, "unobserved", "no chat template that could be read"),
        ("double BOS", {ADD_BOS: True, BOS: 99}, "ok", "the tokenizer (by add_bos_token) writes the BOS"),
        ("double BOS", {ADD_BOS: True, BOS: None, "tokenizer.ggml.model": "llama"}, "warning", "prepends a BOS"),
        ("double BOS", LLAMA_3, "warning", "prepends a BOS (by default)"),
        ("double BOS", {ADD_BOS: None, "tokenizer.ggml.model": "llama"}, "warning", "prepends a BOS (by default)"),
        ("double BOS", {ADD_BOS: 1}, "bad", "is 1 (int), not true or false"),
    ],
)
def test_template(tmp_path, name, changes, status, found):
    judged = check(write(tmp_path / "m.gguf", changes), name)
    assert (judged.status, found in judged.found) == (status, True), judged


def test_nothing_of_a_template_is_run(tmp_path, monkeypatch):
    import jinja2

    def compiled(*_, **__):
        raise AssertionError("a template was compiled")

    monkeypatch.setattr(jinja2.Environment, "compile", compiled)
    monkeypatch.setattr(jinja2.Environment, "_generate", compiled)
    assert check(write(tmp_path / "m.gguf"), "template syntax").status == "ok"


def test_a_message_shows_no_control_code_of_the_file(tmp_path):
    path = write(tmp_path / "m.gguf", {"tokenizer.chat_template.\x1b[31m": "{{ x"})
    assert "\\x1b[31m" in check(path, "template syntax").found
