"""Invariants of the samplers: they do what they say. Each yields what it claims; see `invariants.INVARIANTS`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from harness.llama.laboratory import sampling
from harness.llama.laboratory.comparing import Choice, claim, finite, whole
from harness.llama.laboratory.engine import Engine, Logits
from harness.llama.laboratory.invariants import Seen

_DRAWS = 16
_FLAT = 1000.0
"""A temperature at which ids are nearly equally likely: two seeds that agree in all draws are then no chance."""
_FORCED = 1e6
_GRAMMARS: tuple[tuple[str, str, str], ...] = (
    ("root ::= [0-9]+", "[0-9]+", "[0-9]+"),
    ('root ::= "yes" | "no"', "yes|no", "y(es?)?|no?"),
    ("root ::= [a-c] [x-z]*", "[a-c][x-z]*", "[a-c][x-z]*"),
)
"""Grammars, each with a regular expression for its texts and one for their beginnings."""
_STEPS = 5
_SHORT = 16
"""Ids of a prompt: a sampler sees one row of logits, however long the prompt before it."""
_ROUNDING = 4e-7
"""A few roundings of float32, relative: compilers may or may not fuse the multiplication and the addition."""


def greedy(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:  # noqa: ARG001
    """Both ways of choosing the likeliest, at every position of the prompt."""
    ids = ids[-_SHORT:]
    logits = whole(engine, ids)
    seen = finite("the logits that are chosen from", logits)
    yield seen
    if seen.wrong:
        return
    for what, samplers in (
        ("the greedy sampler", [sampling.greedy()]),
        ("temperature 0", [sampling.temperature(0.0), sampling.drawn(1)]),
    ):
        with sampling.chain(engine, *samplers) as chain:
            chosen = [chain.choose(row) for row in range(len(ids))]
        # Two ids may have the largest logit.
        wrong = [row for row, token in enumerate(chosen) if logits[row, token] != logits[row].max()]
        found = f"chooses id {chosen[wrong[0]]}, not {logits[wrong[0]].argmax()}, at row {wrong[0]}" if wrong else ""
        yield claim(f"{what} and the largest logit", found)


def seed(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """The same row drawn from several times."""
    ids = ids[-_SHORT:]
    number = choice.pick((1, 2**31, 7))
    settings = choice.pick(((0.8, 40), (1.5, 0), (1.0, 2)))
    seen = finite("the logits that are drawn from", whole(engine, ids))
    yield seen
    if seen.wrong:
        return
    row = len(ids) - 1
    first, again = (_draws(engine, row, number, *settings) for _ in range(2))
    wrong = "" if first == again else f"draws {first}, then {again}"
    yield claim(f"seed {number} and itself, temperature {settings[0]}, top_k {settings[1]}", wrong)
    one, other = (_draws(engine, row, value, _FLAT, 0) for value in (number, number + 1))
    wrong = f"draw the same {_DRAWS} ids of {engine.n_vocab} nearly equal ones" if one == other else ""
    yield claim(f"seeds {number} and {number + 1}", wrong)


def logit_bias(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """A bias on the prompt's last id, and a ban on the likeliest one."""
    ids = ids[-_SHORT:]
    logits = whole(engine, ids)
    seen = finite("the biased logits", logits)
    yield seen
    if seen.wrong:
        return
    row, target, best = logits[-1], ids[-1], int(logits[-1].argmax())
    amount = choice.pick((2.5, -2.5, 0.0))
    with sampling.chain(engine, sampling.biased(engine, {target: amount})) as chain:
        yield _changed(
            f"a bias of {amount:g} on id {target}", row, chain.left_of(row), {target: float(row[target]) + amount}
        )
    with sampling.chain(engine, sampling.biased(engine, {target: _FORCED}), sampling.greedy()) as chain:
        forced = chain.choose(len(ids) - 1)
    yield claim(f"a bias of {_FORCED:g} on id {target}", "" if forced == target else f"id {forced} is chosen")
    ban = sampling.biased(engine, {best: -np.inf})
    with sampling.chain(engine, ban, sampling.temperature(_FLAT), sampling.drawn(1)) as chain:
        chosen = [chain.choose(len(ids) - 1) for _ in range(_DRAWS)]
        left = chain.left_of(row)[best]
    wrong = "it is chosen" if best in chosen else f"its logit is {left}" if np.isfinite(left) else ""
    yield claim(f"a bias of -inf on id {best}", wrong)


