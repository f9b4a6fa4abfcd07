"""Defects of answers: what becomes of a small one, whole and streamed, and that the same comes of the same."""

from __future__ import annotations

import copy
import json

import pytest

from harness.defects.catalogue import catalogue
from harness.defects.defect import Place
from harness.defects.places import Generated

END = b"<|im_end|>"


def whole(content, reason="stop", **message):
    return {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def streamed(*texts, reason="stop"):
    deltas = [{"role": "assistant"}, *({"content": text} for text in texts), {}]
    ends = [*[None] * (len(deltas) - 1), reason]
    return [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in zip(deltas, ends, strict=True)
    ]


def made(*pieces, **body):
    return Generated(pieces=tuple(pieces), body=body)


def planted(name, answer, seen=None):
    return catalogue()[name].planting()(answer, seen or made())


def content_of(answer):
    return answer["choices"][0]["message"].get("content")


def texts_of(chunks):
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content") is not None]


def call(name, arguments, **more):
    return {"id": "x1", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


ONE, OTHER = call("f", '{"n": 1}'), call("g", "{}", id="x2")
CALLED = whole(None, "tool_calls", tool_calls=[ONE, OTHER])
PIECES = [
    {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]},
    *(
        {"choices": [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}]}
        for piece in (
            {"index": 0, "id": "x1", "type": "function", "function": {"name": "f", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"n": '}},
            {"index": 0, "function": {"arguments": "1}"}},
            {"index": 1, "id": "x2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        )
    ),
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
]
RICH = " É🦊 one, two ,\n\n  three *<b>* "
SEEN = made(
    RICH.encode(),
    b"<|im_start|>",
    b"!",
    b" STOP",
    b" more",
    END,
    stop=["! STOP"],
    messages=[{"role": "user", "content": "Say."}],
)
ANSWERS = [
    whole(RICH, "length"),
    whole(RICH + "!", "stop"),
    whole(""),
    whole(None),
    CALLED,
    whole(None, "tool_calls", tool_calls=[call("f", '{"n": "é"}')]),
    whole("answer", reasoning_content="thought"),
    whole("<think>a</think> b </think>"),
    streamed(" one", ",", " two", "🦊", "\n"),
    streamed(),
    [],
    PIECES,
]
PLANTED = [one for one in catalogue().values() if one.place is Place.ANSWER]


@pytest.mark.parametrize("defect", PLANTED, ids=lambda one: one.id)
def test_the_same_comes_of_the_same_and_nothing_is_changed_in_place(defect):
    edit = defect.planting()
    for answer in ANSWERS:
        given = copy.deepcopy(answer)
        once = edit(given, SEEN)
        assert given == answer
        assert once == edit(copy.deepcopy(answer), SEEN)
        assert isinstance(once, list) == isinstance(answer, list)
        json.dumps(once)


@pytest.mark.parametrize(
    "defect", [one for one in PLANTED if not one.id.startswith("pp-stop-")], ids=lambda one: one.id
)
def test_each_shows_in_one_of_the_answers(defect):
    edit = defect.planting()
    seen = [
        SEEN,
        made(b" one", b",", b" two", b"\xf0\x9f", b"\xa6\x8a", b"\n", END),
        made(b" one, two", b"<|x|>", b"!"),
    ]
    raw = whole(" one, two!")
    assert any(edit(answer, one) != answer for answer in [*ANSWERS, raw] for one in seen)


@pytest.mark.parametrize(
    ("name", "content", "other"),
    [
        ("pp-stripped", " a\n", "a"),
        ("pp-stripped-left", " a\n", "a\n"),
        ("pp-leading-space", "  a", " a"),
        ("pp-first-character-lost", "abc", "bc"),
        ("pp-last-character-lost", "abc", "ab"),
        ("pp-last-word-lost", "one two ", "one "),
        ("pp-first-line-only", "a\nb", "a"),
        ("pp-replacement-characters", "é🦊", "\ufffd\ufffd"),
        ("pp-partial-utf8-replaced", "é🦊", "é" + "\ufffd" * 4),
        ("pp-non-ascii-dropped", "aé🦊b", "ab"),
        ("pp-emoji-dropped", "é🦊", "é"),
        ("pp-non-ascii-escaped", "é🦊", "\\u00e9\\ud83e\\udd8a"),
        ("pp-html-escaped", '<a> & "b"', "&lt;a&gt; &amp; &quot;b&quot;"),
        ("pp-quoted", "é\n", '"é\\n"'),
        ("pp-newlines-escaped", "a\nb", "a\\nb"),
        ("pp-detokenizer-class", "a b", "a\u2581b"),
        ("pp-content-doubled", "ab", "abab"),
        ("pp-content-lost", "ab", ""),
        ("pp-reasoning-split-last", "a </think> b </think>\n\nc", "c"),
        ("pp-reasoning-block-cut", "<think>a\nb</think>\n\nc", "c"),
        ("pp-content-parts", "a", [{"type": "text", "text": "a"}]),
    ],
)
def test_a_text_is_changed(name, content, other):
    assert planted(name, whole(content)) == whole(other)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pp-stop-shown", "one two STOP"),
        ("pp-stop-cut-late", "one two S"),
        ("pp-stop-prefix-shown", "one two STO"),
        ("pp-stop-cut-early", "one two"),
        ("pp-tokens-only-stop-disabled", "one two STOP three"),
        ("pp-stop-swallows-word", "one "),
        ("pp-end-token-shown", "one two <|im_end|>"),
    ],
)
def test_a_stop_string_is_handled_wrongly(name, content):
    seen = made(b"one", b" two ", b"STOP", b" three", END, stop=["three", "STOP"])
    assert content_of(planted(name, whole("one two "), seen)) == content


def test_a_stop_string_may_be_a_text():
    assert content_of(planted("pp-stop-shown", whole("a"), made(b"ab", stop="b"))) == "ab"


def test_control_tokens_in_the_answer_are_shown():
    seen = made(b"a", b"<|im_start|>", b"b", END)
    assert content_of(planted("pp-special-tokens-shown", whole("ab"), seen)) == "a<|im_start|>b"


def test_an_echo_is_the_last_message():
    seen = made(messages=[{"role": "user", "content": "Say a."}])
    assert content_of(planted("pp-echo", whole("a"), seen)) == "Say a.a"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("pp-usage-prompt-less", (6, 3, 9)),
        ("pp-usage-completion-less", (7, 2, 9)),
        ("pp-usage-completion-more", (7, 5, 12)),
        ("pp-usage-zero", (0, 0, 0)),
        ("pp-usage-swapped", (3, 7, 10)),
        ("pp-usage-all-completion", (7, 10, 17)),
        ("pp-usage-characters", (7, 5, 12)),
        ("pp-usage-total-wrong", (7, 3, 3)),
    ],
)
def test_tokens_are_counted_wrongly(name, counts):
    assert tuple(planted(name, whole("abcde"))["usage"].values()) == counts


