"""An answer that is wrong is told apart from every other, in time and with a bound, and never raises anything else."""

from __future__ import annotations

import json
import time

import pytest

from harness.errors import UserError
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Failure
from harness.wire import limits
from harness.wire.api import Api, events, refusal
from tests.wire import servers
from tests.wire.servers import CASE, KEY, Answer, chunk, closed_port, completion, event, healthy, serving

CHAT = "/chat/completions"


def ended(answer: Answer, *, stream: bool, seconds: float = 5.0, key_variable: str | None = None):
    """Return how a call of a server ends that answers badly."""
    with serving(answer) as fake:
        api = Api(fake.url, seconds=seconds, key_variable=key_variable)
        try:
            with pytest.raises((StageFailedError, StageRefusedError)) as raised:
                (api.stream if stream else api.post)(CHAT, {**CASE.body, "stream": stream})
        finally:
            api.close()
    error = raised.value
    return error.failure if isinstance(error, StageFailedError) else error.refusal


def test_good_answers_are_read():
    with serving(healthy) as fake:
        api = Api(fake.url)
        assert api.post(CHAT, {**CASE.body})["choices"][0]["message"]["content"] == "Hi!"
        assert [one["choices"][0]["delta"] for one in api.stream(CHAT, {**CASE.body, "stream": True})] == [
            {"role": "assistant"},
            {"content": "Hi"},
            {"content": "!"},
            {},
        ]
        api.close()


BROKEN = [
    (servers.html, False, "the answer is not JSON: <!doctype html><title>Welcome</title>"),
    (servers.html, True, "the stream ended without [DONE] and no event: <!doctype html><title>Welcome</title>"),
    (servers.cut_in_the_middle, False, "the answer broke off (peer closed connection without sending complete"),
    (servers.cut_in_the_middle, True, "the stream ended without [DONE] after 2 events"),
    (servers.no_json, False, 'the answer is not JSON: {"id":'),
    (servers.no_json, True, 'event 0 of the stream is not JSON: {"id":'),
    (servers.no_utf8, False, "the answer is not UTF-8 at byte "),
    (servers.no_utf8, True, "the stream is not UTF-8 at byte "),
    (servers.closes_at_once, False, "the answer broke off ("),
    (servers.closes_at_once, True, "the answer broke off ("),
    (servers.redirect, False, "it redirects to http://127.0.0.1:1/elsewhere (HTTP 307)"),
    (servers.redirect, True, "it redirects to http://127.0.0.1:1/elsewhere (HTTP 307)"),
    (servers.huge_header, False, "the answer broke off ("),
]


@pytest.mark.parametrize(("answer", "stream", "says"), BROKEN)
def test_what_no_protocol_allows_is_broken_and_says_how(answer, stream, says):
    failure = ended(answer, stream=stream)
    assert failure.reason == "broken"
    assert failure.message.startswith(says)
    assert len(failure.message) < 300


@pytest.mark.parametrize("answer", [servers.slow, servers.drip, servers.drip_of_headers])
@pytest.mark.parametrize("stream", [False, True])
def test_the_time_limit_is_of_the_whole_answer(answer, stream):
    begin = time.monotonic()
    failure = ended(answer, stream=stream, seconds=0.5)
    assert (failure.reason, failure.seconds) == ("hang", 0.5)
    assert time.monotonic() - begin < 4


def test_an_endless_answer_is_cut(monkeypatch):
    monkeypatch.setattr(limits, "MOST_BYTES", 1 << 20)
    for stream in (False, True):
        failure = ended(servers.endless, stream=stream)
        assert (failure.reason, failure.message) == ("broken", "the answer does not end: more than 1 MB")


def test_a_server_that_is_down_could_not_start():
    address = closed_port()
    with pytest.raises(StageFailedError) as failed:
        Api(address).post(CHAT, {})
    assert failed.value.failure.reason == "start"
    assert failed.value.failure.message.startswith(f"no server answers at {address} (")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_the_users_matter_and_is_not_repeated(monkeypatch, status):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(lambda handler, asked: handler.json({"error": asked.headers["Authorization"]}, status)) as fake:
        with pytest.raises(UserError) as wrong:
            Api(fake.url, key_variable="TEST_KEY").post(CHAT, {})
        assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert f"refuses the API key (HTTP {status})" in str(wrong.value)
    assert "TEST_KEY" in str(wrong.value)
    assert KEY not in str(wrong.value)


