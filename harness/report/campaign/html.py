"""A campaign as one self-contained page: no network, no script, light and dark.

Names that a model file gave are text in it and never markup: the template engine and the SVG writer escape them.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from markupsafe import Markup

from harness.report.assets import page
from harness.report.campaign.plots import HARM, SDC, plots
from harness.report.campaign.tables import (
    counted,
    detection_table,
    facts,
    group_tables,
    headline,
    name_of,
    outcomes_table,
)
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.inject.summary import Summary


def to_html(summary: Summary) -> str:
    """Return a campaign's summary as one page."""
    drawn = [
        {"title": plot.title, "says": plot.says, "svg": Markup(plot.svg())}  # noqa: S704  # escaped by its writer
        for plot in plots(summary)
    ]
    return page(
        "campaign.html",
        ["page.css", "campaign.css"],
        model=name_of(summary.model),
        line=headline(summary),
        counted=counted(summary),
        top=[outcomes_table(summary), detection_table(summary)],
        plots=drawn,
        sdc=SDC,
        harm=HARM,
        typical=f"{statistics.median([cell.struck for cell in summary.cells] or [0]):g}",
        groups=group_tables(summary),
        notes=[visible(note) for note in summary.notes],
        facts=facts(summary),
    )
