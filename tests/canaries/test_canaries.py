"""Each canary says nothing against a server that does as the API says, and sees the one mistake that it is for."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.canaries import canaries
from harness.canaries.asking import Asking
from harness.canaries.canary import CANARIES, REFERENCE
from harness.checking.compare.outcome import Outcome
from harness.errors import NotRunningError
from harness.stage import Stage
from harness.wire.api import Api
from tests.canaries.server import server
from tests.wire.servers import closed_port, serving

ALONE = {"verbosity": 3, "cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}
NAMES = {one.name: one for one in CANARIES}


def row(name, **mistake):
    with serving(server(**mistake)) as fake:
        api = Api(fake.url.removesuffix("/v1"))
        try:
            return NAMES[name].row(Asking(api, "m"))
        finally:
            api.close()


def test_a_server_that_does_as_the_api_says_is_accused_of_nothing():
    with serving(server()) as fake:
        rows = canaries(fake.url, model="m")
    assert len(rows) == len(CANARIES) >= 30
    assert [(one.name, one.outcome, one.why) for one in rows if one.outcome is not Outcome.EQUAL] == []
    assert len({one.name for one in rows}) == len(rows)
    assert all(one.source.startswith(REFERENCE) and one.of == "canary" for one in rows)


def put(path, value):
    """Return what puts a value at a path of every answer that is not streamed."""

    def change(body, answer):
        *steps, last = path
        at = answer
        for step in steps:
            at = at[step] if isinstance(step, int) or step in at else {}
        if isinstance(at, dict) and (last in at or last == "object"):
            at[last] = value

    return {"change": lambda body, answer: None if body.get("stream") else change(body, answer)}


def streamed(change):
    return {"change": lambda body, chunk: change(body, chunk) if body.get("stream") else None}


def dropped(role):
    def before(body):
        if body.get("messages"):
            body["messages"] = [one for one in body["messages"] if one["role"] != role]

    return {"before": before}


def shortened(most):
    def change(body, answer):
        if "usage" in answer:
            answer["usage"]["prompt_tokens"] = min(answer["usage"]["prompt_tokens"], most)

    return {"change": change}


def without(name):
    return {"before": lambda body: body.pop(name, None)}


CHOICE = ("choices", 0)
CALL = (*CHOICE, "message", "tool_calls", 0)
MISTAKES = [
    ("kind of the answer", Stage.POSTPROCESS, put(["object"], "text_completion")),
    ("id of the answer", Stage.POSTPROCESS, put(["id"], "")),
    ("time of the answer", Stage.POSTPROCESS, put(["created"], "now")),
    ("one choice", Stage.POSTPROCESS, put([*CHOICE, "index"], 1)),
    ("role of the answer", Stage.POSTPROCESS, put([*CHOICE, "message", "role"], "bot")),
    ("reason of the end", Stage.POSTPROCESS, put([*CHOICE, "finish_reason"], "eos")),
    ("usage", Stage.POSTPROCESS, put(["usage"], None)),
    ("sum of the usage", Stage.POSTPROCESS, put(["usage", "total_tokens"], 1)),
    ("cached tokens", Stage.POSTPROCESS, put(["usage", "prompt_tokens_details", "cached_tokens"], 999)),
    ("limit", Stage.INFERENCE, without("max_tokens")),
    ("limit by its newer name", Stage.INFERENCE, without("max_completion_tokens")),
    ("end by the limit", Stage.POSTPROCESS, put([*CHOICE, "finish_reason"], "stop")),
    ("stop string", Stage.POSTPROCESS, without("stop")),
    ("stop string as a text", Stage.POSTPROCESS, without("stop")),
    ("one of four stop strings", Stage.POSTPROCESS, without("stop")),
    ("control text", Stage.POSTPROCESS, put([*CHOICE, "message", "content"], "Hi.<|im_end|>")),
    ("reasoning apart", Stage.POSTPROCESS, put([*CHOICE, "message", "content"], "<think>\nhm\n</think>\nHi.")),
    ("a body without messages", Stage.POSTPROCESS, {"before": lambda body: "answers all"}),
    ("system message", Stage.TEMPLATE, dropped("system")),
    ("tool's result", Stage.TEMPLATE, dropped("tool")),
    ("earlier answer", Stage.TEMPLATE, dropped("assistant")),
    ("long prompt", Stage.INFERENCE, shortened(500)),
    ("drawn answers", Stage.INFERENCE, without("seed")),
    ("several choices", Stage.POSTPROCESS, without("n")),
    ("JSON", Stage.INFERENCE, without("response_format")),
    ("JSON of a schema", Stage.INFERENCE, put([*CHOICE, "message", "content"], '{"colour": "red", "count": 2}')),
    ("log-probabilities", Stage.INFERENCE, put([*CHOICE, "logprobs", "content", 0, "logprob"], 0.5)),
    ("greedy token", Stage.INFERENCE, put([*CHOICE, "logprobs", "content", 0, "logprob"], -3.0)),
    (
        "sum of the likeliest",
        Stage.INFERENCE,
        put([*CHOICE, "logprobs", "content", 0, "top_logprobs"], [{"token": "a", "logprob": -0.1}] * 2),
    ),
    ("kind of the chunks", Stage.POSTPROCESS, streamed(lambda _, chunk: chunk.update(object="chat.completion"))),
    ("one id for all chunks", Stage.POSTPROCESS, streamed(lambda _, chunk: chunk.update(id=str(id(chunk))))),
    (
        "role in a stream",
        Stage.POSTPROCESS,
        streamed(lambda _, chunk: [one["delta"].pop("role", None) for one in chunk["choices"]]),
    ),
    (
        "text of a stream",
        Stage.POSTPROCESS,
        streamed(lambda _, chunk: [one["delta"].update(content="?") for one in chunk["choices"]]),
    ),
    (
        "end of a stream",
        Stage.POSTPROCESS,
        streamed(lambda _, chunk: [one.update(finish_reason=None) for one in chunk["choices"]]),
    ),
    ("usage of a stream", Stage.POSTPROCESS, without("stream_options")),
    (
        "counts of a stream",
        Stage.POSTPROCESS,
        streamed(lambda _, chunk: chunk.get("usage", {}).update(prompt_tokens=0)),
    ),
    ("a call that is required", Stage.POSTPROCESS, without("tool_choice")),
    ("form of a call", Stage.POSTPROCESS, put([*CALL, "type"], None)),
    ("arguments of a call", Stage.POSTPROCESS, put([*CALL, "function", "arguments"], {"colour": "amber"})),
    ("end by a call", Stage.POSTPROCESS, put([*CHOICE, "finish_reason"], "stop")),
]


@pytest.mark.parametrize(("name", "stage", "mistake"), MISTAKES, ids=[name for name, *_ in MISTAKES])
def test_a_mistake_is_seen_by_the_row_that_is_for_it(name, stage, mistake):
    found = row(name, **mistake)
    assert (found.outcome, found.stage) == (Outcome.DIVERGED, stage), found
    assert found.why.startswith(f"{name}: ")
    assert found.expected


def test_what_a_server_refuses_is_not_seen_and_not_a_defect():
    def answer(handler, asked):
        handler.json({"error": {"message": "n is not supported", "type": "invalid_request_error"}}, 400)

    with serving(answer) as fake:
        rows = {one.name: one for one in canaries(fake.url, model="m")}
    assert rows["several choices"].outcome is Outcome.UNOBSERVED
    assert "it refuses this: n is not supported" in rows["several choices"].why
    assert rows["kind of the answer"].outcome is Outcome.DIVERGED, "an answer to a plain question is not optional"


def test_answers_of_another_form_are_the_server_s_and_no_error_of_ours():
    for odd in ([], {"choices": []}, {"choices": [{"message": None}]}, {"choices": [{"message": {"role": 3}}]}):
        with serving(lambda handler, _, odd=odd: handler.json(odd)) as fake:
            rows = canaries(fake.url, model="m")
        assert {one.outcome for one in rows} <= {Outcome.DIVERGED, Outcome.UNOBSERVED, Outcome.EQUAL}, odd


def test_nothing_that_listens_is_no_finding():
    with pytest.raises(NotRunningError):
        canaries(closed_port(), model="m")


def test_a_real_server_is_accused_of_nothing(smollm, monkeypatch):
    monkeypatch.setattr("harness.canaries.arriving._STEPS", (20, 60))  # its context is small here
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("NO REAL SERVER: xllamacpp is not installed: pip install -e '.[servers]'")
    from harness.components.llama_server._options import Options
    from harness.components.llama_server._running import Running

    running = Running(smollm, Options(n_ctx=1024, parameters=ALONE))
    try:
        rows = canaries(running.url(), model="m")
    finally:
        running.close()
    assert [(one.name, one.why) for one in rows if one.outcome in (Outcome.DIVERGED, Outcome.ERROR)] == []
    assert sum(one.outcome is Outcome.EQUAL for one in rows) >= 30
