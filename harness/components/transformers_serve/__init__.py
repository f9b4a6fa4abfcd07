"""`transformers serve` around the GGUF: template, tokenization, inference and postprocess, by its real chat route.

The server runs in a child process with taps at each boundary. An isolated stage is a request to the real route in
which one boundary is replaced; the chained run is another component's call, watched by the same taps.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.components.transformers_serve._options import Options
from harness.errors import MissingPackageError
from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import Stage, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    CaseOptions,
    Generation,
    Json,
    ModelRef,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
)
from harness.wire.api import decoded, events, refusal
from harness.wire.chat import body_of_request, reply_of

_EXTRA = "transformers"
_NEEDED = ("transformers", "torch", "fastapi", "uvicorn", "openai", "time-machine")
_ENDS = frozenset({"max_tokens", "stop"})
_UNUSED = ({"role": "user", "content": "unused"},)
_DONE = b"\n\ndata: [DONE]\n\n"


class TransformersServe:
    """The stages behind the HTTP API of `transformers serve`."""

    name: ClassVar[str] = "transformers"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage) - {Stage.CLIENT}
    requires: ClassVar[tuple[str, str]] = ("accelerate", _EXTRA)
    parser: ClassVar[str] = "harness.components.transformers_serve.parser:TransformersParser"
    """transformers alone is what the references have; accelerate is what reads a GGUF for it."""
    variations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as configured": {},
        "again": {},
        "1 thread": {"threads": 1},
        "2 threads": {"threads": 2},
        "eager attention": {"attn_implementation": "eager"},
    }
    """Settings under which the engine is as healthy as under any other."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._options = Options.model_validate(options)
        self._file = model.path
        for package in _NEEDED:
            _need(package)
        worker = Worker(
            "harness.components.transformers_serve._server:Server",
            {
                "folder": str(model.path.parent.resolve()),
                "file": model.path.name,
                "chat_template": model.chat_template,
                "options": self._options.for_serve(),
                "threads": self._options.threads,
                "name_architecture": self._options.name_architecture,
            },
            seconds=self._options.seconds,
            # Nothing is fetched: the file is here, and what it lacks is to show.
            environment={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        )
        self._child = Child(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.close()

    def identity(self) -> Mapping[str, str]:
        """Return versions and effective settings, and what the harness had to add for the server to start."""
        found: Mapping[str, str] = self._child.call("identity")
        return found

    def model_file(self) -> Path:
        """Return the file that it is started with."""
        return self._file

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        seen = self.identity()
        return f"{seen['dtype']}, {seen['attention']} attention"

    # The stages, one by one

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What the chat route's template rendering gives."""
        _refuse_what_it_cannot_be_asked(options)
        body = body_of_request(request)
        seen = self._run(body, ends=True, clock=options.clock.isoformat())
        return Prompt(text=seen["text"])

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What the chat route's tokenizer makes of this text."""
        seen = self._run({"messages": _UNUSED}, ends=True, prompt=prompt.text)
        return self._tokens(seen["ids"])

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What the model computes and what is chosen of it, when `generate` is given these ids."""
        settings = dict(request.settings)
        if forced is not None:
            settings = {name: value for name, value in settings.items() if name not in _ENDS}
            settings["max_tokens"] = len(forced)
        seen = self._run({"messages": _UNUSED, **settings}, prompt="", ids=tokens.ids, forced=forced)
        found = Generation.tapped(seen["generation"])
        if forced is None:
            return found
        left = {name: value for name, value in found.settings.items() if name not in _ENDS}
        return found.model_copy(update={"settings": left})

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What the chat route answers when these ids follow the prompt's."""
        body = {**body_of_request(request), "messages": _UNUSED}
        script = generation.ids + generation.beyond
        seen = self._run(body, stream=stream, prompt="", ids=tokens.ids, forced=script)
        data = seen["data"].encode("latin-1")
        return reply_of(_lenient(data) if stream else decoded(data, "the answer"))

    # The whole route

    def url(self) -> str:
        """Where the OpenAI API is."""
        return str(self._child.call("url"))

    def key_variable(self) -> str | None:
        """It takes no API key."""
        return None

    def answer_seconds(self) -> float:
        """How long one answer may take."""
        return self._options.seconds

    def additions(self, case: Case, *, stream: bool) -> Json:
        """Have the next call watched, and name the model that the server is pinned to: it refuses any other name."""
        del stream
        _refuse_what_it_cannot_be_asked(case.options)
        self._child.call("begin", clock=case.options.clock.isoformat())
        return {"model": self._child.call("model_name")}

    def seen(self, case: Case, body: Json, answer: Json | Sequence[Json] | None) -> Observation:
        """What the taps saw of the call."""
        del case, body, answer
        if self._child.worker.pid is None:
            # It died in the call, and what it saw with it.
            return Observation()
        seen = self._child.call("seen")
        found: dict[str, Any] = {}
        if seen["text"] is not None:
            found["prompt"] = Prompt(text=seen["text"])
        if seen["ids"] is not None:
            found["tokens"] = self._tokens(seen["ids"])
        if seen["generation"] is not None:
            found["generation"] = Generation.tapped(seen["generation"])
        if seen["error"] is not None:
            ended = next(name for name in ("prompt", "tokens", "generation", "reply") if name not in found)
            found[ended] = Refusal.of(**seen["error"])
        return Observation(**found)

    # The child

    def _run(self, body: Json, *, stream: bool = False, **planned: Any) -> Json:
        """Make a request under a plan. What ended it is the exception of the server's own code, where there is one."""
        seen: Json = self._child.call("run", body=body, stream=stream, **planned)
        if seen["error"] is not None:
            raise StageRefusedError(Refusal.of(**seen["error"]))
        if seen["status"] != 200:
            raise StageRefusedError(refusal(seen["status"], seen["data"].encode("latin-1")))
        return seen

    def _tokens(self, ids: Sequence[int]) -> Tokens:
        return Tokens(ids=tuple(ids), pieces=tuple(self._child.call("pieces", ids=list(ids))))


def _refuse_what_it_cannot_be_asked(options: CaseOptions) -> None:
    """Say so where the chat route always opens a new turn.

    Raises:
        StageUnobservedError: the case wants the last message to be continued.
    """
    if options.continue_final_message:
        raise StageUnobservedError("transformers serve cannot be asked to continue the last message")


def _lenient(data: bytes) -> list[Json]:
    """Return a stream's events. Its `[DONE]` is missing, and clients that end with the connection do without."""
    return events(data + _DONE)


def _need(package: str) -> None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError("the component 'transformers'", package, _EXTRA) from error
