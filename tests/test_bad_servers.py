"""`harness check` and `harness trace` against servers that misbehave: a verdict or one line, never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.cli import app
from tests.conftest import ROOT
from tests.wire import servers
from tests.wire.servers import KEY, closed_port, serving

CASE = "system-and-user"
STACK = """
description = "A server that misbehaves"
models = ["smollm2-135m-instruct"]

[stages]
client = "httpx"
template = "openai-compatible"
tokenization = "openai-compatible"
inference = "openai-compatible"
postprocess = "openai-compatible"

[options.openai-compatible]
url = "{url}"
model = "m"
seconds = 0.5
"""


@pytest.fixture
def copy(tmp_path: Path, smollm) -> Path:
    """A project of one's own, with one case."""
    shutil.copytree(ROOT / "stacks", tmp_path / "stacks")
    golden = tmp_path / "golden"
    (golden / "cases").mkdir(parents=True)
    shutil.copy(ROOT / "golden" / "cases" / f"{CASE}.json", golden / "cases")
    model = golden / "smollm2-135m-instruct"
    model.mkdir()
    for path in (ROOT / "golden" / model.name).iterdir():
        if path.is_file():
            shutil.copy(path, model)
    shutil.copytree(ROOT / "golden" / model.name / CASE, model / CASE)
    return tmp_path


def run(copy: Path, url: str, command: str, *arguments: str, more: str = ""):
    (copy / "stacks" / "bad.toml").write_text(STACK.format(url=url) + more, "utf-8")
    return CliRunner().invoke(app, [command, "bad", *arguments, "--project", str(copy)])


BAD = [
    (servers.slow, "no answer in 0.5 s"),
    (servers.drip, "no answer in 0.5 s"),
    (servers.drip_of_headers, "no answer in 0.5 s"),
    (servers.html, "the answer is not JSON"),
    (servers.cut_in_the_middle, "the answer broke off"),
    (servers.no_json, "the answer is not JSON"),
    (servers.no_utf8, "the answer is not UTF-8"),
    (servers.closes_at_once, "the answer broke off"),
    (servers.traceback, "HTTP 500"),
    (servers.redirect, "it redirects to http://127.0.0.1:1/elsewhere"),
    (servers.error_in_the_stream, "out of memory"),
    (servers.huge_header, "the answer broke off"),
]


@pytest.mark.parametrize(("answer", "says"), BAD)
def test_a_bad_server_is_convicted_of_what_it_did(copy, answer, says):
    with serving(answer) as fake:
        done = run(copy, fake.url, "check", "--format", "json")
        traced = run(copy, fake.url, "trace", CASE)
    assert done.exit_code == 1, done.output + repr(done.exception)
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["status"] == "convicted"
    assert any(says in finding["summary"] for finding in verdict["findings"]), verdict["findings"]
    assert traced.exit_code == 0, traced.output
    # A terminal breaks lines anywhere.
    assert "".join(says.split()) in "".join(traced.stdout.split())
    assert "Traceback (most" not in done.stderr + traced.stderr


LLAMA_SERVER = STACK.replace("openai-compatible", "llama-server").replace('model = "m"\n', "")


@pytest.mark.parametrize("text", [STACK, LLAMA_SERVER, LLAMA_SERVER + "any_model = true\n"])
@pytest.mark.parametrize("command", [("check", "bad"), ("trace", "bad", CASE), ("diff", "bad", "bad")])
def test_a_server_that_does_not_run_is_one_line_and_status_3(copy, text, command):
    (copy / "stacks" / "bad.toml").write_text(text.format(url=closed_port()), "utf-8")
    done = CliRunner().invoke(app, [*command, "--project", str(copy)])
    assert (done.exit_code, done.stdout) == (3, ""), done.output
    (line,) = done.stderr.splitlines()
    assert "no server answers at http://127.0.0.1:" in line
    assert "start " in line


def test_beside_a_server_that_does_not_run_the_others_are_judged(copy):
    (copy / "stacks" / "away.toml").write_text(STACK.format(url=closed_port()), "utf-8")
    with serving(servers.html) as fake:
        (copy / "stacks" / "bad.toml").write_text(STACK.format(url=fake.url), "utf-8")
        done = CliRunner().invoke(app, ["check", "away", "bad", "--format", "json", "--project", str(copy)])
    assert done.exit_code == 1, done.output
    assert [verdict["stack"] for verdict in json.loads(done.stdout)["verdicts"]] == ["bad"]
    assert "could not judge stack 'away': no server answers at " in done.stderr


