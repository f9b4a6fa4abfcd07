"""Values as pieces of text with what sort they are."""

import pytest

from harness.report.view import (
    Chip,
    Mark,
    Row,
    Stretch,
    deltas_block,
    ending_text,
    ids_block,
    marks,
    reply_blocks,
    request_blocks,
    text_block,
)
from harness.values import Failure, Refusal, Reply, Request, Unobserved, Usage

SIDES = ("golden", "made")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", []),
        ("a b", [("", "a b")]),
        ("a\nb", [("", "a"), ("nl", "\u240a"), ("", "b")]),
        ("a \n", [("", "a"), ("sp", " "), ("nl", "\u240a")]),
        ("a ", [("", "a"), ("sp", " ")]),
        ("a  b", [("", "a"), ("sp", "  "), ("", "b")]),
        ("a\tb\r", [("", "a"), ("cp", "\u2409"), ("", "b"), ("cp", "\u240d")]),
        ("\u202ea\x1b", [("cp", "<U+202E>"), ("", "a"), ("cp", "<U+001B>")]),
        ("<|im_start|>user", [("ct", "<|im_start|>"), ("", "user")]),
        ("</think></s>", [("ct", "</think>"), ("ct", "</s>")]),
        ("<| x |> <b>", [("", "<| x |> <b>")]),
    ],
)
def test_marks(text, shown):
    assert marks(text) == tuple(Mark(*one) for one in shown)


def test_a_text_that_is_the_same_stands_once():
    assert text_block("prompt", "ab", "ab", SIDES).panes == (("both", (Stretch(False, (Mark("", "ab"),)),)),)
    assert not text_block("prompt", "ab", "ab", SIDES).differs
    assert text_block("content", "", "", SIDES).panes == (("both", (Stretch(False, (Mark("nil", "empty"),)),)),)


def test_what_differs_is_marked_on_both_sides():
    block = text_block("prompt", "one two", "one three four", SIDES)
    assert block.differs
    (left, expected), (right, observed) = block.panes
    assert (left, right) == SIDES
    same = Stretch(False, (Mark("", "one"), Mark("", " ")))
    assert expected == (same, Stretch(True, (Mark("", "two"),)))
    assert observed == (same, Stretch(True, (Mark("", "three four"),)))


def test_what_is_missing_is_marked_too():
    (_, expected), (_, observed) = text_block("prompt", "ab", "", SIDES).panes
    assert expected == (Stretch(True, (Mark("", "ab"),)),)
    assert observed == (Stretch(True, (Mark("nil", "\u2205"),)),)


def test_a_side_that_has_none_says_so():
    (_, expected), (_, observed) = text_block("reasoning", None, "ab", SIDES).panes
    assert expected == (Stretch(False, (Mark("nil", "none"),)),)
    assert observed == (Stretch(True, (Mark("", "ab"),)),)


def test_what_would_look_the_same_is_escaped():
    (_, expected), (_, observed) = text_block("prompt", "\u00e9", "e\u0301", SIDES).panes
    assert expected == (Stretch(True, (Mark("cp", "\\xe9"),)),)
    assert observed[0].marks == (Mark("cp", "e\\u0301"),)


def test_long_texts_are_cut():
    ((_, (stretch,)),) = text_block("prompt", "a" * 3000, "a" * 3000, SIDES).panes
    assert stretch.marks == (Mark("", "a" * 1600), Mark("gap", "600 characters"), Mark("", "a" * 800))
    (_, expected), _ = text_block("prompt", "a " * 500 + "x", "a " * 500 + "y", SIDES).panes
    assert Mark("gap", "760 characters") in expected[0].marks
    assert expected[1] == Stretch(True, (Mark("", "x"),))


def test_a_text_that_differs_everywhere_is_cut_short():
    one, other = " ".join(f"a{i} b" for i in range(200)), " ".join(f"c{i} b" for i in range(200))
    (_, expected), (_, observed) = text_block("prompt", one, other, SIDES).panes
    assert len(expected) == len(observed) == 81
    assert expected[-1].marks == (Mark("gap", "320 more stretches"),)


