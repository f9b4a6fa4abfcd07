"""Plots: small, the same for the same numbers, in the page's colours, and with no text but our own."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.report.plots import case_plot, summary_plot
from harness.values import Distributions
from tests.made import HEALTHY, LOGITS, distributions, row

OTHER = distributions(row(4, 1), *LOGITS[1:])


def texts(svg):
    """Return the text of a drawing, which must be well-formed by itself."""
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def drawn():
    return case_plot(HEALTHY, OTHER, (3.0, 0.001, None, 0.0), 0.01, "case-1")


def test_the_same_numbers_give_the_same_bytes():
    assert drawn() == drawn()
    assert summary_plot((1.0, None, 0.5), 0.7, "s") == summary_plot((1.0, None, 0.5), 0.7, "s")


def test_a_plot_is_small_and_carries_no_colour_font_date_or_unused_id():
    for svg in (drawn(), summary_plot((1.0, None, 0.5), 0.7, "s")):
        assert len(svg) < 12_000
        assert svg.startswith("<svg ")
        assert svg.endswith("</svg>")
        assert not re.search(r"#[0-9a-f]{6}|font-family|metadata|<style|<!--|xlink|\n", svg)
        assert re.findall(r' id="([^"]*)"', svg) == [i for i in re.findall(r' id="([^"]*)"', svg) if f"#{i}" in svg]
        assert "currentColor" in svg
        assert "var(--limit)" in svg


def test_ids_of_two_plots_of_a_page_differ():
    one, other = (re.findall(r' id="([^"]*)"', case_plot(HEALTHY, OTHER, (3.0,), 0.01, name)) for name in ("a", "b"))
    assert one
    assert not set(one) & set(other)


def test_axes_are_named_and_ticks_are_plain_numbers():
    said = texts(drawn())
    assert {"log p, top 5", "KL, nats", "generated position"} <= set(said)
    assert not any("$" in text for text in said)
    assert "case, in the order below" in texts(summary_plot((1.0,), None, "s"))


def strokes(svg, style):
    """Return how many strokes there are in the paths of a style."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*stroke: ' + re.escape(style), svg)
    return sum(path.count("M ") for path in paths)


def test_every_likely_token_of_both_sides_is_a_stroke_and_what_is_beyond_the_limit_is_in_another_colour():
    svg = drawn()
    # Four positions, five tokens; two finite divergences within the limit, one beyond it with a head on its stem.
    assert strokes(svg, "var(--expected)") == 4 * 5 + 2
    assert strokes(svg, "var(--observed)") == 4 * 5 + 2


def test_long_generations_are_drawn_around_the_first_position_that_is_beyond_the_limit():
    long = Distributions(np.tile(HEALTHY.logprobs, (50, 1)))
    near = [float(text) for text in texts(case_plot(long, long, [0.0] * 200, 0.01, "a")) if text and text.isdigit()]
    late = [0.0] * 200
    late[150] = 1.0
    far = [float(text) for text in texts(case_plot(long, long, late, 0.01, "a")) if text and text.isdigit()]
    assert max(near) <= 40
    assert any(147 <= tick <= 187 for tick in far)
    assert not any(0 < tick < 140 for tick in far if tick > 1)


@pytest.mark.parametrize("limit", [None, 0.01])
@pytest.mark.parametrize("values", [(0.0,), (None, None), (1e-9, 50.0)])
def test_odd_numbers_are_drawn_too(values, limit):
    assert texts(summary_plot(values, limit, "s"))
    assert texts(case_plot(HEALTHY, HEALTHY, values, limit, "s"))


def test_a_single_position_has_whole_numbers_beneath_it():
    said = texts(case_plot(HEALTHY, HEALTHY, (0.0,), 0.01, "s"))
    assert {"0", "1", "7"} <= set(said)
    assert {"1e-06", "0.0001", "0.01"} <= set(said)


def test_rows_that_are_not_numbers_leave_a_gap():
    broken = HEALTHY.logprobs.copy()
    broken[1] = np.nan
    assert strokes(case_plot(HEALTHY, Distributions(broken), (0.0, None), None, "s"), "var(--observed)") == 5
