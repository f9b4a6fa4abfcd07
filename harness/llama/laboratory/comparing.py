"""What an engine's properties are written with: settings picked by a number, two runs held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np

from harness.checking.compare.inference import divergences
from harness.llama.laboratory.engine import Engine, Logits
from harness.llama.laboratory.invariants import Seen
from harness.values import TOP_K, Distributions

T = TypeVar("T")


class Choice:
    """Picks settings by a number; a smaller one picks earlier options, so a counterexample shrinks to the plainest.

    Args:
        number: Not negative.
    """

    def __init__(self, number: int) -> None:
        self._left = number

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options; the next pick is independent of it."""
        self._left, at = divmod(self._left, len(options))
        return options[at]


def whole(engine: Engine, ids: Sequence[int]) -> Logits:
    """Return the logits of a prompt fed at once to an empty cache, `(ids, n_vocab)`: what others are held against."""
    engine.configure()
    return engine.prompt(ids)


def finite(what: str, logits: Logits) -> Seen:
    """Claim that logits are numbers."""
    return Seen(what=what, rule="claim", positions=len(logits), wrong=_not_finite(logits))


def claim(what: str, wrong: str = "") -> Seen:
    """Return a claim that holds where nothing is wrong."""
    return Seen(what=what, rule="claim", wrong=wrong)


def alike(
    what: str, base: Logits, other: Logits, exact: int = 0, rule: Literal["order", "rounding"] = "order"
) -> Iterator[Seen]:
    """Hold two runs of the same rows, `(rows, n_vocab)`, against each other.

    Args:
        what: The two sides.
        base: One.
        other: The other one.
        exact: How many rows, from the first, must agree bit for bit.
        rule: How the others must agree.
    """
    for logits in (base, other):
        wrong = _not_finite(logits)
        if wrong:
            yield Seen(what=what, rule="claim", positions=len(logits), wrong=wrong)
            return
    if exact > 0:
        yield _exact(what, base[:exact], other[:exact])
    if exact < len(base):
        yield _measured(what, rule, base[exact:], other[exact:])


def before_lone(parts: Sequence[int]) -> int:
    """Return how many rows precede the first micro-batch of a single token, given the sizes of all of them in order.

    A matrix by a single column takes other kernels; what is computed from its results differs too.
    """
    rows = 0
    for size in parts:
        if size == 1:
            break
        rows += size
    return rows


def parts_of(length: int, size: int) -> list[int]:
    """Return the sizes of the parts when rows are taken so many at a time."""
    return [min(size, length - at) for at in range(0, length, size)]


def _exact(what: str, base: Logits, other: Logits) -> Seen:
    # Bytes, so that -0.0 is not taken for 0.0.
    differ = np.flatnonzero((base.view(np.int32) != other.view(np.int32)).any(axis=1))
    if not differ.size:
        return Seen(what=what, rule="exact", positions=len(base), kl=0.0, median=0.0)
    seen = _measured(what, "exact", base, other)
    rows = f"{differ.size} of {len(base)} rows are not bit-identical, first row {differ[0]}"
    return seen.model_copy(update={"wrong": f"{rows} (KL {seen.kl:.3g} nats at most)"})


def _measured(what: str, rule: Literal["exact", "order", "rounding"], base: Logits, other: Logits) -> Seen:
    kl = divergences(Distributions.from_logits(base).top(TOP_K), Distributions.from_logits(other))
    return Seen(
        what=what,
        rule=rule,
        positions=len(kl),
        kl=float(kl.max()),
        median=float(np.median(kl)),
    )


def _not_finite(logits: Logits) -> str:
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    return f"not a number in {rows.size} of {len(logits)} rows of logits, first row {rows[0]}" if rows.size else ""
