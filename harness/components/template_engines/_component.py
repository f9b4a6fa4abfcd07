"""What the components of template engines share: the model's template, the child process, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from harness.models.gguf import read_model_file
from harness.parts import STUCK
from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import CaseOptions, Failure, Json, ModelRef, Prompt, Refusal, Request

MEMORY = 2 << 30
"""Bytes of private memory that a child may have, as the reference's."""
_START_SECONDS = 60.0
"""Time for what no signal interrupts, and for a start: importing transformers takes two seconds."""
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


class Options(BaseModel):
    """What a stack definition may set.

    Attributes:
        seconds: How long compiling and rendering a case may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(default=10.0, gt=0)

    def keywords(self) -> Json:
        """Return what the engine is made with."""
        return {}


class TemplateComponent:
    """The template stage by one engine, in a child process."""

    name: ClassVar[str]
    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.TEMPLATE})
    requires: ClassVar[tuple[str, str]]
    template_engine: ClassVar[str]
    """The import path of the engine's class, for who calls it in a process of their own."""
    continues: ClassVar[bool] = False
    """Whether it can be asked to leave the last message open."""
    options: ClassVar[type[Options]] = Options

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._model = model
        self._options = self.options.model_validate(options)
        init = {
            "engine": self.template_engine,
            "keywords": self._options.keywords(),
            "seconds": self._options.seconds,
        }
        worker = Worker(
            "harness.components.template_engines._child:Renderer",
            init,
            seconds=_START_SECONDS + self._options.seconds,
            memory=MEMORY,
            patience=2,
        )
        self._child = Child(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.close()

    def identity(self) -> Mapping[str, str]:
        """Return the version of what renders."""
        return {"engine": str(self._child.call("version"))}

    def model_file(self) -> Path:
        """Return the file whose template it renders, unless the model has another."""
        return self._model.path

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What the engine renders of the model's template."""
        if options.continue_final_message and not self.continues:
            raise StageUnobservedError(f"{self.name} cannot be asked to continue the last message")
        source, special = self._template
        variables = {**special, **options.template_kwargs}
        if request.tool_choice is not None:
            variables["tool_choice"] = request.tool_choice
        if options.continue_final_message:
            variables["continue_final_message"] = True
        try:
            seen = self._child.call(
                "render",
                source=source,
                messages=request.messages,
                tools=request.tools,
                variables=variables,
                clock=options.clock.isoformat(),
                opens=not options.continue_final_message,
            )
        except StageFailedError as failed:
            if failed.failure.signal == STUCK:
                raise StageFailedError(Failure(reason="hang", seconds=self._options.seconds)) from failed
            raise
        if "kind" in seen:
            self._end(seen)
        return _prompt(seen["text"], seen["before"])

    def _end(self, seen: Json) -> None:
        """Raise what an ending of the engine is to a stage."""
        if seen["kind"] == "unsupported":
            raise StageUnobservedError(f"{self.name}: {seen['message']}")
        if seen["name"] == "TimedOut":
            raise StageFailedError(Failure(reason="hang", seconds=self._options.seconds))
        # Of an undefined variable the name is the variable's.
        name = "UndefinedError" if seen["kind"] == "undefined" else seen["name"]
        raise StageRefusedError(Refusal(error=name, message=seen["message"]))

    @cached_property
    def _template(self) -> tuple[str, dict[str, str]]:
        """The template, and the texts of special tokens by their names in it."""
        metadata = read_model_file(self._model.path).metadata
        template = self._model.chat_template or metadata.get("tokenizer.chat_template")
        if not isinstance(template, str):
            raise StageUnobservedError(f"the model {self._model.name!r} has no chat template")
        tokens = metadata.get("tokenizer.ggml.tokens", [])
        ids = {name: metadata.get(f"tokenizer.ggml.{role}_token_id") for role, name in _ROLES.items()}
        known = {name: int(one) for name, one in ids.items() if one is not None}
        return template, {name: str(tokens[one]) for name, one in known.items() if 0 <= one < len(tokens)}


def _prompt(text: str, before: str) -> Prompt:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        message = "the text that the template gives holds a lone surrogate"
        raise StageRefusedError(Refusal(error="UnicodeEncodeError", message=message)) from None
    return Prompt(text=text, suffix=text[len(before) :] if text.startswith(before) else None)
