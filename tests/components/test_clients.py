"""The clients as programs use them: what leaves each for a body, and what its caller gets of an answer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.components.clients import HttpxClient, LiteLlmClient, OpenAiClient
from harness.values import Case, ModelRef, Usage
from tests.wire.servers import CASE, chunk, completion, event, serving

MODEL = ModelRef(name="tiny", path=Path("none.gguf"), sha256="")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": "\u00e4"}'}}
ODD = "\u00e4 \u2028 \N{GRINNING FACE} \u05d0 \u0000 <|im_end|>"


@pytest.fixture(scope="module", params=["openai", "httpx", "litellm"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed: pip install -e '.[servers,litellm]'")
    kind = {"openai": OpenAiClient, "httpx": HttpxClient, "litellm": LiteLlmClient}[request.param]
    with kind(MODEL, {}) as opened:
        yield opened


def asked(*messages: dict[str, Any], **body: Any) -> Case:
    given = list(messages) or [{"role": "user", "content": "Hi"}]
    return Case(name="asked", description="", covers=(), body={"messages": given, "max_tokens": 4, **body})


def got(client: Any, *chunks: dict[str, Any], **answer: Any):
    """Return what the caller gets of a stream of chunks, or of an answer."""
    data = b"".join(event(one) for one in (*chunks, "[DONE]"))

    def answers(handler, request):
        if chunks:
            handler.whole(data, kind="text/event-stream")
        else:
            handler.json(completion(**answer))

    with serving(answers) as fake:
        return client.call(CASE, fake.url, stream=bool(chunks))


def need_mcp(client: Any) -> None:
    if client.name == "litellm" and importlib.util.find_spec("mcp") is None:
        pytest.skip("litellm imports mcp as soon as a call has tools: pip install -e '.[litellm]'")


def test_it_says_its_version(client):
    assert client.identity()[client.requires[0]][0].isdigit()


@pytest.mark.parametrize(
    "messages",
    [
        ({"role": "user", "content": ODD},),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ODD}]},),
        ({"role": "system", "content": ""}, {"role": "user", "content": "Hi", "name": "anna"}),
    ],
)
def test_messages_leave_as_they_are(client, messages):
    assert client.request(asked(*messages)).messages == messages


def test_settings_leave_as_they_are(client):
    settings = {"temperature": 0, "top_p": 0.5, "seed": 7, "presence_penalty": 0.25}
    found = client.request(asked(**settings)).settings
    assert {name: found.get(name) for name in settings} == settings
    assert found["max_tokens"] == 4


@pytest.mark.parametrize("stop", ["END", ["A", "\u00e4\n"]])
def test_stop_leaves_as_text_or_list(client, stop):
    assert client.request(asked(stop=stop)).settings["stop"] == ([stop] if isinstance(stop, str) else stop)


def test_fields_that_it_does_not_know_leave_too(client):
    found = client.request(asked(min_p=0.05, repeat_penalty=1.1, odd_field={"deep": [1, None]})).settings
    assert (found["min_p"], found["repeat_penalty"], found["odd_field"]) == (0.05, 1.1, {"deep": [1, None]})


def test_tools_leave_as_they_are(client):
    need_mcp(client)
    found = client.request(asked(tools=[TOOL], tool_choice="auto"))
    assert (found.tools, found.tool_choice) == ((TOOL,), "auto")


def test_an_assistants_message_without_content(client):
    need_mcp(client)
    user = {"role": "user", "content": "Hi"}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "a", "content": "{}"}
    found = client.request(asked(user, called, result, tools=[TOOL]))
    if client.name == "litellm":
        # Seen in 1.106.2: the null is gone, which a template may render otherwise.
        called = {name: value for name, value in called.items() if name != "content"}
    assert found.messages == (user, called, result)


def test_a_plain_answer_reaches_the_caller(client):
    found = got(client, content=ODD)
    assert (found.content, found.finish_reason, found.tool_calls, found.deltas) == (ODD, "stop", None, None)
    assert found.usage == Usage(prompt_tokens=3, completion_tokens=2)


def test_calls_and_reasoning_of_a_plain_answer_reach_the_caller(client):
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]}
    found = got(client, message=message, finish_reason="tool_calls")
    assert (found.content, found.reasoning, found.finish_reason) == (None, "hm", "tool_calls")
    assert found.tool_calls == (CALL,)


def test_a_stream_reaches_the_caller(client):
    parts = ["a\u2028", "\u00e4", "\N{GRINNING FACE}"]
    found = got(client, chunk(role="assistant"), *(chunk(content=one) for one in parts), chunk("length"))
    assert (found.content, found.finish_reason) == ("".join(parts), "length")
    assert found.deltas is not None


def test_reasoning_of_a_stream_reaches_the_caller(client):
    found = got(client, chunk(reasoning_content="h"), chunk(reasoning_content="m"), chunk(content="!"), chunk("stop"))
    assert (found.reasoning, found.content) == ("hm", "!")


def test_parallel_calls_in_pieces_reach_the_caller(client):
    def piece(index: int, **more: Any) -> dict[str, Any]:
        return chunk(tool_calls=[{"index": index, **more}])

    found = got(
        client,
        chunk(role="assistant", content=None),
        piece(0, id="a", type="function", function={"name": "f", "arguments": ""}),
        piece(0, function={"arguments": '{"x": '}),
        piece(1, id="b", type="function", function={"name": "g", "arguments": "{}"}),
        piece(0, function={"arguments": "1}"}),
        chunk("tool_calls"),
    )
    calls = [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in found.tool_calls]
    assert calls == [("a", "f", '{"x": 1}'), ("b", "g", "{}")]
    assert found.finish_reason == "tool_calls"


def test_chunks_without_choices_and_with_usage(client):
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    last = {**chunk(), "choices": [], "usage": usage}
    found = got(client, {**chunk(), "choices": []}, chunk(content="a"), chunk("stop"), last)
    assert (found.content, found.finish_reason) == ("a", "stop")
    # litellm keeps it from a caller who did not ask with stream_options.
    expected = None if client.name == "litellm" else Usage(prompt_tokens=7, completion_tokens=1)
    assert found.usage == expected


@pytest.mark.parametrize("value", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "odd"])
def test_no_proxy_of_the_environment_comes_between(client, monkeypatch, value):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    with type(client)(MODEL, {}) as opened:
        assert opened.request(CASE).messages == tuple(CASE.body["messages"])
