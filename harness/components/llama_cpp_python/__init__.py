"""llama.cpp through llama-cpp-python, in process: what `Llama.create_chat_completion` does, stage by stage."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    CaseOptions,
    Distributions,
    Failure,
    Generation,
    Json,
    ModelRef,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Usage,
)
from harness.worker import RemoteError, Worker, WorkerDiedError

_CONTEXT_MESSAGE = "exceed context window"
CacheType = Literal["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]


class Options(BaseModel):
    """What a stack definition may set: keyword arguments of `llama_cpp.Llama`, and the limits of its process.

    What is left out keeps llama-cpp-python's own default; `memory_mb`, nine tenths of the machine's memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: int = Field(default=2048, gt=0)
    n_batch: int | None = Field(default=None, gt=0)
    n_ubatch: int | None = Field(default=None, gt=0)
    n_threads: int | None = Field(default=None, gt=0)
    n_threads_batch: int | None = Field(default=None, gt=0)
    flash_attn: bool | None = None
    vocab_only: bool = False
    type_k: CacheType | None = None
    type_v: CacheType | None = None
    seconds: float = Field(default=120.0, gt=0)
    memory_mb: int | None = Field(default=None, gt=0)

    def memory_bytes(self) -> int:
        """Return the limit of the child's private memory: one that a healthy engine on this machine never meets."""
        if self.memory_mb is not None:
            return self.memory_mb << 20
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10 * 9

    def for_llama(self) -> dict[str, Any]:
        """Return the keywords for `llama_cpp.Llama`."""
        return self.model_dump(exclude={"seconds", "memory_mb"}, exclude_none=True)


class LlamaCppPython:
    """The five stages of llama-cpp-python, each observed in its own code, in a child process."""

    name: ClassVar[str] = "llama-cpp-python"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)
    requires: ClassVar[tuple[str, str]] = ("llama-cpp-python", "llama-cpp")
    without_weights: ClassVar[Mapping[str, Any]] = {"vocab_only": True}
    """Options that are enough for the stages before inference."""
    variations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as configured": {},
        "again": {},
        "1 thread": {"n_threads": 1, "n_threads_batch": 1},
        "2 threads": {"n_threads": 2, "n_threads_batch": 2},
        "n_batch 1": {"n_batch": 1},
        "n_batch 8": {"n_batch": 8},
        "n_batch 512": {"n_batch": 512},
        "n_ubatch 4": {"n_ubatch": 4},
        "flash attention": {"flash_attn": True},
        "K cache q8_0": {"type_k": "q8_0"},
        "cache q8_0": {"flash_attn": True, "type_k": "q8_0", "type_v": "q8_0"},
        "cache f32": {"type_k": "f32", "type_v": "f32"},
    }
    """Settings under which the engine is as healthy as under any other."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._options = Options.model_validate(options)
        self._model = model
        self._plants: list[tuple[str, Mapping[str, Any]]] = []
        self._worker = self._make_worker()
        self._no_start: tuple[Stage, Failure] | None = None

    def __enter__(self) -> LlamaCppPython:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._worker.close()

    def identity(self) -> Mapping[str, str]:
        """Return versions, build, processor features and effective settings of the engine."""
        identity: Mapping[str, str] = self._call(Stage.INFERENCE, "identity")
        return identity

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        seen = self.identity()
        flash = "flash attention" if seen["flash_attn"] == "true" else "no flash attention"
        return f"cache {seen['type_k']}/{seen['type_v']}, {flash}"

    def plant(self, hook: str, **keywords: Any) -> None:
        """Plant a defect: `hook` (`module:function`) is called in a new child with its `Engine` and the keywords."""
        self._plants.append((hook, keywords))
        self._restart()

    def unplant(self) -> None:
        """Remove every planted defect; the next call starts a clean child."""
        self._plants.clear()
        self._restart()

    def observe(self, method: str, **arguments: Any) -> Any:
        """Call a method that a planted hook gave to the child's `Engine`."""
        return self._call(Stage.INFERENCE, method, **arguments)

    # The five stages

    def request(self, case: Case) -> Request:
        """What `create_chat_completion` accepts of the body, and the settings it passes to the completion call."""
        _refuse_template_variables(case.options)
        return _request(self._call(Stage.CLIENT, "request", body=case.body))

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What its formatter renders."""
        _refuse_what_it_cannot_be_asked(options)
        seen = self._call(
            Stage.TEMPLATE,
            "render",
            messages=request.messages,
            tools=request.tools,
            tool_choice=request.tool_choice,
            clock=options.clock.isoformat(),
        )
        return Prompt(text=seen["text"], stop=tuple(seen["stop"]))

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What `llama_tokenize` gives, as the chat path calls it, and what the completion call makes of it."""
        return self._tokens(self._call(Stage.TOKENIZATION, "prompt_ids", text=prompt.text))

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What the engine computes and its sampler chooses."""
        seen = self._call(Stage.INFERENCE, "generate", prompt_ids=tokens.ids, settings=_settings(request), forced=forced)
        return _generation(seen)

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What its detokenizer, stop handling and response building make of the ids."""
        answer = self._call(
            Stage.POSTPROCESS,
            "reply",
            generated=generation.ids + generation.beyond,
            prompt_ids=tokens.ids,
            settings=_settings(request),
            stream=stream,
        )
        return _reply(answer)

    def chat(self, case: Case, *, stream: bool) -> Observation:
        """The real call from end to end."""
        _refuse_what_it_cannot_be_asked(case.options)
        seen = self._call(None, "chat", body=case.body, clock=case.options.clock.isoformat(), stream=stream)
        found: dict[str, Any] = {}
        if "request" in seen:
            found["request"] = _request(seen["request"])
        if "prompt" in seen:
            found["prompt"] = Prompt(text=seen["prompt"]["text"], stop=tuple(seen["prompt"]["stop"]))
        if "prompt_ids" in seen:
            found["tokens"] = self._tokens(seen["prompt_ids"])
        if "generation" in seen:
            found["generation"] = _generation(seen["generation"])
        if seen["error"] is None:
            found["reply"] = _reply(seen["reply"])
        else:
            reached = ("request", "prompt", "tokens", "generation", "reply")
            ended = next(name for name in reached if name not in found)
            found[ended] = _refusal(seen["error"]["error"], seen["error"]["message"])
        return Observation(**found)

    # The child

    def _tokens(self, ids: Sequence[int]) -> Tokens:
        return Tokens(ids=tuple(ids), pieces=tuple(self._call(Stage.TOKENIZATION, "pieces", ids=list(ids))))

    def _call(self, stage: Stage | None, method: str, **arguments: Any) -> Any:
        self._start(stage)
        try:
            return self._worker.call(method, **arguments)
        except RemoteError as error:
            raise StageRefusedError(_refusal(error.error, error.message)) from error
        except WorkerDiedError as death:
            raise StageFailedError(death.failure) from death

    def _start(self, stage: Stage | None) -> None:
        """Start the child where none runs. What once failed to start is not tried again for every case.

        The stage whose part stops it from starting fails; the others cannot be seen.
        """
        if self._no_start is None:
            try:
                self._worker.start()
            except RemoteError as error:
                # The binding compiles the template while it loads the model.
                at = Stage.TEMPLATE if error.error == "TemplateSyntaxError" else Stage.INFERENCE
                message = f"{error.error}: {_first_line(error.message)}"
                self._no_start = at, Failure(reason="start", message=message, log=error.log)
            except WorkerDiedError as death:
                self._no_start = Stage.INFERENCE, death.failure
        if self._no_start is not None:
            at, failure = self._no_start
            if stage is at:
                raise StageFailedError(failure)
            raise StageUnobservedError(f"the engine does not start: {failure.describe()}")

    def _make_worker(self) -> Worker:
        return Worker(
            "harness.components.llama_cpp_python._engine:Engine",
            {
                "model_path": str(self._model.path),
                "chat_template": self._model.chat_template,
                "options": self._options.for_llama(),
                "plants": self._plants,
            },
            seconds=self._options.seconds,
            memory=self._options.memory_bytes(),
            # An assertion's own words are the evidence; a debugger's listing of frames would push them out of the log.
            environment={"GGML_NO_BACKTRACE": "1"},
        )

    def _restart(self) -> None:
        self._worker.close()
        self._worker = self._make_worker()
        self._no_start = None


