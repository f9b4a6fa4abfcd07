"""The component against the real `transformers serve`: what it shows is what the server does."""

from __future__ import annotations

import datetime
import importlib.util
import os
import signal
from collections.abc import Iterator

import pytest

from harness.checking.route import ServedRoute
from harness.components.clients import OpenAiClient
from harness.components.transformers_serve import TransformersServe
from harness.stage import Served, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, CaseOptions, Generation, ModelRef, Observation, Prompt, Refusal, Request, Tokens

QUESTION = "What is the capital of France?"
MARCH = datetime.datetime(2031, 3, 4, 5, 6)
# The prompt of the template with tools: system text, date, question.
TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.\nToday is 2031-03-04.<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
IDS = (1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198)
ANSWER = (504, 3575, 282, 4649, 314, 7042, 30, 2)  # "The capital of France is Paris.", end of turn


def ask(content: object = QUESTION, options: CaseOptions | None = None, **body: object) -> Case:
    settings = {"temperature": 0, "max_tokens": 4, **body}
    messages = [{"role": "user", "content": content}]
    return Case(
        name="asked",
        description="",
        covers=(),
        body={"messages": messages, **settings},
        options=options or CaseOptions(clock=MARCH),
    )


def wanted(*messages: dict[str, object], **settings: object) -> Request:
    return Request(
        messages=messages or ({"role": "user", "content": QUESTION},), settings={"temperature": 0, **settings}
    )


def script(*ids: int) -> Generation:
    return Generation(ids=ids, chosen=ids, finish="end_token" if ids[-1] == 2 else "length")


