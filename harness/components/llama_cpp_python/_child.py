"""What both components of llama-cpp-python share: their options, their child process, and reading what it tells."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.components.llama_cpp_python._loaded import loaded_of
from harness.components.llama_cpp_python._signature import HELD, checked, keywords
from harness.process.child import Child
from harness.process.worker import Worker
from harness.settings import Loaded
from harness.stage import Stage, StageFailedError, StageUnobservedError
from harness.values import Json, ModelRef, Prompt, Tokens

_TEMPLATE_ERRORS = ("TemplateSyntaxError:", "TemplateAssertionError:")
"""What Jinja2 raises while it compiles a template: its syntax, and filters and tests that it does not know."""
CacheType = Literal["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

VARIATIONS: Mapping[str, Mapping[str, Any]] = {
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


class Options(BaseModel):
    """What a stack definition may set: keyword arguments of `llama_cpp.Llama`, and the limits of its process.

    What is left out keeps llama-cpp-python's own default; `memory_mb`, nine tenths of the machine's memory. Keywords
    that are no fields here (`rope_freq_base`) are those of the release that is installed.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

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

    @model_validator(mode="after")
    def _taken_by_llama(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in HELD:
                raise ValueError(f"{name} cannot be set: {HELD[name]}")
            if name not in keywords():
                near = difflib.get_close_matches(name, [*type(self).model_fields, *keywords()], n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"llama_cpp.Llama takes no {name!r} from a stack's file{hint}")
            try:
                checked(name, value)
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors(include_url=False)[0]['msg']}") from None
        return self

    def memory_bytes(self) -> int:
        """Return the limit of the child's private memory: one that a healthy engine on this machine never meets."""
        if self.memory_mb is not None:
            return self.memory_mb << 20
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10 * 9

    def for_llama(self) -> dict[str, Any]:
        """Return the keywords for `llama_cpp.Llama`."""
        return self.model_dump(exclude={"seconds", "memory_mb"}, exclude_none=True)


class LlamaChild:
    """The child process of a component, started when it is first needed.

    Args:
        target: The class that it serves, a `TappedLlama`, as `module:class` within this package.
        model: The model.
        options: How it is loaded.
    """

    def __init__(self, target: str, model: ModelRef, options: Options) -> None:
        self._target = target
        self._model = model
        self._options = options
        self._watch = False
        self._plants: list[tuple[str, Mapping[str, Any]]] = []
        self._child = self._made()

    def close(self) -> None:
        """End it."""
        self._child.close()

    def plant(self, hook: str, **keywords: Any) -> None:
        """Plant a defect: `hook` (`module:function`) is called in a new child with what it serves and the keywords."""
        self._plants.append((hook, keywords))
        self._restart()

    def unplant(self) -> None:
        """Remove every planted defect; the next call starts a clean child."""
        self._plants.clear()
        self._restart()

    def watch(self) -> None:
        """Have the nodes of the graph be seen from now on, by a new child with what was planted in this one."""
        if not self._watch:
            self._watch = True
            self._restart()

    def call(self, stage: Stage | None, method: str, **arguments: Any) -> Any:
        """Call a method of what it serves.

        Raises:
            StageRefusedError: the part raised an error of its own.
            StageFailedError: it died, took too long, or, in the stage that keeps it from starting, does not start.
            StageUnobservedError: it does not start, for what another stage has to answer; or it has changed inside.
            RemoteError: code of ours raised.
        """
        self._start(stage)
        return self._child.call(method, **arguments)

    def tokens(self, ids: Sequence[int]) -> Tokens:
        """Return ids with their texts, where they are shown."""
        try:
            pieces = tuple(self.call(Stage.TOKENIZATION, "pieces", ids=list(ids)))
        except StageUnobservedError:
            return Tokens(ids=tuple(ids))
        return Tokens(ids=tuple(ids), pieces=pieces)

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        seen = self.call(Stage.INFERENCE, "identity")
        flash = "flash attention" if seen["flash_attn"] == "true" else "no flash attention"
        return f"cache {seen['type_k']}/{seen['type_v']}, {flash}"

    def loaded(self, by: str) -> Loaded:
        """Return with which settings the model is loaded; `by` is what the component is called."""
        return loaded_of(self.call(None, "in_force"), self._options.for_llama(), by)

    def model_file(self) -> Path:
        """Return the file that the engine has opened."""
        return Path(self.call(None, "model_file"))

    def _start(self, stage: Stage | None) -> None:
        """Start the child where none runs. The stage whose part stops it from starting fails; others cannot be seen."""
        try:
            self._child.start()
        except StageFailedError as failed:
            # The binding compiles the template while it loads the model.
            template = (failed.failure.message or "").startswith(_TEMPLATE_ERRORS)
            if stage is (Stage.TEMPLATE if template else Stage.INFERENCE):
                raise
            raise StageUnobservedError(f"the engine does not start: {failed.failure.describe()}") from failed

    def _made(self) -> Child:
        worker = Worker(
            f"harness.components.llama_cpp_python.{self._target}",
            {
                "model_path": str(self._model.path),
                "chat_template": self._model.chat_template,
                "options": self._options.for_llama(),
                "plants": self._plants,
                "watch": self._watch,
            },
            seconds=self._options.seconds,
            file=self._model.path,
            memory=self._options.memory_bytes(),
            # An assertion's own words are the evidence; a debugger's listing of frames would push them out of the log.
            environment={"GGML_NO_BACKTRACE": "1"},
        )
        return Child(worker)

    def _restart(self) -> None:
        self._child.close()
        self._child = self._made()


def prompt_of(seen: Json) -> Prompt:
    """Return the prompt that the taps saw."""
    return Prompt(text=seen["text"], stop=tuple(seen["stop"]))
