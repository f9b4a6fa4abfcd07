"""Invariants of sequences, the cache and the attention. Each yields what it compared; see `invariants.INVARIANTS`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.llama.laboratory.comparing import Choice, alike, before_lone, claim, finite, whole
from harness.llama.laboratory.engine import Engine, Row
from harness.llama.laboratory.invariants import Seen

_F32 = 0  # ggml.h, enum ggml_type
_FLASH_ATTENTION = 1  # llama.h, enum llama_flash_attn_type
_MOVES = (1, 16, 100, 300, 1000)
"""By how much positions are moved, as far as the training length allows."""


def repeated(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Again in the same context, emptied, and in a new one."""
    base = whole(engine, ids)
    if choice.pick((False, True)):
        engine.configure()
        what = "again in a new context"
    else:
        engine.clear()
        what = "again in the same context"
    yield from alike(what, base, engine.prompt(ids), len(ids))


def neighbours(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Beside another sequence in one batch, with one cache for both: exact where its own cells stay the same."""
    where = choice.pick(("before", "after", "between"))
    base = whole(engine, ids)
    engine.clear()
    rows = _woven(where, ids, _other(ids))
    logits = engine.feed(rows)[[at for at, row in enumerate(rows) if row.sequence == 0]]
    exact = len(ids) if where == "before" and len(ids) > 1 else 0
    yield from alike(f"{where} another sequence in the batch, and alone", base, logits, exact)


def own_cache(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Beside another sequence of the same length, each with a cache of its own."""
    where = choice.pick(("before", "after", "between"))
    base = whole(engine, ids)
    engine.configure(kv_unified=False, n_seq_max=2)
    rows = _woven(where, ids, _other(ids))
    logits = engine.feed(rows)[[at for at, row in enumerate(rows) if row.sequence == 0]]
    # A single id is alone in its own run, and beside another one here.
    exact = len(ids) if len(ids) > 1 else 0
    yield from alike(f"{where} another sequence in the batch, with caches of their own", base, logits, exact)


def prefix_shared(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Two sequences go on from one prefix: the first in the cells where it would be alone, the second in others."""
    if len(ids) < 2:
        return
    cut = _middle(ids, choice)
    base = whole(engine, ids)
    engine.clear()
    engine.prompt(ids[:cut], sequence=1)
    engine.share(1, 0)
    exact = max(before_lone([cut, len(ids) - cut]) - cut, 0)
    for sequence in (0, 1):
        logits = engine.prompt(ids[cut:], sequence, start=cut)
        what = f"sequence {sequence} on a prefix of {cut} that two share, and fresh"
        yield from alike(what, base[cut:], logits, 0 if sequence else exact)


def state(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """A state saved and restored: into the same sequence, into another one, or beside the first, in other cells."""
    if len(ids) < 2:
        return
    target, beside = choice.pick(((0, False), (2, False), (2, True)))
    cut = _middle(ids, choice)
    base = whole(engine, ids)
    engine.clear()
    engine.prompt(ids[:cut])
    saved = engine.saved()
    if not beside:
        engine.clear()
    what = f"{cut} positions restored into sequence {target}{' beside the first' if beside else ''}"
    if not engine.restore(saved, target):
        yield claim(what, "llama.cpp refuses the state that it has saved")
        return
    # A state holds the number of its sequence.
    if target == 0 and engine.saved() != saved:
        yield claim(what, "saved again it is another state")
    exact = 0 if beside else max(before_lone([cut, len(ids) - cut]) - cut, 0)
    yield from alike(f"{what}, and fresh", base[cut:], engine.prompt(ids[cut:], target, start=cut), exact)


def rewound(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """The end of a sequence removed, and fed differently."""
    if len(ids) < 2:
        return
    cut = _middle(ids, choice)
    base = whole(engine, ids)
    engine.clear()
    engine.prompt([*ids[:cut], *_other(ids)])
    what = f"rewound to {cut}"
    if not engine.forget(0, cut):
        yield claim(what, "llama.cpp does not remove the end of a sequence")
        return
    exact = max(before_lone([cut + len(ids), len(ids) - cut]) - cut - len(ids), 0)
    yield from alike(f"{what}, and fresh", base[cut:], engine.prompt(ids[cut:], start=cut), exact)


def offset(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """A prompt that starts at a later position: rotary positions are relative."""
    if not engine.rotary:
        return
    by = _move(engine, ids, choice)
    base = whole(engine, ids)
    engine.clear()
    yield from alike(f"positions from {by} and from 0", base, engine.prompt(ids, start=by), rule="rounding")


def shift(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """A cache moved as a whole; nothing is dropped."""
    if len(ids) < 2 or not engine.rotary:
        return
    by = _move(engine, ids, choice)
    cut = len(ids) // 2
    base = whole(engine, ids)
    engine.clear()
    engine.prompt(ids[:cut])
    engine.shift(0, 0, -1, by)
    logits = engine.prompt(ids[cut:], start=cut + by)
    yield from alike(f"{cut} cells shifted by {by}, and fresh", base[cut:], logits, rule="rounding")


def hole(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """A context shift: some of the middle is dropped, the rest moved up, and the engine goes on.

    There is nothing to hold its logits against: the keys that stay were computed from those that are gone.
    """
    if len(ids) < 3:
        return
    start = _middle(ids[:-1], choice)
    end = start + 1 + choice.pick(range(len(ids) - 1 - start))
    engine.configure()
    engine.prompt(ids)
    what = f"positions {start} to {end} of {len(ids)} dropped"
    if not engine.forget(0, start, end):
        yield claim(what, "llama.cpp does not remove the middle of a sequence")
        return
    engine.shift(0, end, -1, start - end)
    left = len(ids) - (end - start)
    yield finite(what, engine.greedy(engine.prompt(ids[:1], start=left)[0], 4, start=left + 1)[1])


def flash_attention(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:  # noqa: ARG001
    """The fused attention kernel against the plain one."""
    base = whole(engine, ids)
    engine.configure(flash_attn_type=_FLASH_ATTENTION)
    yield from alike("flash attention and none", base, engine.prompt(ids), rule="rounding")


def cache_types(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Keys, values or both in float32 instead of float16."""
    types = choice.pick(({"type_k": _F32, "type_v": _F32}, {"type_k": _F32}, {"type_v": _F32}))
    base = whole(engine, ids)
    engine.configure(**types)
    yield from alike(f"{' and '.join(types)} f32, and f16", base, engine.prompt(ids), rule="rounding")


def past_training(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """Positions from below the training length to above it; learned ones end there."""
    if not engine.rotary:
        return
    start = max(engine.n_ctx_train - choice.pick((len(ids) // 2, 1, 0)), 0)
    engine.configure()
    yield finite(f"positions from {start}, trained on {engine.n_ctx_train}", engine.prompt(ids, start=start))


def long_prompt(engine: Engine, ids: Sequence[int], choice: Choice) -> Iterator[Seen]:
    """The ids again and again, beyond the training length."""
    if not engine.rotary:
        return
    length = engine.n_ctx_train + choice.pick((1, 16))
    engine.configure(n_ctx=length + 1, n_seq_max=1, n_batch=256, n_ubatch=256)
    tokens = [int(token) for token in np.resize(np.array(ids), length)]
    # Batch by batch, as the logits of all rows together would fill the memory.
    for at in range(0, length, 256):
        seen = finite(f"ids {at} and on of {length}", engine.prompt(tokens[at : at + 256], start=at))
        if seen.wrong:
            yield seen
            return
    yield claim(f"{length} ids, trained on {engine.n_ctx_train}")


def _other(ids: Sequence[int]) -> list[int]:
    """Return ids of the same number for another sequence."""
    return [*ids[1:], ids[0] + 1 if ids[0] == 0 else ids[0] - 1]


def _middle(ids: Sequence[int], choice: Choice) -> int:
    """Return where to cut ids in two, the middle first."""
    places = list(range(1, len(ids)))
    return choice.pick(sorted(places, key=lambda at: (abs(2 * at - len(ids)), at)))


def _move(engine: Engine, ids: Sequence[int], choice: Choice) -> int:
    return choice.pick([by for by in _MOVES if by + len(ids) <= engine.n_ctx_train] or (1,))


def _woven(where: str, ids: Sequence[int], others: Sequence[int]) -> list[Row]:
    """Return a batch of sequence 0 before, after or between the rows of sequence 1."""
    ours = [Row(token, at, 0) for at, token in enumerate(ids)]
    theirs = [Row(token, at, 1) for at, token in enumerate(others)]
    if where == "between":
        return [row for pair in zip(theirs, ours, strict=True) for row in pair]
    return [*ours, *theirs] if where == "before" else [*theirs, *ours]
