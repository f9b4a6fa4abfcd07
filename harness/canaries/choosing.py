"""How tokens are chosen: greedy, drawn, with their probabilities, several at once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from harness.canaries.asking import PLAIN, Asking, content
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.checking.compare.outcome import Outcome
from harness.stage import Stage, StageRefusedError
from harness.values import Json
from harness.wire.form import reading

_STORY: Final = "Tell me something surprising."
_ROUNDING: Final = 1e-3
_ASKED: Final = 5
_NOTHING: Final = -50.0
_FAR: Final = 1.0
"""By which a log-probability moves where a token gets e times as likely."""


@canary(
    "greedy answers",
    Stage.INFERENCE,
    "the same answer to the same question at temperature 0, cached or not",
    "temperature",
)
def _greedy(ask: Asking) -> Said:
    return _alike(_shown(ask, PLAIN, 0), _shown(ask, PLAIN, 2), "asked again at temperature 0")


def _shown(ask: Asking, question: str, again: int) -> Json:
    """Return an answer with its log-probabilities, where the server gives any."""
    try:
        return ask.chat(question, again=again, logprobs=True, top_logprobs=_ASKED)
    except StageRefusedError:
        return ask.chat(question, again=again)


def _alike(one: Json, other: Json, when: str) -> Said:
    """Hold two answers to one question against each other.

    What else is in a batch, and what comes from a cache, changes the last digits of the numbers, and so may choose
    another of two tokens that are about as likely. It does not make a token e times as likely.
    """
    if content(one) == content(other):
        return right("the same")
    pairs = zip(_tokens(one), _tokens(other), strict=False)
    at = next((pair for pair in pairs if pair[0]["token"] != pair[1]["token"]), None)
    if at is None or not all(map(_of_the_model, at)):
        return unseen(f"it answers otherwise when {when}; without log-probabilities nobody can tell by how much")
    moved = max(_moved(at[0], at[1]), _moved(at[1], at[0]))
    said = f"{at[0]['token']!r}, then {at[1]['token']!r}"
    if moved <= _FAR:
        return unseen(f"it answers otherwise when {when}, by tokens about as likely ({said}), as batches can make it")
    why = f"it answers otherwise when {when}, and not by chance: {said}, whose log-probability moved by {moved:.1f}"
    return wrong(said, why, "engine")


def _tokens(answer: Json) -> list[dict[str, Any]]:
    with reading("the log-probabilities have another form"):
        shown = answer["choices"][0].get("logprobs")
        return [dict(token) for token in (shown or {}).get("content") or () if token["top_logprobs"]]


def _of_the_model(token: dict[str, Any]) -> bool:
    """Return whether these are the model's numbers: after greedy sampling one token has all, the rest none."""
    with reading("the likeliest tokens have another form"):
        values = sorted(float(top["logprob"]) for top in token["top_logprobs"])
        return len(values) > 1 and values[-2] > _NOTHING


