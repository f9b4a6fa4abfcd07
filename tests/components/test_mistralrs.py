"""The component against the real mistral.rs: what it proves of the engine, and what it leaves unobserved."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Iterator

import pytest

from harness.components.mistralrs_runner import MistralRs
from harness.stage import ChatRoute, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, CaseOptions, Generation, ModelRef, Prompt, Request, Tokens

# A short template, as every id of a prompt costs the engine a tenth of a second on a slow machine.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|im_start|>"
)
TEXT = "<|im_start|>Hi<|im_end|>\n<|im_start|>"
IDS = (1, 26843, 2, 198, 1)


def ask(content: object = "Hi", options: CaseOptions | None = None, **body: object) -> Case:
    settings = {"temperature": 0, "max_tokens": 2, **body}
    messages = [{"role": "user", "content": content}]
    return Case(
        name="asked",
        description="",
        covers=(),
        body={"messages": messages, **settings},
        options=options or CaseOptions(),
    )


@pytest.fixture(scope="module")
def part(smollm: ModelRef) -> Iterator[MistralRs]:
    if importlib.util.find_spec("mistralrs") is None:
        pytest.skip("mistralrs is not installed: pip install -e '.[mistralrs]'")
    short = smollm.model_copy(update={"chat_template": TEMPLATE})
    with MistralRs(short, {"threads": 1}) as opened:
        yield opened


@pytest.fixture(scope="module")
def asked(part: MistralRs) -> Request:
    return part.request(ask())


def test_identity_and_class_of_noise(part):
    assert isinstance(part, ChatRoute)
    seen = part.identity()
    assert (seen["dtype"], seen["cache"], seen["threads"]) == ("auto", "f16", "1")
    assert part.noise_class() == "dtype auto, cache f16"


def test_client_takes_what_its_request_has_an_argument_for(part):
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}
    seen = part.request(ask(stop="END", top_p=0.5, tools=[tool], tool_choice="auto"))
    assert seen.settings == {"temperature": 0, "max_tokens": 2, "stop": ["END"], "top_p": 0.5}
    assert seen.tools == (tool,)
    # This one template variable has an argument of its own.
    part.request(ask(options=CaseOptions(template_kwargs={"enable_thinking": False})))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (ask(seed=7), "unexpected keyword argument 'seed'"),
        (ask(max_completion_tokens=7), "unexpected keyword argument 'max_completion_tokens'"),
        (ask(options=CaseOptions(template_kwargs={"colour": 1})), "unexpected keyword argument 'colour'"),
        (ask(content=None), "failed to convert the value"),
    ],
    ids=["seed", "max_completion_tokens", "template variable", "null content"],
)
def test_client_refuses_what_its_request_has_no_argument_for(part, case, says):
    with pytest.raises(StageRefusedError) as refused:
        part.request(case)
    assert refused.value.refusal.error == "TypeError"
    assert says in refused.value.refusal.message
    assert part.chat(case, stream=False).request == refused.value.refusal


def test_template_is_a_text_that_the_numbers_prove(part, asked):
    assert part.render(asked, CaseOptions()).text == TEXT


def test_template_is_unobserved_where_no_text_gives_the_numbers(part, asked, monkeypatch):
    call = part._child.call

    def other(method, **arguments):
        if method == "candidates":
            return [TEXT.replace("Hi", "Hu"), TEXT + "."]
        return call(method, **arguments)

    monkeypatch.setattr(part._child, "call", other)
    with pytest.raises(StageUnobservedError, match="shows no prompt"):
        part.render(asked, CaseOptions())


def test_what_it_cannot_be_asked_is_unobserved(part, asked):
    options = CaseOptions(continue_final_message=True)
    with pytest.raises(StageUnobservedError):
        part.render(asked, options)
    with pytest.raises(StageUnobservedError):
        part.chat(ask(options=options), stream=False)
    with pytest.raises(StageUnobservedError):
        part.reply(Generation(ids=(2,), chosen=(2,), finish="end_token"), Tokens(ids=IDS), asked, stream=False)


def test_tokens_are_those_of_the_text_given(part):
    tokens = part.tokenize(Prompt(text=TEXT))
    assert tokens.ids == IDS
    assert tokens.pieces == ("<|im_start|>", "Hi", "<|im_end|>", "\n", "<|im_start|>")
    assert part.tokenize(Prompt(text="a  1")).pieces == ("a", "  ", "1")


def test_generation_is_seen_after_exactly_the_forced_ids(part, asked):
    free = part.chat(ask(), stream=False).generation
    seen = part.generate(Tokens(ids=IDS), asked, free.ids)
    assert (seen.ids, seen.chosen, seen.finish) == (free.ids, free.ids, "forced")
    assert seen.distributions == free.distributions
    forced = (4649, free.ids[1])
    seen = part.generate(Tokens(ids=IDS), asked, forced)
    assert seen.ids == forced
    assert seen.chosen[0] == free.ids[0]
    assert seen.distributions.head(1) == free.distributions.head(1)
    alone = part.generate(Tokens(ids=(*IDS, 4649)), asked, (free.ids[1],))
    assert alone.distributions.logprobs[0].tolist() == pytest.approx(seen.distributions.logprobs[1].tolist(), abs=1e-4)


def test_ids_that_no_text_gives_are_unobserved(part, asked):
    # "<|im_end|>" in ordinary tokens: its text is the control token.
    with pytest.raises(StageUnobservedError, match="tokenized to others"):
        part.generate(Tokens(ids=(1, 44, 108, 306, 79, 486, 108, 46)), asked, (2,))


@pytest.mark.parametrize("stream", [False, True])
def test_chat_is_the_real_call_with_what_it_proves(part, stream):
    case = ask()
    seen = part.chat(case, stream=stream)
    assert seen.request == part.request(case)
    assert (seen.prompt.text, seen.tokens.ids) == (TEXT, IDS)
    assert len(seen.generation.ids) == 2
    assert seen.generation.finish == "length"
    assert seen.generation.ids == seen.generation.distributions.argmax()
    assert seen.reply.finish_reason == "length"
    assert (seen.reply.usage.prompt_tokens, seen.reply.usage.completion_tokens) == (5, 2)
    assert (seen.reply.deltas is not None) == stream


def test_tools_reach_the_template_as_json(part):
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    request = part.request(ask(tools=[tool]))
    assert (
        part.render(request, CaseOptions()).text
        == TEXT.removesuffix("<|im_start|>") + json.dumps([tool]) + "<|im_start|>"
    )


def test_a_crash_is_a_failure_and_the_next_call_starts_again(part):
    os.kill(part._child.worker.pid, signal.SIGKILL)
    with pytest.raises(StageFailedError) as failed:
        part.tokenize(Prompt(text=TEXT))
    assert (failed.value.failure.reason, failed.value.failure.signal) == ("crash", "SIGKILL")
    assert part.tokenize(Prompt(text=TEXT)).ids == IDS
