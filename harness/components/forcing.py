"""Forced ids for an engine that generates only what it chooses: it is let run, and run again where it chose another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.stage import StageFailedError
from harness.values import Distributions, Failure, Generation, Json

_AHEAD = 8
"""How many ids are first let run in the hope that they are the forced ones."""


class Position(NamedTuple):
    """One position of a generation.

    Attributes:
        chosen: The id that the engine chose.
        ids: int32, (K,): the likeliest ids, likeliest first.
        logprobs: float32, (K,): theirs.
    """

    chosen: int
    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


def force(forced: Sequence[int], run: Callable[[int, int], Iterable[Position]], settings: Json) -> Generation:
    """Return what an engine computes at every forced position, each after exactly the forced ids before it.

    Args:
        forced: The ids; at least one.
        run: Called with how many of the forced ids to feed, and how many positions to generate after them at most.
        settings: Those in force.

    Raises:
        StageFailedError: it generated nothing after some of them, so that nothing more can be seen.
    """
    found: list[Position] = []
    ahead = _AHEAD
    while len(found) < len(forced):
        done = len(found)
        count = min(ahead, len(forced) - done)
        for position in islice(run(done, count), count):
            found.append(position)
            if position.chosen != forced[len(found) - 1]:
                break
        if len(found) == done:
            message = f"it was asked for {count} ids after {done} forced ones and gave none, or none with numbers"
            raise StageFailedError(Failure(reason="broken", message=message))
        ahead = 2 * (len(found) - done) if len(found) - done > 1 else 1
    width = min(len(position.ids) for position in found)
    ids = np.stack([position.ids[:width] for position in found])
    logprobs = np.stack([position.logprobs[:width] for position in found])
    return Generation(
        ids=tuple(forced),
        chosen=tuple(position.chosen for position in found),
        finish="forced",
        distributions=Distributions.kept(logprobs, ids),
        settings=settings,
    )
