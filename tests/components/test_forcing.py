"""Forced ids for an engine that takes none: every position is seen after exactly the forced ids before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.components.forcing import Position, force
from harness.stage import StageFailedError

VOCABULARY = 5


def chosen_after(ids):
    """What the made engine chooses: a function of everything before."""
    return (7 * len(ids) + sum((at + 1) * one for at, one in enumerate(ids))) % VOCABULARY


def position_after(ids):
    best = chosen_after(ids)
    logprobs = np.log(np.array([0.5 + len(ids) / 1000, 0.25], dtype=np.float32))
    return Position(best, np.array([best, VOCABULARY], dtype=np.int32), logprobs)


@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30), st.integers(1, 40))
def test_every_position_is_what_the_engine_computes_after_the_forced_ids(forced, most):
    asked = []

    def run(done, count):
        asked.append((done, count))
        ids = list(forced[:done])
        for _ in range(min(count, most)):
            position = position_after(ids)
            ids.append(position.chosen)
            yield position

    found = force(forced, run, {"temperature": 0})
    alone = [position_after(forced[:at]) for at in range(len(forced))]
    assert found.ids == tuple(forced)
    assert found.chosen == tuple(position.chosen for position in alone)
    assert found.finish == "forced"
    assert found.settings == {"temperature": 0}
    assert np.array_equal(found.distributions.ids, np.stack([position.ids for position in alone]))
    assert np.array_equal(found.distributions.logprobs, np.stack([position.logprobs for position in alone]))
    assert all(done + count <= len(forced) for done, count in asked)


@pytest.mark.parametrize("after", [0, 3])
def test_an_engine_that_gives_nothing_is_not_asked_for_ever(after):
    def run(done, count):
        return [position_after([0] * at) for at in range(done, min(after, done + count))]

    with pytest.raises(StageFailedError, match=f"after {after} forced ones and gave none"):
        force([chosen_after([0] * at) for at in range(5)] if after else [0], run, {})


def test_more_than_was_asked_for_is_left_out():
    found = force([1, 2], lambda done, count: [Position(1, *_numbers())] * 9, {})
    assert found.chosen == (1, 1)


def _numbers():
    return np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32)


def test_an_engine_that_chooses_the_forced_ids_is_asked_a_few_times_only():
    forced, asked = [], []
    for _ in range(100):
        forced.append(chosen_after(forced))

    def run(done, count):
        asked.append(count)
        return [position_after(forced[:at]) for at in range(done, done + count)]

    force(forced, run, {})
    assert asked == [8, 16, 32, 44]
