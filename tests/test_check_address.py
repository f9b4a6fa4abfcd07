"""`harness check` as it is typed for a server of one's own, and for a model file of one's own, on real ones."""

from __future__ import annotations

import importlib.util
import json
import shutil
import urllib.request

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.components.llama_server._options import Options
from harness.components.llama_server._running import Running
from harness.stage import Stage
from tests.wire.servers import Asked, Handler, serving

CASES = ("--case", "system-and-user", "--case", "no-system")


@pytest.fixture(scope="module", autouse=True)
def _packages():
    for package in ("xllamacpp", "httpx", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"ADDRESSES ARE NOT TESTED: {package} is not installed: pip install -e '.[servers,reference]'")


@pytest.fixture(scope="module")
def server(smollm):
    """The address of a server that is not ours to look into: it logs nothing, as people start it."""
    quiet = {"verbosity": 3, "cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}
    running = Running(smollm, Options(n_ctx=2048, parameters=quiet))
    yield running.url()
    running.close()


def check(*words):
    done = CliRunner().invoke(app, ["check", *words, "--format", "json"])
    return done.exit_code, (json.loads(done.stdout)["verdicts"] if done.stdout else []), done.stderr


def statuses(verdict):
    return {stage: said["status"] for stage, said in verdict["stages"].items()}


def test_a_healthy_server_and_its_file_are_cleared_in_all_stages(server, smollm):
    status, (verdict,), _ = check(server, "--model-file", str(smollm.path), *CASES)
    assert statuses(verdict) == dict.fromkeys(Stage, "cleared")
    assert verdict["stages"]["postprocess"]["why"] == "right in its own path in 2 of 2 cases; alone it was not seen"
    assert status == 0


def behind(server: str, change):
    """Answer as a server that shows nothing but the chat route, and changes what it hands to the one behind it."""

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.path == "/v1/models":
            handler.json({"object": "list", "data": [{"id": "m", "object": "model"}]})
        elif asked.path == "/v1/chat/completions":
            sent = json.dumps(change(asked.body)).encode()
            request = urllib.request.Request(
                f"{server}/v1/chat/completions", sent, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                handler.whole(reply.read(), kind=reply.headers["Content-Type"])
        else:
            handler.json({"error": {"message": "not found"}}, 404)

    return answer


def without_system(body):
    return {**body, "messages": [one for one in body["messages"] if one["role"] != "system"]}


def test_a_system_message_that_is_lost_shows_in_the_number_of_prompt_ids_alone(server, smollm):
    with serving(behind(server, without_system)) as fake:
        status, (verdict,), _ = check(fake.url, "--model-file", str(smollm.path), *CASES)
    (finding,) = verdict["findings"]
    assert (finding["stage"], finding["cases"], status) == ("template", ["system-and-user"], 1)
    assert finding["summary"].startswith("its prompt has ")


def test_where_nothing_is_lost_what_is_not_shown_is_unobserved_and_nobody_is_convicted(server, smollm):
    with serving(behind(server, lambda body: body)) as fake:
        status, (verdict,), _ = check(fake.url, "--model-file", str(smollm.path), *CASES)
        strict, _, _ = check(fake.url, "--model-file", str(smollm.path), "--strict", *CASES)
    assert verdict["findings"] == []
    assert statuses(verdict) == {"client": "cleared", **dict.fromkeys(list(Stage)[1:], "unobserved")}
    assert (status, strict) == (3, 3)


@pytest.fixture
def mine(smollm, tmp_path, monkeypatch):
    """A file of which nothing was recorded, in an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "Mine.gguf"
    shutil.copy(smollm.path, copy)
    with copy.open("ab") as file:
        file.write(b"\0")
    return copy


def test_what_is_too_large_for_the_reference_is_held_up_to_its_ids_and_in_its_replies(server, mine, monkeypatch):
    monkeypatch.setattr("harness.reference.ready.available_memory", lambda: 10_000_000)
    status, (verdict,), told = check(server, "--model-file", str(mine), *CASES)
    assert "of what it answers there are none: the reference needs 1 GB of memory, of which 0 GB are free" in told
    assert statuses(verdict) == {**dict.fromkeys(Stage, "cleared"), "inference": "unobserved"}
    assert verdict["line"] == "nothing wrong in 4 of 5 stages; could not judge: inference unobserved"
    assert status == 0


def test_a_file_of_one_s_own_needs_no_project(engine, mine, monkeypatch):
    monkeypatch.setattr("harness.reference.ready.QUICK", ("system-and-user",))
    status, (verdict,), told = check(engine, "--model", str(mine), "--case", "no-system")
    assert (verdict["model"], verdict["status"], status) == ("Mine", "clean", 0)
    assert "Mine.gguf has no goldens yet: 2 are made now" in told, "with those that its noise is measured on"
    status, _, told = check(engine, "--model", str(mine), "--case", "no-system")
    assert (status, told) == (0, ""), "what was made is found again"
