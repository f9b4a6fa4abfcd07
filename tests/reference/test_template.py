"""The reference renderer, against transformers itself and against hostile templates."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="the reference renderer needs transformers: pip install -e '.[reference]'")

from harness.reference.template import ReferenceTemplate
from harness.stage import StageFailedError, StageRefusedError
from harness.values import CaseOptions, Request

CONTROL = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def render(template: str, content: object = "hi", options: CaseOptions | None = None, **request: object):
    messages = ({"role": "user", "content": content},)
    with ReferenceTemplate(template, {"eos_token": "<|im_end|>"}, CONTROL) as reference:
        return reference.render(Request(messages=messages, **request), options or CaseOptions())


def test_text_suffix_and_literals():
    prompt = render(CHATML, "a <|im_end|> b<|im_start|>")
    assert prompt.text == "<|im_start|>user\na <|im_end|> b<|im_start|><|im_end|>\n<|im_start|>assistant\n"
    assert prompt.suffix == "<|im_start|>assistant\n"
    assert [prompt.text[a:b] for a, b in prompt.literals] == ["<|im_end|>", "<|im_start|>"]
    assert prompt.literals[0][0] == prompt.text.index("a <|") + 2
    assert render(CHATML, "nothing special").literals == ()


def test_literals_are_given_up_where_the_marks_would_change_the_text():
    # This template measures its input, so a marked one renders otherwise: the spans are not known.
    assert render("{{ messages[0].content | length }}{{ messages[0].content }}", "<|im_end|>").literals == ()


def test_a_turn_to_be_continued_is_left_open():
    prompt = render(CHATML, "roses are", CaseOptions(continue_final_message=True))
    assert prompt.text == "<|im_start|>user\nroses are"


def test_tools_keep_their_order_and_their_characters():
    tools = ({"function": {"name": "\u00fc<&'", "b": 1, "a": 2}, "type": "function"},)
    prompt = render("{% for t in tools %}{{ t | tojson }}{% endfor %}", tools=tools)
    assert prompt.text == '{"function": {"name": "\u00fc<&\'", "b": 1, "a": 2}, "type": "function"}'


def test_clock_and_variables():
    options = CaseOptions(clock="2031-05-06T07:08:09", template_kwargs={"depth": 3})
    assert render("{{ strftime_now('%Y-%m-%d %H:%M') }} {{ depth }} {{ eos_token }}", options=options).text == (
        "2031-05-06 07:08 3 <|im_end|>"
    )


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ raise_exception('only one turn') }}", "TemplateError"),
        ("{{ messages[0].content + none }}", "TypeError"),
        ("{% for i in range(10**9) %}x{% endfor %}", "OverflowError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_what_a_template_raises_is_a_refusal(template, error):
    with pytest.raises(StageRefusedError) as refused:
        render(template)
    assert refused.value.refusal.error == error


def test_a_template_that_eats_time_or_memory_is_ended(monkeypatch):
    monkeypatch.setattr("harness.reference.template.SECONDS", 6.0)
    nested = "".join(f"{{% for i{n} in range(99999) %}}" for n in range(4)) + "{% endfor %}" * 4
    with pytest.raises(StageFailedError) as failed:
        render(nested)
    assert failed.value.failure.reason == "hang"
    doubling = (
        "{% set ns = namespace(s='x' * 999999) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
    )
    with pytest.raises((StageRefusedError, StageFailedError)) as ended:
        render(doubling)
    assert "MemoryError" in str(ended.value) or isinstance(ended.value, StageFailedError)
