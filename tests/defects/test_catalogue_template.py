"""The defects around a template: what each makes of its input, its source, its environment and the rendered text."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.attribution.trial import Plan, run
from harness.defects.catalogue import catalogue
from harness.defects.catalogue.not_planted import NOT_PLANTED
from harness.defects.catalogue.template_mutants import mutated
from harness.defects.defect import Place
from harness.defects.planting import template_of
from harness.explain.pipeline import Pipeline
from harness.fuzz.template.golden_cases import GoldenCase, golden_cases
from harness.project.project import Project
from harness.project.stack import Stack, resolve_model
from harness.stage import Stage
from harness.values import ModelRef

ALL = catalogue()
MODELS = ("smollm2-135m-instruct", "smollm2-135m-instruct-tools", "smollm2-135m-instruct-thinking")


def planted(name: str, *given: Any) -> Any:
    """Return what the function of a defect makes of its input."""
    return ALL[name].planting()(*given)


def at(*places: Place) -> list[str]:
    """Return the template's defects at these places."""
    return [name for name, one in ALL.items() if one.place in places and one.stage is Stage.TEMPLATE]


def model_of(name: str) -> str:
    """Return the model around which a defect is planted."""
    return ALL[name].models[0] if ALL[name].models else MODELS[0]


def rendered(source: str, environment: Any = None, **given: Any) -> str:
    """Render a template as transformers does."""
    environment = environment or ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return str(environment.from_string(source).render(**given))


TEXT = (
    "<|im_start|>system\nYou are kind.<|im_end|>\n"
    '<|im_start|>user\nh\u00e9 \t\r\n\n"x"<|im_end|>\n'
    "<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tpl-bos-text-doubled", "<|im_start|>system", "<|im_start|><|im_start|>system"),
        ("tpl-bos-text-stripped", "<|im_start|>system", "system"),
        ("tpl-text-nfkc", "", ""),
        ("tpl-text-html-unescaped", "", ""),
        ("tpl-text-smart-quotes", '"x"', "\u201cx\u201d"),
        ("tpl-text-non-ascii-dropped", "\u00e9", ""),
        ("tpl-text-non-ascii-escaped", "\u00e9", "\\u00e9"),
        ("tpl-text-mojibake", "\u00e9", "\u00c3\u00a9"),
        ("tpl-text-stripped", "assistant\n", "assistant"),
        ("tpl-text-blank-lines-collapsed", "\r\n\n", "\n"),
        ("tpl-text-lines-stripped", " \t\r\n", "\r\n"),
        ("tpl-text-crlf-lost", "\r\n", "\n"),
        ("tpl-text-newlines-escaped", "\n", "\\n"),
        ("tpl-leading-space", "<|im_start|>system", " <|im_start|>system"),
        ("tpl-trailing-space", "assistant\n", "assistant\n "),
        ("tpl-trailing-newline-doubled", "assistant\n", "assistant\n\n"),
        ("tpl-generation-prompt-doubled", "<|im_start|>assistant\n", "<|im_start|>assistant\n<|im_start|>assistant\n"),
        ("tpl-generation-prompt-cut", "<|im_start|>assistant\n", ""),
        ("tpl-assistant-called-model", "assistant", "model"),
        ("tpl-default-system-lost", "<|im_start|>system\nYou are kind.<|im_end|>\n", ""),
        ("tpl-end-markers-lost", "<|im_end|>", ""),
        ("tpl-end-markers-foreign", "<|im_end|>", "<|endoftext|>"),
        ("tpl-prompt-cut-in-the-middle", "", ""),
        ("tpl-date-of-another-zone", "", ""),
    ],
)
def test_the_text_is_another(name: str, old: str, new: str) -> None:
    assert planted(name, TEXT) == TEXT.replace(old, new)


def test_roles_get_a_capital_letter() -> None:
    assert planted("tpl-roles-capitalised", "<|im_start|>user\nuser<|im_end|>") == "<|im_start|>User\nuser<|im_end|>"


def test_a_doubled_opening_takes_the_reasoning_tag_along() -> None:
    opened = "<|im_start|>assistant\n<think>\n"
    assert planted("tpl-generation-prompt-doubled", opened) == opened * 2


def test_every_kind_of_line_end_becomes_that_of_windows() -> None:
    assert planted("tpl-text-crlf-made", "a\nb\r\nc") == "a\r\nb\r\nc"


def test_characters_are_normalized() -> None:
    assert planted("tpl-text-nfc", "e\u0301\ufb01") == "\u00e9\ufb01"
    assert planted("tpl-text-nfkc", "e\u0301\ufb01") == "\u00e9fi"


def test_a_long_prompt_keeps_both_ends() -> None:
    text = "".join(chr(97 + number % 26) for number in range(200))
    assert planted("tpl-prompt-cut-in-the-middle", text) == text[:40] + text[80:]


