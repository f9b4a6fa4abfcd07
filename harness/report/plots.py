"""Plots of distributions as inline SVG: small, the same for the same numbers, in the colours of the page they stand in.

No text of a model or a user is ever drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from harness.report.drawing import PAGE, settings, to_svg
from harness.values import Distributions

_TOP = 5
_MOST = 40
"""Positions drawn."""
_FEWEST = 8
"""Positions that there is room for at least, so that a single one is no beam."""
_FLOOR = 1e-6
"""The smallest divergence that is drawn as itself; the axis is logarithmic."""


def case_plot(
    expected: Distributions,
    observed: Distributions,
    divergence: Sequence[float | None],
    limit: float | None,
    name: str,
) -> str:
    """Return the likeliest tokens' log-probabilities of both sides, and how far they are apart, by position.

    Args:
        expected: What should be.
        observed: What is.
        divergence: KL divergence at each position, in nats; None where one is not a number.
        limit: The largest divergence that is noise.
        name: What tells this plot from every other one of the page.
    """
    positions = min(len(divergence), len(expected), len(observed))
    start = _window(divergence, limit, positions)
    shown = range(start, min(start + _MOST, positions))
    with rc_context(settings(PAGE, name)):
        figure = Figure(figsize=(4, 2.8))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for side, colour, offset in ((expected, PAGE.expected, -0.2), (observed, PAGE.observed, 0.2)):
            _ladder(upper, side, shown, offset, colour)
        upper.set_ylabel(f"log p, top {_TOP}")
        _bars(lower, [divergence[at] for at in shown], list(shown), limit)
        lower.set_xlabel("generated position")
        lower.set_xlim(start - 0.6, max(shown[-1], start + _FEWEST - 1) + 0.6)
        figure.subplots_adjust(left=0.15, right=0.99, top=0.97, bottom=0.15, hspace=0.14)
        return to_svg(figure)


def summary_plot(worst: Sequence[float | None], limit: float | None, name: str) -> str:
    """Return the largest divergence of each case, in the order of the page.

    Args:
        worst: The largest divergence of each case in nats; None where it was not measured or is not a number.
        limit: The largest divergence that is noise.
        name: What tells this plot from every other one of the page.
    """
    with rc_context(settings(PAGE, name)):
        figure = Figure(figsize=(4, 1.5))
        axes = figure.subplots()
        _bars(axes, worst, list(range(1, len(worst) + 1)), limit)
        axes.set_xlabel("case, in the order below")
        axes.set_xlim(0.4, max(len(worst), _FEWEST) + 0.6)
        figure.subplots_adjust(left=0.15, right=0.99, top=0.95, bottom=0.27)
        return to_svg(figure)


def _window(divergence: Sequence[float | None], limit: float | None, positions: int) -> int:
    """Return the position to start at: the first, or a little before the first that is too far off."""
    beyond = (at for at, kl in enumerate(divergence) if kl is None or (limit is not None and kl > limit))
    first = next(beyond, 0)
    return 0 if first < _MOST else min(first - 3, max(positions - _MOST, 0))


def _ladder(axes: Axes, side: Distributions, shown: range, offset: float, colour: str) -> None:
    """Draw a short stroke for each of the likeliest tokens. All strokes are one path: it takes less to write."""
    top = side.top(_TOP).logprobs[:, :_TOP]
    strokes: tuple[list[float], list[float]] = ([], [])
    for at in shown:
        for value in np.maximum(top[at].astype(np.float64), -30.0):
            if math.isfinite(value):
                strokes[0].extend((at + offset - 0.17, at + offset + 0.17, math.nan))
                strokes[1].extend((float(value), float(value), math.nan))
    axes.plot(*strokes, color=colour, linewidth=1.4, solid_capstyle="butt")


def _bars(axes: Axes, values: Sequence[float | None], at: Sequence[int], limit: float | None) -> None:
    """Draw divergences on a logarithmic axis, those beyond the limit in another colour and with a head."""
    finite = [max(value, _FLOOR) for value in values if value is not None]
    low = min([*finite, limit or 1.0]) / 3
    high = max([*finite, limit or 0.0, low * 10]) * 3
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    for bad, colour in ((False, PAGE.expected), (True, PAGE.observed)):
        pairs = zip(at, values, strict=True)
        own = [(x, max(kl, _FLOOR)) for x, kl in pairs if kl is not None and _beyond(kl, limit) == bad]
        stems = _interleaved([x for x, _ in own]), [y for _, top in own for y in (low, top, math.nan)]
        axes.plot(*stems, color=colour, linewidth=2.4 if bad else 1.4, solid_capstyle="butt")
        if bad:
            heads = _interleaved([x for x, _ in own], 0.3), [y for _, top in own for y in (top, top, math.nan)]
            axes.plot(*heads, color=colour, linewidth=1.6, solid_capstyle="butt")
    if limit is not None:
        axes.axhline(limit, color=PAGE.limit, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_ylabel("KL, nats")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _interleaved(places: Sequence[int], half: float = 0.0) -> list[float]:
    return [x for at in places for x in (at - half, at + half, math.nan)]


def _beyond(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit
