"""`harness trace URL CASE`: what a server shows of itself that is known by its address alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.checking.adhoc import address_of, observe_address, stack_at
from harness.cli import app
from harness.errors import UserError
from harness.project.project import find_project
from harness.values import ModelRef, Unobserved
from tests.wire import servers
from tests.wire.servers import CASE, KEY, Asked, Handler, closed_port, healthy, serving


def llama_server(handler: Handler, asked: Asked) -> None:
    """What of llama-server's API a dry run needs."""
    if asked.path == "/props":
        handler.json({"chat_template": "{{ messages }}", "build_info": "b0"})
    elif asked.path == "/apply-template":
        handler.json({"prompt": f"<{asked.body['messages'][0]['content']}>"})
    elif asked.path == "/tokenize":
        handler.json({"tokens": [{"id": 7, "piece": "<Hi"}, {"id": 8, "piece": [255]}]})
    else:
        healthy(handler, asked)


def ollama(handler: Handler, asked: Asked) -> None:
    """What of Ollama's API a dry run needs."""
    if asked.path == "/api/version":
        handler.json({"version": "0.99.0"})
    elif asked.path == "/v1/models":
        handler.json({"data": [{"id": "some:latest"}]})
    elif asked.body and asked.body.get("_debug_render_only"):
        choice = {"index": 0, "message": {"role": "", "content": ""}, "finish_reason": None}
        text = f"<{asked.body['model']}: {asked.body['messages'][0]['content']}>"
        handler.json({"choices": [choice], "_debug_info": {"rendered_template": text}})
    else:
        healthy(handler, asked)


def test_an_address_is_no_stack():
    assert address_of("http://a") == "http://a"
    assert address_of("https://a/v1") == "https://a/v1"
    assert address_of("127.0.0.1:8080") == "http://127.0.0.1:8080", "as people write it"
    assert address_of("localhost:8080/v1") == "http://localhost:8080/v1"
    assert address_of("llama-server") is None
    assert address_of("a:b") is None


@pytest.mark.parametrize("profile", [None, "llama-server"])
def test_a_llama_server_shows_its_prompt_and_ids(profile):
    with serving(llama_server) as fake:
        found = observe_address(find_project(), fake.url, CASE, dry_run=True, profile=profile)
    assert found.request.messages == ({"role": "user", "content": "Hi"},)
    assert found.prompt.text == "<Hi>"
    assert (found.tokens.ids, found.tokens.pieces) == ((7, 8), ("<Hi", "\ufffd"))
    assert found.generation is None


@pytest.mark.parametrize(("model", "name"), [(None, "some:latest"), ("other", "other")])
def test_an_ollama_shows_its_prompt(model, name):
    with serving(ollama) as fake:
        found = observe_address(find_project(), fake.url.removesuffix("/v1"), CASE, dry_run=True, model=model)
    assert found.prompt.text == f"<{name}: Hi>"
    assert isinstance(found.tokens, Unobserved)


def test_a_server_that_shows_nothing_is_a_clear_error():
    with serving(healthy) as fake, pytest.raises(UserError) as hidden:
        observe_address(find_project(), fake.url, CASE, dry_run=True)
    assert str(hidden.value).startswith(f"{fake.url} does not show what it would send to its model: OpenAI's API does")
    assert "--profile" in str(hidden.value)


