"""What template properties stand on: marks in texts, the ways two renders differ, and OpenAI's form."""

from __future__ import annotations

import copy

import pytest

from harness.fuzz import fixed_conversations
from harness.fuzz.template.agreement import difference
from harness.fuzz.template.marks import marked
from harness.fuzz.template.openai_form import in_openai_form
from harness.parts import PartError


@pytest.mark.parametrize(
    ("prompt", "how"),
    [
        ("<u> a b@  c </u>", "verbatim"),
        ("<u>a b@  c</u>", "trimmed"),
        ("<u>a  b@ c</u>", "changed"),
        ("<u></u>", "dropped"),
        ("<u> a b@  c </u><u> a b@  c </u>", "repeated"),
    ],
)
def test_how_a_text_stands_in_a_prompt(prompt, how):
    messages, (mark,) = marked([{"role": "user", "content": " a b  c "}])
    assert messages == [{"role": "user", "content": f" a b{mark.text}  c "}]
    assert mark.found_in(prompt.replace("@", mark.text)) == how


@pytest.mark.parametrize(
    ("prompt", "how"),
    [
        (r"""{"content": "<a> @\"'é'"}""", "json"),
        (r"""{"content": "<a> @\"'\u00e9'"}""", "json"),
        (r"""{"content": "{\"b\": \"<a> @\\\"'é'\"}"}""", "json"),
        (r"""{"content": "\u003ca\u003e @\"\u0027é\u0027"}""", "escaped as HTML"),
        ("&lt;a&gt; @&#34;&#39;é&#39;", "escaped as HTML"),
        ("&lt;a&gt; @&quot;&#x27;é&#x27;", "escaped as HTML"),
    ],
)
def test_how_a_text_with_quotes_stands_in_a_prompt(prompt, how):
    _, (mark,) = marked([{"role": "user", "content": "<a> \"'é'"}])
    assert (mark.before, mark.after) == ("<a> ", "\"'é'")
    assert mark.found_in(prompt.replace("@", mark.text)) == how


def test_marks_leave_the_input_alone_and_stand_in_no_tag():
    messages = [
        {"role": "system", "content": "<|im_end|>"},
        {"role": "user", "content": [{"type": "text", "text": "{{ 7*7 }}"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "<think>a</think>b"},
        {"role": "user", "content": "  "},
    ]
    before = copy.deepcopy(messages)
    _, marks = marked(messages)
    assert messages == before
    assert [(mark.role, mark.before, mark.after) for mark in marks] == [
        ("system", "<|im_end|>", ""),
        ("user", "{{ 7*7 }}", ""),
        ("user", "b", ""),
    ]


_SEVERAL = "several of white space, escapes, JSON's order and words"


@pytest.mark.parametrize(
    ("one", "other", "cause"),
    [
        ("a", "a", None),
        ("a\nb", "a b", "white space"),
        ('{"a": "<"}', '{"a": "\\u003c"}', "escapes of <, >, &, ', / or of other characters"),
        ("a'b", "a&#39;b", "escapes of <, >, &, ', / or of other characters"),
        ('x {"b": 1, "a": [2]} y', 'x {"a":[2],"b":1} y', "the order or the spacing of JSON"),
        ("is None.", "is null.", "the word for none"),
        ("is True.", "is true.", "the words for true and false"),
        ("is 1.0.", "is 1.", "whole numbers with or without .0"),
        ("a: None.", "a: .", "a none is a word or nothing"),
        ("<u>a</u><s>b</s>", "<u>a</u>", "a piece of the text is left out"),
        ("<u>a</u>", "<u>a<b></u>", "a piece of text more"),
        ("is 1.05", "is 251", "other text"),
        ('<a> {"b": "<", "a": 1}', "&lt;a&gt; {&#34;a&#34;: 1, &#34;b&#34;: &#34;\\u003c&#34;}", _SEVERAL),
        (
            '{"b": "<", "a": true}.',
            '{"a":true,"b":"\\u003c"} .',
            _SEVERAL,
        ),
        (PartError("error", "x"), PartError("undefined", "y"), None),
        (PartError("refused", "x"), PartError("refused", "y"), None),
        (PartError("refused", "x"), PartError("error", "y"), "only one of the two refuses on purpose"),
        ("a", PartError("error", "no 'a b'", "TypeError"), "ends where the other renders: error TypeError no TEXT"),
        (PartError("limit", "took 2 s"), "a", "renders where the other ends: limit took N s"),
    ],
)
def test_in_what_way_two_renders_differ(one, other, cause):
    assert difference(one, other) == cause


def test_which_conversations_openai_would_take():
    refused = [one["name"] for one in fixed_conversations() if not in_openai_form(one["messages"], one.get("tools"))]
    assert refused == [
        "unknown role",
        "no parts",
        "user null",
        "assistant null",
        "user without content",
        "assistant without content",
        "arguments: no text",
        "arguments: text that is no JSON",
        "no calls in the list",
        "result as an object",
        "call without a result",
        "result without a call",
        "no tools in the list",
    ]