def _moved(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return by how much the log-probability of a token is another, at least, where the other token was chosen."""
    with reading("the likeliest tokens have another form"):
        listed = {str(top["token"]): float(top["logprob"]) for top in other["top_logprobs"]}
        there = listed.get(str(one["token"]), min(listed.values()))
        return float(one["logprob"]) - there


@canary("seed", Stage.INFERENCE, "the same answer to the same seed, as far as can be", "seed")
def _seed(ask: Asking) -> Said:
    drawn = [content(ask.chat(_STORY, temperature=1, seed=7, again=again)) for again in (0, 1)]
    return right("the same twice") if drawn[0] == drawn[1] else unseen("it answers otherwise; the API promises no more")


@canary(
    "drawn answers",
    Stage.INFERENCE,
    "differ with the seed at temperature 1.5",
    "temperature",
    "look for sampler settings that nobody asked for: top_k 1 or temp 0 on the server's command line, in the "
    "Modelfile, or in the model file (general.sampling.*)",
)
def _drawn(ask: Asking) -> Said:
    drawn = {content(ask.chat(_STORY, temperature=1.5, top_p=1, seed=seed)) for seed in (1, 2, 3, 4)}
    if len(drawn) > 1:
        return right(f"{len(drawn)} different ones of 4")
    said = next(iter(drawn))
    if len(said.split()) < 4:
        return unseen("its model says too little to differ")
    return wrong(said, "four answers drawn at temperature 1.5 with four seeds are one and the same", "environment")


@canary("several choices", Stage.POSTPROCESS, "as many choices as asked", "n")
def _several(ask: Asking) -> Said:
    found = [one.get("index") for one in ask.chat(n=2)["choices"]]
    if sorted(found, key=str) == [0, 1]:
        return right(found)
    return wrong(found, f"asked for two choices, it gives the indexes {found}, and no error")


def _content_logprobs(ask: Asking) -> list[dict[str, Any]]:
    answer = ask.chat(logprobs=True, top_logprobs=_ASKED)
    with reading("the log-probabilities have another form"):
        shown = answer["choices"][0].get("logprobs")
        return [dict(one) for one in (shown or {}).get("content") or ()]


_NONE: Final = "it gives no log-probabilities"


@canary("log-probabilities", Stage.INFERENCE, "are of probabilities: none above 0", "logprobs")
def _logprobs(ask: Asking) -> Said:
    shown = _content_logprobs(ask)
    if not shown:
        return unseen(_NONE)
    with reading("a log-probability is no number"):
        highest = max(float(one["logprob"]) for one in shown)
    said = f"{len(shown)} tokens, the highest {highest:.3g}"
    return right(said) if highest <= _ROUNDING else wrong(said, f"a log-probability is {highest:.3g}, above 0")


@canary("sum of the likeliest", Stage.INFERENCE, "no more than 1", "top_logprobs")
def _mass(ask: Asking) -> Said:
    shown = _content_logprobs(ask)
    with reading("the likeliest tokens have another form"):
        sums = [math.fsum(math.exp(float(top["logprob"])) for top in one["top_logprobs"]) for one in shown]
    if not sums or not max(sums):
        return unseen(_NONE)
    said = f"at most {max(sums):.4f}"
    return right(said) if max(sums) <= 1 + _ROUNDING else wrong(said, f"probabilities add up to {max(sums):.4f}")


@canary(
    "greedy token",
    Stage.INFERENCE,
    "the likeliest one at temperature 0, as no penalty is asked for",
    "temperature; frequency_penalty and presence_penalty, 0 by default",
    "a repetition penalty that nobody asked for may be in force: llama-cpp-python takes 1.1 (send repeat_penalty 1.0), "
    "Ollama PARAMETER repeat_penalty 1, llama-server --repeat-penalty 1",
)
def _likeliest(ask: Asking) -> Said:
    shown = _content_logprobs(ask)
    with reading("the likeliest tokens have another form"):
        pairs = [
            (float(one["logprob"]), max(float(top["logprob"]) for top in one["top_logprobs"]), str(one["token"]))
            for one in shown
            if one["top_logprobs"]
        ]
    if not pairs:
        return unseen(_NONE)
    lower = [(own, best, token) for own, best, token in pairs if own < best - _ROUNDING]
    if not lower:
        return right(f"{len(pairs)} of {len(pairs)}")
    own, best, token = lower[0]
    said = f"{token!r} has {own:.3f}, another {best:.3f}"
    return wrong(said, f"at temperature 0 a token is chosen that is not the likeliest: {said}")


@canary("number of the likeliest", Stage.INFERENCE, "no more than asked", "top_logprobs")
def _number(ask: Asking) -> Said:
    shown = _content_logprobs(ask)
    if not shown:
        return unseen(_NONE)
    with reading("the likeliest tokens have another form"):
        most = max(len(one["top_logprobs"]) for one in shown)
    return right(most) if most <= _ASKED else wrong(most, f"asked for the {_ASKED} likeliest tokens, it gives {most}")


@canary("bytes of the tokens", Stage.POSTPROCESS, "the UTF-8 of the token", "logprobs.content.bytes")
def _bytes(ask: Asking) -> Said:
    with reading("the tokens have another form"):
        pairs = [(str(one["token"]), bytes(one["bytes"])) for one in _content_logprobs(ask) if one.get("bytes")]
    # Of a part of a character there is no text.
    whole = [(token, given) for token, given in pairs if "\ufffd" not in token]
    if not whole:
        return unseen("it gives no bytes of its tokens")
    other = [(token, given) for token, given in whole if token.encode("utf-8", "replace") != given]
    if not other:
        return right(f"{len(whole)} tokens")
    token, given = other[0]
    return wrong(other[0], f"the bytes of the token {token!r} are {given!r}")


@canary("texts of the tokens", Stage.POSTPROCESS, "add up to the content", "logprobs.content.bytes")
def _texts(ask: Asking) -> Said:
    shown = _content_logprobs(ask)
    if not shown:
        return unseen(_NONE)
    with reading("the tokens have another form"):
        listed = [one.get("bytes") for one in shown]
        given = all(isinstance(one, list) for one in listed)
        made = b"".join(
            bytes(one["bytes"]) if given else str(one["token"]).encode("utf-8", "replace") for one in shown
        ).decode("utf-8", errors="replace")
    message = ask.chat(logprobs=True, top_logprobs=_ASKED)["choices"][0]["message"]
    whole = str(message.get("content") or "").strip()
    if whole and whole in made:
        return right(f"{len(shown)} tokens")
    if not given or not whole or "\ufffd" in made or any("reason" in name for name in message):
        return unseen("the tokens are other texts than the content, which parsers may make of them")
    return wrong(made, f"the tokens add up to {made[:60]!r}, the content is {whole[:60]!r}")


@canary(
    "two at once",
    Stage.INFERENCE,
    "each is answered as it is alone",
    "messages",
    "llama-server: a context for all slots, -c and -np",
)
def _together(ask: Asking) -> Said:
    questions = ("Name a river.", "Name a mountain.")
    alone = [_shown(ask, question, 8) for question in questions]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(_shown, ask, question, 9) for question in questions]
        try:
            both = [one.result() for one in waiting]
        except StageRefusedError as refused:
            refusal = refused.refusal
            if refusal.error in _BUSY:
                raise
            why = f"of two requests at once one is refused, which alone is answered: {refusal.line}"
            return wrong(refusal.line, why, "environment")
    first, second = (content(one) for one in both)
    if first != second and [second, first] == [content(one) for one in alone]:
        return wrong(first, "of two requests at once each gets the answer to the other")
    said = [_alike(one, other, "another request is answered at once") for one, other in zip(alone, both, strict=True)]
    return next((one for one in said if one.outcome is not Outcome.EQUAL), right("2 of 2 as alone"))


_BUSY: Final = ("HTTP 429", "HTTP 503")
