"""What of a conversation arrives at the model: seen by how the prompt's length grows with each part of it."""

from __future__ import annotations

import time
from typing import Any, Final

from harness.canaries.asking import Asking, prompt_count, user, words
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.stage import Stage, StageRefusedError
from harness.values import Json

_FEW, _MANY = 4, 20
_LEAST: Final = 16
"""Tokens that 16 more pairs of a word and a number have at least."""
_STEPS: Final = (50, 200, 800, 3200)
_PATIENCE: Final = 8.0
"""Seconds for one prompt, after which no longer one is tried."""
_TEMPLATE: Final = (
    "look at what the server renders (harness trace URL CASE --dry-run); llama-server --jinja with the model's own "
    "template, Ollama: TEMPLATE in the Modelfile"
)
_CONTEXT: Final = "a larger context: llama-server -c N (shared by its slots, -np), Ollama PARAMETER num_ctx N"
_CALL: Final[Json] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
}
_TOOLS: Final[list[Json]] = [
    {"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}
]


def _grows(ask: Asking, pair: list[list[Json]], what: str, **more: Any) -> Said:
    lengths = [prompt_count(ask.chat(turns, max_tokens=1, **more)) for turns in pair]
    said = f"{lengths[0]} and {lengths[1]} prompt tokens"
    if lengths[1] - lengths[0] >= _LEAST:
        return right(said)
    return wrong(said, f"{what} does not reach the model: with {_MANY - _FEW} more words in it the prompt has {said}")


@canary("system message", Stage.TEMPLATE, "is part of the prompt", "messages, system", _TEMPLATE)
def _system(ask: Asking) -> Said:
    turns = [[{"role": "system", "content": words(n)}, *user("Hi")] for n in (_FEW, _MANY)]
    return _grows(ask, turns, "the system message")


@canary("user message", Stage.TEMPLATE, "is part of the prompt", "messages, user", _TEMPLATE, must_be_taken=True)
def _user(ask: Asking) -> Said:
    return _grows(ask, [user(words(_FEW)), user(words(_MANY))], "the user's message")


@canary("message in text parts", Stage.TEMPLATE, "is part of the prompt", "messages, content parts", _TEMPLATE)
def _parts(ask: Asking) -> Said:
    turns = [[{"role": "user", "content": [{"type": "text", "text": words(n)}]}] for n in (_FEW, _MANY)]
    return _grows(ask, turns, "a message in text parts")


@canary("earlier user message", Stage.TEMPLATE, "is part of the prompt", "messages", _TEMPLATE)
def _earlier(ask: Asking) -> Said:
    turns = [[*user(words(n)), {"role": "assistant", "content": "Yes."}, *user("Hi")] for n in (_FEW, _MANY)]
    return _grows(ask, turns, "an earlier message of the user's")


@canary("earlier answer", Stage.TEMPLATE, "is part of the prompt", "messages, assistant", _TEMPLATE)
def _answered(ask: Asking) -> Said:
    turns = [[*user("Hi"), {"role": "assistant", "content": words(n)}, *user("Hi")] for n in (_FEW, _MANY)]
    return _grows(ask, turns, "an earlier answer")


@canary("tool's result", Stage.TEMPLATE, "is part of the prompt", "messages, tool", _TEMPLATE)
def _result(ask: Asking) -> Said:
    turns = [
        [*user("Hi"), _CALL, {"role": "tool", "tool_call_id": "call_1", "content": words(n)}] for n in (_FEW, _MANY)
    ]
    return _grows(ask, turns, "a tool's result", tools=_TOOLS)


@canary("tools", Stage.TEMPLATE, "are part of the prompt", "tools", _TEMPLATE)
def _tools(ask: Asking) -> Said:
    function = {"name": "look", "description": words(_MANY), "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    bare = prompt_count(ask.chat("Hi", max_tokens=1))
    declared = prompt_count(ask.chat("Hi", max_tokens=1, tools=tools))
    said = f"{bare} and {declared} prompt tokens"
    if declared - bare >= _LEAST:
        return right(said)
    return unseen(f"the prompt has {said}: the model's template may know no tools")


@canary("long prompt", Stage.INFERENCE, "arrives whole, or is refused", "messages", _CONTEXT)
def _long(ask: Asking) -> Said:
    lengths: list[tuple[int, int]] = []
    for count in _STEPS:
        began = time.monotonic()
        try:
            lengths.append((count, prompt_count(ask.chat(words(count), max_tokens=1))))
        except StageRefusedError as refused:
            if not lengths:
                raise
            return right(f"whole up to {lengths[-1][1]} tokens; then refused: {refused.refusal.line}")
        if len(lengths) > 1 and (cut := _cut(lengths)):
            return wrong(cut, f"a long prompt is cut without a word: {cut}", "environment")
        if time.monotonic() - began > _PATIENCE:
            break
    return right(f"whole up to {lengths[-1][1]} tokens")


def _cut(lengths: list[tuple[int, int]]) -> str:
    """Return how the last prompt is too short for its words; empty where it is not."""
    (few, short), (many, long) = lengths[0], lengths[-1]
    # The first prompt has what every prompt has beside its words, so this is no more than is due.
    due = short + (many - few) * _A_WORD
    return f"{many} words with their numbers made {long} tokens, at least {due} are due" if long < due else ""


_A_WORD: Final = 2
"""Tokens that a word and its number have at least."""