def test_without_a_dry_run_the_call_is_made():
    with serving(healthy) as fake:
        found = observe_address(find_project(), fake.url, CASE)
    assert (found.reply.content, found.broke) == ("Hi!", None)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (servers.wants_a_key, "refuses the API key (HTTP 401)"),
        (servers.traceback, "does not show what it would send to its model: "),
        (servers.html, "does not show what it would send to its model: "),
        (servers.redirect, "does not show what it would send to its model: "),
        (servers.closes_at_once, "does not show what it would send to its model: "),
    ],
)
def test_a_bad_server_is_one_line_and_status_2(answer, says, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(answer) as fake:
        arguments = ["trace", fake.url, "system-and-user", "--dry-run", "--api-key-variable", "TEST_KEY"]
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert says in done.stderr
    assert KEY not in done.output


def test_an_address_where_nothing_listens_is_status_3():
    done = CliRunner().invoke(app, ["trace", closed_port(), "system-and-user", "--dry-run"])
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no server answers at " in done.stderr
    assert "start the server" in done.stderr


def test_wrong_calls_are_named(monkeypatch):
    for arguments, says in (
        (["trace", "http://127.0.0.1:1", "system-and-user", "--profile", "olama"], "did you mean 'ollama'?"),
        (["trace", "http://127.0.0.1:1", "no-such-case"], "no case named 'no-such-case'"),
        (["trace", "llama-cpp-python", "system-and-user", "--profile", "ollama"], "are of an address"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, says in done.stderr) == (2, True), done.output


@pytest.fixture(scope="module")
def real(smollm: ModelRef) -> Iterator[str]:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("llama.cpp's server is not installed: pip install -e '.[servers]'")
    from harness.components.llama_server._options import Options
    from harness.components.llama_server._running import Running

    running = Running(smollm, Options(n_ctx=512))
    yield running.url()
    running.close()


def test_a_real_llama_server_shows_what_it_would_send(real):
    done = CliRunner().invoke(app, ["trace", real, "system-and-user", "--dry-run", "--format", "json"])
    assert done.exit_code == 0, done.output
    seen = json.loads(done.stdout)["observation"]
    assert seen["prompt"]["text"].endswith("France?<|im_end|>\n<|im_start|>assistant\n")
    assert (seen["tokens"]["ids"][0], seen["tokens"]["pieces"][0]) == (1, "<|im_start|>")
    assert seen["generation"] is None


def test_a_real_llama_server_with_another_template_is_found_out(real, smollm, smollm_tools):
    from harness.checking.load import declared_by, rows_of
    from harness.components.llama_server import LlamaServer

    own = declared_by(smollm.path)
    for model, wrong in ((smollm, []), (smollm_tools, ["template"])):
        with LlamaServer(model, {"url": f"{real}/v1"}) as part:
            rows = rows_of(part.loaded(), model, own, own)
        assert [row.name for row in rows if row.outcome.bad and row.name != "context of a slot"] == wrong
    assert [row.remedy for row in rows if row.name == "template"] == [
        "start llama-server with --jinja and --chat-template-file, and the model's template"
    ]


def test_a_server_that_still_loads_is_waited_for_and_not_taken_for_another():
    def loading(handler: Handler, asked: Asked) -> None:
        handler.json({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)

    with serving(loading) as fake:
        done = CliRunner().invoke(app, ["check", fake.url])
    assert done.exit_code == 3
    assert done.stderr == f"harness: {fake.url} is not ready: Loading model; wait until it is, and ask again\n"


def test_a_request_as_it_was_sent_takes_a_case_s_place(tmp_path):
    sent = {"model": "any", "stream": True, "messages": [{"role": "user", "content": "Hey"}], "max_tokens": 2}
    (tmp_path / "sent.json").write_text(json.dumps(sent))
    with serving(llama_server) as fake:
        words = ["trace", fake.url, "--body", str(tmp_path / "sent.json"), "--dry-run", "--format", "json"]
        done = CliRunner().invoke(app, words)
    found = json.loads(done.stdout)
    assert (found["case"], found["observation"]["prompt"]["text"]) == ("sent", "<Hey>")


@pytest.mark.parametrize("text", ['{"max_tokens": 2}', "[]", "no"])
def test_what_is_no_body_is_one_line(tmp_path, text):
    (tmp_path / "sent.json").write_text(text)
    done = CliRunner().invoke(app, ["trace", "http://127.0.0.1:9", "--body", str(tmp_path / "sent.json")])
    assert done.exit_code == 2
    assert str(tmp_path / "sent.json") in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_trace_needs_a_case_or_a_body():
    done = CliRunner().invoke(app, ["trace", "http://127.0.0.1:9"])
    assert (done.exit_code, "name either a case or a body" in done.stderr) == (2, True)


@pytest.mark.parametrize("address", ["http://", "http://127.0.0.1:abc", "http://127.0.0.1:99999", "https://:80"])
def test_what_is_no_address_is_a_wrong_call_and_convicts_no_server(address):
    with pytest.raises(UserError, match="is no address of a server"):
        stack_at(find_project(), address)


def test_a_slash_behind_the_path_changes_nothing():
    with serving(healthy) as fake:
        stacks = [stack_at(find_project(), f"{fake.url}{end}", profile="llama-server") for end in ("/v1", "/v1/")]
    assert stacks[0].options == stacks[1].options


def test_a_503_of_what_a_server_does_not_have_is_no_server_that_loads():
    def gateway(handler: Handler, asked: Asked) -> None:
        if asked.path.endswith("/chat/completions"):
            healthy(handler, asked)
        else:
            handler.json({"error": {"message": "no upstream"}}, 503)

    with serving(gateway) as fake:
        found = observe_address(find_project(), fake.url, CASE)
    assert found.reply.content == "Hi!"
