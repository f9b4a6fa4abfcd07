"""Invariants of how a prompt is cut into batches. Each yields what it compared; see `invariants.INVARIANTS`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.llama.laboratory.comparing import Choice, alike, before_lone, parts_of, whole
from harness.llama.laboratory.engine import Engine
from harness.llama.laboratory.invariants import Seen

_SIZES = (8, 2, 32, 1, 3, 7, 16, 64, 512)
_FEW = 24
"""Ids of a prompt for several threads: where these share a core, each node of the graph waits for the scheduler."""


def n_ubatch(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Micro-batches of one size against a single one."""
    size = choice.pick(_SIZES)
    base = whole(engine, ids)
    engine.configure(n_ubatch=size)
    yield from alike(f"n_ubatch {size} and all at once", base, engine.prompt(ids), _exact(len(ids), size))


def n_batch(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Batches of one size against a single one."""
    size = choice.pick(_SIZES)
    base = whole(engine, ids)
    # llama.cpp 0.3.36 aborts where a batch has fewer rows than there may be sequences.
    engine.configure(n_batch=size, n_ubatch=size, n_seq_max=1)
    yield from alike(f"n_batch {size} and all at once", base, engine.prompt(ids), _exact(len(ids), size))


def lengths(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Prompts that end around the end of a micro-batch against the start of a longer one: causality at the seams."""
    size = choice.pick((8, 4, 16, 32))
    longest = [int(token) for token in np.resize(np.array(ids), 2 * size + 1)]
    base = whole(engine, longest)
    engine.configure(n_ubatch=size)
    for length in (size - 1, size, size + 1, 2 * size - 1, 2 * size, 2 * size + 1):
        engine.clear()
        what = f"{length} ids by n_ubatch {size}, and the start of {2 * size + 1}"
        yield from alike(what, base[:length], engine.prompt(longest[:length]), _exact(length, size))


def n_ctx(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Another size of the context."""
    size = choice.pick((2 * engine.n_ctx, engine.n_ctx // 2, 4 * engine.n_ctx))
    base = whole(engine, ids)
    engine.configure(n_ctx=size)
    yield from alike(f"n_ctx {size} and {engine.n_ctx}", base, engine.prompt(ids), len(ids))


def threads(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Several threads against one."""
    count = choice.pick((2, 3))
    base = whole(engine, ids[:_FEW])
    engine.configure(n_threads=count, n_threads_batch=count)
    yield from alike(f"{count} threads and 1", base, engine.prompt(ids[:_FEW]), len(base))


def split(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Two parts against the whole."""
    if len(ids) < 2:
        return
    cut = 1 + choice.pick(range(len(ids) - 1))
    base = whole(engine, ids)
    engine.clear()
    parts = np.concatenate([engine.prompt(ids[:cut]), engine.prompt(ids[cut:], start=cut)])
    yield from alike(f"cut at {cut} and whole", base, parts, before_lone([cut, len(ids) - cut]))


def one_by_one(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:  # noqa: ARG001
    """Token by token, as it is generated, against the whole."""
    base = whole(engine, ids)
    engine.clear()
    alone = np.concatenate([engine.prompt([token], start=at) for at, token in enumerate(ids)])
    yield from alike("token by token and whole", base, alone)


def _exact(length: int, size: int) -> int:
    """Return how many rows must be bit-identical when a prompt is cut into parts of a size."""
    return before_lone(parts_of(length, size)) if length > 1 else 0
