"""Properties tried on inputs that are made up. Hypothesis is imported here and nowhere else.

The strategies are for outside users too:

    from hypothesis import given
    from harness.fuzz import conversations

    @given(conversations(tools=True, adversarial=("poison", "nfc")))
    def test_my_renderer(conversation):
        render(conversation["messages"], conversation["tools"])

Names are imported when they are first used, so that `import harness.fuzz` loads no Hypothesis.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ADVERSITIES": "strategies._adversity",
    "Adversity": "strategies._adversity",
    "BrokenPropertyError": "template.api",
    "chat_requests": "strategies._conversations",
    "chunkings": "strategies._streams",
    "conversations": "strategies._conversations",
    "fixed_conversations": "strategies._fixed",
    "messages": "strategies._conversations",
    "fuzz_template": "template.api",
    "texts": "strategies._texts",
    "texts_for": "strategies._texts",
    "token_streams": "strategies._streams",
    "tool_calls": "strategies._tools",
    "tools": "strategies._tools",
    "try_parser": "parser.api",
    "try_template": "template.api",
    "try_tokenizers": "tokenizer.api",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness.fuzz' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.fuzz.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
