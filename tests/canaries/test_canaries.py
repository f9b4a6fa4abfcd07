"""Each canary says nothing against a server that does as the API says, and sees the one mistake that it is for."""

from __future__ import annotations

import importlib.util
import json
import time

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
    def before(body):
        body.pop(name, None)

    return {"before": before}


def growing(name):
    asked = []

    def change(body, answer):
        asked.append(1)
        answer["usage"][name] += len(asked)

    return {"change": change}


def badly(value):
    return lambda body: (400, value) if body.get("messages") == "Hi" else None


def first_parts(body):
    for one in body["messages"]:
        if isinstance(one["content"], list):
            one["content"] = []


def last_alone(body):
    body["messages"] = body["messages"][-1:]


def cut_to_context(body):
    body["messages"][0]["content"] = " ".join(body["messages"][0]["content"].split()[:1400])


def turning(when):
    """Return what answers a question otherwise from the second time on, and as surely."""
    asked = []

    def change(body, answer):
        if when(body) and body.get("logprobs"):
            asked.append(1)
            if len(asked) > 1:
                answer["choices"][0]["message"]["content"] = "A mistake"
                shown = answer["choices"][0]["logprobs"]["content"]
                shown[0]["token"] = shown[0]["top_logprobs"][0]["token"] = "A"

    return {"change": change}


def refuses_after(most):
    asked = []

    def before(body):
        asked.append(1)
        return (500, {"error": {"message": "no slot"}}) if len(asked) > most else None

    return before


def takes_stop(known):
    return lambda body: None if known(body.get("stop") or "") else body.update(stop=[])


def always_usage(body):
    if body.get("stream"):
        body["stream_options"] = {"include_usage": True}


def always_calls(body):
    body["tool_choice"] = "required"


def no_index(_, chunk):
    for one in chunk["choices"]:
        for call in one["delta"].get("tool_calls", ()):
            call.pop("index")