def test_a_key_that_is_not_set_is_the_users_matter(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(UserError, match="TEST_KEY is to hold the API key and is not set"):
        Api("http://127.0.0.1:1", key_variable="TEST_KEY")


def test_an_error_is_a_refusal_in_its_own_words_without_the_key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    said = ended(servers.traceback, stream=False, key_variable="TEST_KEY")
    assert (said.error, said.context) == ("HTTP 500", False)
    assert said.message == "Traceback (most recent call last): File x ValueError: no Bearer ***"


def test_a_key_in_pieces_is_not_shown(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    stream = b"".join(map(event, (chunk(content=KEY[:5]), chunk(content=KEY[5:]), "[DONE]")))
    whole = {"tokens": [{"piece": KEY[:5]}, {"piece": KEY[5:]}]}

    def answer(handler, asked):
        if asked.body.get("stream"):
            handler.whole(stream)
        else:
            handler.json(whole)

    with serving(answer) as fake:
        for key, ends in ((None, False), ("TEST_KEY", True)):
            api = Api(fake.url, key_variable=key)
            for ask, body in ((api.post, {}), (api.stream, {"stream": True})):
                if ends:
                    with pytest.raises(StageFailedError, match="repeats the API key, in pieces"):
                        ask("/x", body)
                else:
                    ask("/x", body)


def test_an_error_inside_a_stream_is_a_refusal():
    said = ended(servers.error_in_the_stream, stream=True)
    assert (said.error, said.message) == ("HTTP 200", "out of memory")


def test_only_line_ends_of_the_format_end_a_line():
    text = {"content": "a\u2028b\u2029c\u0085d\x0bd"}
    assert events(event(text) + event("[DONE]")) == [text]
    assert events(event(text).replace(b"\n\n", b"\r\n\r\n") + event("[DONE]")) == [text]


def test_what_follows_the_end_is_not_read():
    assert events(event({"a": 1}) + event("[DONE]") + event("[DONE]") + event("no JSON")) == [{"a": 1}]


def test_an_event_that_is_no_object_is_broken():
    with pytest.raises(StageFailedError, match="event 1 of the stream is no object"):
        events(event({}) + event("[]") + event("[DONE]"))


@pytest.mark.parametrize(
    ("data", "message", "context"),
    [
        (b'{"error": {"message": "first\\nsecond"}}', "first\nsecond", False),
        (b'{"detail": "not found"}', "not found", False),
        (
            b'{"error": "request exceeds the available context size"}',
            "request exceeds the available context size",
            True,
        ),
        (b"", "(empty)", False),
        (b"\xff" * 9, "\ufffd" * 9, False),
    ],
)
def test_a_refusal_says_what_the_server_says(data, message, context):
    said = refusal(400, data)
    assert (said.error, said.message, said.context) == ("HTTP 400", message, context)


def test_a_connection_that_the_server_closes_is_not_used_again():
    # It says that it keeps the connection and closes it: the next request on it would find it closed.
    def answer(handler, asked):
        handler.whole(b"{}", Connection="keep-alive")
        handler.close_connection = True

    with serving(answer) as fake:
        api = Api(fake.url)
        for _ in range(20):
            assert api.post(CHAT, {}) == {}
        api.close()
    assert len(fake.asked) == 20


def test_lines_of_data_that_no_empty_line_parts_are_one_event():
    data = b'\xef\xbb\xbf: a comment\r\nevent: message\r\nid: 1\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'
    assert events(data + b'data:{"b": 2}\n\ndata: [DONE]\n\n') == [{"a": 1}, {"b": 2}]
    assert events(b'data: {"a": 1}\n\ndata: [DONE]') == [{"a": 1}], "its end is not followed by a line"


def test_an_error_that_is_null_is_none():
    assert events(b'data: {"error": null, "a": 1}\n\ndata: [DONE]\n\n') == [{"error": None, "a": 1}]
    assert refusal(400, b'{"error": null, "detail": "too long"}').message == "too long"


def test_a_refusal_keeps_its_whole_text():
    said = "\n------------\nWhile executing CallExpression at line 1\n  ^\nError: Jinja Exception: no system\n"
    found = refusal(500, json.dumps({"error": {"message": said}}).encode())
    assert found.message == said.strip()
    assert found.line == "Error: Jinja Exception: no system"


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def proxies(monkeypatch):
    for name in (*PROXIES, "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", [*PROXIES, *map(str.lower, PROXIES)])
def test_no_proxy_of_the_environment_comes_before_a_server_on_this_machine(proxies, name):
    proxies.setenv(name, closed_port())
    with serving(healthy) as fake:
        api = Api(fake.url)
        assert api.post("/chat/completions", {}) == completion()
        api.close()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_leads_to_a_server_elsewhere(proxies, name):
    with serving(healthy) as fake:
        proxies.setenv(name, fake.url.removesuffix("/v1"))
        api = Api("http://models.invalid/v1")
        assert api.post("/chat/completions", {}) == completion()
        api.close()
        proxies.setenv("NO_PROXY", "models.invalid")
        api = Api("http://models.invalid/v1")
        with pytest.raises(StageFailedError):
            api.post("/chat/completions", {})
        api.close()


def test_a_proxy_that_cannot_be_used_is_the_users_matter(proxies):
    proxies.setenv("ALL_PROXY", "odd://127.0.0.1:1")
    with pytest.raises(UserError, match="the proxy that the environment names"):
        Api("http://models.invalid/v1")


def test_a_server_of_ours_is_waited_for_as_long_as_it_works():
    class Working:
        asked = 0
        failure = Failure(reason="hang", seconds=7)

        def left(self):
            self.asked += 1
            return 0.2 if self.asked <= self.most else 0.0

    def late(handler, asked):
        time.sleep(0.6)
        handler.json({"late": True})

    with serving(late) as fake:
        for most, answers in ((20, True), (1, False)):
            wait = Working()
            wait.most = most
            api = Api(fake.url, seconds=0.1, patience=lambda wait=wait: wait)
            try:
                if answers:
                    assert api.get("/x") == {"late": True}
                else:
                    with pytest.raises(StageFailedError) as failed:
                        api.get("/x")
                    assert failed.value.failure == Working.failure
            finally:
                api.close()