def test_ids_are_aligned_with_their_pieces():
    block = ids_block("tokens", (1, 2, 3), (1, 7, 8, 3), {1: "<|im_start|>", 2: "b\n", 7: "\x1b"})
    assert (block.count, block.differs) == ("3 and 4 ids", True)
    assert block.rows == (
        Row(True, (Chip(1, "<|im_start|>", True),)),
        Row(False, (Chip(2, "b\u240a"),), (Chip(7, "<U+001B>"), Chip(8, ""))),
        Row(True, (Chip(3, ""),)),
    )


def test_a_single_id_is_one():
    assert ids_block("tokens", (1,), (1,), {}).count == "1 id"


def test_long_runs_of_ids_are_cut():
    same = ids_block("tokens", range(2000), range(2000), {})
    (run,) = same.rows
    assert (len(run.expected), run.expected[40], same.differs) == (61, Chip(None, "1940 ids"), False)
    near = ids_block("tokens", range(100), (*range(50), 7, *range(50, 100)), {})
    assert [chip.id for chip in near.rows[0].expected] == [*range(8), None, *range(46, 50)]
    many = ids_block("tokens", range(400), [i if i % 2 else -1 for i in range(400)], {})
    assert len(many.rows) == 81
    assert many.rows[-1].expected == (Chip(None, "320 more stretches"),)


def test_a_request_shows_messages_and_the_settings_asked_for_and_others_in_force():
    asked = Request(messages=({"role": "user"},), settings={"temperature": 0, "stop": "\n"})
    got = Request(messages=({"role": "user"},), settings={"temperature": 1, "stop": "\n", "top_k": 40})
    messages, settings = request_blocks(asked, got, SIDES)
    assert (messages.name, messages.layout, messages.differs) == ("messages", True, False)
    assert messages.panes[0][1][0].marks == (Mark("", '{"role": "user"}'),)
    assert settings.rows == (("temperature", "0", "1", True), ("stop", "\u240a", "\u240a", False))
    assert settings.more == "also in force: top_k 40"


def test_a_request_of_one_side_only():
    blocks = request_blocks(Request(messages=({"role": "user"},), tools=({"a": 1},)), None, SIDES)
    assert [block.name for block in blocks] == ["messages", "tools"]
    assert all(block.differs for block in blocks)


def test_a_reply_shows_texts_calls_and_counts():
    expected = Reply(content="a", finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=4))
    observed = Reply(content=None, reasoning="r", tool_calls=({"id": 1},), finish_reason="length")
    content, reasoning, calls, rest = reply_blocks(expected, observed, SIDES)
    assert [block.name for block in (content, reasoning, calls)] == ["content", "reasoning", "tool calls"]
    assert rest.rows == (
        ("finish_reason", "stop", "length", True),
        ("prompt_tokens", "3", "", True),
        ("completion_tokens", "4", "", True),
    )


def test_deltas_stand_one_a_line_and_are_cut():
    block = deltas_block([{"content": f"{i}\n"} for i in range(30)], "made")
    ((label, (stretch,)),) = block.panes
    assert (block.name, label) == ("stream, 30 deltas", "made")
    assert stretch.marks[0] == Mark("", '{"content": "0\\n"}\n')
    assert stretch.marks[16] == Mark("gap", "6 deltas\n")
    assert len(stretch.marks) == 25
    assert deltas_block([{}], "made").name == "stream, 1 delta"


def test_endings():
    assert ending_text(Refusal(error="E", message="no")) == "E: no"
    assert ending_text(Unobserved(reason="so")) == "unobserved: so"
    crash = Failure(reason="crash", signal="SIGSEGV", log=("one", "two"))
    assert ending_text(crash) == "died by SIGSEGV; last log line: two\none\ntwo"
