"""The chained route against servers that misbehave: real clients, and an outcome that says what the server did."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

import httpx

from harness.checking.route import ServedRoute
from harness.components.clients import HttpxClient, OpenAiClient
from harness.errors import UserError
from harness.stage import StageFailedError
from harness.values import Failure, ModelRef, Observation, Prompt, Refusal, Unobserved
from harness.wire import limits
from harness.wire.chat import reply_of
from tests.wire import servers
from tests.wire.servers import CASE, GOOD, KEY, chunk, closed_port, completion, event, healthy, serving

MODEL = ModelRef(name="tiny", path=Path("none.gguf"), sha256="")


class Part:
    """A server as a component shows it."""

    def __init__(self, url: str, seconds: float = 5.0, key: str | None = None) -> None:
        self._url = url
        self._seconds = seconds
        self._key = key
        self.dead: Failure | None = None
        self.answers: list[object] = []

    def url(self) -> str:
        if self.dead is not None:
            raise StageFailedError(self.dead)
        return self._url

    def key_variable(self) -> str | None:
        return self._key

    def answer_seconds(self) -> float:
        return self._seconds

    def additions(self, case, *, stream):
        return {"added": True}

    def seen(self, case, body, answer) -> Observation:
        self.answers.append(answer)
        return Observation() if answer is None else Observation(prompt=Prompt(text="seen"))


@pytest.fixture(scope="module", params=["openai", "httpx"])
def client(request: pytest.FixtureRequest) -> Iterator[HttpxClient | OpenAiClient]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed: pip install -e '.[servers]'")
    kind = {"openai": OpenAiClient, "httpx": HttpxClient}[request.param]
    with kind(MODEL, {}) as opened:
        yield opened


def run(client, part: Part, *, stream: bool) -> Observation:
    with ServedRoute(client, part) as route:
        return route.chat(CASE, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_healthy_call_shows_what_left_the_client_and_what_the_caller_got(client, stream):
    with serving(healthy) as fake:
        part = Part(fake.url)
        seen = run(client, part, stream=stream)
    assert seen.request.messages == ({"role": "user", "content": "Hi"},)
    assert seen.request.settings == {"max_tokens": 4, "temperature": 0}
    assert fake.asked[0].body["added"] is True
    assert (seen.prompt.text, seen.broke) == ("seen", None)
    assert (seen.reply.content, seen.reply.finish_reason) == ("Hi!", "stop")
    assert (seen.answered.content, seen.answered.finish_reason) == ("Hi!", "stop")
    assert part.answers == [list(GOOD) if stream else completion()]


@pytest.mark.parametrize(
    ("answer", "stream", "says"),
    [
        (servers.html, False, "the answer is not JSON: <!doctype html>"),
        (servers.html, True, "the stream ended without [DONE] and no event: <!doctype html>"),
        (servers.cut_in_the_middle, False, "the answer broke off ("),
        (servers.cut_in_the_middle, True, "the stream ended without [DONE] after 2 events"),
        (servers.no_json, False, 'the answer is not JSON: {"id":'),
        (servers.no_json, True, 'event 0 of the stream is not JSON: {"id":'),
        (servers.closes_at_once, False, "the answer broke off ("),
        (servers.closes_at_once, True, "the answer broke off ("),
        (servers.redirect, False, "it redirects to http://127.0.0.1:1/elsewhere (HTTP 307)"),
        (servers.huge_header, True, "the answer broke off ("),
    ],
)
def test_a_broken_answer_is_the_servers_and_says_how(client, answer, stream, says):
    with serving(answer) as fake:
        seen = run(client, Part(fake.url), stream=stream)
    assert isinstance(seen.broke, Failure), seen.broke
    assert seen.broke.reason == "broken"
    assert seen.broke.message.startswith(says)
    assert seen.request.settings["max_tokens"] == 4


def test_text_that_is_no_utf8_is_named_or_taken_as_the_client_takes_it(client):
    with serving(servers.no_utf8) as fake:
        part = Part(fake.url)
        seen = run(client, part, stream=False)
    # Never a value that the server did not send: either the client ended, or its reply shows the damage.
    if seen.broke is not None:
        assert seen.broke.message.startswith("the answer is not UTF-8 at byte ")
    else:
        assert "\ufffd" in seen.reply.content
    assert part.answers == [None]


@pytest.mark.parametrize("answer", [servers.slow, servers.drip, servers.drip_of_headers])
def test_nothing_hangs(client, answer):
    begin = time.monotonic()
    with serving(answer) as fake:
        seen = run(client, Part(fake.url, seconds=0.5), stream=True)
    assert seen.broke == Failure(reason="hang", seconds=0.5)
    assert time.monotonic() - begin < 6


def test_an_endless_stream_is_cut(client, monkeypatch):
    monkeypatch.setattr(limits, "MOST_BYTES", 1 << 20)
    with serving(servers.endless) as fake:
        seen = run(client, Part(fake.url), stream=True)
    assert seen.broke == Failure(reason="broken", message="the answer does not end: more than 1 MB")


def test_a_server_that_is_down_could_not_start(client):
    address = closed_port()
    seen = run(client, Part(address), stream=False)
    assert seen.broke.reason == "start"
    assert seen.broke.message.startswith(f"no server answers at {address} (")


def test_a_server_that_died_is_named_by_its_death(client):
    death = Failure(reason="crash", signal="SIGSEGV")

    with serving(servers.closes_at_once) as fake:
        part = Part(fake.url)
        additions = part.additions

        def dying(case, *, stream):
            part.dead = death
            return additions(case, stream=stream)

        part.additions = dying
        assert run(client, part, stream=False).broke == death


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_key_ends_the_run_as_the_users_matter(client, monkeypatch, stream):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(servers.wants_a_key) as fake, pytest.raises(UserError) as wrong:
        run(client, Part(fake.url, key="TEST_KEY"), stream=stream)
    assert "TEST_KEY" in str(wrong.value)
    assert KEY not in str(wrong.value)


def test_an_error_is_in_the_servers_words_without_the_key(client, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(servers.traceback) as fake:
        seen = run(client, Part(fake.url, key="TEST_KEY"), stream=False)
    assert isinstance(seen.broke, Refusal)
    assert seen.broke.error == "HTTP 500"
    assert seen.broke.message.endswith("ValueError: no Bearer ***")
    assert KEY not in seen.model_dump_json()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_the_route_is_not_seen_and_refuses_nothing(client, status, stream):
    with serving(lambda handler, asked: handler.json({"error": {"message": "File Not Found"}}, status)) as fake:
        seen = run(client, Part(fake.url), stream=stream)
    hidden = Unobserved(reason=f"this server has no chat completions route (HTTP {status})")
    assert (seen.broke, seen.prompt, seen.tokens, seen.generation, seen.reply) == (None, *[hidden] * 4)
    assert seen.request.settings["max_tokens"] == 4


def test_a_model_that_the_server_does_not_know_is_a_refusal(client):
    error = {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}
    with serving(lambda handler, asked: handler.json({"error": error}, 404)) as fake:
        seen = run(client, Part(fake.url), stream=False)
    assert seen.broke == Refusal(error="HTTP 404", message=error["message"])


def test_an_error_inside_a_stream_is_a_refusal(client):
    with serving(servers.error_in_the_stream) as fake:
        seen = run(client, Part(fake.url), stream=True)
    assert seen.broke == Refusal(error="HTTP 200", message="out of memory")


def test_a_line_separator_inside_a_text_and_a_second_end_change_nothing(client):
    text = "a\u2028b\u2029c\u0085d"
    data = b"".join(map(event, (chunk(content=text), chunk("stop"), "[DONE]", "[DONE]")))
    with serving(lambda handler, asked: handler.whole(data, kind="text/event-stream")) as fake:
        seen = run(client, Part(fake.url), stream=True)
    assert (seen.broke, seen.reply.content) == (None, text)


class Mute:
    """A client that ends before it calls."""

    def call(self, case, url, *, stream):
        raise StageFailedError(Failure(reason="crash", status=1))


def test_a_client_that_ends_before_it_calls_shows_no_request():
    seen = run(Mute(), Part("http://127.0.0.1:1/v1"), stream=False)
    assert seen == Observation(request=Failure(reason="crash", status=1))


class Sends:
    """A client that sends these bodies one after the other, and gives back the last answer as it came."""

    def __init__(self, *bodies: Mapping[str, object]) -> None:
        self.bodies = bodies
        self.got: list[dict[str, object]] = []

    def call(self, case, url, *, stream):
        with httpx.Client(trust_env=False) as http:
            self.got = [http.post(f"{url}/chat/completions", json=body).json() for body in self.bodies]
        return reply_of(self.got[-1])


def body(**more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}


@pytest.mark.parametrize("sent", [{}, {"messages": None}, {"messages": 7}, [], 7])
def test_a_client_that_asks_for_no_completion_is_at_fault(sent):
    class Odd:
        """A client that sends this, and tells of no answer to it."""

        def call(self, case, url, *, stream):
            httpx.post(f"{url}/chat/completions", json=sent, trust_env=False)
            raise StageFailedError(Failure(reason="crash", status=1))

    with serving(healthy) as fake:
        seen = run(Odd(), Part(fake.url), stream=False)
    assert seen.request.reason == "broken"
    assert "no request for a chat completion" in seen.request.message
    assert seen.own_errors == ()


def test_of_a_client_that_asks_twice_the_last_call_counts():
    """As of a client that tries again: the answer that the caller gets is that of its last call."""

    def answer(handler: servers.Handler, asked: servers.Asked) -> None:
        handler.json(completion("first" if asked.body["max_tokens"] == 1 else "last"))

    with serving(answer) as fake:
        part = Part(fake.url)
        seen = run(Sends(body(max_tokens=1), body(max_tokens=2)), part, stream=False)
    assert seen.request.settings == {"max_tokens": 2}
    assert (seen.answered.content, seen.reply.content) == ("last", "last")
    assert part.answers == [completion("last")]


def test_what_one_call_left_is_nothing_of_the_next():
    with serving(healthy) as fake, ServedRoute(Sends(body(max_tokens=1)), Part(fake.url)) as route:
        assert route.chat(CASE, stream=False).request.settings == {"max_tokens": 1}
        route._client = Mute()
        assert route.chat(CASE, stream=False) == Observation(request=Failure(reason="crash", status=1))


def test_what_a_server_shows_because_the_route_asked_reaches_the_part_and_not_the_client():
    shown = completion(logprobs={"content": []}) | {"timings": {"n": 1}}

    class Shows(Part):
        added = frozenset({"logprobs", "timings"})

    with serving(lambda handler, _: handler.json(shown)) as fake:
        part = Shows(fake.url)
        client = Sends(body())
        run(client, part, stream=False)
        assert client.got == [completion()]
        # What the client asked for itself is its own.
        asking = Sends(body(logprobs=True))
        run(asking, part, stream=False)
    assert asking.got == [completion(logprobs={"content": []})]
    assert part.answers == [shown, shown]
