"""Broken answers, read through the real components that ask servers: what each ends with, and how long it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any

from benchmarks.broken_answers import Answer, Broken
from harness.checking.running import open_stack
from harness.checking.trace import Run, Tracer
from harness.errors import UserError
from harness.project.golden import Golden
from harness.project.stack import Stack, Stages, load_component
from harness.stage import Component, Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import ModelRef, OwnError
from harness.wire.api import Api

SECONDS = 0.5
"""How long one answer may take."""
SERVERS = ("openai-compatible", "llama-server")
"""The components that read the answers of a server that somebody else runs."""
_ROUTES = ("/v1/chat/completions", "/completion", "/props")
_ENDINGS = (StageFailedError, StageRefusedError, StageUnobservedError, UserError)


@dataclass(frozen=True)
class Read:
    """What came of one way to answer.

    Attributes:
        name: Its name.
        errors: Errors of ours, as one line each; there must be none.
        seconds: The longest time that one exchange took.
    """

    name: str
    errors: tuple[str, ...]
    seconds: float


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    answer: Any = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that gives up is what is tried here."""


@contextmanager
def _serving() -> Iterator[tuple[_Server, str]]:
    with _Server(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def read_all(answers: Sequence[tuple[str, Answer]], golden: Golden, model: ModelRef) -> Iterator[Read]:
    """Read every answer on its own, and through the components of `SERVERS` in every run of a case.

    Args:
        answers: Ways to answer.
        golden: Of the case that is asked.
        model: Its model.
    """
    # One client for all: its process takes longer to start than most answers to read.
    with _serving() as (server, url), load_component("httpx")(model, {}) as client:
        for name, answer in answers:
            server.answer = answer
            seconds, errors = _exchanges(url)
            for component in SERVERS:
                errors += _traced(component, url, golden, model, client)
            yield Read(name, tuple(errors), seconds)


def _exchanges(url: str) -> tuple[float, list[str]]:
    longest, errors = 0.0, []
    api = Api(url, seconds=SECONDS)
    for route in _ROUTES:
        for ask in (api.post, api.stream):
            began = time.perf_counter()
            try:
                ask(route, {"stream": ask == api.stream})
            except _ENDINGS:
                pass
            except Exception as error:  # noqa: BLE001 - that none comes is what is tried
                errors.append(f"{route}: {type(error).__name__}: {error}"[:300])
            longest = max(longest, time.perf_counter() - began)
    api.close()
    return longest, errors


def _traced(component: str, url: str, golden: Golden, model: ModelRef, client: Component) -> list[str]:
    after = [stage.value for stage in Stage if stage is not Stage.CLIENT]
    stages = Stages(client="httpx", **dict.fromkeys(after, component))
    own = {"url": f"{url}/v1", "model": "m", "seconds": SECONDS}
    options = own if component == "openai-compatible" else {"url": url, "seconds": SECONDS}
    stack = Stack(name="broken", description="", models=(model.name,), stages=stages, options={component: options})
    try:
        with open_stack(stack, model, lambda name, part: client if name == "httpx" else part) as running:
            trace = Tracer(running).trace(golden, tuple(Run))
    except UserError:
        return []
    except Exception as error:  # noqa: BLE001 - that none comes is what is tried
        return [f"{component}: {type(error).__name__}: {error}"[:300]]
    found = [own for observation in trace.runs.values() for own in observation.own_errors]
    found += [one for one in trace.replays.values() if isinstance(one, OwnError)]
    return [f"{component}: {one.describe()}"[:300] for one in found]