@pytest.mark.parametrize("text", [STACK, STACK + 'profile = "lm-studio"\n', LLAMA_SERVER])
def test_a_server_of_chat_completions_alone_is_not_convicted_of_the_routes_it_lacks(copy, text):
    def chat_alone(handler, asked):
        if asked.path == "/v1/chat/completions":
            servers.healthy(handler, asked)
        else:
            handler.json({"error": {"message": "not found"}}, 404)

    with serving(chat_alone) as fake:
        (copy / "stacks" / "bad.toml").write_text(text.format(url=fake.url), "utf-8")
        done = CliRunner().invoke(app, ["check", "bad", "--format", "json", "--project", str(copy)])
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (done.exit_code, verdict["findings"]) == (3, []), done.output
    assert verdict["stages"]["inference"]["status"] == "unobserved"


@pytest.mark.parametrize("text", [STACK, LLAMA_SERVER])
def test_an_answer_without_the_field_that_is_read_convicts_nobody(copy, text):
    def other(handler, asked):
        if asked.path == "/v1/chat/completions":
            servers.healthy(handler, asked)
        else:
            handler.json({"error": f"Unexpected endpoint or method. ({asked.method} {asked.path})"})

    with serving(other) as fake:
        (copy / "stacks" / "bad.toml").write_text(text.format(url=fake.url), "utf-8")
        done = CliRunner().invoke(app, ["check", "bad", "--format", "json", "--project", str(copy)])
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (done.exit_code, verdict["findings"]) == (3, []), done.output


@pytest.mark.parametrize("text", [STACK, LLAMA_SERVER])
def test_a_server_without_the_chat_route_is_unobserved(copy, text):
    with serving(lambda handler, asked: handler.json({"detail": "Not Found"}, 404)) as fake:
        (copy / "stacks" / "bad.toml").write_text(text.format(url=fake.url), "utf-8")
        done = CliRunner().invoke(app, ["check", "bad", "--format", "json", "--project", str(copy)])
        traced = CliRunner().invoke(app, ["trace", "bad", CASE, "--project", str(copy)])
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (done.exit_code, verdict["findings"]) == (3, []), done.output
    assert "this server has no chat completions route (HTTP 404)" in " ".join(traced.stdout.split())


