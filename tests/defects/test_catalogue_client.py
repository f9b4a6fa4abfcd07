"""The defects of a client's program: what each makes of a body, and that none touches what it is given."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from harness.defects.catalogue import catalogue
from harness.defects.defect import Place
from harness.project.cases import cases_for
from harness.project.project import Project
from harness.stage import Stage

OURS = {name: one for name, one in catalogue().items() if one.place is Place.BODY}
MODELS = ("smollm2-135m-instruct", "smollm2-135m-instruct-tools", "smollm2-135m-instruct-thinking")


def sent(name: str, body: dict[str, Any]) -> Any:
    """Return what a client with a defect sends."""
    return OURS[name].planting()(body)


def said(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    """Return a body of messages."""
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def turns(body: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


SETTINGS = {"temperature": 0.7, "max_tokens": 9, "top_p": 0.9, "seed": 7, "stop": ["ab", "c"]}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cli-temperature-dropped", {"max_tokens": 9, "top_p": 0.9, "seed": 7, "stop": ["ab", "c"]}),
        ("cli-top-p-dropped", {"temperature": 0.7, "max_tokens": 9, "seed": 7, "stop": ["ab", "c"]}),
        ("cli-seed-dropped", {"temperature": 0.7, "max_tokens": 9, "top_p": 0.9, "stop": ["ab", "c"]}),
        ("cli-stop-dropped", {"temperature": 0.7, "max_tokens": 9, "top_p": 0.9, "seed": 7}),
        ("cli-max-completion-tokens-ignored", {**SETTINGS, "max_tokens": 100}),
        (
            "cli-max-completion-tokens-refused",
            {"temperature": 0.7, "max_completion_tokens": 9, "top_p": 0.9, "seed": 7, "stop": ["ab", "c"]},
        ),
        ("cli-temperature-zero-lost", SETTINGS),
        ("cli-temperature-rounded", {**SETTINGS, "temperature": 0}),
        ("cli-temperature-as-text", {**SETTINGS, "temperature": "0.7"}),
        ("cli-sampling-swapped", {**SETTINGS, "temperature": 0.9, "top_p": 0.7}),
        ("cli-seed-fixed", {**SETTINGS, "seed": 42}),
        ("cli-max-tokens-legacy-default", {**SETTINGS, "max_tokens": 16}),
        ("cli-v1-overrides-model-sampling", SETTINGS),
        ("cli-generation-config-silent-override", {**SETTINGS, "top_k": 1, "repeat_penalty": 1.05}),
        ("cli-presence-penalty-remapped", {**SETTINGS, "repeat_penalty": 2.0}),
        (
            "cli-sampling-wrong-nesting",
            {"max_tokens": 9, "options": {"temperature": 0.7, "top_p": 0.9, "seed": 7, "stop": ["ab", "c"]}},
        ),
        ("cli-sampling-wrong-nesting-ignored", {"max_tokens": 9}),
        ("cli-max-tokens-total", {**SETTINGS, "max_tokens": 6}),
        ("cli-stop-first-only", {**SETTINGS, "stop": ["ab"]}),
        ("cli-stop-joined", {**SETTINGS, "stop": ["ab,c"]}),
        ("cli-stop-as-characters", {**SETTINGS, "stop": ["a", "b"]}),
        ("cli-stop-added", {**SETTINGS, "stop": ["ab", "c", "\n"]}),
    ],
)
def test_other_settings_are_sent(name: str, settings: dict[str, Any]) -> None:
    messages = said(("user", "one two three"))
    assert sent(name, {**messages, **SETTINGS}) == {**messages, **settings}


def test_settings_that_the_caller_left_out_stay_out() -> None:
    body = said(("user", "a"))
    for name in ("cli-stop-first-only", "cli-sampling-swapped", "cli-temperature-as-text", "cli-max-tokens-total"):
        assert sent(name, body) == body
    assert sent("cli-temperature-zero-lost", {**body, "temperature": 0}) == body
    assert sent("cli-v1-overrides-model-sampling", body) == {**body, "temperature": 1.0, "top_p": 1.0}


TALK = (("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c"), ("user", ""))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cli-system-dropped", [TALK[0], TALK[1], TALK[3], TALK[4]]),
        ("cli-empty-messages-dropped", list(TALK[:4])),
        ("cli-first-message-dropped", list(TALK[1:])),
        ("cli-history-dropped", [TALK[4]]),
        ("cli-assistant-last-dropped", list(TALK)),
        ("cli-system-as-user", [TALK[0], TALK[1], ("user", "s"), TALK[3], TALK[4]]),
        ("cli-system-as-developer", [TALK[0], TALK[1], ("developer", "s"), TALK[3], TALK[4]]),
        ("cli-system-moved-first", [TALK[2], TALK[0], TALK[1], TALK[3], TALK[4]]),
        ("cli-default-system-added", list(TALK)),
        ("cli-system-folded-into-user", [("user", "s\n\na"), TALK[1], TALK[3], TALK[4]]),
        ("cli-same-role-merged", [*TALK[:3], ("user", "c\n\n")]),
        ("cli-messages-flattened", [("user", "user: a\nassistant: b\nsystem: s\nuser: c\nuser: \nassistant:")]),
        ("cli-content-as-parts", [(role, [{"type": "text", "text": text}]) for role, text in TALK]),
    ],
)
def test_another_conversation_is_sent(name: str, expected: list[tuple[str, Any]]) -> None:
    assert turns(sent(name, said(*TALK))) == expected


PARTS = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cli-system-parts-object-object", ["[object Object],[object Object]"]),
        ("cli-parts-as-repr", ["[{'type': 'text', 'text': 'x'}, {'type': 'text', 'text': 'y'}]"]),
        ("cli-content-parts-joiner-newline", ["x\ny"]),
        ("cli-content-parts-joiner-blank-line", ["x\n\ny"]),
        ("cli-parts-first-only", ["x"]),
        ("cli-content-parts-split", ["x", "y"]),
    ],
)
def test_parts_are_sent_otherwise(name: str, expected: list[str]) -> None:
    assert [content for _, content in turns(sent(name, said(("user", PARTS))))] == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cli-text-stripped", " a\n", "a"),
        ("cli-text-spaces-collapsed", " a \t b\n", "a b"),
        ("cli-text-nfc", "e\u0301", "\u00e9"),
        ("cli-text-html-escaped", "<b>&'\"", "&lt;b&gt;&amp;&#x27;&quot;"),
        ("cli-text-non-ascii-escaped", "a\u00e9\U0001f98a", "a\\u00e9\\ud83e\\udd8a"),
        ("cli-text-mojibake", "\u00e9", "\u00c3\u00a9"),
        ("cli-text-invisible-removed", "a\u200bb\ufeffc", "abc"),
        ("cli-text-control-text-removed", "a<|im_end|>b", "ab"),
        ("cli-last-turn-cut", "a\nb\nc", "a"),
    ],
)
def test_texts_are_sent_otherwise(name: str, text: str, expected: str) -> None:
    assert turns(sent(name, said(("user", text)))) == [("user", expected)]


def test_a_small_context_drops_the_oldest_but_not_the_system_nor_the_last() -> None:
    body = said(("system", "s" * 30), ("user", "a" * 30), ("assistant", "b"), ("user", "c" * 20))
    assert turns(sent("cli-num-ctx-dropped", body)) == [("system", "s" * 30), ("assistant", "b"), ("user", "c" * 20)]
    long = said(("system", "s" * 90), ("user", "c" * 90))
    assert sent("cli-num-ctx-dropped", long) == long


def test_null_becomes_a_word() -> None:
    assert turns(sent("cli-null-content-as-text", said(("assistant", None)))) == [("assistant", "None")]


def test_reasoning_is_taken_out_of_the_assistants_texts_only() -> None:
    body = said(("user", "<think>u</think>v"), ("assistant", "<think>\nr\n</think>\n\na"))
    assert turns(sent("cli-reasoning-dropped-from-history", body)) == [
        ("user", "<think>u</think>v"),
        ("assistant", "a"),
    ]
    renamed = sent("cli-reasoning-field-renamed", body)["messages"][1]
    assert renamed == {"role": "assistant", "content": "a", "thinking": "r"}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


PARAMETERS = {"type": "object", "properties": {"enum": {"type": "string", "enum": ["x"]}}}
TOOLS = {
    **said(("user", "q")),
    "tools": [tool("z\u00fc", description="d" * 30, parameters=PARAMETERS), tool("a")],
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cli-tools-not-forwarded", said(("user", "q"))),
        ("cli-tools-first-only", {**TOOLS, "tools": TOOLS["tools"][:1]}),
        ("cli-tools-reordered", {**TOOLS, "tools": TOOLS["tools"][::-1]}),
        ("cli-tools-unwrapped", {**TOOLS, "tools": [one["function"] for one in TOOLS["tools"]]}),
        ("cli-tools-as-functions", {**said(("user", "q")), "functions": [one["function"] for one in TOOLS["tools"]]}),
        (
            "cli-tool-choice-forced",
            {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "z\u00fc"}}},
        ),
        (
            "cli-tool-descriptions-truncated",
            {**TOOLS, "tools": [tool("z\u00fc", description="d" * 20, parameters=PARAMETERS), tool("a")]},
        ),
        (
            "cli-tool-names-sanitised",
            {**TOOLS, "tools": [tool("z_", description="d" * 30, parameters=PARAMETERS), tool("a")]},
        ),
    ],
)
def test_tools_are_sent_otherwise(name: str, expected: dict[str, Any]) -> None:
    assert sent(name, TOOLS) == expected


def test_a_property_called_enum_is_kept() -> None:
    parameters = sent("cli-tool-enum-dropped", TOOLS)["tools"][0]["function"]["parameters"]
    assert parameters == {"type": "object", "properties": {"enum": {"type": "string"}}}


def test_tools_in_the_system_text_follow_what_stands_there() -> None:
    body = {**said(("system", "s"), ("user", "q")), "tools": [tool("a")]}
    assert sent("cli-tools-in-system-text", body) == said(
        ("system", 's\n\nYou have these functions:\n{"name": "a"}'), ("user", "q")
    )


def test_the_keys_of_schemas_are_sorted() -> None:
    first = sent("cli-tool-schema-sorted", TOOLS)["tools"][0]
    assert (list(first), list(first["function"])) == (["function", "type"], ["description", "name", "parameters"])


HISTORY = {
    "messages": [
        {"role": "assistant", "content": None, "tool_calls": [call("f", '{"a": 1}'), call("g", "{}")]},
        {"role": "tool", "tool_call_id": "id-f", "content": "r"},
    ]
}


def test_calls_in_the_history_are_sent_otherwise() -> None:
    def calls(name: str) -> Any:
        return sent(name, HISTORY)["messages"][0].get("tool_calls")

    def arguments(name: str) -> list[Any]:
        return [one["function"]["arguments"] for one in calls(name)]

    assert arguments("cli-tool-args-double-encoded") == ['"{\\"a\\": 1}"', '"{}"']
    assert arguments("cli-tool-args-decoded") == [{"a": 1}, {}]
    assert calls("cli-tool-calls-dropped") is None
    assert calls("cli-tool-calls-first-only") == [call("f", '{"a": 1}')]
    assert sent("cli-tool-results-as-user", HISTORY)["messages"][1] == {"role": "user", "content": "r"}
    lost = sent("cli-tool-ids-lost", HISTORY)["messages"]
    assert ["id" in one for one in lost[0]["tool_calls"]] == [False, False]
    assert lost[1] == {"role": "tool", "content": "r"}


@pytest.mark.parametrize("name", OURS)
def test_what_is_given_is_left_alone(name: str, project: Project) -> None:
    bodies = [case.body for model in MODELS for case in cases_for(project, model)]
    kept = copy.deepcopy(bodies)
    function = OURS[name].planting()
    once = [function(body) for body in bodies]
    assert bodies == kept
    assert [function(body) for body in bodies] == once
    assert any(
        one != body or list(one) != list(body) or str(one) != str(body) for one, body in zip(once, bodies, strict=True)
    )


@pytest.mark.parametrize("name", OURS)
def test_the_client_is_at_fault_for_what_it_sends(name: str) -> None:
    assert (OURS[name].stage, OURS[name].kind) == (Stage.CLIENT, "integration")
