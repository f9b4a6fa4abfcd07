"""`@huggingface/jinja`, the engine of browsers and of LM Studio, in a Node process that outlives a render."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import weakref
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from harness.components.template_engines._endings import one_line
from harness.errors import UserError
from harness.models.node_modules import find_npm_package
from harness.parts import PartError, Rendering

_PACKAGE = "@huggingface/jinja"
_SCRIPT = Path(__file__).with_name("_node.cjs")
_HEAP_MB = 512
_LONGEST = 1 << 28
"""Bytes of an answer."""


class HuggingFaceJinjaEngine:
    """The npm package's `Template`. One process, in which a render is ended after some seconds or at 512 MB.

    Args:
        seconds: How long one render may take.
        node_modules: The folder that holds the package; None looks at `HARNESS_NODE_MODULES`, then for the nearest
            `node_modules` upwards of the working directory that has it.

    Raises:
        UserError: there is no Node, or no such package.
    """

    name = "huggingface-jinja"

    def __init__(self, seconds: float = 10.0, node_modules: str | None = None) -> None:
        self._package = find_npm_package(_PACKAGE, node_modules)
        self._node = shutil.which("node")
        if self._node is None:
            raise UserError(f"the engine {self.name} needs Node.js 18 or newer", "install it, so that `node` is found")
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count()

    def version(self) -> str:
        """Return name and version of what renders."""
        package = json.loads((self._package / "package.json").read_text("utf-8"))
        assert self._node is not None
        node = subprocess.run([self._node, "--version"], capture_output=True, text=True, check=True, timeout=60)
        return f"{_PACKAGE} {package['version']} in Node {node.stdout.strip()}"

    def close(self) -> None:
        """End the process; the next render starts another."""
        if self._process is not None:
            process, self._process = self._process, None
            _end(process)

    def compile(self, source: str) -> _Compiled:
        """Compile a template; see `harness.parts.TemplateEngine`."""
        compiled = _Compiled(self, source, next(self._numbers))
        compiled.compile()
        return compiled

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer, of which nothing is left behind whatever happens.

        Raises:
            PartError: of kind `limit`: it took too long or too much; `error`, `syntax`, ...: as the template ended.
        """
        text = _json(request | {"milliseconds": round(self._seconds * 1000)})
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(text + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline(_LONGEST)
        except BrokenPipeError:
            line = b""
        except BaseException:
            # An interruption. The answer may be half read: this process cannot be spoken to.
            self.close()
            raise
        if not line.endswith(b"\n"):
            ending = _ended(self._process, line)
            self.close()
            raise ending
        answer: dict[str, Any] = json.loads(line)
        if "kind" in answer:
            raise PartError(
                answer["kind"], one_line(answer["message"]), answer["name"] if answer["kind"] != "undefined" else ""
            )
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._node is not None
        process = subprocess.Popen(
            [self._node, f"--max-old-space-size={_HEAP_MB}", str(_SCRIPT), str(self._package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Its dates are those of the process's zone and language.
            env={**os.environ, "TZ": "UTC", "LC_ALL": "en_US.UTF-8"},
        )
        weakref.finalize(self, _end, process)
        return process


class _Compiled:
    def __init__(self, engine: HuggingFaceJinjaEngine, source: str, number: int) -> None:
        self._engine = engine
        self._source = source
        self._number = number

    def compile(self) -> None:
        self._engine.ask({"number": self._number, "source": self._source})

    def render(self, asked: Rendering) -> str:
        """Return the text; see `harness.parts.Compiled`."""
        items = {
            **asked.variables,
            "messages": asked.messages,
            "tools": asked.tools,
            "add_generation_prompt": asked.opens,
        }
        request = {"number": self._number, "items": items, "time": _milliseconds(asked.local)}
        answer = self._engine.ask(request)
        if "text" not in answer:
            # Another process than the one it was compiled in, or one that has seen many templates since.
            self.compile()
            answer = self._engine.ask(request)
        return str(answer["text"])


def _milliseconds(clock: datetime) -> int:
    # The process's zone is UTC.
    return int(clock.replace(tzinfo=UTC).timestamp() * 1000)


def _json(request: dict[str, Any]) -> bytes:
    """Return a request as JSON. JavaScript's texts can hold lone surrogates, which are escaped."""
    try:
        return json.dumps(request, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise PartError("unsupported", one_line(error), type(error).__name__) from error


def _ended(process: subprocess.Popen[bytes], line: bytes) -> PartError:
    if line:
        return PartError("limit", "its text is too long", "heap")
    # Without memory V8 aborts, which is a signal.
    status = process.wait(timeout=60)
    if status < 0:
        return PartError("limit", "out of memory", "heap")
    return PartError("error", f"node ended with status {status}", "node")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
