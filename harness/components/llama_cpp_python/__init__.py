"""llama.cpp through llama-cpp-python, in process: what `Llama.create_chat_completion` does, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from harness.components.llama_cpp_python._child import VARIATIONS, LlamaChild, Options, prompt_of
from harness.settings import Loaded
from harness.stage import Stage, StageUnobservedError
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
from harness.wire.chat import reply_of


class LlamaCppPython:
    """The five stages of llama-cpp-python, each observed in its own code, in a child process."""

    name: ClassVar[str] = "llama-cpp-python"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)
    requires: ClassVar[tuple[str, str]] = ("llama-cpp-python", "llama-cpp")
    without_weights: ClassVar[Mapping[str, Any]] = {"vocab_only": True}
    """Options that are enough for the stages before inference."""
    variations: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIATIONS
    brief: ClassVar[frozenset[str]] = frozenset({"as configured", "n_batch 8", "flash attention", "cache q8_0"})

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._child = LlamaChild("_engine:Engine", model, Options.model_validate(options))

    def __enter__(self) -> LlamaCppPython:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
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
        """Plant a defect: `hook` (`module:function`) is called in a new child with its `Engine` and the keywords."""
        self._child.plant(hook, **keywords)

    def unplant(self) -> None:
        """Remove every planted defect; the next call starts a clean child."""
        self._child.unplant()

    def observe(self, method: str, **arguments: Any) -> Any:
        """Call a method that a planted hook gave to the child's `Engine`."""
        return self._child.call(Stage.INFERENCE, method, **arguments)

    def watch(self) -> None:
        """Have the nodes of the graph be seen from now on."""
        self._child.watch()

    def activations(self, ids: Sequence[int], names: Sequence[str]) -> Mapping[str, Any]:
        """Return what nodes of the graph compute when these ids are fed; see `harness.stage.Transparent`."""
        self.watch()
        found = self._child.call(Stage.INFERENCE, "activations", ids=list(ids), names=list(names))
        if isinstance(found, str):
            raise StageUnobservedError(found)
        return dict(found)

    # The five stages

    def request(self, case: Case) -> Request:
        """What `create_chat_completion` accepts of the body, and the settings it passes to the completion call."""
        _refuse_template_variables(case.options)
        return _request(self._child.call(Stage.CLIENT, "request", body=case.body))

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What its formatter renders."""
        _refuse_what_it_cannot_be_asked(options)
        seen = self._child.call(
            Stage.TEMPLATE,
            "render",
            messages=request.messages,
            tools=request.tools,
            tool_choice=request.tool_choice,
            clock=options.clock.isoformat(),
        )
        return prompt_of(seen)

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What `llama_tokenize` gives, as the chat path calls it, and what the completion call makes of it."""
        return self._child.tokens(self._child.call(Stage.TOKENIZATION, "prompt_ids", text=prompt.text))

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What the engine computes and its sampler chooses."""
        settings = _settings(request)
        seen = self._child.call(Stage.INFERENCE, "generate", prompt_ids=tokens.ids, settings=settings, forced=forced)
        return Generation.tapped(seen)

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What its detokenizer, stop handling and response building make of the ids."""
        answer = self._child.call(
            Stage.POSTPROCESS,
            "reply",
            generated=generation.ids + generation.beyond,
            prompt_ids=tokens.ids,
            settings=_settings(request),
            stream=stream,
        )
        return reply_of(answer)

    def chat(self, case: Case, *, stream: bool) -> Observation:
        """The real call from end to end."""
        _refuse_what_it_cannot_be_asked(case.options)
        seen = self._child.call(None, "chat", body=case.body, clock=case.options.clock.isoformat(), stream=stream)
        found: dict[str, Any] = {}
        if "request" in seen:
            found["request"] = _request(seen["request"])
        if "prompt" in seen:
            found["prompt"] = prompt_of(seen["prompt"])
        if "prompt_ids" in seen:
            found["tokens"] = self._child.tokens(seen["prompt_ids"])
        if "generation" in seen:
            found["generation"] = Generation.tapped(seen["generation"])
        if seen["error"] is None:
            found["reply"] = reply_of(seen["reply"])
        else:
            reached = ("request", "prompt", "tokens", "generation", "reply")
            ended = next(name for name in reached if name not in found)
            found[ended] = Refusal.of(**seen["error"])
        return Observation(**found)


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
        defaults=tuple(seen["defaults"]),
    )