@pytest.mark.parametrize("command", [("check",), ("check", "--format", "json"), ("trace", CASE)])
def test_a_wrong_key_is_one_line_and_status_2_and_nowhere_else(copy, command, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    save = ("--save", str(copy / "kept")) if command[0] == "check" else ()
    with serving(servers.wants_a_key) as fake:
        done = run(copy, fake.url, *command, *save, more='api_key_variable = "TEST_KEY"\n')
        assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert "refuses the API key (HTTP 401)" in line
    assert "TEST_KEY" in line
    assert done.stdout == ""
    assert KEY not in done.stderr


def test_a_key_that_a_server_repeats_is_nowhere(copy, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(servers.traceback) as fake:
        done = run(
            copy, fake.url, "check", "--save", str(copy / "kept"), "--format", "json",
            more='api_key_variable = "TEST_KEY"\n',
        )  # fmt: skip
    kept = [path.read_bytes() for path in (copy / "kept").rglob("*") if path.is_file()]
    assert kept
    assert not any(KEY.encode() in data for data in kept)
    assert b"Bearer ***" in b"".join(kept)
    assert KEY not in done.output


def repeats(text: str, *, cut: bool = False):
    """Return a server that repeats a text wherever it can in an answer; in a stream in two pieces, where it is cut."""

    def answer(handler, asked):
        if not asked.path.endswith("/chat/completions"):
            handler.json({"error": {"message": f"no route for {text}"}}, 404)
        elif asked.body.get("stream"):
            pieces = (text[:9], text[9:]) if cut else (text,)
            deltas = [{name: piece} for piece in pieces for name in ("content", "reasoning_content")]
            chunks = [servers.chunk(role="assistant"), *(servers.chunk(**one) for one in deltas), servers.chunk("stop")]
            handler.whole(
                b"".join(servers.event(one) for one in (*chunks, "[DONE]")), kind=f"text/event-stream; {text}"
            )
        else:
            call = {"id": text, "type": "function", "function": {"name": text, "arguments": json.dumps({"a": text})}}
            message = {"role": "assistant", "content": f"a {text} b", "reasoning_content": text, "tool_calls": [call]}
            tokens = [text[:9], text[9:]] if cut else [text]
            rows = [{"token": one, "logprob": -1.0, "top_logprobs": []} for one in tokens]
            handler.json(servers.completion(message=message, logprobs={"content": rows}))

    return answer


def raw(status: str, header: str = ""):
    """Return a server whose answer begins so, which is no HTTP that a client would take."""

    def answer(handler, asked):
        handler.wfile.write(f"{status}\r\n{header}Content-Length: 2\r\n\r\n{{}}".encode())
        handler.close_connection = True

    return answer


LEAKS = {
    "as it is": repeats(KEY),
    "in pieces": repeats(KEY, cut=True),
    "in a status line that is none": raw(f"HTTP/1.1 no {KEY}"),
    "in a header that is none": raw("HTTP/1.1 200 OK", f"{KEY}\r\n"),
    "in a redirect": lambda handler, asked: handler.whole(b"", 307, Location=f"http://127.0.0.1:1/{KEY}"),
    "in an error": lambda handler, asked: handler.json({"error": {"message": KEY, "code": KEY}}, 400),
    "in a page": lambda handler, asked: handler.whole(f"<h1>{KEY}</h1>".encode(), kind="text/html"),
    "in an event that is an error": lambda handler, asked: handler.whole(
        servers.event({"error": {"message": KEY}}), kind="text/event-stream"
    ),
}


@pytest.mark.parametrize(
    ("kind", "leak"),
    [*(("openai-compatible", leak) for leak in LEAKS), ("llama-server", "as it is"), ("llama-server", "in pieces")],
)
def test_a_key_is_on_no_surface(copy, monkeypatch, leak, kind):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(LEAKS[leak]) as fake:
        text = (STACK if kind == "openai-compatible" else LLAMA_SERVER + "any_model = true\n").format(url=fake.url)
        (copy / "stacks" / "bad.toml").write_text(text + 'api_key_variable = "TEST_KEY"\n', "utf-8")
        kept = copy / "kept"
        kept.mkdir()
        pages = {"--html": "a.html", "--markdown": "a.md", "--junit": "a.xml", "--sarif": "a.sarif"}
        files = [one for option, name in pages.items() for one in (option, str(kept / name))]
        said = [
            CliRunner().invoke(app, [*command, "--project", str(copy)])
            for command in (
                ("check", "bad", "--case", CASE, "--save", str(kept / "traces"), *files),
                *([("check", "bad", "--case", CASE, "--format", "json")] if leak in ("as it is", "in pieces") else []),
                ("trace", "bad", CASE, *(["--stream"] if leak == "in pieces" else [])),
            )
        ]
        assert any(KEY in asked.headers.get("Authorization", "") for asked in fake.asked)
    for name in (*pages.values(), f"traces/bad/smollm2-135m-instruct/{CASE}.json"):
        assert (kept / name).is_file(), name
    shown = [one.output for one in said] + [path.read_text("utf-8", "replace") for path in kept.rglob("*.*")]
    for text in shown:
        assert KEY not in "".join(text.split())
        # Nor the end of it, of which the beginning stands next to it.
        assert KEY[9:] not in text
    assert not any("Traceback (most" in one.stderr for one in said)
    assert all(one.exit_code in (0, 1, 3) for one in said), [one.output for one in said]


def test_a_key_in_an_error_of_ours_is_on_no_surface(copy, monkeypatch, tmp_path):
    """What code of ours raises may hold what it was given."""
    monkeypatch.setenv("TEST_OPENER", KEY)
    monkeypatch.setattr("harness.report.own.platformdirs.user_log_dir", lambda _: str(tmp_path / "log"))

    def raises(*_: object) -> None:
        raise KeyError(f"Authorization: Bearer {KEY}")

    monkeypatch.setattr("harness.components.openai_compatible.OpenAiCompatible.seen", raises)
    kept = copy / "kept"
    kept.mkdir()
    pages = {"--html": "a.html", "--markdown": "a.md", "--junit": "a.xml", "--sarif": "a.sarif"}
    files = [one for option, name in pages.items() for one in (option, str(kept / name))]
    with serving(servers.healthy) as fake:
        more = 'api_key_variable = "TEST_OPENER"\n'
        done = run(copy, fake.url, "check", "--case", CASE, "--save", str(kept / "traces"), *files, more=more)
        machine = run(copy, fake.url, "check", "--case", CASE, "--format", "json", more=more)
    assert (done.exit_code, machine.exit_code) == (4, 4), done.output
    reports = [*kept.rglob("*.*"), *(tmp_path / "log").iterdir()]
    assert len(reports) >= 6
    for text in (
        done.output,
        machine.output,
        *(path.read_text("utf-8", "replace") for path in reports if path.is_file()),
    ):
        assert KEY not in "".join(text.split())
