"""How tokens are chosen: greedy, drawn, with their probabilities, several at once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from harness.canaries.asking import Asking, content
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.stage import Stage
from harness.wire.form import reading

_STORY: Final = "Tell me something surprising."
_ROUNDING: Final = 1e-3


@canary("greedy answers", Stage.INFERENCE, "the same answer to the same question at temperature 0", "temperature")
def _greedy(ask: Asking) -> Said:
    one, other = content(ask.chat(again=2)), content(ask.chat(again=3))
    if one == other:
        return right("the same twice")
    return unseen("it answers otherwise when asked again, which other requests in its batch can make it do")


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
    answer = ask.chat(logprobs=True, top_logprobs=5)
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


@canary("greedy token", Stage.INFERENCE, "the likeliest one at temperature 0", "top_logprobs")
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


@canary("texts of the tokens", Stage.POSTPROCESS, "add up to the content", "logprobs.content.token")
def _texts(ask: Asking) -> Said:
    shown = _content_logprobs(ask)
    if not shown:
        return unseen(_NONE)
    with reading("the tokens have another form"):
        listed = [one.get("bytes") for one in shown]
        if all(isinstance(one, list) for one in listed):
            made = b"".join(bytes(one) for one in listed if one is not None).decode("utf-8", errors="replace")
        else:
            made = "".join(str(one["token"]) for one in shown)
    whole = content(ask.chat(logprobs=True, top_logprobs=5))
    if made.strip().startswith(whole.strip()):
        return right(f"{len(shown)} tokens")
    if "\ufffd" in made:
        return unseen("a token ends inside a character")
    return unseen("the tokens are other texts than the content, which parsers may make of them")


@canary(
    "two at once",
    Stage.INFERENCE,
    "each is answered",
    "the request",
    "llama-server: a context for all slots, -c and -np",
)
def _together(ask: Asking) -> Said:
    questions = ("Name a river.", "Name a mountain.")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask.chat, question, again=9) for question in questions]
        answers = [content(one.result()) for one in waiting]
    alone = [content(ask.chat(question, again=8)) for question in questions]
    same = sum(one == other for one, other in zip(answers, alone, strict=True))
    return right(f"{same} of 2 as alone")
