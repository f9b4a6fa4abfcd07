"""Rows of a batch that a processor rounds differently: each fault is held against the clean run of its own row.

The engine is made up: the logits of a row are the same numbers, moved by less than any noise from row to row.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from harness.inject.fault import Fault, Injection

pytest.importorskip("llama_cpp")

from harness.inject import subject as module
from harness.inject.subject import Subject

ROWS, STEPS, WORDS = 4, 2, 5


class Engine:
    """Chooses the id after the last one; a strike adds to the row that it hurts."""

    n_layer = 1
    moved: ClassVar[tuple[float, ...]] = ()
    """What a processor's rounding adds to the likeliest logit, by row of a batch."""
    drifts: ClassVar[bool] = False
    """Whether that differs from batch to batch."""
    spreads: ClassVar[bool] = False
    """Whether a hurt row hurts the control as well."""

    def __init__(self, path: str, **settings: Any) -> None:
        del path, settings
        self.nodes = SimpleNamespace(watched=self._watched)
        self._strikes: list[Any] = []
        self._batches = 0

    def weights(self) -> dict[str, Any]:
        return {}

    caches = weights

    def identity(self) -> dict[str, str]:
        return {"version": "1"}

    def clear(self) -> None:
        pass

    def forget(self, *_: int) -> None:
        pass

    share = forget

    @contextlib.contextmanager
    def _watched(self, *watchers: Any) -> Any:
        self._strikes = [strike for watcher in watchers if isinstance(watcher, list) for strike in watcher]
        yield
        self._strikes = []

    def feed(self, rows: Any, *, only_last: bool = False) -> Any:
        logits = np.zeros((len(rows), WORDS), np.float32)
        for at, row in enumerate(rows):
            logits[at, (row.token + 1) % WORDS] = 8.0
        if len(rows) == ROWS:
            self._batches += 1
            drift = self._batches if self.drifts else 1
            logits[np.arange(ROWS), logits.argmax(axis=1)] += (
                np.float32(1e-6) * drift * np.array(self.moved, np.float32)
            )
        for fault, row_now, effect in self._strikes:
            at = row_now()
            if at is not None and len(rows) == ROWS:
                before = logits[at].copy()
                logits[at, fault.element] += np.float32(fault.value)
                effect.note(before, logits[at] + 1)
                if self.spreads:
                    logits[0] += 1
        return logits[-1:] if only_last else logits


@pytest.fixture
def made(monkeypatch):
    """Return a subject around such an engine."""

    def make(**engine: Any) -> Subject:
        monkeypatch.setattr(module, "Engine", type("Made", (Engine,), engine))
        monkeypatch.setattr(module, "watcher", lambda site, strikes, moment: strikes)
        return Subject("made", [1, 2, 3], STEPS, ROWS, 0.05)

    return make


def faults(*values: float) -> list[dict[str, Any]]:
    return [
        Fault(
            kind="activation-scale", site="l_out-0/ADD", module="l_out", phase="first", step=0, element=at, value=value
        ).model_dump()
        for at, value in enumerate(values)
    ]


@pytest.mark.parametrize("moved", [(0, 0, 0, 0), (0, 1, 0, 2), (3, 2, 1, 0)])
def test_a_row_is_held_against_the_clean_run_of_its_own_row(made, moved):
    subject = made(moved=moved)
    nothing, little, much = [Injection.model_validate(one) for one in subject.inject(faults(0.0, 0.5, 40.0))]
    assert subject.splits() == 0
    assert (nothing.outcome, nothing.divergence) == ("masked_identical", 0.0)
    assert little.outcome == "masked_semantic"
    assert much.outcome == "sdc"


def test_a_control_that_changes_splits_the_batch_wherever_rows_are_rounded(made):
    subject = made(moved=(0, 1, 0, 2), spreads=True)
    subject.inject(faults(0.0, 0.5))
    assert subject.splits() > 0


def test_where_a_clean_batch_does_not_repeat_itself_no_batch_is_believed(made):
    subject = made(moved=(0, 1, 0, 2), drifts=True)
    assert subject.splits() is None
    says = "a clean one does not repeat itself on this processor: every fault runs alone"
    assert subject.sites()["engine"] == {"version": "1", "batches": says}
    assert made(moved=(0, 1, 0, 2)).sites()["engine"] == {"version": "1"}