def _refuse_what_it_cannot_be_asked(options: CaseOptions) -> None:
    """Say so where `create_chat_completion` has no argument for what the case wants.

    Raises:
        StageUnobservedError: always, for such a case.
    """
    if options.continue_final_message:
        raise StageUnobservedError("llama-cpp-python cannot be asked to continue the last message")
    _refuse_template_variables(options)


def _refuse_template_variables(options: CaseOptions) -> None:
    if options.template_kwargs:
        raise StageUnobservedError("llama-cpp-python cannot be given template variables")


def _settings(request: Request) -> Json:
    """Return the settings that `create_chat_completion` has an argument for."""
    return {name: value for name, value in request.settings.items() if name != "chat_template_kwargs"}


def _request(seen: Json) -> Request:
    return Request(
        messages=tuple(seen["messages"]),
        tools=None if seen["tools"] is None else tuple(seen["tools"]),
        tool_choice=seen["tool_choice"],
        settings=seen["settings"],
    )


def _generation(seen: Json) -> Generation:
    return Generation(
        ids=tuple(seen["ids"]),
        chosen=tuple(seen["chosen"]),
        finish=seen["finish"],
        distributions=Distributions.from_logits(seen["logits"]),
        digests=tuple(seen["digests"]),
        settings=seen["settings"],
    )


def _reply(answer: Json | list[Json]) -> Reply:
    if isinstance(answer, list):
        return _streamed_reply(answer)
    choice, usage = answer["choices"][0], answer["usage"]
    calls = choice["message"].get("tool_calls")
    return Reply(
        content=choice["message"]["content"],
        tool_calls=None if calls is None else tuple(calls),
        finish_reason=choice["finish_reason"],
        usage=Usage(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"]),
    )


def _streamed_reply(chunks: Sequence[Json]) -> Reply:
    """Add up the deltas as a caller would."""
    choices = [chunk["choices"][0] for chunk in chunks]
    parts = [choice["delta"].get("content") for choice in choices]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None]
    return Reply(
        content="".join(part for part in parts if part is not None),
        finish_reason=ends[-1] if ends else None,
        deltas=tuple(choice["delta"] for choice in choices),
    )


def _refusal(error: str, message: str) -> Refusal:
    return Refusal(error=error, message=_first_line(message), context=_CONTEXT_MESSAGE in message)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
