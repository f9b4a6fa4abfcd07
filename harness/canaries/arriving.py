"""What of a conversation arrives at the model: seen by how the prompt's length grows with each part of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from harness.canaries.asking import Asking, prompt_count, user, words
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.checking.compare.outcome import Outcome
from harness.stage import Stage, StageFailedError, StageRefusedError
from harness.values import Json

_FEW, _MANY = 4, 20
_LEAST: Final = 16
"""Tokens that 16 more pairs of a word and a number have at least."""
_STEPS: Final = (50, 200, 800, 3200)
_PATIENCE: Final = 6.0
"""Seconds for one prompt, after which no longer one is tried."""
_TEMPLATE: Final = (
    "look at what the server renders (harness trace URL CASE --dry-run); llama-server --jinja with the model's own "
    "template, Ollama: TEMPLATE in the Modelfile"
)
_CONTEXT: Final = "a larger context: llama-server -c N (shared by its slots, -np), Ollama PARAMETER num_ctx N"
_CALL_ID: Final = "call00001"
"""Mistral's templates take nine letters and digits, and nothing else."""
_CALL: Final[Json] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": _CALL_ID, "type": "function", "function": {"name": "look", "arguments": "{}"}}],
}
_TOOLS: Final[list[Json]] = [
    {"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}
]


def _grows(ask: Asking, turns: Callable[[str], list[Json]], what: str, **more: Any) -> Said:
    """Ask with a few words and with many in one place: others each time, as some count no token that is in a cache."""
    texts = (words(_FEW), words(_MANY, start=_MANY))
    lengths = [prompt_count(ask.chat(turns(text), max_tokens=1, **more)) for text in texts]
    said = f"{lengths[0]} and {lengths[1]} prompt tokens"
    if lengths[1] - lengths[0] >= _LEAST:
        return right(said)
    return wrong(said, f"{what} does not reach the model: with {_MANY - _FEW} more words in it the prompt has {said}")


def _other_than_user(ask: Asking, turns: Callable[[str], list[Json]], what: str, **more: Any) -> Said:
    """As `_grows`, where the counts are known to grow with what does arrive."""
    said = _grows(ask, turns, what, **more)
    if said.outcome is Outcome.DIVERGED and _user(ask).outcome is not Outcome.EQUAL:
        return unseen("the counts of prompt tokens do not grow with the user's message either")
    return said


@canary("user message", Stage.TEMPLATE, "is part of the prompt", "messages, user", _TEMPLATE, must_be_taken=True)
def _user(ask: Asking) -> Said:
    return _grows(ask, user, "the user's message")


@canary("system message", Stage.TEMPLATE, "is part of the prompt", "messages, system", _TEMPLATE)
def _system(ask: Asking) -> Said:
    def turns(text: str) -> list[Json]:
        return [{"role": "system", "content": text}, *user("Hi")]

    return _other_than_user(ask, turns, "the system message")


@canary("message in text parts", Stage.TEMPLATE, "is part of the prompt", "messages, content parts", _TEMPLATE)
def _parts(ask: Asking) -> Said:
    def turns(text: str) -> list[Json]:
        return [{"role": "user", "content": [{"type": "text", "text": text}]}]

    return _other_than_user(ask, turns, "a message in text parts")


@canary("earlier user message", Stage.TEMPLATE, "is part of the prompt", "messages", _TEMPLATE)
def _earlier(ask: Asking) -> Said:
    def turns(text: str) -> list[Json]:
        return [*user(text), {"role": "assistant", "content": "Yes."}, *user("Hi")]

    return _other_than_user(ask, turns, "an earlier message of the user's")


@canary("earlier answer", Stage.TEMPLATE, "is part of the prompt", "messages, assistant", _TEMPLATE)
def _answered(ask: Asking) -> Said:
    def turns(text: str) -> list[Json]:
        return [*user("Hi"), {"role": "assistant", "content": text}, *user("Hi")]

    return _other_than_user(ask, turns, "an earlier answer")


@canary("tool's result", Stage.TEMPLATE, "is part of the prompt", "messages, tool", _TEMPLATE)
def _result(ask: Asking) -> Said:
    def turns(text: str) -> list[Json]:
        return [*user("Hi"), _CALL, {"role": "tool", "tool_call_id": _CALL_ID, "content": text}]

    said = _other_than_user(ask, turns, "a tool's result", tools=_TOOLS)
    if said.outcome is Outcome.DIVERGED and _tools(ask).outcome is not Outcome.EQUAL:
        return unseen("neither tools nor their results change its prompt: the model's template may know none")
    return said


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


@canary("long prompt", Stage.INFERENCE, "arrives whole, or is refused", "messages; usage.prompt_tokens", _CONTEXT)
def _long(ask: Asking) -> Said:
    lengths: list[tuple[int, int]] = []
    for count in _STEPS:
        began = time.monotonic()
        try:
            lengths.append((count, prompt_count(ask.chat(words(count, start=count), max_tokens=1))))
        except StageRefusedError as refused:
            if not lengths:
                raise
            return right(f"whole up to {lengths[-1][1]} tokens; then refused: {refused.refusal.line}")
        except StageFailedError as failed:
            if not lengths or failed.failure.reason != "hang":
                raise
            break
        if cut := _cut(lengths):
            return wrong(cut, f"a long prompt is cut without a word: {cut}", "environment")
        if time.monotonic() - began > _PATIENCE:
            break
    return right(f"whole up to {lengths[-1][1]} tokens")


def _cut(lengths: list[tuple[int, int]]) -> str:
    """Return how the last prompt is too short for its words; empty where it is not.

    A word has no fewer tokens where the numbers beside the words are longer, so that a longer prompt has at least as
    many a word as the two before it differ by.
    """
    if len(lengths) < 2:
        return ""
    (few, short), (many, long) = lengths[-2:]
    least = float(_A_WORD)
    if len(lengths) > 2:
        earlier, shortest = lengths[-3]
        least = max(least, _SURE * (short - shortest) / (few - earlier))
    due = int(short + (many - few) * least)
    return f"{many} words with their numbers made {long} tokens, at least {due} are due" if long < due else ""


@canary("prompt beyond the context", Stage.INFERENCE, "is refused, not cut", "messages; usage.prompt_tokens", _CONTEXT)
def _beyond(ask: Asking) -> Said:
    context = _context(ask)
    if context is None:
        return unseen("it does not show how long its context is")
    if context > _LONGEST:
        return unseen(f"its context of {context} tokens is too long to be overfilled here")
    try:
        found = prompt_count(ask.chat(words(context, start=7), max_tokens=1))
    except StageRefusedError as refused:
        return right(f"refused: {refused.refusal.line}")
    said = f"{found} tokens of at least {_A_WORD * context}, with a context of {context}"
    if found >= _A_WORD * context:
        return unseen(f"it took {said}")
    return wrong(said, f"a prompt longer than the context is cut without a word: {said}", "environment")


def _context(ask: Asking) -> int | None:
    """Return the tokens that a conversation has, where the server is one of those that show it."""
    for path, *names in _CONTEXTS:
        value = ask.shown(str(path))
        for name in names:
            try:
                value = value[name]
            except (TypeError, LookupError):
                value = None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


@canary("control text of a user's", Stage.TOKENIZATION, "stays a text", "messages, user")
def _special(ask: Asking) -> Said:
    bare = prompt_count(ask.chat("Hi", max_tokens=1))
    # A space before it may be a token more.
    taken = [
        text for text in _SPECIAL if prompt_count(ask.chat(f"Hi {text * _TIMES}", max_tokens=1)) - bare <= _TIMES + 1
    ]
    if not taken:
        return right("several tokens each")
    # The API says nothing of it, and most servers do so.
    return unseen(f"{', '.join(taken)} in a user's message is one token, as if the template had written it")


_SPECIAL: Final = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
_TIMES: Final = 8
_CONTEXTS: Final[tuple[tuple[str | int, ...], ...]] = (
    ("/props", "default_generation_settings", "n_ctx"),  # llama-server, of one slot
    ("/api/v0/models", "data", 0, "loaded_context_length"),  # LM Studio
    ("/api/ps", "models", 0, "context_length"),  # Ollama
    ("/v1/models", "data", 0, "max_model_len"),  # vLLM
)
_LONGEST: Final = 16_384
_SURE: Final = 0.8
_A_WORD: Final = 2
"""Tokens that a word and its number have at least."""
