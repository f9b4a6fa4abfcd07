"""The reference renderer, against transformers itself and against hostile templates."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

pytest.importorskip("transformers", reason="the reference renderer needs transformers: pip install -e '.[reference]'")

from harness.process.worker import imported
from harness.reference import template as templates
from harness.reference.template import ReferenceTemplate
from harness.stage import StageFailedError, StageRefusedError
from harness.values import CaseOptions, Request

CONTROL = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Here:
    """Stands for the child process where its limits are not what is tested: starting one takes a second."""

    def __init__(self, target, init, **_):
        self._served = imported(target)(**init)

    def call(self, method, **arguments):
        return getattr(self._served, method)(**json.loads(json.dumps(arguments)))

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(templates, "Worker", Here)


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


def test_literals_are_given_up_where_the_marks_would_change_the_text(here):
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


# Where the clock was printed


LATER = datetime(2027, 11, 30, 15, 4, 5)


def dates(prompt):
    return [(prompt.text[start:end], form) for start, end, form in prompt.dates]


def test_every_place_where_the_clock_is_printed_is_known_with_its_form(here):
    template = "On {{ strftime_now('%d %b %Y') }}: " + CHATML + "{{ strftime_now('%Y') }}{{ strftime_now('%-H h') }}"
    prompt = render(template, "it is 02 Jan 2026, 2026", CaseOptions(clock="2026-01-02T03:04:05"))
    assert dates(prompt) == [("02 Jan 2026", "%d %b %Y"), ("2026", "%Y"), ("3 h", "%-H h")]
    assert prompt.text == (
        "On 02 Jan 2026: <|im_start|>user\nit is 02 Jan 2026, 2026<|im_end|>\n<|im_start|>assistant\n20263 h"
    )
    later = render(template, "it is 02 Jan 2026, 2026", CaseOptions(clock=LATER))
    assert prompt.at(LATER) == later.text
    assert later.at(datetime(2026, 1, 2, 3, 4, 5)) == prompt.text


def test_the_dates_of_a_turn_to_be_continued(here):
    template = "{{ strftime_now('%Y') }} " + CHATML
    prompt = render(template, "roses", CaseOptions(clock=LATER, continue_final_message=True))
    assert dates(prompt) == [("2027", "%Y")]


@pytest.mark.parametrize(
    "template",
    [
        "{{ strftime_now('%Y')[:2] }}",
        "{{ strftime_now('%Y') | int + 1 }}",
        "{{ strftime_now('%d %b %Y') | length }} {{ strftime_now('%Y') }}",
        "{{ strftime_now('%B') | upper }}{{ strftime_now('%Y') }}",
        "{% if strftime_now('%m') == '01' %}new{% endif %} year {{ strftime_now('%Y') }}",
        "{{ {'01': 'a'}[strftime_now('%m')] + 'b' }}{{ strftime_now('%Y') }}",
    ],
)
def test_a_template_that_looks_into_the_date_has_no_known_dates(here, template):
    prompt = render(template)
    assert "\ue000" not in prompt.text
    assert prompt.dates == ()


@pytest.mark.parametrize("template", [CHATML, "{{ '2026-01-02' }}", "{% set now = strftime_now('%Y') %}x"])
def test_a_template_that_prints_no_clock_has_no_dates(here, template):
    assert render(template).dates == ()


def test_a_caller_s_text_like_a_mark_is_no_date(here):
    prompt = render("{{ strftime_now('%Y') }} {{ messages[0].content }}", "\ue000%Y\ue001")
    assert prompt.text == "2026 \ue000%Y\ue001"
    assert prompt.dates == (), "given up: the spans are not known for certain"


def test_the_clock_is_the_library_s_again_after_the_dates_were_looked_for():
    with ReferenceTemplate("{{ strftime_now('%Y') }}", {}, ()) as reference:
        request = Request(messages=({"role": "user", "content": "hi"},))
        for year in (2026, 2027):
            assert reference.render(request, CaseOptions(clock=f"{year}-01-02T03:04:05")).text == str(year)


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
