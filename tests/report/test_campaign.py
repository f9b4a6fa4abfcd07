"""Reports of a campaign: exact small tables, names that mean harm, a page that asks nothing of a network, pictures."""

import html
import json
import re
from io import StringIO
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from harness.inject.summary import Cell, paired, summarise
from harness.report import machine
from harness.report.campaign.console import print_campaign, print_paired
from harness.report.campaign.html import to_html
from harness.report.campaign.markdown import to_markdown
from harness.report.campaign.plots import plots, to_pngs
from harness.report.markdown import LIMIT
from tests.inject.made import PLAN, fault, manifest, results

HOSTILE = '</text><script>window.pwned = 1</script>\x1b[31m|`@all` $x_1$ \u202e\u3164\U0001f600 id="a" url(http://x.y)'
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def summary():
    return summarise(manifest(), results())


@pytest.fixture(scope="module")
def hostile():
    """A campaign in which every name that a file could have given means harm."""
    struck = fault(HOSTILE, 3, f"weight-{HOSTILE}", field=HOSTILE, element=1)
    found = results(((struck, {"outcome": "sdc", "detected_by": (HOSTILE, "text"), "divergence": 1.0}),))
    return summarise(manifest(model=HOSTILE, engine={HOSTILE: HOSTILE}, faults=(struck,), kinds=(struck.kind,)), found)


def printed(show, *more):
    console = Console(width=80, file=StringIO(), color_system=None, highlight=False)
    show(console, *more)
    return console.file.getvalue()


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


def test_the_terminal_shows_outcomes_detection_and_what_is_most_vulnerable(summary):
    said = lines(printed(print_campaign, summary))
    assert said[:21] == [
        "faults in tiny",
        "outcome                                      faults          % (95 %)",
        "masked, the same numbers bit for bit              1   12.5 (2.2-47.1)",
        "masked, the same ids from other numbers           2   25.0 (7.1-59.1)",
        "silent data corruption: other ids, no error       3  37.5 (13.7-69.4)",
        "detected error: not a number                      1   12.5 (2.2-47.1)",
        "detected error: crash                             1   12.5 (2.2-47.1)",
        "detected error: hang                              0        0 (0-32.4)",
        "",
        "noticed by                   faults          % (95 %)  alone  digest aside",
        "digest: a bit differs             6  85.7 (48.7-97.4)      1             -",
        "nan: not a number                 1   14.3 (2.6-51.3)      0             1",
        "distribution: KL above 0.05       3  42.9 (15.8-75.0)      0             1",
        "text: another id                  3  42.9 (15.8-75.0)      0             1",
        "ended: crash or hang              1   14.3 (2.6-51.3)      1             1",
        "",
        "most vulnerable            struck      SDC % (95 %)     harm % (95 %)  KL p50",
        "result_norm                     1    100 (20.7-100)    100 (20.7-100)       8",
        "ffn_up                          5  40.0 (11.8-76.9)  60.0 (23.1-88.2)   0.001",
        "",
        "layer 0                         5  40.0 (11.8-76.9)  60.0 (23.1-88.2)   0.001",
    ]
    assert said[-2:] == [
        "8 faults struck: 37.5 % (95 %: 13.7 to 69.4) corrupted the output silently, 62.5",
        "% (95 %: 30.6 to 86.3) did any harm",
    ]


def test_names_are_cut_and_numbers_are_not(hostile):
    said = lines(printed(print_campaign, hostile))
    assert max(map(len, said)) <= 80
    assert sum("1  100 (20.7-100)  100 (20.7-100)       1" in line for line in said) == 2


def test_two_arms_on_the_terminal():
    one = results()
    other = {key: found.model_copy(update={"outcome": "sdc"}) for key, found in one.items()}
    assert lines(printed(print_paired, ("f16", "q4_0"), paired(one, other))) == [
        "fault by fault          both  only f16  only q4_0  neither  p (McNemar)",
        "silent data corruption     3         0          5        0       0.0625",
        "any harm                   5         0          3        0         0.25",
        "8 faults struck in both; left out: 1 void in one or both, 0 run in one only",
    ]


def test_markdown_has_the_tables(summary):
    text = to_markdown(summary)
    assert "| silent data corruption: other ids, no error | 3 | 37.5 (13.7 to 69.4) |" in text
    assert "| digest: a bit of the logits differs | 6 | 85.7 (48.7 to 97.4) | 1 | - |" in text
    assert "| <code>ffn&#95;up</code> | 5 | 1 | 40.0 (11.8 to 76.9) | 60.0 (23.1 to 88.2) | 0.001 | 2 |" in text
    assert "| <code>ffn&#95;down</code> | 2 | 0 | 0 (0 to 65.8) | 50.0 (9.5 to 90.5) | infinite | infinite |" in text
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    # Outcomes, detection, five ways of grouping, four sorts of numbers, what ran.
    assert rendered.count("<table>") == 2 + 5 + 4 + 1
    titles = ["By kind of fault", "By module", "By layer", "By phase", "By field of a packed block"]
    assert re.findall("<summary>(.*?)</summary>", text)[:5] == titles


