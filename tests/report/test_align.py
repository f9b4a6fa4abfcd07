"""Sequences side by side."""

from hypothesis import given
from hypothesis import strategies as st

from harness.report.align import Span, align, ends

ITEMS = st.lists(st.integers(0, 3), max_size=12)


def test_same_gone_and_new():
    assert align("abcdef", "abxdefg") == (
        Span(True, (0, 2), (0, 2)),
        Span(False, (2, 3), (2, 3)),
        Span(True, (3, 6), (3, 6)),
        Span(False, (6, 6), (6, 7)),
    )


def test_equal_sequences_are_one_span_and_empty_ones_none():
    assert align("ab", "ab") == (Span(True, (0, 2), (0, 2)),)
    assert align("", "") == ()


@given(ITEMS, ITEMS)
def test_spans_cover_both_sides_in_order_and_same_ones_are_the_same(one, other):
    here = there = 0
    for span in align(one, other):
        assert (span.expected[0], span.observed[0]) == (here, there)
        here, there = span.expected[1], span.observed[1]
        assert span.same == (one[slice(*span.expected)] == other[slice(*span.observed)])
    assert (here, there) == (len(one), len(other))


def test_ends():
    assert ends(5, 6) == (5, 0)
    assert ends(6, 6) == (6, 0)
    assert ends(7, 6) == (4, 2)