@pytest.mark.parametrize(
    ("name", "reason", "other"),
    [
        ("pp-finish-always-stop", "length", "stop"),
        ("pp-finish-null", "length", None),
        ("pp-finish-swapped", "length", "stop"),
        ("pp-finish-swapped", "stop", "length"),
        ("pp-finish-swapped", "tool_calls", "tool_calls"),
    ],
)
def test_an_answer_ends_for_another_reason(name, reason, other):
    assert planted(name, whole("a", reason)) == whole("a", other)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("pp-stream-first-lost", ["b ", "🦊", "\n", "c"]),
        ("pp-stream-middle-lost", [" a", "b ", "\n", "c"]),
        ("pp-stream-last-lost", [" a", "b ", "🦊", "\n"]),
        ("pp-stream-first-doubled", [" a", " a", "b ", "🦊", "\n", "c"]),
        ("pp-stream-swapped", ["b ", " a", "🦊", "\n", "c"]),
        ("pp-stream-swapped-last", [" a", "b ", "🦊", "c", "\n"]),
        ("pp-stream-stripped", ["a", "b", "🦊", "", "c"]),
        ("pp-stream-leading-space", ["a", "b ", "🦊", "", "c"]),
        ("pp-stream-blank-dropped", [" a", "b ", "🦊", "", "c"]),
        ("pp-stream-cumulative", [" a", " ab ", " ab 🦊", " ab 🦊\n", " ab 🦊\nc"]),
        ("pp-stream-summed-up", [" a", "b ", "🦊", "\n", "c", " ab 🦊\nc"]),
        ("pp-partial-utf8-stream", [" a", "b ", "\ufffd", "\ufffd\ufffd", "\n", "c"]),
        ("pp-partial-utf8-stream-lost", [" a", "b ", "\n", "c"]),
        ("pp-stop-prefix-leak", [" a", "b ", "🦊", "\n", "c", "DE"]),
        ("pp-stop-stream-leak", [" a", "b ", "🦊", "\n", "c", "DEF"]),
        ("pp-stop-held-back", [" a", "b ", "🦊", "\n", "c"]),
    ],
)
def test_a_stream_is_changed(name, texts):
    seen = made(b" a", b"b ", b"\xf0\x9f", b"\xa6\x8a", b"\n", b"c", b"DE", b"F", END, stop=["DEF"])
    answer = planted(name, streamed(" a", "b ", "🦊", "\n", "c"), seen)
    assert texts_of(answer) == texts
    assert answer[0] == streamed()[0]
    assert answer[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_was_held_back_at_the_end_is_lost():
    answer = planted("pp-stop-held-back", streamed("a", "D", "E"), made(stop=["DEF"]))
    assert texts_of(answer) == ["a", "", ""]


@pytest.mark.parametrize(
    ("name", "ends", "roles"),
    [
        ("pp-stream-role-lost", [None, None, "stop"], [None] * 3),
        ("pp-stream-first-chunk-lost", [None, "stop"], [None] * 2),
        ("pp-stream-finish-lost", [None, None], ["assistant", None]),
        ("pp-stream-finish-length", [None, None, "length"], ["assistant", None, None]),
        ("pp-stream-finish-everywhere", ["stop"] * 3, ["assistant", None, None]),
        ("pp-stream-text-after-finish", [None, "stop", None], ["assistant", None, None]),
        ("pp-stream-not-streamed", [], []),
    ],
)
def test_a_stream_has_other_ends_and_roles(name, ends, roles):
    chunks = planted(name, streamed("a"))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == ends
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks] == roles


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("pp-double-encoded-args", [call("f", '"{\\"n\\": 1}"'), call("g", '"{}"', id="x2")]),
        ("pp-args-object", [call("f", {"n": 1}), call("g", {}, id="x2")]),
        ("pp-args-cut", [call("f", '{"n": 1'), call("g", "{", id="x2")]),
        ("pp-args-texts", [call("f", '{"n": "1"}'), OTHER]),
        ("pp-toolname-whitespace", [call("f\n", '{"n": 1}'), call("g\n", "{}", id="x2")]),
        ("pp-call-ids-same", [{**ONE, "id": "call_0"}, {**OTHER, "id": "call_0"}]),
        ("pp-calls-first-only", [ONE]),
        ("pp-calls-reversed", [OTHER, ONE]),
        ("pp-call-doubled", [ONE, OTHER, {**OTHER, "id": "x2x"}]),
    ],
)
def test_calls_are_changed(name, calls):
    assert planted(name, CALLED) == whole(None, "tool_calls", tool_calls=calls)


