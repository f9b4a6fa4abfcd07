"""The form of an answer, what ends it, and what it counts."""

from __future__ import annotations

import re
from typing import Final

from harness.canaries.asking import Asking, content, counts, finish, usage_of
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.checking.compare.outcome import Outcome
from harness.stage import Stage
from harness.values import Json

_ENDS: Final = ("stop", "length", "tool_calls", "content_filter", "function_call")
_CONTROL: Final = re.compile(r"<\|[a-z][a-z0-9_]*\|>|<(?:start|end)_of_turn>|\[/?INST\]")
_THINKING: Final = re.compile(r"</?think>|<\|channel\|>")


@canary("kind of the answer", Stage.POSTPROCESS, '"chat.completion"', "object", must_be_taken=True)
def _object(ask: Asking) -> Said:
    found = ask.chat().get("object")
    return right(found) if found == "chat.completion" else wrong(found, f"object is {found!r}, not 'chat.completion'")


@canary("id of the answer", Stage.POSTPROCESS, "a text that is not empty", "id")
def _id(ask: Asking) -> Said:
    found = ask.chat().get("id")
    return right(found) if isinstance(found, str) and found else wrong(found, f"id is {found!r}")


@canary("time of the answer", Stage.POSTPROCESS, "a whole number of seconds", "created")
def _created(ask: Asking) -> Said:
    found = ask.chat().get("created")
    whole = isinstance(found, int) and not isinstance(found, bool)
    return right(found) if whole else wrong(found, f"created is {found!r}")


@canary("model of the answer", Stage.POSTPROCESS, "a text that is not empty", "model")
def _model(ask: Asking) -> Said:
    found = ask.chat().get("model")
    return right(found) if isinstance(found, str) and found else wrong(found, f"model is {found!r}")


@canary("one choice", Stage.POSTPROCESS, "one choice, of index 0", "choices")
def _choices(ask: Asking) -> Said:
    found = ask.chat()["choices"]
    indexes = [one.get("index") for one in found]
    return right(indexes) if indexes == [0] else wrong(indexes, f"the choices have the indexes {indexes}, not [0]")


@canary("role of the answer", Stage.POSTPROCESS, '"assistant"', "choices.message.role")
def _role(ask: Asking) -> Said:
    found = ask.chat()["choices"][0]["message"].get("role")
    return right(found) if found == "assistant" else wrong(found, f"the role is {found!r}, not 'assistant'")


@canary("reason of the end", Stage.POSTPROCESS, ", ".join(_ENDS), "choices.finish_reason")
def _finish(ask: Asking) -> Said:
    found = finish(ask.chat())
    return right(found) if found in _ENDS else wrong(found, f"finish_reason is {found!r}, which the API does not know")


@canary("usage", Stage.POSTPROCESS, "prompt_tokens, completion_tokens and total_tokens", "usage")
def _usage(ask: Asking) -> Said:
    found = usage_of(ask.chat())
    if found[0] > 0:
        return right(found)
    return wrong(found, f"the usage says that a prompt which is not empty has {found[0]} tokens")


@canary("usage of the same prompt", Stage.POSTPROCESS, "the same prompt_tokens, cached or not", "usage.prompt_tokens")
def _again(ask: Asking) -> Said:
    first, second = counts(ask.chat())[0], counts(ask.chat(again=1))[0]
    said = f"{first} and {second}"
    if first == second:
        return right(said)
    return wrong(said, f"asked the same again, the usage says {second} prompt tokens, not {first}")


@canary("sum of the usage", Stage.POSTPROCESS, "total_tokens is the sum of the two others", "usage.total_tokens")
def _sum(ask: Asking) -> Said:
    prompt, generated, total = counts(ask.chat())
    said = f"{prompt} + {generated} = {total}"
    return right(said) if prompt + generated == total else wrong(said, f"the usage says {said}")


@canary("cached tokens", Stage.POSTPROCESS, "no more than prompt_tokens", "usage.prompt_tokens_details.cached_tokens")
def _cached(ask: Asking) -> Said:
    answer = ask.chat(again=1)
    prompt = counts(answer)[0]
    details = answer["usage"].get("prompt_tokens_details")
    found = details.get("cached_tokens") if isinstance(details, dict) else None
    if not isinstance(found, int):
        return unseen("it does not tell how many tokens came from a cache")
    said = f"{found} of {prompt}"
    return right(said) if 0 <= found <= prompt else wrong(said, f"{found} tokens of a prompt of {prompt} were cached")


