"""What all plots share: colours and settings, and how a finished figure becomes markup of a page or a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_DOTS_PER_INCH: Final = 200


@dataclass(frozen=True)
class Palette:
    """The colours of a plot.

    Attributes:
        ink: Of text.
        faint: Of axes.
        expected: Of what should be.
        observed: Of what is.
        limit: Of a limit.
        paper: Of what is behind.
    """

    ink: str
    faint: str
    expected: str
    observed: str
    limit: str
    paper: str


PAGE: Final = Palette("#010101", "#020202", "#030303", "#040404", "#050505", "none")
"""Colours that stand for a style of the page; `to_svg` puts the styles in."""
PRINT: Final = Palette("#1d1f23", "#b9b6b0", "#0067a5", "#b3480a", "#6b7280", "#ffffff")
"""Colours of a picture that stands alone: the page's light ones, with darker axes."""
_STYLES: Final = {
    PAGE.ink: "currentColor",
    PAGE.faint: "var(--line)",
    PAGE.expected: "var(--expected)",
    PAGE.observed: "var(--observed)",
    PAGE.limit: "var(--limit)",
}


def settings(palette: Palette, name: str) -> dict[Any, Any]:
    """Return matplotlib's settings for a plot.

    Args:
        palette: Its colours.
        name: What tells it from every other one of the page.
    """
    return {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "path.simplify": True,
        "font.size": 8,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.faint,
        "axes.linewidth": 0.8,
        "axes.facecolor": "none",
        "figure.facecolor": palette.paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
    }


def to_png(figure: Figure) -> bytes:
    """Return a figure as a picture, with room for all that is around its axes."""
    out = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()


def to_svg(figure: Figure) -> str:
    """Write a figure and take out what a page does not need: prolog, metadata, fonts, ids that nothing refers to."""
    out = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(out, metadata=nothing)  # type: ignore[no-untyped-call]
    text = out.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", "", text, flags=re.S)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)  # the page's own
    referred = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in referred else "", text)
    for colour, style in _STYLES.items():
        text = text.replace(colour, style)
    # Hundredths of a point, in the markup only: the text of a tick stays as it is.
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), text)
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"| xmlns:xlink="[^"]*"| version="1.1"', "", text)
    text = text.replace("xlink:href", "href").replace("> <", "><").replace("<defs></defs>", "")
    while "<g></g>" in text or "<g/>" in text:
        text = text.replace("<g></g>", "").replace("<g/>", "")
    return text.strip()
