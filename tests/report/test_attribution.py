"""Reports of the harness measured: exact tables, defects that are named to do harm, blocks of documents."""

import json
from io import StringIO

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from harness.attribution.summary import summarise
from harness.errors import UserError
from harness.report import machine
from harness.report.attribution.console import print_bench, print_catalogue
from harness.report.attribution.html import to_html
from harness.report.attribution.markdown import to_markdown
from harness.report.attribution.readme import catalogue_table, figures, replaced, tables
from harness.report.markdown import LIMIT
from harness.report.visible import visible
from tests.attribution.made import DEFECTS, SETUP, TRIALS, convicted, defect, trial
from tests.report.sheets import Outline

HOSTILE = '"></details><script>window.pwned = 1</script><img src=x>\x1b[31m|`@all` **b** \u202e[a](http://x.y)'


@pytest.fixture(scope="module")
def summary():
    return summarise(SETUP, TRIALS, DEFECTS)


@pytest.fixture(scope="module")
def hostile():
    """A bench in which everything that a user or an engine could have named means harm."""
    one = defect(HOSTILE, "ids", sentence=HOSTILE, references=(HOSTILE,), hook=f"{HOSTILE}:f", models=(HOSTILE,))
    setup = SETUP.model_copy(
        update={"stack": HOSTILE, "models": (HOSTILE,), "shallow": {HOSTILE: ()}, "deep": {HOSTILE: ("a",)}}
    )
    more = {"line": HOSTILE, "model": HOSTILE, "changed": ("tokenization",), "defects": (HOSTILE,)}
    trials = [
        trial("missed", **more),
        trial("wrong", convicted("client"), by_stage={"client": (HOSTILE,)}, **more),
        trial("raises", ended="raised", why=HOSTILE, **more),
        trial("leaks", ended="leaks", why=HOSTILE, **more),
        trial("nowhere", ended="no place", why=HOSTILE, **more),
        trial("pair", **more | {"defects": (HOSTILE, HOSTILE)}),
        trial(f"control {HOSTILE}", convicted("client"), setting=HOSTILE, line=HOSTILE),
    ]
    return summarise(setup, trials, {HOSTILE: one})


def printed(show, what, width=80):
    console = Console(width=width, file=StringIO(), color_system=None, highlight=False)
    show(console, what)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_terminal_shows_shares_matrices_and_every_defect_that_was_told_wrong(summary):
    said = printed(print_bench, summary)
    assert max(map(len, said)) <= 80
    assert said[:19] == [
        "stack around tiny",
        "  12 defects planted one at a time (2 of them your own): 8 took effect, 1",
        "  without effect, 1 no place, 1 raised, 1 leaks. 4 checks of the clean stack",
        "  between them, in 2 other healthy settings. tiny: 1 case in full, 3 up to the",
        "  ids and on made-up ones. 46 seconds in all.",
        "",
        "of 8 defects that took effect            defects             % (95 %)",
        "noticed                                        7  87.5 (52.9 to 97.8)",
        "convicted at the planted stage                 6  75.0 (40.9 to 92.9)",
        "the same, and no innocent stage with it        5  62.5 (30.6 to 86.3)",
        "as the planted kind                            5  62.5 (30.6 to 86.3)",
        "noticed by a look at the answer alone          3  37.5 (13.7 to 69.4)",
        "",
        "stage         tried  effective  noticed  stage  exact  kind  answer",
        "client            2          1        1      1      1     0       0",
        "template          3          2        2      2      1     2       1",
        "tokenization      3          2        1      1      1     1       2",
        "inference         2          2        2      2      2     1       0",
        "postprocess       2          1        1      0      0     1       0",
    ]
    assert "tokenization       ·         ·             1          ·            ·        1" in said
    at = said.index("wrong stage: 1 defect")
    assert said[at + 1 : at + 5] == [
        "  stage  postprocess, integration, at answer",
        "    What stage does.",
        "    verdict: convicted: stage",
        "    changed: postprocess on golden input",
    ]
    assert "  raising (your own): ValueError: no" in said
    assert "  control tiny flash: convicted: control tiny flash" in said
    assert "client + inference          ·      ·       ·      ·     1     1" in said
    assert "engine bug and integration defect taken for each other: swap" in said
    assert said[-2:] == [
        "of 8 defects that took effect 7 (87.5 %) noticed, 6 (75.0 %) convicted at the",
        "right stage; 1 false alarm in 40 comparisons of healthy stacks",
    ]


def test_many_missed_ones_are_cut_off_on_the_terminal_only():
    defects = {f"d{at}": defect(f"d{at}", "ids") for at in range(40)}
    trials = [trial(name, changed=("tokenization",)) for name in defects]
    many = summarise(SETUP, trials, defects)
    said = printed(print_bench, many)
    assert "  and 10 more" in said
    assert sum(line.endswith("tokenization, integration, at ids") for line in said) == 30
    assert all(f"<code>{name}</code>" in to_markdown(many) for name in defects)