CHOICE = ("choices", 0)
CALL = (*CHOICE, "message", "tool_calls", 0)
MISTAKES = [
    ("kind of the answer", Stage.POSTPROCESS, put(["object"], "text_completion")),
    ("id of the answer", Stage.POSTPROCESS, put(["id"], "")),
    ("time of the answer", Stage.POSTPROCESS, put(["created"], "now")),
    ("one choice", Stage.POSTPROCESS, put([*CHOICE, "index"], 1)),
    ("role of the answer", Stage.POSTPROCESS, put([*CHOICE, "message", "role"], "bot")),
    ("reason of the end", Stage.POSTPROCESS, put([*CHOICE, "finish_reason"], "eos")),
    ("model of the answer", Stage.POSTPROCESS, put(["model"], None)),
    ("usage", Stage.POSTPROCESS, put(["usage", "prompt_tokens"], "many")),
    ("usage", Stage.POSTPROCESS, put(["usage", "prompt_tokens"], 0)),
    ("usage of the same prompt", Stage.POSTPROCESS, growing("prompt_tokens")),
    ("sum of the usage", Stage.POSTPROCESS, put(["usage", "total_tokens"], 1)),
    ("cached tokens", Stage.POSTPROCESS, put(["usage", "prompt_tokens_details", "cached_tokens"], 999)),
    ("limit", Stage.INFERENCE, without("max_tokens")),
    ("limit by its newer name", Stage.INFERENCE, without("max_completion_tokens")),
    ("end by the limit", Stage.POSTPROCESS, put([*CHOICE, "finish_reason"], "stop")),
    ("stop string", Stage.POSTPROCESS, without("stop")),
    ("stop string as a text", Stage.POSTPROCESS, {"before": takes_stop(lambda stop: isinstance(stop, list))}),
    ("one of four stop strings", Stage.POSTPROCESS, {"before": takes_stop(lambda stop: len(stop) < 4)}),
    ("control text", Stage.POSTPROCESS, put([*CHOICE, "message", "content"], "Hi.<|im_end|>")),
    ("reasoning apart", Stage.POSTPROCESS, put([*CHOICE, "message", "content"], "<think>\nhm\n</think>\nHi.")),
    ("a body without messages", Stage.POSTPROCESS, {"before": lambda body: "answers all"}),
    ("form of an error", Stage.POSTPROCESS, {"before": badly({"detail": "not a list"})}),
    ("form of an error", Stage.POSTPROCESS, {"before": badly(b"Bad Request")}),
    ("system message", Stage.TEMPLATE, dropped("system")),
    ("tool's result", Stage.TEMPLATE, dropped("tool")),
    ("earlier answer", Stage.TEMPLATE, dropped("assistant")),
    ("user message", Stage.TEMPLATE, shortened(5)),
    ("message in text parts", Stage.TEMPLATE, {"before": first_parts}),
    ("earlier user message", Stage.TEMPLATE, {"before": last_alone}),
    ("long prompt", Stage.INFERENCE, shortened(500)),
    ("long prompt", Stage.INFERENCE, shortened(1200)),
    ("prompt beyond the context", Stage.INFERENCE, {"before": cut_to_context}),
    ("greedy answers", Stage.INFERENCE, turning(lambda body: body["messages"][0]["content"].startswith("Name three"))),
    ("two at once", Stage.INFERENCE, turning(lambda body: "river" in body["messages"][0]["content"])),
    ("two at once", Stage.INFERENCE, {"before": refuses_after(2)}),
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
    (
        "number of the likeliest",
        Stage.INFERENCE,
        put([*CHOICE, "logprobs", "content", 0, "top_logprobs"], [{"token": "a", "logprob": -9.0}] * 6),
    ),
    ("bytes of the tokens", Stage.POSTPROCESS, put([*CHOICE, "logprobs", "content", 0, "bytes"], [84, 104])),
    ("texts of the tokens", Stage.POSTPROCESS, put([*CHOICE, "message", "content"], "Something else.")),
    (
        "choice of the chunks",
        Stage.POSTPROCESS,
        streamed(lambda _, chunk: [one.update(index=1) for one in chunk["choices"]]),
    ),
    ("usage unasked", Stage.POSTPROCESS, {"before": always_usage}),
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
    ("a call that is named", Stage.POSTPROCESS, without("tool_choice")),
    ("no call", Stage.POSTPROCESS, {"before": always_calls}),
    (
        "a call in a stream",
        Stage.POSTPROCESS,
        streamed(lambda _, chunk: [one["delta"].pop("tool_calls", None) for one in chunk["choices"]]),
    ),
    ("a call in a stream", Stage.POSTPROCESS, streamed(no_index)),
    ("form of a call", Stage.POSTPROCESS, put([*CALL, "type"], None)),
    ("arguments of a call", Stage.POSTPROCESS, put([*CALL, "function", "arguments"], {"colour": "amber"})),
    ("end by a call", Stage.POSTPROCESS, put([*CHOICE, "finish_reason"], "stop")),
]


@pytest.mark.parametrize(
    ("name", "stage", "mistake"), MISTAKES, ids=[f"{name} {at}" for at, (name, *_) in enumerate(MISTAKES)]
)
def test_a_mistake_is_seen_by_the_row_that_is_for_it(name, stage, mistake):
    found = row(name, **mistake)
    assert (found.outcome, found.stage) == (Outcome.DIVERGED, stage), found
    assert found.why.startswith(f"{name}: ")
    assert "disconnected" not in found.why, "the server made the mistake, and did not die of the test"
    assert found.expected


NEVER = {"tools", "seed", "control text of a user's", "bad requests"}
"""Of what the API promises nothing, or what is told by whether the server still answers."""


def test_every_row_that_can_convict_has_a_mistake_of_its_own():
    assert {one.name for one in CANARIES} - {name for name, *_ in MISTAKES} == NEVER


def test_who_dies_of_a_bad_request_is_accused_of_it():
    dead = []

    def before(body):
        if dead or body.get("temperature") == "hot":
            dead.append(1)
            return "cut"
        return None

    rows = canaries_of(before=before)
    assert convicted(rows) == ["bad requests"]


def test_what_a_server_refuses_is_not_seen_and_not_a_defect():
    def no_choices(body):
        return (400, {"error": {"message": "n is not supported"}}) if body.get("n") else None

    rows = {one.name: one for one in canaries_of(before=no_choices)}
    assert "it refuses this: n is not supported" in rows["several choices"].why


def canaries_of(**mistake):
    with serving(server(**mistake)) as fake:
        return canaries(fake.url, model="m")


def convicted(rows):
    return [one.name for one in rows if one.outcome is Outcome.DIVERGED]


def test_what_is_ignored_in_every_form_is_one_row_s():
    assert convicted(canaries_of(**without("stop"))) == ["stop string"]
    assert convicted(canaries_of(**without("max_tokens"))) == ["limit"]


