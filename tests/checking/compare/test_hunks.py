"""Hunks: together with the golden they are the observed sequence, and they hold nothing that is common."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import harness.checking.compare.hunks as module
from harness.checking.compare.hunks import hunks
from harness.checking.compare.outcome import Hunk

words = st.lists(st.sampled_from(["a", "b", "c", " ", "\n", "é"]), max_size=14)


def join(items):
    return "\0".join(items)


def split(text):
    return text.split("\0") if text else []


def applied(golden, found):
    """Return the golden with the hunks applied, each of which must find what it says is there."""
    result, position = [], 0
    for hunk in found:
        at, old = int(hunk.at), split(hunk.golden)
        assert golden[at : at + len(old)] == old
        result += golden[position:at] + split(hunk.observed)
        position = at + len(old)
    return result + golden[position:]


@settings(derandomize=True, deadline=None)
@given(words, words)
@example([], ["a"])
@example(["a", "b", "a"], ["a"])
def test_applying_the_hunks_to_the_golden_gives_the_observed(golden, observed):
    assert applied(golden, hunks(golden, observed, join)) == observed


@settings(derandomize=True, deadline=None)
@given(words, words)
def test_there_are_hunks_exactly_where_sequences_differ(golden, observed):
    assert (hunks(golden, observed, join) == ()) is (golden == observed)


@settings(derandomize=True, deadline=None)
@given(words, words)
def test_no_hunk_holds_a_common_start_or_end(golden, observed):
    for hunk in hunks(golden, observed, join):
        old, new = split(hunk.golden), split(hunk.observed)
        assert old or new
        if old and new:
            assert old[0] != new[0]
            assert old[-1] != new[-1]


@settings(derandomize=True, deadline=None)
@given(words, words)
def test_the_context_is_what_stands_around_in_the_golden(golden, observed):
    for hunk in hunks(golden, observed, join):
        at, end = int(hunk.at), int(hunk.at) + len(split(hunk.golden))
        assert split(hunk.before) == golden[max(0, at - 3) : at]
        assert split(hunk.after) == golden[end : end + 3]


@settings(derandomize=True, deadline=None)
@given(words, words)
def test_beyond_the_limit_the_middle_is_one_hunk_and_still_exact(golden, observed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MATCHER_LIMIT", 0)
        found = hunks(golden, observed, join)
    assert len(found) == (golden != observed)
    assert applied(golden, found) == observed


def test_a_loss_an_insertion_and_a_change():
    golden, observed = list("abcdefgh"), list("abdefXgHh")
    assert hunks(golden, observed, "".join) == (
        Hunk(at="2", golden="c", observed="", before="ab", after="def"),
        Hunk(at="6", golden="", observed="X", before="def", after="gh"),
        Hunk(at="7", golden="", observed="H", before="efg", after="h"),
    )


def test_tuples_of_ids_are_compared_like_lists():
    assert hunks((1, 2, 3), (1, 9, 3), str) == (
        Hunk(at="1", golden="(2,)", observed="(9,)", before="(1,)", after="(3,)"),
    )


def test_long_sequences_without_anything_in_common_are_one_hunk():
    golden, observed = list(range(2001)), list(range(3000, 5001))
    (found,) = hunks(golden, observed, lambda ids: str(len(ids)))
    assert found == Hunk(at="0", golden="2001", observed="2001", before="0", after="0")
