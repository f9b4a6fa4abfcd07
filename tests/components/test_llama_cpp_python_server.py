"""The component against the real server: what its taps show of calls that go over HTTP."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator

import pytest

pytest.importorskip("openai", reason="the openai SDK is not installed: pip install -e '.[llama-cpp-server]'")

from harness.checking.route import ServedRoute
from harness.components.clients import OpenAiClient
from harness.components.llama_cpp_python.server import LlamaCppPythonServer
from harness.stage import Served, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, CaseOptions, Failure, Generation, ModelRef, Prompt, Refusal, Request, Tokens

QUESTION = "What is the capital of France?"
IDS = (1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2)
IDS += (198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198)
ANSWER = (504, 3575, 282, 4649, 314, 7042, 30, 2)  # "The capital of France is Paris.", end of turn
MADE = Generation(ids=ANSWER, chosen=ANSWER, finish="end_token")


def ask(content: object = QUESTION, options: CaseOptions | None = None, **body: object) -> Case:
    settings = {"temperature": 0, "max_tokens": 8, **body}
    messages = [{"role": "user", "content": content}]
    return Case(
        name="asked",
        description="",
        covers=(),
        body={"messages": messages, **settings},
        options=options or CaseOptions(),
    )


def request(**settings: object) -> Request:
    messages = ({"role": "user", "content": QUESTION},)
    return Request(messages=messages, settings={"temperature": 0, "max_tokens": 8, **settings})


@pytest.fixture(scope="module")
def part(engine: str, smollm: ModelRef) -> Iterator[LlamaCppPythonServer]:
    if importlib.util.find_spec("starlette_context") is None:
        pytest.skip("the server's packages are not installed: pip install -e '.[llama-cpp-server]'")
    with LlamaCppPythonServer(smollm, {"n_ctx": 256}) as opened:
        yield opened


@pytest.fixture(scope="module")
def route(part: LlamaCppPythonServer, smollm: ModelRef) -> Iterator[ServedRoute]:
    with OpenAiClient(smollm, {}) as client, ServedRoute(client, part) as opened:
        yield opened


def test_template_tokens_and_generation_of_a_known_prompt(part):
    assert isinstance(part, Served)
    prompt = part.render(request(), CaseOptions())
    assert prompt.text.endswith(f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.stop == ("<|im_end|>",)
    tokens = part.tokenize(prompt)
    assert tokens.ids == IDS
    assert tokens.pieces[1:4] == ("system", "\n", "You")
    generation = part.generate(tokens, request(repeat_penalty=1.0), ANSWER)
    assert generation.ids == ANSWER
    assert generation.finish == "end_token"
    assert generation.chosen[1:] == ANSWER[1:]  # the first token is a near-tie between The and L
    assert generation.distributions.argmax() == generation.chosen
    assert len(generation.digests) == len(ANSWER)


def test_settings_in_force_are_the_servers_own_where_nobody_asked(part):
    found = part.generate(Tokens(ids=IDS), request(seed=7, stop=["END"]), ANSWER[:2])
    assert found.finish == "forced"
    named = ("temperature", "max_tokens", "seed", "repeat_penalty", "top_k", "top_p", "min_p")
    # `create_chat_completion` itself would run with a repeat_penalty of 1.0.
    assert {name: found.settings[name] for name in named} == {
        "temperature": 0,
        "max_tokens": 8,
        "seed": 7,
        "repeat_penalty": 1.1,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
    }
    assert "stop" not in found.settings


def test_generation_of_its_own_ends_by_length(part):
    found = part.generate(Tokens(ids=IDS), request(max_tokens=3, repeat_penalty=1.0), None)
    assert found.ids == found.chosen
    assert len(found.ids) == 3
    assert found.finish == "length"


def test_it_is_repeatable_after_what_was_scripted(part, route):
    before = part.generate(Tokens(ids=IDS), request(), ANSWER).digests
    part.reply(MADE, Tokens(ids=IDS[:5]), request(), stream=False)
    part.tokenize(Prompt(text="something else"))
    route.chat(ask("Hi"), stream=True)
    assert part.generate(Tokens(ids=IDS), request(), ANSWER).digests == before


@pytest.mark.parametrize("stream", [False, True])
def test_reply_comes_from_the_ids_given(part, stream):
    reply = part.reply(MADE, Tokens(ids=IDS), request(max_tokens=20), stream=stream)
    assert reply.content == "The capital of France is Paris."
    assert reply.finish_reason == "stop"
    if stream:
        assert reply.deltas[0] == {"role": "assistant"}
    else:
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (37, 7)


@pytest.mark.parametrize("stream", [False, True])
def test_the_route_shows_every_stage_of_the_real_call(part, route, stream):
    seen = route.chat(ask(stop="Paris"), stream=stream)
    assert seen.request.settings == {"temperature": 0, "max_tokens": 8, "stop": ["Paris"]}
    assert seen.prompt == part.render(request(), CaseOptions())
    assert seen.tokens.ids == IDS
    assert seen.generation.ids == seen.generation.chosen
    assert seen.generation.settings["stop"] == ["Paris"]
    assert len(seen.generation.distributions) == len(seen.generation.ids)
    again = part.reply(seen.generation, seen.tokens, request(stop=["Paris"]), stream=stream)
    assert again.content == seen.reply.content
    assert again.finish_reason == seen.reply.finish_reason


def test_the_clock_is_pinned(engine, part, smollm_tools):
    options = CaseOptions(clock="2031-05-06T23:59:59")
    with LlamaCppPythonServer(smollm_tools, {"n_ctx": 512, "vocab_only": True}) as opened:
        assert "Today is 2031-05-06." in opened.render(request(), options).text


def test_what_it_has_no_field_for_is_unobserved_or_ignored(part, route):
    continuing = CaseOptions(continue_final_message=True)
    with pytest.raises(StageUnobservedError):
        part.render(request(), continuing)
    with pytest.raises(StageUnobservedError):
        route.chat(ask(options=continuing), stream=False)
    assert part.render(request(chat_template_kwargs={"x": 1}), CaseOptions()) == part.render(request(), CaseOptions())


def test_what_it_refuses_it_refuses_in_its_own_words(part, route):
    parts = [{"type": "text", "text": "Hi"}]
    with pytest.raises(StageRefusedError) as refused:
        part.render(Request(messages=({"role": "user", "content": parts},)), CaseOptions())
    assert refused.value.refusal == Refusal(error="HTTP 500", message='can only concatenate str (not "list") to str')
    seen = route.chat(ask(parts), stream=False)
    assert seen.broke == refused.value.refusal
    assert (seen.prompt, seen.tokens, seen.generation, seen.reply) == (None, None, None, None)
    # The same refusal in a stream: HTTP 200, no event, and no error for the caller.
    seen = route.chat(ask(parts), stream=True)
    assert seen.reply.content is None
    assert seen.reply.deltas == ()
    assert isinstance(seen.broke, Failure)
    assert seen.broke.reason == "broken"


def test_a_null_content_beside_tool_calls_is_refused_before_the_template(part):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]})
    with pytest.raises(StageRefusedError) as refused:
        part.render(Request(messages=messages), CaseOptions())
    assert refused.value.refusal.error == "HTTP 500"
    assert "validation error" in refused.value.refusal.message


def test_a_prompt_longer_than_the_context_is_refused_with_the_reason(part, route):
    with pytest.raises(StageRefusedError) as refused:
        part.generate(Tokens(ids=IDS * 10), request(), (30,))
    assert refused.value.refusal.error == "HTTP 400"
    assert refused.value.refusal.context
    # Its ids are seen all the same.
    assert len(part.tokenize(Prompt(text="word " * 300)).ids) > 256
    seen = route.chat(ask("word " * 300), stream=False)
    assert len(seen.tokens.ids) > 256
    assert seen.broke.context
    long = Request(messages=({"role": "user", "content": "word " * 300},))
    assert "word word" in part.render(long, CaseOptions()).text


def test_death_is_a_failure_with_its_signal_and_the_next_call_works(part):
    part.tokenize(Prompt(text="x"))
    os.kill(part._child._child.worker.pid, signal.SIGKILL)
    with pytest.raises(StageFailedError) as failed:
        part.tokenize(Prompt(text="x"))
    assert failed.value.failure.signal == "SIGKILL"
    assert part.tokenize(Prompt(text="x")).ids == (104,)
