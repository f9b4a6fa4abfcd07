"""Whose a server is that answers on a port which was free."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.components.llama_server import _server
from harness.process.ports import check_ours, free_port
from harness.stage import StageUnobservedError
from tests.wire.servers import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a socket is")


def port_of(url: str) -> int:
    return int(url.removesuffix("/v1").rpartition(":")[2])


def test_a_port_is_its_listeners_and_that_of_the_processes_above_it():
    with serving(lambda handler, asked: handler.json({})) as fake:
        check_ours(os.getpid(), port_of(fake.url))
        check_ours(os.getppid(), port_of(fake.url))
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            with pytest.raises(StageUnobservedError, match="another program took port"):
                check_ours(other.pid, port_of(fake.url))
            other.kill()


def test_where_nobody_listens_nobody_else_does():
    check_ours(os.getpid(), free_port())


@pytest.mark.parametrize("does", ["import time; time.sleep(60)", "raise SystemExit(1)"])
def test_a_program_whose_port_another_one_took_is_not_held_for_it(monkeypatch, tmp_path, does):
    program = tmp_path / "llama-server"
    program.write_text(f"#!{sys.executable}\n{does}\n", encoding="utf-8")
    program.chmod(0o755)
    with serving(lambda handler, asked: handler.json({"status": "ok"})) as fake:
        monkeypatch.setattr(_server, "free_port", lambda: port_of(fake.url))
        with pytest.raises(StageUnobservedError, match="another program took port"):
            _server.Program(str(program), "model.gguf", None, 64, (), 30.0)
