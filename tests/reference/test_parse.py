"""The reference of the parsers, by hand: what is reasoning, what is a call, and what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.reference.parse import Parsed, parse

CASES = Path(__file__).parents[2] / "golden" / "cases"
END = "<|im_end|>"
OPENED = "<|im_start|>assistant\n<think>\n"


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def written(*calls):
    return "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>' for name, arguments in calls
    )


def with_calls(text):
    return parse(text, calls=True, reasoning=False, prompt="")


def with_reasoning(text, prompt="<|im_start|>assistant\n"):
    return parse(text, calls=False, reasoning=True, prompt=prompt)


# Every script of the goldens

SCRIPTS = {
    "call-after-text": Parsed("Let me look.", None, (call("get_weather", '{"place": "Oslo"}'),)),
    "call-brace-in-string": Parsed("", None, (call("search", '{"query": "a } and ] in {\\"x\\": [</tool"}'),)),
    "call-empty-arguments": Parsed("", None, (call("news", "{}"),)),
    "call-nested-json": Parsed(
        "",
        None,
        (
            call(
                "search",
                '{"query": "a\\\\b\\n", "filter": {"n": [1, 2.5, {"deep": null}], "on": true}, "tags": []}',
            ),
        ),
    ),
    "call-non-ascii": Parsed(
        "", None, (call("get_weather", '{"place": "Troms\u00f8 \u5317\u4eac \\u00e9 \U0001f98a"}'),)
    ),
    "call-not-declared": Parsed('<tool_call>\n{"name": "news", "arguments": {}}\n</tool_call>'),
    "call-one": Parsed("", None, (call("get_weather", '{"place": "Oslo", "days": 3}'),)),
    "call-verbatim-arguments": Parsed(
        "",
        None,
        (
            call(
                "run_script",
                '{"text": "    if a, b:\\n\\treturn \'x, y\'\\n", "id": "007", "note": "none", '
                '"command": "grep -c \'&\' <in.txt >>out.log 2>&1", "ratio": -2.33e-5, "dry": false, "limit": null, '
                '"where": {"zone": "true", "area": ["12", " "], "m": {"b": 1, "a": "</x>"}}}',
            ),
        ),
    ),
    "call-two-parallel": Parsed("", None, (call("get_weather", '{"place": "Oslo"}'), call("news", "{}"))),
    "reasoning-in-history": Parsed("Yes.", "Fine."),
    "reasoning-off": Parsed("Four."),
    "reasoning-open-at-end": Parsed("", "Two and two are, as far as anybody can tell,"),
    "reasoning-opened-by-prompt": Parsed("Four.", "Two and two."),
    "reasoning-asked-for": Parsed("Four.", "Two and two."),
    "reasoning-by-model": Parsed("Four.", "Two and two."),
    "reasoning-off-by-default": Parsed("Four."),
    "reasoning-tag-in-answer": Parsed("It is </think>, of course.", "Easy."),
}


def test_every_script_with_calls_or_reasoning_is_here():
    names = {path.stem for pattern in ("call-*", "reasoning-*") for path in CASES.glob(f"{pattern}.json")}
    options = {name: json.loads((CASES / f"{name}.json").read_text()).get("options", {}) for name in names}
    scripted = {name for name in names if "script" in options[name]}
    assert scripted == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_the_goldens(name):
    case = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    thinks = name.startswith("reasoning-")
    off = name in ("reasoning-off", "reasoning-off-by-default")
    opened = thinks and name != "reasoning-by-model"
    prompt = f"{OPENED}\n</think>\n\n" if off else OPENED if opened else "<|im_start|>assistant\n"
    text = case["options"]["script"].removesuffix(END)
    found = parse(text, calls=bool(case["body"].get("tools")) and not thinks, reasoning=thinks, prompt=prompt)
    assert found == SCRIPTS[name]


# Calls


@pytest.mark.parametrize("text", ["", " a\n", "<tool>", "</tool_call>", '{"name": "f", "arguments": {}}'])
def test_without_a_call_the_text_is_left_as_it_is(text):
    assert with_calls(text) == Parsed(text)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": "</tool_call>"}',
        '{"a": "x</tool_call>\\n<tool_call>{}"}',
        '{"a": "\\"}</tool_call>"}',
        '{ "a" :1,"a":2 }',
        '{"arguments": {"name": 1}}',
        '"text"',
        "[]",
        "null",
    ],
)
def test_arguments_are_kept_in_the_characters_that_were_written(arguments):
    assert with_calls(written(("f", arguments))) == Parsed("", None, (call("f", arguments),))


def test_the_order_of_keys_and_white_space_in_a_call_do_not_matter():
    text = '<tool_call>{"arguments" :\n {"a": 1} , "id": 3, "name":"f"}</tool_call>'
    assert with_calls(text) == Parsed("", None, (call("f", '{"a": 1}'),))


def test_text_before_between_and_after_calls_is_content():
    one, two = written(("f", "{}")), written(("g", '{"n": 1}'))
    found = with_calls(f" before\n{one}\nbetween {two} after\n")
    assert found == Parsed("before\n\nbetween  after", None, (call("f", "{}"), call("g", '{"n": 1}')))


def test_two_calls_of_one_function_stay_two():
    assert with_calls(written(("f", "{}"), ("f", "{}"))).calls == (call("f", "{}"), call("f", "{}"))


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "f", "arguments": {}}',  # not closed
        '<tool_call>\n{"name": "f", "arguments": {}',
        '<tool_call>\n{"name": "f", "arguments": {}} and\n</tool_call>',
        '<tool_call>\n{"name": "f"}\n</tool_call>',
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n["name", "arguments"]\n</tool_call>',
        "<tool_call>\n{'name': 'f', 'arguments': {}}\n</tool_call>",
        "<tool_call>\n</tool_call>",
        '<TOOL_CALL>{"name": "f", "arguments": {}}</TOOL_CALL>',
    ],
)
def test_what_is_opened_and_is_no_call_stays_in_the_content(text):
    assert with_calls(f" {text}\n") == Parsed(f" {text}\n")


def test_a_call_beside_what_is_none_is_taken_out():
    broken = "<tool_call>\nnothing\n</tool_call>"
    for text in (f"{broken}\n{written(('f', '{}'))}", f"{written(('f', '{}'))}\n{broken}"):
        assert with_calls(text) == Parsed(broken, None, (call("f", "{}"),))


def test_an_unclosed_call_before_a_whole_one_does_not_swallow_it():
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n' + written(("g", "{}"))
    assert with_calls(text) == Parsed('<tool_call>\n{"name": "f", "arguments": {}}', None, (call("g", "{}"),))


def test_calls_that_are_not_looked_for_are_content():
    text = f" {written(('f', '{}'))} "
    assert parse(text, calls=False, reasoning=False, prompt="") == Parsed(text)
    assert parse(text, calls=False, reasoning=True, prompt="") == Parsed(text)


# Reasoning


@pytest.mark.parametrize(
    ("text", "prompt", "reasoning", "content"),
    [
        ("<think>\na\n</think>\n\nb", "", "a", "b"),
        ("\n <think>a</think>b\n", "", "a", "b"),
        ("a</think>b", OPENED, "a", "b"),
        ("a</think>b", OPENED.rstrip(), "a", "b"),
        ("</think>b", OPENED, "", "b"),
        ("<think></think>", "", "", ""),
        ("<think>a</think>b</think>c", "", "a", "b</think>c"),
        ("<think>a <think> b</think>c", "", "a <think> b", "c"),
        ("<think>a", "", "a", ""),
        (" a\n", OPENED, "a", ""),
        ("", OPENED, "", ""),
    ],
)
def test_a_block_that_the_answer_or_the_prompt_opens_is_reasoning(text, prompt, reasoning, content):
    assert with_reasoning(text, prompt) == Parsed(content, reasoning)


@pytest.mark.parametrize("text", ["", " a\n", "a</think>b", "first <think>a</think>b", "<thinking>a"])
def test_a_block_that_does_not_open_the_answer_is_content(text):
    assert with_reasoning(text) == Parsed(text)
    assert with_reasoning(text, f"{OPENED}\n</think>\n\n") == Parsed(text), "opened and closed by the prompt"


def test_reasoning_that_is_not_looked_for_is_content():
    assert parse("<think>a</think>b", calls=True, reasoning=False, prompt=OPENED) == Parsed("<think>a</think>b")


def test_a_call_in_the_reasoning_is_thought_and_not_made():
    text = f"<think>\nI could {written(('f', '{}'))}\n</think>\nDone. {written(('g', '{}'))}"
    found = parse(text, calls=True, reasoning=True, prompt="")
    assert found == Parsed("Done.", f"I could {written(('f', '{}'))}", (call("g", "{}"),))
    open_end = parse(f"I could {written(('f', '{}'))}", calls=True, reasoning=True, prompt=OPENED)
    assert open_end == Parsed("", f"I could {written(('f', '{}'))}")