def test_a_refusal_of_the_plainest_question_is_one_row_s():
    rows = canaries_of(before=lambda body: (400, {"error": {"message": "not today"}}))
    assert convicted(rows) == ["kind of the answer"]
    assert {one.outcome for one in rows[1:]} == {Outcome.UNOBSERVED}


@pytest.mark.parametrize(
    ("status", "said"), [(503, "Loading model"), (429, "too many requests"), (400, "the model 'm' does not exist")]
)
def test_who_is_not_ready_or_knows_no_such_model_is_not_accused(status, said):
    rows = canaries_of(before=lambda body: (status, {"error": {"message": said}}))
    assert {one.outcome for one in rows} == {Outcome.UNOBSERVED}
    assert said in rows[0].why


def test_without_usage_nothing_that_is_counted_is_accused():
    rows = canaries_of(change=lambda body, answer: answer.pop("usage", None))
    assert convicted(rows) == ["usage of a stream"], "which was asked for"
    unseen = {one.name for one in rows if one.outcome is Outcome.UNOBSERVED}
    assert {"usage", "system message", "long prompt", "limit"} <= unseen


def test_a_usage_of_zeros_is_the_usage_s_own_row():
    def change(body, answer):
        if "usage" in answer:
            answer["usage"] = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)

    assert convicted(canaries_of(change=change)) == ["usage"]


def test_tokens_of_the_cache_that_are_not_counted_accuse_no_template():
    seen = set()

    def known_of(text, other):
        return next((at for at, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), len(text))

    def change(body, answer):
        if "usage" in answer:
            text = json.dumps(body["messages"])
            known = max((known_of(text, other) for other in seen), default=0)
            answer["usage"]["prompt_tokens"] -= text[:known].count(" ")
            answer["usage"]["total_tokens"] = answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
            answer["usage"]["prompt_tokens_details"] = None
            seen.add(text)

    assert set(convicted(canaries_of(change=change))) <= {"usage of the same prompt", "counts of a stream"}


def test_a_template_that_knows_no_tools_is_not_accused_of_their_results():
    def before(body):
        if isinstance(body.get("messages"), list):
            body["messages"] = [one for one in body["messages"] if one.get("role") != "tool"]
        body.pop("tools", None)

    found = row("tool's result", before=before)
    assert (found.outcome, "may know none" in found.why) == (Outcome.UNOBSERVED, True)


def test_who_dies_of_a_question_is_accused_of_that_one():
    dead = []

    def before(body):
        if body.get("n") or dead:
            dead.append(1)
            return "cut"
        return None

    rows = {one.name: one for one in canaries_of(before=before)}
    assert convicted(rows.values()) == ["several choices"]
    assert "since then the server answers nothing" in rows["several choices"].why
    assert "since it was asked this: several choices" in rows["JSON"].why


def test_who_is_too_slow_is_not_asked_to_the_end():
    with serving(lambda handler, _: time.sleep(1)) as fake:
        rows = canaries(fake.url, model="m", seconds=0.3)
        assert len(fake.asked) == 1
    assert {one.outcome for one in rows} == {Outcome.UNOBSERVED}


def test_answers_that_are_about_as_likely_are_not_accused():
    def change(body, answer):
        if body.get("logprobs") and body["messages"][0]["content"].startswith("Name three"):
            first = answer["choices"][0]["logprobs"]["content"][0]
            asked.append(1)
            first["token"] = "AB"[len(asked) % 2]
            tops = [{"token": "A", "logprob": -0.70}, {"token": "B", "logprob": -0.69}]
            first.update(logprob=-0.7, top_logprobs=tops)
            answer["choices"][0]["message"]["content"] = first["token"]

    asked = []
    found = row("greedy answers", change=change)
    assert found.outcome is Outcome.UNOBSERVED
    assert "about as likely" in found.why


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


def test_what_has_no_chat_route_is_no_finding():
    def page(handler, _):
        handler.whole(b"<html>hello</html>", status=501, kind="text/html")

    with serving(page) as fake, pytest.raises(NotRunningError) as caught:
        canaries(fake.url, model="m")
    assert str(caught.value) == (
        f"{fake.url} cannot be asked: this server has no chat completions route (HTTP 501); "
        "name the address of a server of OpenAI's API, without a path"
    )