@pytest.fixture(scope="module", autouse=True)
def needed() -> None:
    for package in ("torch", "accelerate", "fastapi", "uvicorn", "openai", "time_machine"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[transformers]'")


@pytest.fixture(scope="module")
def part(smollm_tools: ModelRef) -> Iterator[TransformersServe]:
    with TransformersServe(smollm_tools, {"seconds": 600}) as opened:
        yield opened


@pytest.fixture(scope="module")
def route(part: TransformersServe, smollm_tools: ModelRef) -> Iterator[ServedRoute]:
    with OpenAiClient(smollm_tools, {"seconds": 600}) as client, ServedRoute(client, part) as opened:
        yield opened


def test_identity_says_what_the_harness_had_to_add(part):
    assert isinstance(part, Served)
    seen = part.identity()
    assert seen["model class"].startswith("LlamaForCausalLM, named by the harness")
    assert (seen["dtype"], seen["device"]) == ("float32", "cpu")
    assert part.noise_class() == "float32, sdpa attention"


def test_a_gguf_does_not_start_it_unless_its_class_is_named(smollm):
    with TransformersServe(smollm, {"name_architecture": False, "seconds": 600}) as opened:
        for _ in range(2):
            with pytest.raises(StageFailedError) as failed:
                opened.identity()
            assert failed.value.failure.reason == "start"
            assert failed.value.failure.message == "TypeError: 'NoneType' object is not subscriptable"


def test_template_renders_with_the_pinned_clock_and_the_models_own_template(part):
    assert part.render(wanted(), CaseOptions(clock=MARCH)).text == TEXT
    today = datetime.datetime.now().strftime("%Y-%m-%d")
    assert today not in part.render(wanted(), CaseOptions(clock=MARCH)).text


def test_template_gets_what_the_server_makes_of_the_messages(part):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    seen = part.render(wanted({"role": "user", "content": parts}), CaseOptions(clock=MARCH))
    assert "user\none two<|im_end|>" in seen.text


def test_template_refusal_is_the_servers_own_exception(part):
    with pytest.raises(StageRefusedError) as refused:
        part.render(wanted({"content": "who says so?"}), CaseOptions())
    assert refused.value.refusal == Refusal(error="KeyError", message="'role'")
    with pytest.raises(StageRefusedError) as refused:
        part.render(wanted(top_k=5), CaseOptions())
    assert refused.value.refusal.error == "HTTPException"
    assert "422: Unexpected fields in the request: {'top_k'}" in refused.value.refusal.message


def test_what_it_cannot_be_asked_is_unobserved(part):
    options = CaseOptions(continue_final_message=True)
    with pytest.raises(StageUnobservedError):
        part.render(wanted(), options)
    with pytest.raises(StageUnobservedError):
        part.additions(ask(options=options), stream=False)


def test_tokens_are_those_of_the_text_given(part):
    tokens = part.tokenize(Prompt(text=PROMPT))
    assert tokens.ids == IDS
    assert tokens.pieces[:4] == ("<|im_start|>", "user", "\n", "Hi")


def test_tokens_of_whitespace_before_digits_are_those_of_a_lost_pre_tokenizer(part):
    # The file's pre-tokenizer takes digits apart first, which makes them "a", "  ", "1"; the conversion loses that.
    assert part.tokenize(Prompt(text="a  1")).pieces == ("a", " ", " ", "1")


def test_generation_is_forced_and_shows_the_models_own_numbers(part):
    seen = part.generate(Tokens(ids=IDS), wanted(max_tokens=99, stop=["capital"]), ANSWER)
    assert seen.ids == ANSWER
    assert seen.finish == "forced"
    assert seen.distributions.logprobs.shape == (8, 49152)
    assert seen.chosen == seen.distributions.argmax()
    assert seen.settings == {"temperature": 0, "repeat_penalty": 1.0}
    assert part.generate(Tokens(ids=IDS), wanted(), ANSWER).digests == seen.digests


def test_generation_free_to_choose_ends_by_length(part):
    seen = part.generate(Tokens(ids=IDS), wanted(max_tokens=3), None)
    assert (len(seen.ids), seen.finish, seen.settings["max_tokens"]) == (3, "length", 3)
    assert seen.ids == seen.chosen == seen.distributions.argmax()


def test_a_temperature_does_not_make_it_sample(part):
    seen = part.generate(Tokens(ids=IDS), wanted(temperature=0.7, top_p=0.9, max_tokens=2), None)
    assert seen.settings["temperature"] == 0
    assert seen.ids == seen.distributions.argmax()


@pytest.mark.parametrize("stream", [False, True])
def test_reply_comes_from_the_ids_given(part, stream):
    reply = part.reply(script(*ANSWER), Tokens(ids=IDS), wanted(max_tokens=20), stream=stream)
    assert reply.content == "The capital of France is Paris."
    assert reply.finish_reason == "stop"
    # It counts the end token.
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (10, 8)
    assert (reply.deltas is not None) == stream
    if stream:
        assert reply.deltas[0] == {"role": "assistant"}
        assert reply.deltas[-1] == {}


@pytest.mark.parametrize("stream", [False, True])
def test_reply_keeps_a_stop_string(part, stream):
    reply = part.reply(script(504, 3575, 282), Tokens(ids=IDS), wanted(max_tokens=20, stop=["al of"]), stream=stream)
    assert (reply.content, reply.finish_reason) == ("The capital of", "stop")


def test_the_end_token_at_the_limit_is_taken_for_the_limit(part):
    reply = part.reply(script(*ANSWER), Tokens(ids=IDS), wanted(max_tokens=8), stream=False)
    assert reply.finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_chain_is_the_clients_call_with_every_stage_seen(part, route, stream):
    case = ask()
    seen = route.chat(case, stream=stream)
    assert seen.broke is None
    assert seen.prompt == Prompt(text=TEXT)
    assert seen.tokens == part.tokenize(seen.prompt)
    assert seen.generation.finish == "length"
    assert seen.generation.ids == seen.generation.distributions.argmax()
    assert seen.reply.usage.prompt_tokens == len(seen.tokens.ids)
    again = part.reply(seen.generation, seen.tokens, seen.request, stream=stream)
    assert again.model_copy(update={"deltas": None}) == seen.reply.model_copy(update={"deltas": None})


def test_chain_that_is_refused_shows_where(route):
    seen = route.chat(ask(top_k=3), stream=False)
    assert seen.broke.error == "HTTP 422"
    assert seen.prompt.error == "HTTPException"
    assert (seen.tokens, seen.generation, seen.reply) == (None, None, None)


def test_its_stream_ends_without_done(part):
    raw = part._run({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}, stream=True, prompt="", ids=IDS)
    assert raw["data"].startswith("data: {")
    assert "[DONE]" not in raw["data"]


def test_a_crash_is_a_failure(part):
    assert part.tokenize(Prompt(text=PROMPT)).ids == IDS
    os.kill(part._child.worker.pid, signal.SIGKILL)
    with pytest.raises(StageFailedError) as failed:
        part.tokenize(Prompt(text=PROMPT))
    assert (failed.value.failure.reason, failed.value.failure.signal) == ("crash", "SIGKILL")
    # What it saw of a call is gone with it, and it is not started again to be asked for that.
    assert part.seen(ask(), {}, None) == Observation()
    assert part._child.worker.pid is None
