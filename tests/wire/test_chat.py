"""Bodies as requests, answers and streams as replies."""

from __future__ import annotations

import pytest

from harness.stage import StageFailedError
from harness.values import Request, Usage
from harness.wire.chat import body_of, body_of_request, reply_of, request_of
from tests.wire.servers import CASE, chunk, completion


def piece(index, **more):
    return {"index": index, **more}


def test_a_body_and_a_request_are_the_same_thing():
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools, "tool_choice": "auto", "seed": 1}
    asked = {"messages": tuple(body["messages"]), "tools": tuple(tools), "tool_choice": "auto", "settings": {"seed": 1}}
    made = Request(**asked, defaults=())
    assert request_of({**body, "model": "m", "stream": True, "stream_options": {}, "user": "u"}) == made
    assert body_of_request(made) == body
    assert request_of({**body, "stop": "END"}).settings["stop"] == ["END"]
    assert request_of({**body, "stop": ["A", "B"]}).settings["stop"] == ["A", "B"]


def test_template_variables_travel_with_the_body():
    options = CASE.options.model_copy(update={"template_kwargs": {"x": 1}})
    assert body_of(CASE.model_copy(update={"options": options}))["chat_template_kwargs"] == {"x": 1}
    assert body_of(CASE) == CASE.body


def test_a_whole_answer_is_a_reply():
    found = reply_of(completion())
    assert (found.content, found.finish_reason, found.tool_calls, found.deltas) == ("Hi!", "stop", None, None)
    assert found.usage == Usage(prompt_tokens=3, completion_tokens=2)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_apart_under_either_name(name):
    whole = reply_of(completion(message={"role": "assistant", "content": None, name: "hm"}))
    assert (whole.content, whole.reasoning) == (None, "hm")
    streamed = reply_of([chunk(**{name: "h"}), chunk(**{name: "m"}), chunk(content="!"), chunk("stop")])
    assert (streamed.content, streamed.reasoning) == ("!", "hm")


def test_parallel_calls_in_pieces_add_up_by_their_index():
    pieces = [
        [piece(0, id="a", type="function", function={"name": "f", "arguments": ""})],
        [piece(1, id="b", type="function", function={"name": "g", "arguments": '{"y"'})],
        [piece(0, id=None, type=None, function={"arguments": '{"x": 1}'}), piece(1, function={"arguments": ": 2}"})],
    ]
    found = reply_of([*(chunk(tool_calls=one) for one in pieces), chunk("tool_calls")])
    assert found.tool_calls == (
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"y": 2}'}},
    )
    assert found.finish_reason == "tool_calls"


def test_chunks_without_choices_and_a_last_one_with_usage():
    usage = {**chunk(), "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
    found = reply_of([{**chunk(), "choices": []}, chunk(content="a"), chunk("length"), usage])
    assert (found.content, found.finish_reason) == ("a", "length")
    assert found.usage == Usage(prompt_tokens=7, completion_tokens=1)
    assert found.deltas == ({"content": "a"}, {})


def test_a_stream_of_nothing_is_a_reply_without_end():
    found = reply_of([])
    assert (found.content, found.finish_reason, found.usage, found.deltas) == (None, None, None, ())


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]},
        {**completion(), "usage": {"prompt_tokens": "many"}},
        {**completion(), "usage": []},
        completion(message={"content": "a", "tool_calls": 5}),
        [chunk(tool_calls=[{"function": {"arguments": "no index"}}])],
        [chunk(content=5)],
        [chunk(tool_calls=[piece(0, function={"arguments": {"not": "text"}})])],
        [{"choices": 5}],
        [{"choices": [{"index": 0, "delta": None}]}],
        [chunk(tool_calls=[5])],
        completion(message="text"),
    ],
)
def test_what_is_no_completion_is_broken_and_nothing_else(answer):
    with pytest.raises(StageFailedError) as failed:
        reply_of(answer)
    assert failed.value.failure.reason == "broken"
    assert failed.value.failure.message.startswith("no chat completion (")