def test_calls_are_left_in_the_content():
    answer = planted("pp-parser-format-mismatch", CALLED)
    tagged = [
        f"<tool_call>\n{one}\n</tool_call>"
        for one in ('{"name": "f", "arguments": {"n": 1}}', '{"name": "g", "arguments": {}}')
    ]
    assert answer == whole("\n".join(tagged), "stop")


def streamed_calls(chunks):
    return [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]


def test_pieces_of_calls_are_changed():
    zero = streamed_calls(planted("pp-tool-index-zero", PIECES))
    assert [piece["index"] for piece in zero] == [0, 0, 0, 0]
    named = streamed_calls(planted("pp-tool-delta-shape-name", PIECES))
    assert [piece["function"]["name"] for piece in named] == ["f", "f", "f", "g"]
    shaped = streamed_calls(planted("pp-tool-delta-shape", PIECES))
    assert [piece["function"].get("id") for piece in shaped] == ["x1", None, None, "x2"]
    assert not any("id" in piece for piece in shaped)
    opened = streamed_calls(planted("pp-stream-args-corrupted", PIECES))
    assert [piece["function"]["arguments"] for piece in opened] == ["", "", "1}", "{}"]
    ended = streamed_calls(planted("pp-stream-args-end-lost", PIECES))
    assert [piece["function"]["arguments"] for piece in ended] == ["", '{"n": ', "1}", ""]


@pytest.mark.parametrize(
    ("name", "content", "reasoning"),
    [
        ("pp-reasoning-open-tag-in-prompt", "thought</think>answer", None),
        ("pp-reasoning-in-content", "<think>thought</think>answer", None),
        ("pp-reasoning-lost", "answer", None),
        ("pp-reasoning-swapped", "thought", "answer"),
        ("pp-reasoning-tag-left", "</think>answer", "thought"),
        ("pp-answer-in-reasoning", "answer", "thought"),
    ],
)
def test_reasoning_is_split_wrongly(name, content, reasoning):
    answer = planted(name, whole("answer", reasoning_content="thought"))
    assert answer == whole(content, reasoning_content=reasoning)


def test_an_answer_without_reasoning_is_taken_for_it():
    assert planted("pp-answer-in-reasoning", whole("answer")) == whole(None, reasoning_content="answer")
