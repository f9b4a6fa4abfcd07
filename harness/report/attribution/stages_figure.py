"""What defects cost beside what quantizing costs: every defect's mean on a logarithmic axis, a row for each stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from harness.report.drawing import PRINT, settings, to_png

if TYPE_CHECKING:
    from harness.attribution.size import Sizes

_WIDTH: Final = 7.0
_ROW: Final = 0.62
_SPREAD: Final = 0.3
"""Half of the height of a row that its dots take."""
_SMALLEST: Final = 1e-6
"""Nats: what is smaller is drawn there."""
_APART: Final = 0.2
"""Decades that two names need between them."""


def figure_of(sizes: Sizes) -> bytes:
    """Return the figure as a picture."""
    rows: dict[str, list[float]] = {one.stage.value: [] for one in sizes.stages}
    for placed in sizes.effects:
        if placed.size is not None:
            rows[placed.effect.stage.value].append(placed.size.mean)
    for one, default, _ in sizes.settings:
        rows.setdefault(f"settings of\n{one.component}", []).append(default.mean)
    with rc_context(settings(PRINT, "stages")):
        figure = Figure(figsize=(_WIDTH, _ROW * len(rows) + 1.1))
        axes = figure.subplots()
        for at, means in enumerate(rows.values()):
            colour = PRINT.observed if at < len(sizes.stages) else PRINT.expected
            _dots(axes, at, sorted(means), colour)
        _steps(axes, sizes)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"mean KL divergence, nats (less than {_SMALLEST:g} is drawn there)")
        return to_png(figure)


def _dots(axes: Axes, row: int, means: list[float], colour: str) -> None:
    """Draw a dot a mean; they take turns in height, so that equal ones are seen."""
    heights = [row + _SPREAD * (at % 5 - 2) / 2 for at in range(len(means))]
    axes.plot(
        [max(one, _SMALLEST) for one in means], heights, "o", color=colour, markersize=3, alpha=0.75, clip_on=False
    )


def _steps(axes: Axes, sizes: Sizes) -> None:
    """Draw a line a step, with its name above; names that would cover each other are one."""
    names: list[tuple[float, list[str]]] = []
    for name, mean in sizes.steps.items():
        axes.axvline(mean, color=PRINT.limit, linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
        if names and math.log10(mean / names[-1][0]) < _APART:
            names[-1][1].append(name)
        else:
            names.append((mean, [name]))
    for mean, together in names:
        axes.text(mean, -0.55, ", ".join(together), rotation=55, ha="left", va="bottom", fontsize=7)