def test_markdown_fits_into_a_comment():
    many = [(fault(f"module-{at}", at), {"outcome": "sdc", "divergence": 1.0}) for at in range(2000)]
    text = to_markdown(summarise(manifest(faults=tuple(one for one, _ in many)), results(many)))
    assert len(text) <= LIMIT
    assert "**Truncated:**" in text


def test_json_is_named_and_whole(summary):
    said = json.loads(machine.to_json(machine.INJECT, exit_status=0, summary=summary))
    assert said["schema"] == "harness.inject/1"
    assert said["summary"]["outcomes"]["sdc"]["count"] == 3
    assert said["summary"]["modules"][0]["name"] == "ffn_down"
    assert said["summary"]["modules"][0]["divergence"] == {"runs": 1, "infinite": 1, "median": None, "high": None}


def test_the_page_says_what_the_tables_say(summary):
    page = to_html(summary)
    text = " ".join(html.unescape(re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]*>", " ", page, flags=re.S)).split())
    assert "8 faults struck: 37.5 % (95 %: 13.7 to 69.4) corrupted the output silently" in text
    assert "9 of 9 drawn faults (there are 1,000) were run. 1 of them are void" in text
    assert "silent data corruption: other ids, no error 3 37.5 (13.7 to 69.4)" in text
    assert "ffn_up 5 1 40.0 (11.8 to 76.9) 60.0 (23.1 to 88.2) 0.001 2" in text
    assert "Bit 0 to 9 fraction, 10 to 14 exponent, 15 sign; 0 is the lowest." in text
    assert page.count("<svg ") == len(plots(summary)) == 10


def test_the_page_asks_nothing_of_a_network_and_runs_no_script(summary):
    page = to_html(summary)
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\((?!#)|\bon\w+=", page)
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}


def test_the_same_summary_gives_the_same_page_and_ids_are_unique(summary):
    page = to_html(summary)
    assert page == to_html(summary)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_names_that_mean_harm_are_text(hostile):
    page = to_html(hostile)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    for plot in plots(hostile):
        names = [
            node.text or "" for node in ElementTree.fromstring(plot.svg()).iter("{http://www.w3.org/2000/svg}text")
        ]
        assert all(name.isascii() and name.isprintable() for name in names)
    text = to_markdown(hostile)
    assert "<script" not in MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "@all" not in text
    assert "\x1b" not in printed(print_campaign, hostile)


def test_plots_are_drawn_for_what_there_is(summary):
    names = [plot.name for plot in plots(summary)]
    assert names[:6] == ["layer", "phase", "module", "heat-map", "kind", "field"]
    assert names[6:] == ["bit-4-bit-weight", "bit-6-bit-weight", "bit-float16-scale", "bit-float32-activation"]
    assert plots(summarise(manifest(), {})) == []


def test_plots_have_the_colours_of_the_page_and_the_words_of_the_summary(summary):
    svg = {plot.name: plot.svg() for plot in plots(summary)}
    for one in svg.values():
        assert not re.search(r"#[0-9a-f]{6}|font-family", one)
        assert "var(--observed)" in one
    words = [node.text for node in ElementTree.fromstring(svg["module"]).iter("{http://www.w3.org/2000/svg}text")]
    assert words[-3:] == ["result_norm", "ffn_up", "ffn_down"]
    assert {"fraction", "exponent", "sign"} <= set(re.findall(">([a-z]+)</text>", svg["bit-float16-scale"]))


def test_pictures_are_written(summary, tmp_path):
    found = to_pngs(summary)
    assert set(found) == {f"{plot.name}.png" for plot in plots(summary)}
    for name, data in found.items():
        assert re.fullmatch(r"[\w-]+\.png", name)
        assert data.startswith(PNG)
        assert len(data) > 2000
    assert found["layer.png"] == to_pngs(summary)["layer.png"]


def test_the_highest_share_has_the_darkest_shade_whatever_it_is(summary):
    """A third divided by a third is not one in floating point, ten thirds of it rounded up."""
    cells = tuple(Cell(layer=at, module="ffn_up", struck=struck, sdc=1, harm=1) for at, struck in enumerate((3, 7)))
    assert "heat-map" in {plot.name: plot.svg() for plot in plots(summary.model_copy(update={"cells": cells}))}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_campaign_of_any_size_is_shown(count):
    found = summarise(manifest(), results(PLAN[-count:]))
    assert to_html(found)
    assert to_markdown(found)
    assert printed(print_campaign, found)


def test_a_campaign_that_has_not_begun_is_shown():
    found = summarise(manifest(), {})
    assert "0 faults struck: nothing can be said" in printed(print_campaign, found)
    assert "9 of 9 faults are still to be run." in to_markdown(found)
    assert "<svg" not in to_html(found)
