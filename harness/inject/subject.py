"""The engine that a campaign hurts: one prompt, a clean run, and the same run with each fault. In a child process.

Faults of one row are done many at a time: sequences that share the prompt's cells are decoded in one batch, a fault in
each, and row 0 kept clean as the control. What is wrong with one row does not reach another, as long as it is a number:
what is none spreads through the cache (0 times NaN is NaN). A batch whose control is not the clean run bit for bit is
therefore not believed, but split. A processor's kernels may sum the rows of one batch in different orders, so each row
is held against the same row of a clean batch. Where a clean batch does not repeat itself, every fault runs alone.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from harness.inject.fault import Fault, Injection, LeakError
from harness.inject.feeding import FEEDINGS, LOGITS
from harness.inject.kinds import PLANTINGS
from harness.inject.kinds.activations import Strike, watcher
from harness.inject.kinds.cache import cells_of
from harness.inject.kinds.strike import Effect, Moment, VoidError
from harness.llama.blocks import BLOCKS, require_known
from harness.llama.ggml import VIEWS, Watcher, operator_name, rows_of
from harness.llama.laboratory.engine import Engine, Logits, Row
from harness.llama.layout import Tensor

_HUGE_BIT: Final = 29
"""From this bit of a float32 on, a flip makes numbers whose squares overflow. Such a fault runs alone, which takes less
than splitting the batch that it spoils."""
_HALVED: Final = frozenset({"norm", "attn_norm", "Qcur", "Kcur", "Vcur"})
"""Nodes that attention computes from in float16, which overflows at 65,504."""
_HALVED_BIT: Final = 27
"""And the bit from which on that was seen, in 7,000 flips (docs/studies/faults.md)."""
_ALONE: Final = "a clean one does not repeat itself on this processor: every fault runs alone"


class Subject:
    """A model, a prompt and its clean continuation.

    Args:
        path: The GGUF.
        prompt: Its ids; at least two.
        steps: How many ids are generated after the first, each by a decode of its own.
        rows: Sequences in one batch, the control included.
        limit: The KL divergence in nats above which the check of distributions notices.
        threads: How many threads compute.
        context: Further fields of `llama_context_params`.
    """

    def __init__(
        self,
        path: str,
        prompt: Sequence[int],
        steps: int,
        rows: int,
        limit: float,
        threads: int = 2,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        cells = 256 * -(-(len(prompt) + rows * steps + 1) // 256)
        self._engine = Engine(path, n_ctx=cells, n_seq_max=rows, threads=threads, context=context)
        self._prompt, self._steps, self._rows, self._limit = list(prompt), steps, rows, limit
        # Found by a run of its own, before there is anything in the cache.
        self._weights, self._caches = self._engine.weights(), self._engine.caches()
        require_known(tensor.type for tensor in self._weights.values())
        self._moment = Moment()
        self._sites = self._activation_sites()
        self._prompt_is_fed = True
        self._clean = _Clean(*self._continued(self._fed()))
        self._beside = self._clean_batch()
        self._splits = 0
        if not np.array_equal(self._continued(self._again())[1], self._clean.logits):
            raise LeakError("the engine does not repeat its own numbers")

    def sites(self) -> dict[str, Any]:
        """Return everything that can be hurt.

        Returns:
            `activations`: by site its number of features; `weights`: by name the type, the number of blocks and the
            fields with their bits; `caches`: by name the elements and the bits of each; `n_layer`; `prompt`: its
            length; `engine`: what identifies it.
        """
        weights = {}
        for name, tensor in self._weights.items():
            if tensor.type in BLOCKS:
                size, fields = BLOCKS[tensor.type]
                count = int(tensor.nb[3] * tensor.ne[3]) // size
                bits = {field: 8 * length for field, (_, length) in fields.items()}
                weights[name] = {"type": tensor.type, "blocks": count, "bits": bits, "rows": int(tensor.ne[1])}
        caches = {}
        for name in self._caches:
            with contextlib.suppress(VoidError):
                cells = cells_of(self._engine, name)
                caches[name] = {"elements": cells.shape[1], "bits": 8 * cells.dtype.itemsize}
        return {
            "activations": self._sites,
            "weights": weights,
            "caches": caches,
            "n_layer": self._engine.n_layer,
            "prompt": len(self._prompt),
            "engine": self._engine.identity() | ({} if self._beside is not None else {"batches": _ALONE}),
        }

    def splits(self) -> int | None:
        """Return how many batches could not be believed and were split; None where a clean one is not repeatable."""
        return self._splits if self._beside is not None else None

    def inject(self, faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run faults and return what came of each, in the order in which they were given.

        Raises:
            LeakError: the clean run that follows is not what it was.
        """
        asked = [Fault.model_validate(one) for one in faults]
        together = [one for one in asked if self._beside is not None and _shares_a_batch(one)]
        found: dict[str, Injection] = {}
        for start in range(0, len(together), self._rows - 1):
            found |= self._together(together[start : start + self._rows - 1])
        for one in asked:
            if one.id not in found:
                found[one.id] = self._alone(one)
        if not np.array_equal(self._continued(self._again())[1], self._clean.logits):
            raise LeakError(f"after {', '.join(sorted({one.kind for one in asked}))}")
        return [found[one.id].model_dump() for one in asked]

    # Runs

    def _fed(self, *, every_row: bool = False) -> Logits:
        """Feed the prompt into an empty cache and return the last row of logits.

        Args:
            every_row: Have the last layer computed for every position, so that each can be hurt there.
        """
        self._engine.clear()
        self._moment.phase, self._moment.start, self._moment.rows = "prefill", 0, len(self._prompt)
        rows = [Row(token, at) for at, token in enumerate(self._prompt)]
        last: Logits = self._engine.feed(rows, only_last=not every_row)[-1]
        return last

    def _again(self) -> Logits:
        """Return the prompt's clean last row, with nothing in the cache but the prompt."""
        if self._prompt_is_fed:
            self._engine.forget(0, len(self._prompt))
        else:
            self._fed()
            self._prompt_is_fed = True
        row: Logits = self._clean.logits[0]
        return row

    def _continued(
        self, first: Logits, start: int | None = None, hurt: tuple[Fault, Any] | None = None
    ) -> tuple[list[int], Logits]:
        """Go on greedily from the prompt's last row: the ids, and the logits that each was chosen from.

        Args:
            first: The row.
            start: The next position, where it is not the prompt's length.
            hurt: A fault, and what it makes of the row of logits at its step.
        """
        start = len(self._prompt) if start is None else start
        ids: list[int] = []
        rows: list[Logits] = []
        row = first
        for step in range(self._steps + 1):
            if hurt is not None and hurt[0].step == step:
                row = hurt[1](hurt[0], row)
            ids.append(int(row.argmax()))
            rows.append(row)
            if step < self._steps:
                row = self._decoded(step, [Row(ids[-1], start + step)])[0]
        return ids, np.stack(rows)

    def _decoded(self, step: int, rows: Sequence[Row]) -> Logits:
        self._moment.phase, self._moment.step = ("first" if step == 0 else "decode"), step
        self._moment.start, self._moment.rows = rows[0].position, len(rows)
        return self._engine.feed(rows)

    def _together(self, faults: Sequence[Fault]) -> dict[str, Injection]:
        """Run faults in one batch, each in a row of its own; where they do not leave the control alone, in halves."""
        effects = [Effect() for _ in faults]
        by_site: dict[str, list[Strike]] = defaultdict(list)
        for row, (fault, effect) in enumerate(zip(faults, effects, strict=True), start=1):
            by_site[fault.site].append((fault, self._row_of(fault, row), effect))
        watchers = [watcher(site, strikes, self._moment) for site, strikes in by_site.items()]
        with self._engine.nodes.watched(*watchers):
            ids, logits = self._batch()
        assert self._beside is not None
        if not np.array_equal(logits[:, 0], self._beside[0].logits):
            self._splits += 1
            self._scrub()
            # Down to single ones: what comes of a fault must not depend on what its neighbours spoil.
            if len(faults) == 1:
                return {faults[0].id: self._alone(faults[0])}
            middle = len(faults) // 2
            return self._together(faults[:middle]) | self._together(faults[middle:])
        return {
            fault.id: self._judged(fault, effect, ids[row], logits[:, row], self._beside[row])
            for row, (fault, effect) in enumerate(zip(faults, effects, strict=True), start=1)
        }

    def _row_of(self, fault: Fault, row: int) -> Any:
        return lambda: row if self._moment.is_for(fault) else None

    def _clean_batch(self) -> list[_Clean] | None:
        """Return the clean run as each row of a batch; None where a clean batch does not repeat itself bit for bit.

        A batch takes other kernels than a single row, and a kernel may take other orders for its last rows than for its
        first, so the numbers may be others than those of a single row, and others from row to row.
        """
        ids, logits = self._batch()
        if not np.array_equal(logits, self._batch()[1]):
            return None
        known: dict[bytes, _Clean] = {}
        found = []
        for row, own in enumerate(ids):
            bits = logits[:, row].tobytes()
            if bits not in known:
                known[bits] = _Clean(own, logits[:, row])
            found.append(known[bits])
        return found

    def _batch(self) -> tuple[list[list[int]], Logits]:
        """Decode as many continuations side by side as there are rows, whether they are hurt or not.

        Returns:
            Their ids, and logits `(steps + 1, rows, n_vocab)`.
        """
        count, length, first = self._rows, len(self._prompt), self._again()
        for sequence in range(1, count):
            self._engine.share(0, sequence, 0, length)
        ids = [[int(first.argmax())] for _ in range(count)]
        logits = [np.broadcast_to(first, (count, len(first)))]
        for step in range(self._steps):
            logits.append(self._decoded(step, [Row(own[-1], length + step, row) for row, own in enumerate(ids)]))
            for own, best in zip(ids, logits[-1].argmax(axis=1), strict=True):
                own.append(int(best))
        for sequence in range(1, count):
            self._engine.forget(sequence)
        return ids, np.stack(logits)

    def _alone(self, fault: Fault) -> Injection:
        effect = Effect()
        try:
            if fault.kind in FEEDINGS:
                ids, logits = self._wrongly_fed(fault)
                effect.struck = effect.changed = True
            elif fault.kind in LOGITS:
                ids, logits = self._continued(self._again(), hurt=(fault, LOGITS[fault.kind]))
                effect.note(self._clean.logits[fault.step], logits[fault.step])
            else:
                ids, logits = self._planted(fault, effect)
        except VoidError as void:
            return Injection(fault=fault.id, outcome="void", reason=str(void))
        return self._judged(fault, effect, ids, logits, self._clean)

    def _planted(self, fault: Fault, effect: Effect) -> tuple[list[int], Logits]:
        plant = PLANTINGS[fault.kind](self._engine, fault, self._moment, effect)
        if fault.phase in ("load", "prefill") and fault.kind != "cache-bit":
            with plant:
                self._prompt_is_fed = False
                return self._continued(self._fed(every_row=fault.phase == "prefill"))
        first = self._again()
        with plant:
            ids, logits = self._continued(first)
        if not np.isfinite(logits).all():
            self._scrub()
        return ids, logits

    def _wrongly_fed(self, fault: Fault) -> tuple[list[int], Logits]:
        self._engine.clear()
        self._moment.phase = "prefill"
        self._prompt_is_fed = False
        return self._continued(*FEEDINGS[fault.kind](self._engine, fault, self._prompt))

    def _scrub(self) -> None:
        """Empty the cells that the prompt does not have: what is no number stays there, and 0 times NaN is NaN."""
        try:
            for name in self._caches:
                cells_of(self._engine, name)[len(self._prompt) :] = 0
        except VoidError:
            # Cells in packed blocks: all are emptied, and the prompt is fed again when it is next needed.
            self._prompt_is_fed = False

    # Judging

    def _judged(self, fault: Fault, effect: Effect, ids: Sequence[int], logits: Logits, clean: _Clean) -> Injection:
        try:
            effect.check()
        except VoidError as void:
            return Injection(fault=fault.id, outcome="void", reason=str(void))
        if np.array_equal(logits.view(np.uint32), clean.logits.view(np.uint32)):
            return Injection(fault=fault.id, outcome="masked_identical", divergence=0.0)
        changed = next((at for at, pair in enumerate(zip(ids, clean.ids, strict=True)) if pair[0] != pair[1]), None)
        # After another id nothing can be compared.
        compared = len(ids) if changed is None else changed + 1
        if not np.isfinite(logits[:compared]).all() and fault.kind not in LOGITS:
            return Injection(fault=fault.id, outcome="due_nan", detected_by=("digest", "nan"), changed_at=changed)
        divergence = max(clean.divergence(at, logits[at]) for at in range(compared))
        detected = ["digest"]
        if divergence > self._limit:
            detected.append("distribution")
        if changed is not None:
            detected.append("text")
        return Injection(
            fault=fault.id,
            outcome="masked_semantic" if changed is None else "sdc",
            detected_by=tuple(detected),
            divergence=divergence,
            changed_at=changed,
        )

    # What there is to hurt

    def _activation_sites(self) -> dict[str, int]:
        """Return the nodes that compute rows of float32, one for each token, with the length of a row."""
        found: dict[str, int] = {}

        def note(tensor: Tensor) -> None:
            operator = operator_name(tensor.op)
            if operator in VIEWS or tensor.type != 0:
                return
            rows = rows_of(tensor, self._moment.rows)
            if rows is not None:
                found[f"{tensor.name.decode()}/{operator}"] = rows.shape[1]

        with self._engine.nodes.watched(Watcher(lambda name, op: op not in VIEWS, after=note)):  # noqa: ARG005
            self._fed(every_row=True)
        return found


