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
    "Finding": "checking.verdict",
    "Generation": "values",
    "Golden": "project.golden",
    "ModelRef": "values",
    "Prompt": "values",
    "Refusal": "values",
    "Reply": "values",
    "Request": "values",
    "Stack": "project.stack",
    "Stage": "stage",
    "Tokens": "values",
    "Trace": "checking.trace",
    "UserError": "errors",
    "Verdict": "checking.verdict",
    "check": "explain.pipeline",
    "find_project": "project.project",
    "fuzz_template": "fuzz.template.api",
    "load_case": "project.cases",
    "load_stack": "project.stack",
    "open_session": "checking.opened",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
