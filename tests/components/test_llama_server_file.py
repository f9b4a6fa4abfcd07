"""Which file a llama-server has is what it shows, whatever it was started with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.components.llama_server import LlamaServer
from harness.components.llama_server._options import Options
from harness.components.llama_server._running import Running
from harness.stage import StageRefusedError, StageUnobservedError
from harness.values import ModelRef, Refusal

MODEL = ModelRef(name="m", path=Path("/models/golden.gguf"), sha256="0" * 64)
SCRIPT = """#!{python}
import http.server, json, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"model_path": {shown!r}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""


@pytest.fixture
def program(tmp_path):
    """A program that serves a file of its own, whatever it is started with."""
    path = tmp_path / "llama-server"
    path.write_text(SCRIPT.format(python=sys.executable, shown="/models/own.gguf"), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_program_around_a_file_of_its_own_is_found_out(program, tmp_path):
    with LlamaServer(MODEL, {"binary": program, "file": "/models/named.gguf"}) as part:
        assert part.model_file() == Path("/models/own.gguf")
        for _ in range(2):
            with pytest.raises(
                StageUnobservedError, match=r"serves own\.gguf and not the probe that it is started with"
            ):
                part._probe(tmp_path / "replay.gguf")


@pytest.mark.parametrize(
    ("options", "shown", "file"),
    [
        ({"url": "http://127.0.0.1:1"}, "/models/own.gguf", Path("/models/own.gguf")),
        # The same path on another machine is another file.
        ({"url": "http://elsewhere:1"}, "/models/own.gguf", None),
        ({"url": "http://127.0.0.1:1"}, "own.gguf", None),
        ({"url": "http://127.0.0.1:1"}, None, None),
        ({"binary": "llama-server"}, None, None),
        ({}, None, MODEL.path),
        ({"file": "/models/named.gguf"}, None, Path("/models/named.gguf")),
    ],
)
def test_what_is_not_shown_is_known_of_the_package_alone(monkeypatch, options, shown, file):
    monkeypatch.setattr(Running, "get", lambda *_: {"model_path": shown})
    monkeypatch.setattr("harness.components.llama_server._running._need_package", lambda: None)
    assert Running(MODEL, Options.model_validate(options)).model_file() == file


def test_a_server_that_does_not_show_itself_does_not_tell(monkeypatch):
    def refuse(*_):
        raise StageRefusedError(Refusal(error="HTTP 404", message="no"))

    monkeypatch.setattr(Running, "get", refuse)
    assert Running(MODEL, Options(url="http://127.0.0.1:1")).model_file() is None