def test_the_catalogue_is_a_line_a_defect_in_a_pipe_and_folded_on_a_terminal():
    one = defect("one", "ids", sentence=f"It {'does ' * 30}something.")
    assert printed(print_catalogue, [one, defect("other", "answer")]) == [
        f"one    tokenization  integration  ids     {one.sentence}",
        "other  postprocess   integration  answer  What other does.",
    ]
    console = Console(width=80, file=StringIO(), force_terminal=True, color_system=None, highlight=False)
    print_catalogue(console, [one])
    said = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert said[:2] == ["tokenization: 1 defect", "  one  integration, at ids"]
    assert max(map(len, said)) <= 80


def test_what_means_harm_is_text_everywhere(hostile):
    said = "\n".join(printed(print_bench, hostile, 10_000))
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert visible(HOSTILE) in said

    page = to_html(hostile)
    outline = Outline(page)
    assert outline.elements.count("script") == 1
    assert "img" not in outline.elements
    assert {value for tag, name, value in outline.attributes if name in ("href", "src")} == set()
    assert visible(HOSTILE) in "".join(outline.prose)

    rendered = Outline(MarkdownIt("gfm-like", {"linkify": False}).render(to_markdown(hostile)))
    assert {"script", "img", "a", "strong"} & set(rendered.elements) == set()
    assert visible(HOSTILE) in "".join(rendered.code)
    rendered = Outline(MarkdownIt("gfm-like", {"linkify": False}).render(tables({HOSTILE: hostile})))
    assert {"script", "img", "a", "strong"} & set(rendered.elements) == set()


def test_the_page_shows_each_defect_and_shades_each_cell(summary):
    page = to_html(summary)
    outline = Outline(page)
    for tone, column in (("good", "tokenization"), ("bad", "nothing")):
        assert f'<td class="{tone}" style="--share: 0.500" title="1 planted tokenization named {column}">1<' in page
    results = [value for tag, name, value in outline.attributes if name == "data-results"]
    assert results[:3] == ["tokenization:missed", "postprocess:wrong-stage", "client:wrong-kind"]
    assert len(results) == len(summary.defects)
    links = [value for tag, name, value in outline.attributes if name == "href"]
    # What names no thread is text.
    assert links == ["https://github.com/owner/name/issues/12"]
    assert "a word on it" in "".join(outline.prose)


def test_markdown_has_the_tables_and_fits_a_comment(summary):
    text = to_markdown(summary)
    assert len(text) < LIMIT
    assert "| tokenization | · | · | 1 | · | · | 1 |" in text
    assert "| noticed | 7 | 87.5 (52.9 to 97.8) |" in text
    assert "* <code>stage</code> (postprocess, integration, at answer): <code>What stage does.</code>" in text
    assert "* <code>raising</code>: <code>ValueError&#58; no</code>" in text
    assert "* <code>control tiny flash</code>: <code>convicted&#58; control tiny flash</code>" in text


def test_reports_of_nothing():
    empty = summarise(SETUP, [], {})
    assert printed(print_bench, empty, 100)[-1] == (
        "0 defects, none of which took effect; 0 false alarms in 0 comparisons of healthy stacks"
    )
    assert "none of which took effect" in to_html(empty)
    assert "none of which took effect" in to_markdown(empty)


def test_json_holds_all_of_it(summary):
    report = json.loads(machine.to_json(machine.ATTRIBUTE, exit_status=1, summary=summary))
    assert (report["schema"], report["summary"]["all"]["noticed"]["count"]) == ("harness.attribute/1", 7)
    assert type(summary).model_validate(report["summary"]) == summary


def test_the_figures_of_a_document_are_a_row_a_stack(summary):
    lines = figures({"a": summary, "b": summarise(SETUP, [], {})}).splitlines()
    assert lines[2:] == [
        "| <code>a</code> | 12 | 8 | 7 (87.5 %, 52.9 to 97.8) | 6 (75.0 %, 40.9 to 92.9) | 5 (62.5 %, 30.6 to 86.3) "
        "| 1 | 3 (37.5 %, 13.7 to 69.4) | 1 in 40 comparisons |",
        "| <code>b</code> | 0 | 0 | - | - | - | 0 | - | 0 in 0 comparisons |",
    ]
    text = tables({"a": summary})
    assert "| <code>missed</code> | tokenization, integration | nothing | <code>What missed does.</code> |" in text
    assert "in this stack: <code>nothing</code>, <code>nowhere</code>." in text


def test_a_block_of_a_document_is_replaced_and_nothing_around_it():
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n"
    new = replaced(text, "x", "| n |")
    assert new == "a\n<!-- x: begin -->\n\n| n |\n\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n"
    assert replaced(new, "x", "| n |") == new
    for broken in ("", "<!-- x: end --><!-- x: begin -->", text + text, "<!-- x: begin -->", f"{text}<!-- x: end -->"):
        with pytest.raises(UserError, match="no one block 'x'"):
            replaced(broken, "x", "")


def test_the_catalogue_of_a_document_links_its_threads():
    one = defect("one", "prompt", sentence="It | loses <b>.", references=("owner/name#12", "javascript:owner/name#1"))
    rows = catalogue_table([defect("late", "answer"), one]).splitlines()
    assert rows[0] == "2 defects in all."
    assert (
        "| `one` | integration | prompt | It &#124; loses &#60;b&#62;. "
        "| [owner/name#12](https://github.com/owner/name/issues/12), <code>javascript&#58;owner/name&#35;1</code> |"
    ) in rows
    assert rows.index("### template: 1") < rows.index("### postprocess: 1")
