"""The recording proxy: what passes it is kept as it was sent, and a server's failure is named, not the connection's."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from harness.wire import limits
from harness.wire.proxy import Exchange, RecordingProxy
from tests.wire import servers
from tests.wire.servers import CASE, GOOD, KEY, STREAM, chunk, closed_port, completion, event, healthy, serving

BODY = {**CASE.body, "model": "m", "odd": "\u2028\N{GRINNING FACE}"}


@pytest.fixture
def proxy() -> Iterator[RecordingProxy]:
    with RecordingProxy(None, seconds=5) as opened:
        yield opened


def ask(proxy: RecordingProxy, *, stream: bool = False, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{proxy.url}/chat/completions", json={**BODY, "stream": stream}, headers=headers)


def failed(proxy: RecordingProxy, *, stream: bool) -> Exchange:
    """Ask a server that fails, and return what was kept."""
    with pytest.raises(httpx.HTTPError):
        ask(proxy, stream=stream)
    return proxy.exchanges[-1]


def test_alone_it_gives_a_valid_answer_both_ways(proxy):
    assert ask(proxy).json()["choices"][0]["message"] == {"role": "assistant", "content": "."}
    assert ask(proxy, stream=True).text.endswith("data: [DONE]\n\n")
    assert [one.body["stream"] for one in proxy.exchanges] == [False, True]


def test_what_the_client_sent_is_kept_and_what_is_added_is_not(proxy):
    with serving(healthy) as fake:
        proxy.upstream, proxy.additions = fake.url, {"logprobs": True}
        assert ask(proxy).json() == completion()
        assert ask(proxy, stream=True).content == STREAM
    assert proxy.exchanges[0].body == {**BODY, "stream": False}
    assert [one.body for one in fake.asked] == [{**BODY, "stream": s, "logprobs": True} for s in (False, True)]
    assert proxy.exchanges[0].answer() == completion()
    assert proxy.exchanges[1].answer() == list(GOOD)


def test_what_an_answer_shows_because_of_it_does_not_reach_the_client(proxy):
    shown = completion()
    shown["__verbose"] = {"prompt": "x"}
    shown["choices"][0]["logprobs"] = {"content": []}
    with serving(lambda handler, asked: handler.json(shown)) as fake:
        proxy.upstream, proxy.additions, proxy.added = (
            fake.url,
            {"logprobs": True},
            frozenset({"__verbose", "logprobs"}),
        )
        assert ask(proxy).json() == completion()
    assert proxy.exchanges[0].answer() == shown


def test_what_the_client_asked_for_itself_reaches_it(proxy):
    shown = {**completion(), "odd": "\ud800", "hidden": 1}
    with serving(lambda handler, asked: handler.json(shown)) as fake:
        proxy.upstream, proxy.added = fake.url, frozenset({"hidden", "odd"})
        assert json.loads(ask(proxy).content) == {**completion(), "odd": "\ud800"}


@pytest.mark.parametrize("data", [b'{"choices": [}', b"\xff", b"[1]"])
def test_an_answer_that_is_none_passes_as_it_is(proxy, data):
    with serving(lambda handler, asked: handler.whole(data)) as fake:
        proxy.upstream, proxy.added = fake.url, frozenset({"logprobs"})
        assert ask(proxy).content == data


def test_the_key_goes_to_the_server_only(proxy, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(servers.traceback) as fake:
        proxy.upstream, proxy.key_variable = fake.url, "TEST_KEY"
        answer = ask(proxy, Authorization="Bearer of-the-client")
        assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert answer.status_code == 500
    assert answer.text.endswith("no Bearer ***")
    assert KEY.encode() not in proxy.exchanges[0].data


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_key_is_the_users_matter(proxy, stream):
    with serving(servers.wants_a_key) as fake:
        proxy.upstream = fake.url
        assert "refuses the API key (HTTP 401)" in str(failed(proxy, stream=stream).error)


@pytest.mark.parametrize(
    ("answer", "stream", "says"),
    [
        (servers.closes_at_once, False, "the answer broke off ("),
        (servers.cut_in_the_middle, False, "the answer broke off ("),
        (servers.redirect, True, "it redirects to http://127.0.0.1:1/elsewhere (HTTP 307)"),
        (servers.huge_header, False, "the answer broke off ("),
    ],
)
def test_a_broken_answer_is_named(proxy, answer, stream, says):
    with serving(answer) as fake:
        proxy.upstream = fake.url
        failure = failed(proxy, stream=stream).failure
    assert failure.reason == "broken"
    assert failure.message.startswith(says)


def test_a_server_that_is_down_is_named(proxy):
    proxy.upstream = closed_port()
    assert failed(proxy, stream=False).failure.message.startswith(f"no server answers at {proxy.upstream} (")


@pytest.mark.parametrize("answer", [servers.slow, servers.drip, servers.drip_of_headers])
def test_the_time_limit_is_of_the_whole_answer(proxy, answer):
    begin = time.monotonic()
    with serving(answer) as fake:
        proxy.upstream, proxy.seconds = fake.url, 0.5
        failure = failed(proxy, stream=True).failure
    assert (failure.reason, failure.seconds) == ("hang", 0.5)
    assert time.monotonic() - begin < 4


def test_an_endless_answer_is_cut(proxy, monkeypatch):
    monkeypatch.setattr(limits, "MOST_BYTES", 1 << 20)
    with serving(servers.endless) as fake:
        proxy.upstream = fake.url
        exchange = failed(proxy, stream=True)
    assert exchange.failure.message == "the answer does not end: more than 1 MB"
    assert len(exchange.data) <= 1 << 20


@pytest.mark.parametrize("answer", [servers.html, servers.no_json, servers.no_utf8, servers.error_in_the_stream])
def test_an_answer_that_is_none_is_none(proxy, answer):
    with serving(answer) as fake:
        proxy.upstream = fake.url
        ask(proxy, stream=True)
    assert proxy.exchanges[0].answer() is None


def test_other_routes_pass_and_are_not_kept(proxy):
    with serving(lambda handler, asked: handler.json({"data": []})) as fake:
        proxy.upstream = fake.url
        assert httpx.get(f"{proxy.url}/models", trust_env=False).json() == {"data": []}
        assert fake.asked[0].path == "/v1/models"
    assert proxy.exchanges == []


def test_a_connection_that_the_server_closes_is_not_used_again(proxy):
    def answer(handler, asked):
        handler.whole(STREAM, kind="text/event-stream", Connection="keep-alive")
        handler.close_connection = True

    with serving(answer) as fake:
        proxy.upstream = fake.url
        for _ in range(20):
            assert ask(proxy, stream=True).content == STREAM


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models", {}, 404),
        ("/wrong/v1/models", {}, 404),
        ("{root}/../v1/models", {}, 403),
        ("{root}//models", {}, 403),
        ("{root}/%2e%2e/models", {}, 403),
        ("{root}/models", {"Host": "evil.example:80"}, 403),
        ("{root}/models", {"Origin": "http://evil.example"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_its_own_client_is_passed_on(proxy, path, headers, status, method):
    with serving(healthy) as fake:
        proxy.upstream = fake.url
        host, port = proxy.host.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.putrequest(method, path.format(root=proxy.root), skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()
        assert fake.asked == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_an_answer_repeats_is_neither_kept_nor_passed_on(proxy, monkeypatch, stream):
    monkeypatch.setenv("TEST_KEY", KEY)
    written = "".join(f"\\u{ord(one):04x}" for one in KEY)
    data = STREAM.replace(b"Hi", f"{KEY} {written}".encode())

    def answer(handler, asked):
        handler.begin()
        # In two pieces.
        at = data.index(KEY.encode()) + 9
        for part in (data[:at], data[at:]):
            handler.wfile.write(part)
            handler.wfile.flush()
            time.sleep(0.1)

    with serving(answer) as fake:
        proxy.upstream, proxy.key_variable = fake.url, "TEST_KEY"
        answered = ask(proxy, stream=stream).content
    for kept in (answered, bytes(proxy.exchanges[0].data)):
        assert kept == STREAM.replace(b"Hi", b"*** ***")


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_an_answer_repeats_in_pieces_is_neither_kept_nor_passed_on(proxy, monkeypatch, stream):
    monkeypatch.setenv("TEST_KEY", KEY)
    pieces = (KEY[:9], KEY[9:])
    data = b"".join(map(event, (*(chunk(content=one) for one in pieces), chunk("stop"), "[DONE]")))
    if not stream:
        rows = [{"token": one, "logprob": -1.0, "top_logprobs": []} for one in pieces]
        data = json.dumps(completion(logprobs={"content": rows})).encode()
    with serving(lambda handler, asked: handler.whole(data)) as fake:
        proxy.upstream = fake.url
        assert ask(proxy, stream=stream).content == data
        proxy.key_variable = "TEST_KEY"
        exchange = failed(proxy, stream=stream)
    assert exchange.data == b""
    assert exchange.failure.message == "it repeats the API key, in pieces: nothing of its answer is shown"


def test_what_came_of_an_answer_that_breaks_off_reaches_the_client_with_a_key_too(proxy, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(servers.cut_in_the_middle) as fake:
        proxy.upstream, proxy.key_variable = fake.url, "TEST_KEY"
        exchange = failed(proxy, stream=False)
    assert len(exchange.data) == 20
    assert "broke off" in exchange.failure.message


def test_a_body_in_chunks_is_kept_and_passed_on(proxy):
    parts = [json.dumps({**BODY, "stream": False}).encode()[at : at + 7] for at in range(0, 400, 7)]
    with serving(healthy) as fake, httpx.Client(trust_env=False, timeout=30) as client:
        proxy.upstream = fake.url
        answer = client.post(f"{proxy.url}/chat/completions", content=iter(parts))
        assert answer.json() == completion()
        assert answer.request.headers["Transfer-Encoding"] == "chunked"
        assert fake.asked[-1].body == proxy.exchanges[-1].body == {**BODY, "stream": False}


@pytest.mark.parametrize("sent", [b"[]", b"7", b"null", b"{", b"\xff", b"[" * 5000, b""])
def test_a_body_that_is_no_object_is_the_clients_doing(proxy, sent):
    with serving(healthy) as fake, httpx.Client(trust_env=False, timeout=30) as client:
        proxy.upstream = fake.url
        assert client.post(f"{proxy.url}/chat/completions", content=sent).status_code == 400
        assert fake.asked == []
    assert (proxy.error, proxy.exchanges[0].body, proxy.exchanges[0].status) == (None, {}, 400)


def test_chunks_whose_length_is_none_are_refused(proxy):
    asked = httpx.URL(proxy.url)
    head = f"POST {asked.path}/chat/completions HTTP/1.1\r\nHost: {proxy.host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((asked.host, asked.port), timeout=30) as raw:
        raw.sendall(head.encode() + b"no length\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    assert not proxy.exchanges