def test_the_date_is_the_next_day() -> None:
    assert planted("tpl-date-of-another-zone", "Today is 2024-12-31.") == "Today is 2025-01-01."


GIVEN = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "i", "function": {"name": "f", "arguments": '{"k": "v", "n": null}'}}],
        },
        {"role": "tool", "tool_call_id": "i", "content": " r </think> t"},
        {"role": "user", "content": "x"},
        {"role": "user", "content": "y"},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": None,
}


def contents(name: str) -> list[Any]:
    return [message["content"] for message in planted(name, GIVEN)["messages"]]


def test_the_template_is_given_other_messages() -> None:
    parts = GIVEN["messages"][1]["content"]
    assert contents("tpl-content-parts-joined")[1] == "a\nb"
    assert contents("tpl-typed-vs-string-content-string")[1] == str(parts)
    assert contents("tpl-typed-vs-string-content-typed")[0] == [{"type": "text", "text": "s"}]
    assert contents("tpl-literal-think-split") == ["s", parts, None, " t", "x", "y"]
    assert contents("tpl-messages-merged") == ["s", parts, None, " r </think> t", "x\n\ny"]
    assert contents("tpl-messages-trimmed") == ["s", parts, None, "r </think> t", "x", "y"]
    assert contents("tpl-system-folded") == ["s\n\nab", None, " r </think> t", "x", "y"]


def test_the_template_is_given_other_tools_and_calls() -> None:
    assert planted("tpl-tools-not-given", GIVEN)["tools"] is None
    assert planted("tpl-tools-unwrapped", GIVEN)["tools"] == [{"name": "f"}]
    call = planted("tpl-tool-args-predecoded", GIVEN)["messages"][2]["tool_calls"][0]
    assert call["function"]["arguments"] == "{'k': 'v', 'n': None}"
    flat = planted("tpl-tool-history-flattened", GIVEN)["messages"]
    calls = '[{"id": "i", "function": {"name": "f", "arguments": "{\\"k\\": \\"v\\", \\"n\\": null}"}}]'
    assert flat[2:4] == [{"role": "assistant", "content": calls}, {"role": "tool", "content": " r </think> t"}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tpl-tojson-htmlsafe", '{"a": "\\u003c\\u0026\\u0027/\\u00e9", "b": 1}'),
        ("tpl-tojson-ascii", '{"b": 1, "a": "<&\'/\\u00e9"}'),
        ("tpl-tojson-sorted", '{"a": "<&\'/\u00e9", "b": 1}'),
        ("tpl-tojson-compact", '{"b":1,"a":"<&\'/\u00e9"}'),
        ("tpl-tojson-slash-escaped", '{"b": 1, "a": "<&\'\\/\u00e9"}'),
        ("tpl-tojson-indented", '{\n    "b": 1,\n    "a": "<&\'/\u00e9"\n}'),
        ("tpl-tojson-repr", "{'b': 1, 'a': \"<&'/\u00e9\"}"),
    ],
)
def test_json_is_written_otherwise(name: str, expected: str) -> None:
    environment = ImmutableSandboxedEnvironment()
    planted(name, environment)
    assert rendered("{{ value | tojson }}", environment, value={"b": 1, "a": "<&'/\u00e9"}) == expected


def environment_with(name: str) -> Any:
    environment = ImmutableSandboxedEnvironment()
    planted(name, environment)
    return environment


def test_the_date_is_found_otherwise() -> None:
    def date(name: str) -> str:
        source = "{{ strftime_now('%Y-%m-%d') if strftime_now is defined else 'none' }}"
        return rendered(source, environment_with(name), strftime_now=datetime(2025, 3, 4).strftime)

    assert date("tpl-strftime-missing") == "none"
    assert date("tpl-strftime-constant") == "2024-07-26"
    assert date("tpl-strftime-format-ignored") == "04 Mar 2025"
    now = datetime.now(UTC)
    # Local, and it may become midnight meanwhile.
    assert date("tpl-strftime-clock-unpinned") in {f"{now + timedelta(days=days):%Y-%m-%d}" for days in (-1, 0, 1)}


def test_a_variable_is_set_for_every_request() -> None:
    source = "{{ enable_thinking is defined and not enable_thinking }}"
    assert rendered(source, environment_with("tpl-thinking-off-by-default")) == "True"


def test_outputs_are_escaped() -> None:
    source = "{{ '<b>' + message.content + message['content'] + message.role }}"
    given = {"message": {"content": "&", "role": ">"}}
    assert rendered(source, environment_with("tpl-literals-autoescaped"), **given) == "&lt;b&gt;&amp;&amp;&gt;"
    assert rendered(source, environment_with("tpl-contents-autoescaped"), **given) == "<b>&amp;&amp;>"


