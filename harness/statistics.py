"""Statistics of faults: how sure a share or a size is, how many faults a margin takes, whether two arms differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_NORMAL: Final = {0.9: 1.6448536269514722, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}
"""Two-sided quantiles of the standard normal distribution."""


@dataclass(frozen=True)
class Share:
    """A share with its interval.

    Attributes:
        count: How many.
        of: Of how many.
        low: The lower end of the interval.
        high: The upper end.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.count / self.of if self.of else math.nan


def wilson(count: int, of: int, confidence: float = 0.95) -> Share:
    """Return a share with Wilson's score interval (E. B. Wilson 1927, JASA 22, equation 4).

    Args:
        count: How many.
        of: Of how many; of none the interval is everything.
        confidence: 0.9, 0.95 or 0.99.
    """
    if of == 0:
        return Share(0, 0, 0.0, 1.0)
    z = _NORMAL[confidence]
    share = count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Share(count, of, max(0.0, middle - half), min(1.0, middle + half))


def sample_size(population: int, margin: float, confidence: float = 0.95, share: float = 0.5) -> int:
    """Return how many faults have to be drawn from a population so that a share is known within a margin.

    Source: R. Leveugle, A. Calvez, P. Maistri, P. Vanhauwaert, Statistical fault injection, DATE 2009, equation 1.

    Args:
        population: How many faults there are.
        margin: Half of the interval's width, between 0 and 1.
        confidence: 0.9, 0.95 or 0.99.
        share: What is expected; 0.5 takes the most.
    """
    z = _NORMAL[confidence]
    return math.ceil(population / (1 + margin**2 * (population - 1) / (z**2 * share * (1 - share))))


def margin(population: int | None, count: int, confidence: float = 0.95, share: float = 0.5) -> float:
    """Return the margin within which a number of faults makes a share known: `sample_size`, solved for it.

    Args:
        population: How many faults there are; None where they are too many to matter.
        count: How many were drawn; of none the margin is 1.
        confidence: 0.9, 0.95 or 0.99.
        share: What is expected; 0.5 is the worst.
    """
    if count == 0:
        return 1.0
    left = 1.0 if population is None or population <= 1 else max(0.0, (population - count) / (population - 1))
    return min(1.0, _NORMAL[confidence] * math.sqrt(share * (1 - share) / count * left))


_FEWEST: Final = 4
"""Groups from which a bootstrap has an interval. Of three, the same one is drawn thrice in 1 of 27 draws: more than the
tail of a 95 % interval, whose ends would be those of the data."""
_DRAWS: Final = 2000


def bootstrap(
    groups: Sequence[Sequence[float]], statistic: Callable[..., Any], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of a statistic over values that come in groups: whole groups are drawn again.

    Percentile bootstrap, B. Efron 1979, Annals of Statistics 7, in its cluster form. The draws are the same each time.

    Args:
        groups: The values of each group; values of one group need not be independent.
        statistic: Of all values together, as `numpy.nanmean` and `numpy.nanmedian` are called: it takes an `axis`, and
            leaves out what is NaN.
        confidence: Between 0 and 1.

    Returns:
        The ends of the interval; None where there are too few groups to have one.
    """
    if len(groups) < _FEWEST:
        return None
    padded = np.full((len(groups), max(map(len, groups))), np.nan)
    for row, group in zip(padded, groups, strict=True):
        row[: len(group)] = group
    draws = np.random.default_rng(0).integers(len(groups), size=(_DRAWS, len(groups)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(padded[draws].reshape(_DRAWS, -1), axis=1), (tail, 1 - tail))
    return float(low), float(high)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the two-sided p-value that two arms over the same faults are alike (McNemar's test, exact binomial).

    Args:
        only_one: Faults that do it in the first arm only.
        only_other: Faults that do it in the second arm only.
    """
    differing = only_one + only_other
    if differing == 0:
        return 1.0
    tail = sum(math.comb(differing, k) for k in range(min(only_one, only_other) + 1))
    return min(1.0, float(2 * tail / 2**differing))
