"""The page in headless Chromium, from a file: widths, schemes, filters, copying, attacks (`tox -e browser`)."""

import importlib.util
import shutil
import sys
from contextlib import contextmanager

import pytest

from benchmarks.page import CHROMIUM, chromium, first_paint
from harness.attribution.summary import summarise as summarise_bench
from harness.inject.summary import summarise
from harness.report.attribution.html import to_html as bench_page
from harness.report.campaign.html import to_html as campaign_page
from harness.report.fuzz.html import to_html as fuzz_page
from harness.report.html import to_html
from tests.attribution.made import DEFECTS, SETUP, TRIALS, defect, trial
from tests.inject.made import manifest, results
from tests.report import searches
from tests.report.sheets import COMMAND, HOSTILE_SHOWN, clean, faulty, hostile

WIDTHS = (390, 1280)
RIGHTMOST = "Math.max(...[...document.querySelectorAll('body *')].map(one => one.getBoundingClientRect().right))"

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None,
        reason="the page was not opened in a browser: playwright is missing (pip install -e '.[browser]')",
    ),
    pytest.mark.skipif(
        shutil.which(CHROMIUM) is None,
        reason=f"the page was not opened in a browser: there is no {CHROMIUM}; HARNESS_CHROMIUM names another",
    ),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of a sheet with faults, one under attack, and one in which all is well."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(to_html([faulty(), hostile(), clean()]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """The page of a campaign."""
    path = tmp_path_factory.mktemp("page") / "campaign.html"
    path.write_text(campaign_page(summarise(manifest(), results())), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """The page of a search in which some findings are plain and some are attacks."""
    path = tmp_path_factory.mktemp("page") / "fuzz.html"
    one, other = searches.small(), searches.hostile()
    report = one.model_copy(update={"findings": (*one.findings, *other.findings), "notes": other.notes})
    path.write_text(fuzz_page(report), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The page of the harness measured, with a defect under attack."""
    path = tmp_path_factory.mktemp("page") / "attribution.html"
    attack = defect(HOSTILE_SHOWN, "ids", sentence=HOSTILE_SHOWN)
    trials = (*TRIALS, trial("attack", changed=("tokenization",), defects=(attack.id,)))
    path.write_text(bench_page(summarise_bench(SETUP, trials, {**DEFECTS, attack.id: attack})), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@contextmanager
def opened(browser, path, width=1280, anchor="", **more):
    """Open the page, and at the end hold it to having said nothing in the console and asked nothing of a network."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **more)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri() + anchor)
    try:
        yield page
        assert page.evaluate("window.pwned") is None
        assert said == []
        assert asked == [path.as_uri()]
    finally:
        context.close()


def open_all(page):
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(browser, path, width):
    with opened(browser, path, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(RIGHTMOST) <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_campaign_fits_and_its_plots_have_the_colours_of_the_scheme(browser, campaign, width, scheme):
    with opened(browser, campaign, width, color_scheme=scheme) as page:
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill") == ink


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_fits_and_shows_attacks_as_text(browser, search, width, scheme):
    with opened(browser, search, width, color_scheme=scheme) as page:
        assert page.locator("details.cause[open]").count() == 3
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(RIGHTMOST) <= width
        assert page.locator("img").count() == 0
        assert page.evaluate("document.scripts.length") == 1
        assert HOSTILE_SHOWN in page.locator("#f2 .turns").text_content()
        # The mark stands out from the text beside it, in both schemes.
        style = "getComputedStyle(document.querySelector('#f0 {}')).backgroundColor"
        assert page.evaluate(style.format("mark")) != page.evaluate(style.format("pre"))


def test_a_search_leads_from_a_property_to_its_root_cause_and_copies_what_runs_it_again(browser, search):
    with opened(browser, search, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = false")
        assert not page.locator("#f1 .turns").is_visible()
        page.get_by_role("link", name="renders").click()
        page.locator("#f1[open]").wait_for()
        assert page.locator("#f1 .turns").is_visible()
        open_all(page)
        page.locator("#f1 button.copy").first.click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == searches.small().new[1].command


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_bench_fits_and_its_matrix_is_shaded(browser, bench, width, scheme):
    with opened(browser, bench, width, color_scheme=scheme) as page:
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        style = "getComputedStyle(document.querySelector(`.matrix td{}`)).backgroundColor"
        right, wrong, none = (page.evaluate(style.format(tone)) for tone in (".good", ".bad", "[class='']"))
        assert len({right, wrong, none}) == 3
        assert page.locator("img").count() == 0
        assert HOSTILE_SHOWN in page.locator(".planted .name").all_text_contents()


def test_defects_are_filtered_by_planted_stage_result_and_id(browser, bench):
    with opened(browser, bench) as page:
        form = page.locator(".filter")
        stage, result = form.locator("select").nth(0), form.locator("select").nth(1)
        result.select_option("wrong kind")
        assert visible_cases(page, 0) == ["kind", "swap"]
        stage.select_option("client")
        assert visible_cases(page, 0) == ["kind"]
        result.select_option("any")
        assert visible_cases(page, 0) == ["kind", "leaking"]
        form.locator("input").fill("LEAK")
        assert visible_cases(page, 0) == ["leaking"]
        assert form.locator("output").text_content() == "1 of 13 shown"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_scheme_of_the_system_applies_and_text_stands_out(browser, path, scheme, dark):
    with opened(browser, path, color_scheme=scheme) as page:
        colours = page.evaluate("['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
        ink, paper = (sum(map(int, colour[4:-1].split(","))) / 765 for colour in colours)
        assert (ink > paper) == dark
        assert abs(ink - paper) > 0.7
        svg = page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill")
        assert svg == colours[0]


def test_attacks_are_text(browser, path):
    with opened(browser, path) as page:
        open_all(page)
        assert page.title().count("window.pwned") == 2
        heading = page.locator("#s1-line").text_content()
        assert heading == HOSTILE_SHOWN
        assert page.locator("img").count() == 0
        assert page.evaluate("document.scripts.length") == 2
        assert HOSTILE_SHOWN in page.locator("#s1-c0").text_content()


def visible_cases(page, sheet):
    names = page.locator(f".sheet >> nth={sheet}").locator(".case:visible .name").all_text_contents()
    return [name for name in names if name]


def test_cases_are_filtered_by_stage_outcome_and_name(browser, path):
    with opened(browser, path) as page:
        form = page.locator(".filter").first
        stage, outcome = form.locator("select").nth(0), form.locator("select").nth(1)
        whole = ["ids", "numbers", "crash", "unseen", "refused", "text"]
        assert visible_cases(page, 0) == whole
        assert form.locator("output").text_content() == "6 of 6 shown"
        outcome.select_option("bad")
        assert visible_cases(page, 0) == ["ids", "numbers", "crash", "refused", "text"]
        stage.select_option("inference")
        assert visible_cases(page, 0) == ["numbers", "crash"]
        outcome.select_option("failed")
        assert visible_cases(page, 0) == ["crash"]
        outcome.select_option("")
        form.locator("input").fill("  UN")
        assert visible_cases(page, 0) == ["unseen"]
        assert form.locator("output").text_content() == "1 of 6 shown"
        form.locator("input").fill("")
        stage.select_option("")
        assert visible_cases(page, 0) == whole
        assert len(visible_cases(page, 2)) == 2


def test_a_finding_leads_to_its_case_even_where_a_filter_hides_it(browser, path):
    with opened(browser, path) as page:
        page.locator(".filter input").first.fill("nothing")
        assert visible_cases(page, 0) == []
        page.get_by_role("link", name="crash").click()
        page.locator("#s0-c2[open]").wait_for()
        assert page.locator("#s0-c2").get_by_text("ggml: out of order").first.is_visible()
    with opened(browser, path, anchor="#s0-c1") as page:
        assert page.evaluate("document.getElementById('s0-c1').open")


def test_the_command_is_copied(browser, path):
    with opened(browser, path, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.locator("button.copy").first.click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == COMMAND


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_read_with_scripts_off(browser, path, width):
    with opened(browser, path, width, java_script_enabled=True) as page:
        assert page.locator(".filter").first.is_visible()
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("h1").first.is_visible()
    assert page.locator(".case").count() == 9
    assert not page.locator(".filter").first.is_visible()
    assert not page.locator("button.copy").first.is_visible()
    page.locator("#s0-c0 > summary").click()
    assert page.locator("#s0-c0 .ids").first.is_visible()
    context.close()


def test_the_first_paint_is_printed(browser, path, capsys):
    paint = first_paint(browser, path)
    with capsys.disabled():
        sys.stdout.write(f"\nfirst contentful paint: {paint:.0f} ms, {path.stat().st_size:,} bytes\n")
    assert paint > 0