def _limited(ask: Asking, name: str) -> Said:
    asked: Json = {name: 3}
    answer = ask.chat(**asked)
    generated = counts(answer)[1]
    said = f"{generated} tokens for {name} 3"
    return right(said) if generated <= 3 else wrong(said, f"it generated {said}")


@canary("limit", Stage.INFERENCE, "at most as many tokens as asked", "max_tokens")
def _limit(ask: Asking) -> Said:
    return _limited(ask, "max_tokens")


@canary("limit by its newer name", Stage.INFERENCE, "at most as many tokens as asked", "max_completion_tokens")
def _newer_limit(ask: Asking) -> Said:
    return _limited(ask, "max_completion_tokens")


@canary("end by the limit", Stage.POSTPROCESS, '"length" where the limit ended it', "choices.finish_reason")
def _length(ask: Asking) -> Said:
    answer = ask.chat(max_tokens=1)
    if not content(answer):
        return unseen("its model generated no text in one token")
    if content(answer) == content(ask.chat()):
        return unseen("the limit does not cut its answer")
    found = finish(answer)
    said = f"{found!r} after {content(answer)!r}"
    return right(said) if found == "length" else wrong(said, f"cut after one token, it says {found!r}, not 'length'")


def _stopped(ask: Asking, several: bool, text: bool) -> Said:
    whole = content(ask.chat())
    parts = whole.split()
    if len(parts) < 4:
        return unseen("its model says too little to stop it")
    stop = f" {parts[2]}"
    if stop not in whole:
        return unseen("its model's words are not parted by spaces")
    given: object = stop if text else [stop]
    if several:
        given = ["zqxj1", "zqxj2", stop, "zqxj3"]
    answer = ask.chat(stop=given)
    found = content(answer)
    if stop in found:
        return wrong(found, f"its answer holds the stop string {stop!r}")
    before = whole[: whole.index(stop)]
    if found.strip() == before.strip():
        said = finish(answer)
        if said != "stop":
            return wrong(said, f"ended by a stop string, it says {said!r}, not 'stop'")
        return right(f"ended before {stop!r}")
    if before.startswith(found):
        return wrong(found, f"it ends before the stop string {stop!r} was reached: {found!r}, not {before!r}")
    return unseen("it answered otherwise than without a stop string")


@canary("stop string", Stage.POSTPROCESS, "ends the answer and is no part of it", "stop")
def _stop(ask: Asking) -> Said:
    return _stopped(ask, several=False, text=False)


@canary("stop string as a text", Stage.POSTPROCESS, "the same as a list of one", "stop")
def _stop_text(ask: Asking) -> Said:
    return _as_a_list(ask, _stopped(ask, several=False, text=True))


@canary("one of four stop strings", Stage.POSTPROCESS, "ends the answer and is no part of it", "stop")
def _stops(ask: Asking) -> Said:
    return _as_a_list(ask, _stopped(ask, several=True, text=False))


def _as_a_list(ask: Asking, said: Said) -> Said:
    """Return what is said of another form, unless a list of one is wrong too: that is one cause, and has its row."""
    if said.outcome is Outcome.DIVERGED and _stop(ask).outcome is Outcome.DIVERGED:
        return unseen("a stop string in a list of one does no better")
    return said


@canary(
    "control text",
    Stage.POSTPROCESS,
    "no text of a control token in the answer",
    "choices.message.content",
    "the model's end token is not known as one: take a file whose eos_token_id is right; the template in force may be "
    "another model's",
)
def _control(ask: Asking) -> Said:
    texts = [content(ask.chat()), content(ask.chat("Hello!", max_tokens=48))]
    found = [match.group() for text in texts for match in _CONTROL.finditer(text)]
    return wrong(found, f"its answer holds the control text {found[0]!r}") if found else right("none")


@canary(
    "reasoning apart",
    Stage.POSTPROCESS,
    "no reasoning in the content",
    "choices.message.content",
    "llama-server --reasoning-format auto; vLLM --reasoning-parser; Ollama: think",
)
def _reasoning(ask: Asking) -> Said:
    texts = [content(ask.chat()), content(ask.chat("Hello!", max_tokens=48))]
    found = [match.group() for text in texts for match in _THINKING.finditer(text)]
    return wrong(found, f"its content holds {found[0]!r}, the mark of reasoning") if found else right("none")