class _Clean:
    """A clean run, ready to be compared with many others.

    Args:
        ids: What was chosen.
        logits: From which rows, `(steps + 1, n_vocab)`.
    """

    def __init__(self, ids: Sequence[int], logits: Logits) -> None:
        self.ids = ids
        self.logits = np.ascontiguousarray(logits)
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        self._log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._p = np.exp(self._log).astype(np.float32)
        self._entropy = (np.exp(self._log) * self._log).sum(axis=1)

    def divergence(self, at: int, logits: Logits) -> float:
        """Return the KL divergence of a row from the clean one, in nats; infinite where it leaves something out."""
        highest = logits.max()
        normaliser = float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
        with np.errstate(invalid="ignore"):
            crossed = float(self._p[at] @ logits) - normaliser
        return max(0.0, float(self._entropy[at]) - crossed) if np.isfinite(crossed) else float("inf")


def _shares_a_batch(fault: Fault) -> bool:
    """Return whether a fault hurts one generated row, by a number."""
    if not fault.kind.startswith("activation") or fault.phase not in ("first", "decode"):
        return False
    huge = _HALVED_BIT if fault.site.partition("-")[0] in _HALVED else _HUGE_BIT
    return fault.kind != "activation-nan" and (fault.bit is None or fault.bit < huge)
