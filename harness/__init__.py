"""Which part of a local LLM stack is broken.

    from harness import check, find_project, load_stack

    for verdict in check(find_project(), load_stack(find_project(), "llama-cpp-python")):
        print(verdict.line)

Names are imported when they are first used, so that `import harness` loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Case": "values",
    "Component": "stage",
    "Distributions": "values",
    "Failure": "values",
    "Finding": "verdict",
    "Generation": "values",
    "Golden": "golden",
    "ModelRef": "values",
    "Prompt": "values",
    "Refusal": "values",
    "Reply": "values",
    "Request": "values",
    "Stack": "stack",
    "Stage": "stage",
    "Tokens": "values",
    "Trace": "trace",
    "UserError": "errors",
    "Verdict": "verdict",
    "check": "session",
    "find_project": "project",
    "fuzz_template": "fuzz.template.api",
    "load_case": "golden",
    "load_stack": "stack",
    "open_session": "session",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
