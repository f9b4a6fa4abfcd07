"""Broken answers, read through the real components that ask servers: what each ends with, and how long it took."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.broken_answers import SLOW, Answer, Broken
from harness.checking.judge import Judge
from harness.checking.load import load_rows
from harness.checking.running import open_stack
from harness.checking.trace import Run, Trace, Tracer, load_trace, save_trace
from harness.components import openai_compatible
from harness.components.openai_compatible._model import KnownModel
from harness.components.vllm_server import Vllm
from harness.errors import UserError
from harness.probes.replay import ReplayModel
from harness.process.serving import Server
from harness.project.golden import Golden
from harness.project.stack import Stack, Stages, load_component
from harness.stage import Component, Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, ModelRef, OwnError
from harness.wire.api import Api

SECONDS = 0.5
"""How long one answer may take."""
_ROUTES = ("/v1/chat/completions", "/completion", "/props")
_ENDINGS = (StageFailedError, StageRefusedError, StageUnobservedError, UserError)
_CONTEXT = 2048
_PROBES = {"replay_model": "m", "fingerprint_model": "m", "fingerprint_context": _CONTEXT}


@dataclass(frozen=True)
class Reader:
    """A component that reads the answers.

    Attributes:
        name: What it is called here.
        component: The component.
        options: Its options, beside where the server is.
        elsewhere: Whether it is told where the server is; else it takes it for one that it has started itself.
    """

    name: str
    component: str
    options: Mapping[str, Any]
    elsewhere: bool = True


READERS = (
    Reader("openai-compatible", "openai-compatible", {"model": "m", **_PROBES}),
    Reader("ollama", "openai-compatible", {"model": "m", "profile": "ollama"}),
    Reader("lm-studio", "openai-compatible", {"model": "m", "profile": "lm-studio"}),
    Reader("llama-server elsewhere", "llama-server", {}),
    Reader("llama-server", "llama-server", {"n_ctx": _CONTEXT}, elsewhere=False),
    Reader("vllm", "vllm", {}, elsewhere=False),
)


@dataclass(frozen=True)
class Read:
    """What came of one way to answer.

    Attributes:
        name: Its name.
        errors: Errors of ours, as one line each; there must be none.
        seconds: The longest time that one exchange took.
        busy: The longest time that one kept its processor: what else the machine does is not in it.
        traces: What each reader saw, by its name, as far as it came to that.
    """

    name: str
    errors: tuple[str, ...]
    seconds: float
    busy: float
    traces: Mapping[str, Trace]


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


class _Clock:
    """Waits for a server of ours by the clock: there is no process to look at."""

    failure = Failure(reason="hang", seconds=SECONDS)

    def __init__(self) -> None:
        self._until = time.monotonic() + SECONDS

    def left(self) -> float:
        return self._until - time.monotonic()


@contextmanager
def _for_our_own(url: str) -> Iterator[None]:
    """Have every component that starts a server find this one started already."""

    def connected(server: Any) -> Api:
        server._api = server._api or Api(url, seconds=SECONDS)
        found: Api = server._api
        return found

    seen: dict[str, Any] = {"_connected": connected, "_where": lambda _: url, "patience": lambda _: _Clock()}
    with (
        patch.multiple(Server, identity=lambda _: {"server": "broken"}, **seen),
        # It need not be installed to read what it would answer.
        patch.object(Vllm, "requires", ("httpx", "servers")),
    ):
        yield


def read_all(
    answers: Sequence[tuple[str, Answer]], golden: Golden, model: ModelRef, readers: Sequence[Reader] = READERS
) -> Iterator[Read]:
    """Read every answer on its own, and through components in every run of a case, which is judged and saved.

    Those that are `SLOW` are read by one component each, in turn.

    Args:
        answers: Ways to answer.
        golden: Of the case that is asked.
        model: Its model.
        readers: The components.
    """
    with ExitStack() as opened:
        server, url = opened.enter_context(_serving())
        opened.enter_context(_for_our_own(url))
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        # The model's file takes longer to read than most answers.
        opened.enter_context(patch.object(openai_compatible, "KnownModel", cache(KnownModel)))
        replay = opened.enter_context(ReplayModel(model, folder / "replay.gguf", _CONTEXT)).path
        # One client for all: its process takes longer to start than most answers to read.
        client = opened.enter_context(load_component("httpx")(model, {}))
        turn = cycle(readers)
        for name, answer in answers:
            server.answer = answer
            seconds, busy, errors = _exchanges(url)
            traces = {}
            # What each of dozens of exchanges takes its whole time for is read by one of them.
            for reader in readers if not name.endswith(SLOW) else (next(turn),):
                stack = _stack_of(reader, url, replay, model)
                trace, wrong = _traced(stack, golden, model, client, folder)
                errors += [f"{reader.name}: {one}"[:300] for one in wrong]
                if trace is not None:
                    traces[reader.name] = trace
            yield Read(name, tuple(errors), seconds, busy, traces)


def _stack_of(reader: Reader, url: str, replay: Path, model: ModelRef) -> Stack:
    options = {**reader.options, "seconds": SECONDS, **({"url": url} if reader.elsewhere else {})}
    if "replay_model" in options:
        options["replay_file"] = replay
    after = [stage.value for stage in Stage if stage is not Stage.CLIENT]
    stages = Stages(client="httpx", **dict.fromkeys(after, reader.component))
    return Stack(
        name="broken", description="", models=(model.name,), stages=stages, options={reader.component: options}
    )


def _exchanges(url: str) -> tuple[float, float, list[str]]:
    longest, busy, errors = 0.0, 0.0, []
    api = Api(url, seconds=SECONDS)
    for route in _ROUTES:
        for ask in (api.post, api.stream):
            began, worked = time.perf_counter(), time.thread_time()
            try:
                ask(route, {"stream": ask == api.stream})
            except _ENDINGS:
                pass
            except Exception as error:  # noqa: BLE001 - that none comes is what is tried
                errors.append(f"{route}: {type(error).__name__}: {error}"[:300])
            longest, busy = max(longest, time.perf_counter() - began), max(busy, time.thread_time() - worked)
    api.close()
    return longest, busy, errors


def _traced(
    stack: Stack, golden: Golden, model: ModelRef, client: Component, folder: Path
) -> tuple[Trace | None, list[str]]:
    """Return what was seen, and errors of ours: in seeing it, in judging it, in keeping it."""
    trace = None
    try:
        with open_stack(stack, model, lambda name, part: client if name == "httpx" else part) as running:
            trace = Tracer(running).trace(golden, tuple(Run))
            running.part(Stage.INFERENCE).identity()
            rows = load_rows(running)
        results = Judge({}, None).case(golden, trace)
        save_trace(trace, folder / "traces")
        load_trace(folder / "traces", trace.case)
    except _ENDINGS:
        return trace, []
    except Exception as error:  # noqa: BLE001 - that none comes is what is tried
        return trace, [f"{type(error).__name__}: {error}"]
    found = [own for observation in trace.runs.values() for own in observation.own_errors]
    found += [one for one in trace.replays.values() if isinstance(one, OwnError)]
    found += [row.error for row in rows if row.error is not None]
    found += [one.own_error for one in results if one.own_error is not None]
    return trace, list(dict.fromkeys(one.describe() for one in found))