def test_tests_answer_otherwise() -> None:
    assert rendered("{{ 'a' is string }}", environment_with("tpl-test-string-never")) == "False"
    assert rendered("{{ [] is iterable }}", environment_with("tpl-test-iterable-never")) == "False"
    with pytest.raises(ValueError, match="Unknown test: string"):
        rendered("{{ 'a' is string }}", environment_with("tpl-js-engine-gap"))


def test_there_is_nothing_at_a_negative_index() -> None:
    assert rendered("{{ x[-1] }}{{ x[1] }}", environment_with("tpl-negative-index-unsupported"), x=["a", "b"]) == "b"


def test_a_mutant_has_the_mistake_at_the_place_asked_for() -> None:
    source = "{%- if a -%}x{%- endif -%}{%- if b -%}y{%- endif -%}"
    assert mutated(source, "condition-never") == source.replace("if a", "if false")
    assert mutated(source, "condition-never", 1) == source.replace("if b", "if false")
    assert mutated(source, "condition-never", 2) == source
    assert mutated(source, "json-twice") == source


def ask(messages: list[Any], source: str) -> str:
    def refuse(message: str) -> None:
        raise ValueError(message)

    return rendered(source, messages=messages, add_generation_prompt=True, raise_exception=refuse)


def test_other_templates_are_in_force() -> None:
    talk = [{"role": role, "content": text} for role, text in (("system", "s"), ("user", "u"), ("assistant", "a"))]
    assert ask(talk, planted("tpl-builtin-name-swapped-llama2", "")) == "[INST] <<SYS>>\ns\n<</SYS>>\n\nu [/INST] a "
    assert ask(talk, planted("tpl-builtin-name-swapped-mistral", "")) == "[INST] s\n\nu [/INST] a</s>"
    assert ask(talk, planted("tpl-no-template-default", "")) == "RULE: s\nUSER: u\nASSISTANT: a\nASSISTANT:"
    assert ask(talk[1:2], planted("tpl-unsupported-syntax-fallback", "")) == (
        "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("name", "messages", "says"),
    [
        ("tpl-system-role-raises", [{"role": "system", "content": "s"}], "System role not supported"),
        ("tpl-role-order-raises", [{"role": "user"}, {"role": "user"}], "roles must alternate"),
        ("tpl-thinking-and-content-conflict", [{"content": "x", "tool_calls": [1]}], "both content and tool calls"),
    ],
)
def test_a_template_refuses(name: str, messages: list[Any], says: str) -> None:
    source = planted(name, "ok")
    assert ask([{"role": "user", "content": "u"}], source) == "ok"
    with pytest.raises(ValueError, match=says):
        ask(messages, source)


def test_a_ported_template_repeats_the_system_message() -> None:
    source = planted(
        "tpl-ported-template-system-repeated", "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    talk = [{"role": role, "content": text} for role, text in (("system", "s"), ("user", "u"), ("user", "v"))]
    assert ask(talk, source) == "su<|im_start|>system\ns<|im_end|>\nv"


@pytest.fixture(scope="module")
def cases(project: Project) -> dict[str, list[GoldenCase]]:
    return {model: golden_cases(project, model)[model] for model in MODELS}


@pytest.mark.parametrize("name", at(Place.REQUEST, Place.PROMPT))
def test_what_is_given_is_left_alone(name: str, cases: dict[str, list[GoldenCase]]) -> None:
    given: list[Any]
    if ALL[name].place is Place.PROMPT:
        given = [case.prompt for case in cases[model_of(name)] if case.prompt is not None]
    else:
        given = [{"messages": one.messages, "tools": one.tools, "tool_choice": None} for one in cases[model_of(name)]]
    kept = copy.deepcopy(given)
    once = [planted(name, one) for one in given]
    assert given == kept
    assert [planted(name, one) for one in given] == once
    assert once != given


@pytest.mark.parametrize("name", at(Place.SOURCE))
def test_the_source_of_its_model_is_changed_and_compiles(name: str, project: Project) -> None:
    source = template_of(resolve_model(project, model_of(name)))
    changed = planted(name, source)
    assert changed != source
    assert planted(name, source) == changed
    if ALL[name].symptom != "loading failure":
        ImmutableSandboxedEnvironment().from_string(changed)


def test_another_source_is_held_against_the_goldens_of_the_healthy_one(
    project: Project, real_stack: Stack, smollm: ModelRef
) -> None:
    hurt = ALL["tpl-gguf-template-drift"]
    plan = Plan(("no-system", "system-and-user"), ())
    with Pipeline(project) as pipeline:
        trial, _ = run(project, real_stack, smollm, plan, [hurt], None, pipeline, name="drift")
    assert (trial.ended, trial.by_stage) == ("judged", {Stage.TEMPLATE: ("no-system",)})


def test_what_is_not_planted_is_not_in_the_catalogue() -> None:
    assert not set(NOT_PLANTED) & set(ALL)
