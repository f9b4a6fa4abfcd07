"""llama-cpp-python's own server (`llama_cpp.server`) over HTTP: template, tokenization, inference and postprocess.

Every run is a call of its real chat route, so the server's reading of the body, its defaults and its stream are part of
what is held. Taps inside its `Llama` show what passes, and an isolated run replaces what passes at one boundary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.components.llama_cpp_python._child import LlamaChild, Options, prompt_of
from harness.settings import Loaded
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    CaseOptions,
    Generation,
    Json,
    ModelRef,
    Observation,
    Prompt,
    Reply,
    Request,
    Tokens,
)
from harness.wire.api import Api
from harness.wire.chat import body_of_request, reply_of

_CHAT = "/v1/chat/completions"
_GREETING = {"messages": [{"role": "user", "content": "unused"}]}


class LlamaCppPythonServer:
    """The stages behind the server's HTTP API."""

    name: ClassVar[str] = "llama-cpp-python-server"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage) - {Stage.CLIENT}
    requires: ClassVar[tuple[str, str]] = ("starlette-context", "llama-cpp-server")
    without_weights: ClassVar[Mapping[str, Any]] = {"vocab_only": True}
    """Options that are enough for the stages before inference."""
    noise_of: ClassVar[str] = "llama-cpp-python"
    """The component whose noise it has: the same library in the same settings gives the same bits."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._options = Options.model_validate(options)
        self._child = LlamaChild("_served:Server", model, self._options)
        self._api: Api | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._disconnect()
        self._child.close()

    def identity(self) -> Mapping[str, str]:
        """Return versions, build, processor features and effective settings of the engine."""
        identity: Mapping[str, str] = self._child.call(Stage.INFERENCE, "identity")
        return identity

    def model_file(self) -> Path:
        """Return the file that the engine has opened."""
        return self._child.model_file()

    def loaded(self) -> Loaded:
        """Return with which settings the model is loaded, and what of them was asked for."""
        return self._child.loaded(self.name)

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        return self._child.noise_class()

    def plant(self, hook: str, **keywords: Any) -> None:
        """Plant a defect: `hook` (`module:function`) is called in a new child with its `Server` and the keywords."""
        self._disconnect()
        self._child.plant(hook, **keywords)

    def unplant(self) -> None:
        """Remove every planted defect; the next call starts a clean child."""
        self._disconnect()
        self._child.unplant()

    # The stages, one by one

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What the chat route renders; its generation ends at once."""
        _refuse_what_it_cannot_be_asked(options)
        # What is asked of the sampler is no matter of the template's.
        settings = {name: value for name, value in request.settings.items() if name == "chat_template_kwargs"}
        body = body_of_request(request.model_copy(update={"settings": {**settings, "max_tokens": 1}}))
        seen = self._probe(Stage.TEMPLATE, "prompt", body, clock=options.clock.isoformat(), scripted=())
        return prompt_of(seen)

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What the chat route makes of this prompt; its generation ends at once."""
        body = {**_GREETING, "max_tokens": 1}
        ids = self._probe(Stage.TOKENIZATION, "prompt_ids", body, prompt=prompt.text, scripted=())
        return self._child.tokens(ids)

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What the engine computes and its sampler chooses, under the settings that the chat route makes of these."""
        # Stop strings are the postprocess stage's; they must not cut what is forced here.
        settings = {key: value for key, value in request.settings.items() if forced is None or key != "stop"}
        body = {**_GREETING, **settings}
        seen = self._probe(Stage.INFERENCE, "generation", body, prompt="", prompt_ids=tokens.ids, forced=forced)
        return Generation.tapped(seen)

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What the chat route answers when its engine generates these ids."""
        asked = request.model_copy(update={"messages": tuple(_GREETING["messages"])})
        script = generation.ids + generation.beyond
        self._begin(Stage.POSTPROCESS, prompt="", prompt_ids=tokens.ids, scripted=script)
        answer = self._ask(Stage.POSTPROCESS, {**body_of_request(asked), "stream": stream})
        self._seen(Stage.POSTPROCESS)
        return reply_of(answer)

    # The whole route

    def url(self) -> str:
        """Where the OpenAI API is."""
        return f"{self._connected(None).url}/v1"

    def key_variable(self) -> str | None:
        """It wants no API key."""
        return None

    def answer_seconds(self) -> float:
        """How long an answer may take."""
        return self._options.seconds

    def additions(self, case: Case, *, stream: bool) -> Json:
        """Add nothing to the body; let the taps watch the call, and pin the clock of its template."""
        del stream
        _refuse_what_it_cannot_be_asked(case.options)
        self._begin(None, clock=case.options.clock.isoformat())
        return {}

    def seen(self, case: Case, body: Json, answer: Json | Sequence[Json] | None) -> Observation:
        """What the taps saw."""
        del case, body, answer
        seen = self._seen(None)
        found: dict[str, Any] = {}
        if "prompt" in seen:
            found["prompt"] = prompt_of(seen["prompt"])
        if "prompt_ids" in seen:
            found["tokens"] = self._child.tokens(seen["prompt_ids"])
        if "generation" in seen:
            found["generation"] = Generation.tapped(seen["generation"])
        return Observation(**found)

    # The server

    def _probe(self, stage: Stage, wanted: str, body: Json, **replaced: Any) -> Any:
        """Return what the taps saw at a boundary of one call, whatever became of the call after that."""
        self._begin(stage, **replaced)
        try:
            self._ask(stage, {**body, "stream": False})
        except StageRefusedError:
            seen = self._seen(stage)
            if wanted not in seen:
                raise
            return seen[wanted]
        return self._seen(stage)[wanted]

    def _begin(self, stage: Stage | None, **replaced: Any) -> None:
        self._connected(stage)
        self._call(stage, "begin", **replaced)

    def _seen(self, stage: Stage | None) -> Json:
        seen: Json = self._call(stage, "seen")
        return seen

    def _ask(self, stage: Stage, body: Json) -> Any:
        api = self._connected(stage)
        try:
            return api.stream(_CHAT, body) if body["stream"] else api.post(_CHAT, body)
        except (StageFailedError, StageRefusedError, StageUnobservedError):
            # Where the process is gone, say how it ended, not that the connection did; and what a tap of ours raised in
            # the server is no answer of the server's.
            self._call(stage, "url")
            raise

    def _connected(self, stage: Stage | None) -> Api:
        if self._api is None:
            self._api = Api(self._call(stage, "url"), seconds=self._options.seconds)
        return self._api

    def _disconnect(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def _call(self, stage: Stage | None, method: str, **arguments: Any) -> Any:
        try:
            return self._child.call(stage, method, **arguments)
        except StageFailedError:
            # The next child listens elsewhere.
            self._disconnect()
            raise


def _refuse_what_it_cannot_be_asked(options: CaseOptions) -> None:
    """Say so where its API has no field for what the case wants.

    Raises:
        StageUnobservedError: always, for such a case.
    """
    if options.continue_final_message:
        raise StageUnobservedError("llama-cpp-python's server cannot be asked to continue the last message")