def penalties(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Logits after the prompt's ids were seen.

    The rule of llama.cpp: of each id among the last `last`, a positive logit is divided by `repeat` and another one
    multiplied by it; then `frequency` for each time that it was seen and `presence` are taken off.
    """
    ids = ids[-_SHORT:]
    repeat, frequency, presence = choice.pick(((1.3, 0.0, 0.0), (1.0, 0.5, 0.0), (1.0, 0.0, 0.7), (1.1, 0.2, 0.3)))
    last = choice.pick((64, 4, 1))
    row = whole(engine, ids)[-1]
    seen = finite("the penalized logits", row[np.newaxis])
    yield seen
    if seen.wrong:
        return
    with sampling.chain(engine, sampling.penalized(engine, last, repeat, frequency, presence)) as chain:
        for token in ids:
            chain.remember(token)
        after = chain.left_of(row)
    wanted = {}
    for token, count in Counter(ids[-last:]).items():
        logit = float(row[token])
        scaled = logit / repeat if logit > 0 else logit * repeat
        wanted[token] = scaled - (count * frequency + presence)
    yield _changed(f"repeat {repeat}, frequency {frequency}, presence {presence}, last {last}", row, after, wanted)


def grammar(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """What a grammar leaves at the start, and what is generated under it."""
    ids = ids[-_SHORT:]
    text, whole_text, beginning = choice.pick(_GRAMMARS)
    row = whole(engine, ids)[-1]
    seen = finite("the logits under a grammar", row[np.newaxis])
    yield seen
    if seen.wrong:
        return
    pieces = sampling.pieces(engine)
    with sampling.chain(engine, sampling.bound_by(engine, text)) as chain:
        left = set(np.flatnonzero(np.isfinite(chain.left_of(row))).tolist())
    expected = _beginning_with(engine, beginning)
    differ = sorted(left ^ expected)
    wrong = ""
    if differ:
        wrong = f"{'lets through' if differ[0] in left else 'keeps out'} id {differ[0]} ({pieces[differ[0]]!r})"
    yield claim(f"{text}: the ids at its start", wrong)
    with sampling.chain(engine, sampling.bound_by(engine, text), sampling.greedy()) as chain:
        written, ended, at = b"", False, len(ids) - 1
        for step in range(_STEPS):
            token = chain.choose(at)
            ended = sampling.ends(engine, token)
            if ended:
                break
            written += pieces[token]
            engine.prompt([token], start=len(ids) + step)
            at = 0
    shown = written.decode("utf-8", errors="replace")
    matches = re.fullmatch(whole_text if ended else beginning, shown)
    yield claim(f"{text}: what is generated", "" if matches else f"{shown!r}{' and the end' if ended else ''}")


def end_ids(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:  # noqa: ARG001
    """`llama_cpp.Llama` generating after the prompt, with one end forced, and with all of them forbidden."""
    llama = _llama(engine.path)
    all_ends = [token for token in range(engine.n_vocab) if sampling.ends(engine, token)]
    yield claim("some id ends generation", "" if all_ends else "none does")

    def generate(bias: Mapping[int, float]) -> tuple[str, int]:
        done = llama.create_completion(list(ids[-_SHORT:]), max_tokens=2, temperature=0.0, logit_bias=dict(bias))
        return done["choices"][0]["finish_reason"], done["usage"]["completion_tokens"]

    for token in all_ends:
        finish, count = generate({token: _FORCED})
        wrong = "" if finish == "stop" else f"generation ends by {finish} after {count} ids"
        yield claim(f"end id {token} forced", wrong)
    finish, count = generate(dict.fromkeys(all_ends, -_FORCED))
    wrong = "" if (finish, count) == ("length", 2) else f"generation ends by {finish} after {count} ids"
    yield claim("end ids forbidden, at most 2 ids", wrong)


def _draws(engine: Engine, row: int, number: int, degree: float, count: int) -> list[int]:
    samplers = [sampling.top_k(count), sampling.temperature(degree), sampling.drawn(number)]
    with sampling.chain(engine, *samplers) as chain:
        return [chain.choose(row) for _ in range(_DRAWS)]


def _changed(what: str, before: Logits, after: Logits, wanted: Mapping[int, float]) -> Seen:
    """Claim that exactly the wanted logits, `(n_vocab,)` before and after, are changed, and to these values."""
    for token, value in wanted.items():
        if not abs(float(after[token]) - value) <= _ROUNDING * max(abs(value), abs(float(before[token])), 1.0):
            return claim(what, f"the logit of id {token} becomes {after[token]:.7g}, not {value:.7g}")
    other = np.ones(len(before), bool)
    other[list(wanted)] = False
    touched = np.flatnonzero(other & (before != after))
    return claim(what, f"the logit of id {touched[0]} is changed too" if touched.size else "")


@cache
def _beginning_with(engine: Engine, pattern: str) -> frozenset[int]:
    compiled = re.compile(pattern.encode())
    return frozenset(token for token, piece in enumerate(sampling.pieces(engine)) if compiled.fullmatch(piece))


@cache
def _llama(path: str) -> Any:
    from llama_cpp import Llama

    return Llama(path, n_ctx=4 * _SHORT, n_threads=1, n_threads_batch=1, verbose=False)
