"""Planting in llama-server: what each place changes, that nothing else does, and that it is gone afterwards."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.attribution.trial import _raised, essence
from harness.checking.trace import Run, Trace
from harness.components.llama_server import LlamaServer
from harness.defects.defect import Defect, Place
from harness.defects.places import DefectError
from harness.defects.planting import NoPlaceError, plant, template_of
from harness.defects.planting.anywhere import planted_in_the_caller
from harness.errors import UserError
from harness.project.stack import Stack, load_stack
from harness.stage import Stage, StageFailedError, StageRefusedError
from harness.values import Case, CaseOptions, Generation, Observation, Prompt, Reply, Request, Tokens
from harness.wire.api import Api

HOOK = "harness.defects.planting.llama_server:plant"
FILE = str(Path(__file__).with_name("planted_over_http.py"))
HI = Request(messages=({"role": "user", "content": "hi"},), settings={"temperature": 0, "max_tokens": 3})
PROMPT = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
TURN, OPENED = "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|>assistant\n"
ONCE, TWICE = PROMPT + TURN + OPENED, PROMPT + TURN + TURN + OPENED
OPTIONS: dict[str, Any] = {"n_ctx": 256, "parameters": {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}}


@pytest.fixture(scope="module", autouse=True)
def _package():
    for package in ("xllamacpp", "httpx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"LLAMA-SERVER IS NOT PLANTED IN: {package} is not installed: pip install -e '.[servers]'")


@pytest.fixture(scope="module")
def opened(smollm) -> Iterator[LlamaServer]:
    with LlamaServer(smollm, OPTIONS) as part:
        yield part


@pytest.fixture
def part(opened: LlamaServer) -> Iterator[LlamaServer]:
    yield opened
    opened.unplant()


def planted(part: LlamaServer, place: str, function: str, **arguments: Any) -> None:
    part.plant(HOOK, place=place, function=f"{FILE}:{function}", arguments=arguments)


def rendered(part: LlamaServer) -> str:
    return part.render(HI, CaseOptions()).text


def fed(part: LlamaServer) -> str:
    """Return the prompt that the chat route shows."""
    asked = {**HI.settings, "messages": list(HI.messages)}
    answer: dict[str, Any] = Api(part.url()).post("/chat/completions", asked)
    return str(answer["__verbose"]["prompt"])


def test_a_request_is_changed_on_every_route_that_renders_it_and_no_more_when_it_is_unplanted(part):
    planted(part, "request", "said_twice")
    assert (rendered(part), fed(part)) == (TWICE, TWICE)
    assert part.tokenize(Prompt(text="hi")).ids == (6004,), "other routes pass"
    part.unplant()
    assert (rendered(part), fed(part)) == (ONCE, ONCE)


def test_the_answer_is_changed_of_the_replaying_server_too_and_the_defect_sees_what_it_was_made_of(part):
    ids = (6004, 30, 2)  # "hi", ".", the end token
    generation = Generation(ids=ids, chosen=ids, finish="end_token")
    tokens = Tokens(ids=tuple(range(31)))
    planted(part, "answer", "all_that_was_generated")
    whole = part.reply(generation, tokens, HI, stream=False)
    assert whole.content == "3 b'hi|.|<|im_end|>'"
    assert (whole.finish_reason, whole.usage.completion_tokens) == ("stop", 3)
    stream = part.reply(generation, tokens, HI, stream=True)
    assert [delta.get("content") for delta in stream.deltas] == [None, None]
    assert (stream.content, stream.finish_reason) == (None, "stop")


def test_two_defects_are_planted_one_before_the_other(part):
    planted(part, "request", "said_twice")
    planted(part, "part", "renamed", name="another")
    assert part._main.identity() == {"name": "another"}
    assert rendered(part) == TWICE


def test_what_a_defect_raises_is_named_and_is_nobody_s_refusal(part):
    planted(part, "request", "broken")
    with pytest.raises(StageRefusedError) as refused:
        rendered(part)
    assert refused.value.refusal.message == "DefectError: KeyError: 'messages'"
    trace = Trace(stack="", model="", case="", runs={Run.ISOLATED: Observation(prompt=refused.value.refusal)})
    assert _raised(trace) == "KeyError: 'messages'"


def test_a_part_that_cannot_be_planted_in_says_so_when_it_starts(part):
    planted(part, "part", "broken")
    with pytest.raises(StageFailedError) as failed:
        rendered(part)
    assert failed.value.failure.message == "DefectError: KeyError: 'messages'"


def test_a_server_that_runs_elsewhere_cannot_be_planted_in(smollm):
    with (
        LlamaServer(smollm, {"url": "http://127.0.0.1:9/v1"}) as part,
        pytest.raises(UserError, match="a server that runs already"),
    ):
        part.plant(HOOK, place="part", function=f"{FILE}:broken", arguments={})


def test_what_is_drawn_anew_for_every_answer_is_no_effect_of_a_defect():
    def reply(*names: str) -> Reply:
        calls = tuple({"id": one, "function": {"name": "id", "arguments": "{}"}} for one in names)
        return Reply(content="", tool_calls=calls, deltas=({"tool_calls": calls[:1]},))

    assert essence(reply("abc", "def")) == essence(reply("ghi", "jkl"))
    assert essence(reply("abc", "def")) != essence(reply("abc", "abc"))
    assert essence(reply("abc", "def")) != essence(reply("abcd", "def"))
    assert essence(reply("abc", "def")) != essence(reply("", "def"))


# Before the stack is opened


@pytest.fixture(scope="module")
def stack(project) -> Stack:
    return load_stack(project, "llama-server").with_options("llama-server", OPTIONS)


def made(place: Place, function: str, stage: Stage, **arguments: Any) -> Defect:
    component = "llama-server" if place is Place.OPTIONS else None
    hook = f"{FILE}:{function}"
    return Defect("made", stage, "integration", "", place, hook, arguments, component)


def test_the_source_is_the_template_that_the_server_is_given(stack, smollm):
    with plant(stack, smollm, [made(Place.SOURCE, "closed", Stage.TEMPLATE)]) as found:
        assert found.model.chat_template == template_of(smollm) + "(end)"
        with LlamaServer(found.model, OPTIONS) as part:
            assert rendered(part) == ONCE + "(end)"


def test_options_are_added_to_those_of_the_stack(stack, smollm):
    with plant(stack, smollm, [made(Place.OPTIONS, "other_parameters", Stage.POSTPROCESS, special=True)]) as found:
        assert found.stack.options["llama-server"] == {
            "n_ctx": 256,
            "parameters": {**OPTIONS["parameters"], "special": True},
        }


@pytest.mark.parametrize("place", [Place.ENVIRONMENT, Place.PROMPT, Place.IDS])
def test_what_does_not_cross_http_is_no_place(stack, smollm, place):
    with pytest.raises(NoPlaceError, match=f"llama-server shows no place '{place.value}'"):
        plant(stack, smollm, [made(place, "closed", Stage.TEMPLATE)]).__enter__()


# What the client's program gets


class Client:
    """A client whose server answers `hi`."""

    name = "client"

    def call(self, case: Case, url: str, *, stream: bool) -> Reply:
        return Reply(content="hi", finish_reason="stop")


def test_what_the_program_gets_is_changed_after_the_client(smollm):
    received = made(Place.RECEIVED, "shouted", Stage.CLIENT)
    part: Any = planted_in_the_caller(Client(), received)  # type: ignore[arg-type]
    case = Case(description="", covers=(), body={"messages": list(HI.messages)})
    assert part.call(case, "", stream=False) == Reply(content="HI", finish_reason="stop")
    raising: Any = planted_in_the_caller(Client(), made(Place.RECEIVED, "broken", Stage.CLIENT))  # type: ignore[arg-type]
    with pytest.raises(DefectError, match="KeyError"):
        raising.call(case, "", stream=False)


def test_a_stack_in_process_has_no_client_that_receives(project, engine, smollm):
    stack = load_stack(project, engine)
    with pytest.raises(NoPlaceError, match="llama-cpp-python is no client of a server"):
        plant(stack, smollm, [made(Place.RECEIVED, "shouted", Stage.CLIENT)]).__enter__()
