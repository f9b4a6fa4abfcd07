"""Statistics of fault injection, against published numbers and against the definitions worked out another way."""

import math
from fractions import Fraction

import pytest

from harness.statistics import margin, mcnemar, sample_size, wilson


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        # R. G. Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score interval without correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(count, of, low, high):
    share = wilson(count, of)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)
    assert (share.count, share.of, share.value) == (count, of, count / of)


@pytest.mark.parametrize(("count", "of"), [(3, 10), (40, 41), (500, 10_000)])
@pytest.mark.parametrize(("confidence", "z"), [(0.9, 1.6448536), (0.95, 1.9599640), (0.99, 2.5758293)])
def test_the_ends_of_the_interval_are_z_standard_errors_from_the_share(count, of, confidence, z):
    # What Wilson's equation solves: |share - end| = z * sqrt(end * (1 - end) / n).
    share = wilson(count, of, confidence)
    for end in (share.low, share.high):
        assert abs(share.value - end) == pytest.approx(z * math.sqrt(end * (1 - end) / of), rel=1e-6)


def test_a_share_of_nothing_may_be_anything():
    share = wilson(0, 0)
    assert (share.low, share.high) == (0.0, 1.0)
    assert math.isnan(share.value)


def test_an_interval_stays_within_nothing_and_everything():
    assert wilson(0, 5).low == 0.0
    assert wilson(5, 5).high == 1.0


@pytest.mark.parametrize(
    ("population", "wanted", "confidence", "expected"),
    [
        # Leveugle et al. 2009, equation 1, by hand. Without a bound it is z^2 / (4 e^2): 384.15, 9603.6, 16587.2.
        (10**12, 0.05, 0.95, 385),
        (10**12, 0.01, 0.95, 9604),
        (10**12, 0.01, 0.99, 16588),
        # 1000 / (1 + 0.0025 * 999 / 0.9604) = 277.7
        (1000, 0.05, 0.95, 278),
        (1, 0.05, 0.95, 1),
    ],
)
def test_sample_size(population, wanted, confidence, expected):
    assert sample_size(population, wanted, confidence) == expected


@pytest.mark.parametrize("population", [500, 10**6, 10**10])
@pytest.mark.parametrize("wanted", [0.05, 0.02])
def test_the_margin_of_a_sample_of_that_size_is_the_one_that_was_wanted(population, wanted):
    count = sample_size(population, wanted)
    assert margin(population, count) <= wanted < margin(population, count - 1)


def test_margins_at_the_ends():
    assert margin(None, 0) == 1.0
    assert margin(None, 9604) == pytest.approx(0.01, abs=1e-5)
    assert margin(100, 100) == 0.0
    assert margin(None, 1) == pytest.approx(0.98, abs=1e-4)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (5, 0), (1, 9), (8, 3), (7, 7), (120, 60)])
def test_mcnemar_is_the_exact_binomial_test(one, other):
    # All ways in which fair coins fall at least as far from the middle as these did.
    total = one + other
    far = abs(2 * one - total)
    ways = sum(math.comb(total, heads) for heads in range(total + 1) if abs(2 * heads - total) >= far)
    assert mcnemar(one, other) == pytest.approx(float(Fraction(ways, 2**total)))
    assert mcnemar(one, other) == mcnemar(other, one)


def test_arms_that_never_differ_are_alike():
    assert mcnemar(0, 0) == 1.0
    # 2 * (1 + 10) / 2^10
    assert mcnemar(1, 9) == pytest.approx(0.021484375)
