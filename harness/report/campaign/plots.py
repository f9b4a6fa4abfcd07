"""Plots of a campaign: where an engine is vulnerable, with 95 % intervals. As SVG for the page, or as PNG files.

Names of modules may come from a model file. They are drawn in ASCII, so that no font is asked for what it does not
have, and matplotlib's SVG writer escapes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from harness.report.campaign.tables import ranked
from harness.report.drawing import PAGE, PRINT, Palette, settings, to_png, to_svg
from harness.report.visible import shorten

if TYPE_CHECKING:
    from harness.inject.summary import Bits, Cell, Group, Summary

_WIDTH: Final = 4.0
"""Of every plot, in inches: what a narrow page can show with readable letters."""
_MOST: Final = 40
"""Names in one plot."""
_LONGEST: Final = 22
_ROW: Final = 0.17
"""The height of a name, in inches."""
_LEVELS: Final = 10
"""Shades of the heat map."""
_UNHURT: Final = 0.06
"""Opacity of a cell in which nothing was corrupted; one without faults is left out."""
SDC, HARM = "silent data corruption", "any harm, detected errors included"


@dataclass(frozen=True)
class Plot:
    """A plot that can be drawn in the colours of a page or of a picture.

    Attributes:
        name: What its file is called.
        title: What it shows.
        says: What a reader who does not see it is told.
        draw: Draws it.
        shares: It shows both shares, and needs the key of their colours.
    """

    name: str
    title: str
    says: str
    draw: Callable[[Palette], Figure]
    shares: bool = True

    def svg(self) -> str:
        """Return it as markup of a page."""
        with rc_context(settings(PAGE, self.name)):
            return to_svg(self.draw(PAGE))

    def png(self) -> bytes:
        """Return it as a picture with its title and its key."""
        with rc_context(settings(PRINT, self.name)):
            figure = self.draw(PRINT)
            figure.suptitle(self.title, x=0.01, y=1.0, ha="left", va="bottom", fontsize=9)
            if self.shares:
                keys = [
                    Line2D([], [], color=colour, marker=marker, markersize=3, linewidth=1, label=label)
                    for label, colour, marker in ((SDC, PRINT.observed, "o"), (HARM, PRINT.expected, "s"))
                ]
                figure.legend(handles=keys, loc="upper left", bbox_to_anchor=(0, 0), ncols=2, frameon=False)
            return to_png(figure)


def plots(summary: Summary) -> list[Plot]:
    """Return every plot that a campaign has numbers for."""
    return list(_plots(summary))


def to_pngs(summary: Summary) -> dict[str, bytes]:
    """Return every plot as a picture, by the name of its file."""
    return {f"{plot.name}.png": plot.png() for plot in plots(summary)}


def _plots(summary: Summary) -> Iterator[Plot]:
    shares = "shares with 95 % intervals; the same numbers stand in the table"
    modules = ranked(summary.modules)[:_MOST]
    if summary.layers:
        yield Plot("layer", "By layer", f"By layer: {shares}.", lambda palette: _lines(summary.layers, palette))
    if summary.phases:
        yield Plot("phase", "By phase", f"By phase: {shares}.", lambda palette: _rows(summary.phases, palette))
    if modules:
        yield Plot("module", "By module", f"By module: {shares}.", lambda palette: _rows(modules, palette))
    if summary.cells:
        yield Plot(
            "heat-map",
            "Silent data corruption by layer and module",
            "The share of silent data corruption in every module of every layer.",
            lambda palette: _heat_map(summary.cells, [one.name for one in modules], palette),
            shares=False,
        )
    if summary.kinds:
        kinds = ranked(summary.kinds)[:_MOST]
        yield Plot("kind", "By kind of fault", f"By kind of fault: {shares}.", lambda palette: _rows(kinds, palette))
    if summary.fields:
        title = "By field of a packed block"
        yield Plot("field", title, f"{title}: {shares}.", lambda palette: _rows(summary.fields, palette))
    for bits in summary.bits:
        yield _plot_of_bits(bits, shares)


def _plot_of_bits(bits: Bits, shares: str) -> Plot:
    name = re.sub(r"\W+", "-", bits.name).strip("-")
    return Plot(
        f"bit-{name}", f"By bit: {bits.name}", f"By bit, {bits.name}: {shares}.", lambda palette: _bits(bits, palette)
    )


def _lines(groups: Sequence[Group], palette: Palette) -> Figure:
    """Draw shares over layers, with their intervals as bands."""
    figure = Figure(figsize=(_WIDTH, 2.2))
    axes = figure.subplots()
    at = [one.index for one in groups if one.index is not None]
    for shares, colour, marker in (
        ([one.harm for one in groups], palette.expected, "s"),
        ([one.sdc for one in groups], palette.observed, "o"),
    ):
        low, high = [100 * one.low for one in shares], [100 * one.high for one in shares]
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(at, [100 * one.value for one in shares], color=colour, linewidth=1.2, marker=marker, markersize=2.2)
    _percent_axis(axes, [one.harm.high for one in groups if one.struck])
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.subplots_adjust(left=0.12, right=0.99, top=0.97, bottom=0.18)
    return figure


def _bits(bits: Bits, palette: Palette) -> Figure:
    """Draw shares over the bits of a number, with the parts of the number above them."""
    figure = Figure(figsize=(_WIDTH, 1.9))
    axes = figure.subplots()
    at = [one.index for one in bits.groups if one.index is not None]
    count = bits.parts[-1].last + 1
    _intervals(axes, at, bits.groups, palette, apart=min(0.16, 0.01 * count), upright=True)
    _percent_axis(axes, [one.harm.high for one in bits.groups if one.struck])
    top = axes.get_ylim()[1]
    for part in bits.parts if len(bits.parts) > 1 else ():
        axes.text((part.first + part.last) / 2, 1.04 * top, part.name, ha="center", fontsize=7)
        if part.last + 1 < count:
            axes.axvline(part.last + 0.5, color=palette.limit, linewidth=0.7, linestyle=(0, (3, 2)))
    axes.set_xlim(-0.6, count - 0.4)
    axes.set_xlabel("bit, 0 the lowest")
    axes.xaxis.set_major_locator(MultipleLocator(max(1, count // 8)))
    figure.subplots_adjust(left=0.12, right=0.97, top=0.88 if len(bits.parts) > 1 else 0.97, bottom=0.21)
    return figure


def _rows(groups: Sequence[Group], palette: Palette) -> Figure:
    """Draw shares beside names, the first at the top."""
    names = [_plain(one.name) for one in groups]
    height = _ROW * len(groups) + 0.45
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots()
    _intervals(axes, range(len(groups)), groups, palette, apart=0.17, upright=False)
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel("% of the faults that struck")
    axes.set_xlim(0, _top([one.harm.high for one in groups if one.struck]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="x", color=palette.faint, linewidth=0.5)
    axes.set_axisbelow(True)
    figure.subplots_adjust(left=_label_room(names), right=0.965, top=1 - 0.05 / height, bottom=0.4 / height)
    return figure


def _intervals(
    axes: Axes, at: Sequence[int], groups: Sequence[Group], palette: Palette, *, apart: float, upright: bool
) -> None:
    """Draw both shares of groups as dots on their intervals. All intervals are one path: it takes less to write."""
    for shares, colour, marker, offset in (
        ([one.sdc for one in groups], palette.observed, "o", -apart),
        ([one.harm for one in groups], palette.expected, "s", apart),
    ):
        places = [(x + offset, one) for x, one in zip(at, shares, strict=True) if one.of]
        along = [x for x, _ in places for x in (x, x, math.nan)]
        spans = [y for _, one in places for y in (100 * one.low, 100 * one.high, math.nan)]
        dots = ([x for x, _ in places], [100 * one.value for _, one in places])
        for line, style in (((along, spans), "-"), (dots, "")):
            axes.plot(
                *(line if upright else line[::-1]),
                color=colour,
                linestyle=style,
                linewidth=1,
                marker="" if style else marker,
                markersize=2.4,
                clip_on=bool(style),
            )


def _heat_map(cells: Sequence[Cell], modules: Sequence[str], palette: Palette) -> Figure:
    """Draw a square for every module of every layer; all squares of a shade are one path."""
    rows = {name: at for at, name in enumerate(name for name in modules if any(name == one.module for one in cells))}
    shown = [one for one in cells if one.module in rows]
    layers = max(one.layer for one in shown) + 1
    height = _ROW * len(rows) + 0.85
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots()
    names = [_plain(name) for name in rows]
    highest = max(0.1, *(one.sdc / one.struck for one in shown))
    squares: dict[int, list[tuple[float, float]]] = {}
    for one in shown:
        # The highest share divided by itself may round to a little more than one.
        shade = min(_LEVELS, math.ceil(_LEVELS * one.sdc / one.struck / highest))
        squares.setdefault(shade, []).append((one.layer, rows[one.module]))
    for shade, places in sorted(squares.items()):
        axes.add_patch(_squares(places, shade, palette))
    axes.set_xlim(-0.6, layers - 0.4)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), names)
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left = _label_room(names)
    figure.subplots_adjust(left=left, right=0.98, top=1 - 0.05 / height, bottom=0.8 / height)
    scale = figure.add_axes((left, 0.3 / height, 0.45, 0.1 / height))
    for shade in range(_LEVELS + 1):
        scale.add_patch(_squares([(shade, 0)], shade, palette))
    scale.set_xlim(-0.5, _LEVELS + 0.5)
    scale.set_ylim(-0.5, 0.5)
    scale.set_yticks([])
    scale.set_xticks([0, _LEVELS], ["0", f"{100 * highest:.0f} %"])
    scale.spines[:].set_visible(False)
    return figure


def _squares(places: Sequence[tuple[float, float]], shade: int, palette: Palette) -> PathPatch:
    corners = ((-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46), (-0.46, -0.46))
    outlines = [Outline([(x + dx, y + dy) for dx, dy in corners], closed=True) for x, y in places]
    alpha = _UNHURT + (1 - _UNHURT) * shade / _LEVELS
    colour = palette.observed if shade else palette.ink
    return PathPatch(Outline.make_compound_path(*outlines), facecolor=colour, alpha=alpha, linewidth=0)


def _percent_axis(axes: Axes, highs: Sequence[float]) -> None:
    axes.set_ylim(0, _top(highs))
    axes.set_ylabel("%")
    axes.grid(axis="y", color=axes.spines["left"].get_edgecolor(), linewidth=0.5)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _top(highs: Sequence[float]) -> float:
    """Return the end of an axis of percent: all intervals are within it."""
    return min(100.0, 105 * max(highs, default=1.0)) or 100.0


def _plain(name: str) -> str:
    return shorten(name, _LONGEST).encode("ascii", "backslashreplace").decode("ascii").replace("\n", " ")


def _label_room(names: Sequence[str]) -> float:
    """Return the share of a plot's width that names take."""
    return min(0.42, 0.04 + 0.0165 * max(map(len, names), default=0))
