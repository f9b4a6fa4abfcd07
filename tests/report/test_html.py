"""The page: what it says, that nothing said in it is obeyed, that it is one file, small, and the same every time."""

import base64
import hashlib
import html
import json
import re

import pytest

from benchmarks.page import planted_sheet
from harness.checking.compare.outcome import Comparison, Hunk, Outcome
from harness.checking.trace import Run
from harness.checking.verdict import Finding, StageVerdict
from harness.report.html import to_html
from harness.stage import Stage
from harness.values import Observation, Refusal
from tests.made import difference, golden, observed, result, trace
from tests.report.sheets import HOSTILE_SHOWN, Outline, bare, chained_only, clean, faulty, hostile, of


def body(*sheets):
    """Return the page without style, script and data."""
    return re.sub(r"<(style|script)\b.*?</\1>", "", to_html(sheets), flags=re.DOTALL)


def text(source):
    """Return what a reader sees of markup, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", source)).split())


def case(page, name):
    """Return the markup of a case."""
    start = page.index(f'data-name="{name}"')
    end = page.find('<details class="case"', start)
    return page[start : end if end > 0 else len(page)]


def test_the_verdict_the_stages_and_what_ran_stand_at_the_top():
    page = body(clean())
    said = text(page)
    assert said.startswith(
        "made around tiny made around tiny \u00b7 2026-01-02T03:04:05+00:00 clean: five stages cleared, 10"
    )
    assert re.search(r'<h1 id="s0-line">clean: five stages cleared, 10 comparisons in 2 cases</h1>', page)
    assert "client cleared 2 equal golden in, golden out template cleared 2 equal" in said
    assert "inference cleared 2 equivalent same ids in, same numbers out" in said
    assert "What ran engine 1.2.3 model file tiny.gguf" in said
    assert '<pre><code>harness check made --model tiny</code></pre><button type="button" class="copy" hidden>' in page
    assert "Findings" not in said
    assert "Notes" not in said


def test_findings_show_their_difference_and_link_to_their_cases():
    page = body(faulty())
    findings = [text(article) for article in re.findall("<article.*?</article>", page, re.DOTALL)]
    assert findings[:2] == [
        "template integration it refuses its input: TemplateError: no such role in 1 of 6 cases: refused",
        "template integration the end that opens the assistant's turn is missing in 1 of 6 cases: text "
        "how, in text: at 8 \u2212 golden: hi.\u240a <bot> + made: hi.\u240a \u2205",
    ]
    assert len(findings) == 5
    assert '<a href="#s0-c5">text</a>' in page
    assert 'id="s0-c5" data-name="text"' in page


def test_a_finding_says_what_it_leaves_out():
    places = [Hunk(at=str(i), golden="a", observed="") for i in range(10)]
    finding = Finding(
        stage=Stage.CLIENT,
        kind="engine",
        summary="many",
        cases=("greeting", "elsewhere"),
        example="greeting",
        difference=difference("many", *places),
        evidence="state",
    )
    page = body(bare(result(Stage.CLIENT), findings=(finding,)))
    said = text(page)
    assert "client engine \u00b7 state many in 2 of 1 case: greeting , elsewhere how, in greeting:" in said
    assert "at 7 \u2212 golden: a + made: \u2205 \u2026 and 2 more places" in said
    assert "#s0-c0" in page
    assert page.count("<a ") == 1


def test_many_findings_and_many_cases_are_folded():
    cases = tuple(f"case-{at}" for at in range(40))
    findings = tuple(
        Finding(
            stage=Stage.CLIENT,
            kind="engine",
            summary=f"number {at}.",
            cases=cases,
            example="x",
            difference=difference("d"),
        )
        for at in range(8)
    )
    page = body(bare(result(Stage.CLIENT), findings=findings))
    open_ones, folded = page.split('<details class="more"><summary>2 more findings</summary>')
    assert open_ones.count("<article") == 6
    assert folded.count("<article") == 2
    assert "case-29 and 10 more" in text(page)
    assert "case-30" not in text(page)
    assert "more finding" not in text(body(bare(result(Stage.CLIENT), findings=findings[:6])))


def test_the_verb_of_the_sheet_is_said_of_stages_at_fault():
    stages = {
        Stage.CLIENT: StageVerdict(status="convicted", why="so"),
        Stage.TEMPLATE: StageVerdict(status="inherits", why="so"),
    }
    page = body(bare(result(Stage.CLIENT), stages=stages, verb="differs"))
    assert '<span class="pill bad">differs</span></td><td class="counts">none</td>' in page
    assert '<span class="pill warn">inherits</span>' in page


def test_every_case_says_in_words_and_signs_how_each_stage_ended():
    page = body(faulty())
    assert (
        'data-results="client:equal template:equal tokenization:diverged inference:equivalent postprocess:equal"'
        in page
    )
    assert '<span aria-hidden="true">\u2260</span><span class="hush">tokenization diverged</span>' in page
    assert 'title="inference: failed"><span aria-hidden="true">!</span>' in page
    assert 'title="template: unobserved"><span aria-hidden="true">?</span>' in page
    assert (
        "five marks a case, a stage each, in order: = equal \u2248 equivalent \u2260 diverged ! failed ? unobserved"
        in text(page)
    )


def test_a_stage_that_the_golden_says_nothing_of_keeps_its_place():
    expected = golden(prompt=Refusal(error="E", message="no"))
    page = body(of((expected, trace(expected))))
    assert page.count('<span class="none" title=') == 3
    assert 'title="postprocess: nothing to compare"' in page


def test_ids_stand_side_by_side():
    shown = case(body(faulty()), "ids")
    ids = shown[shown.index('<div class="ids">') :]
    assert text(ids[: ids.index("</details>")]) == "4 ? \u2212 golden: 1 Hi + made: 2 there 2 there 3 !"


def test_places_are_shown_where_the_two_sides_do_not_show_them():
    page = body(faulty())
    assert 'class="place"' not in case(page, "ids")
    assert 'class="place"' not in case(page, "text")
    assert "at generated position 0" in text(case(page, "numbers"))
    chained = difference("in the chain", Hunk(at="9", golden="a", observed="b"))
    page = body(bare(result(Stage.TEMPLATE, unexplained=(Run.CHAINED, chained))))
    assert "at 9 \u2212 golden: a + made: b" in text(page)


def test_a_prompt_shows_ends_of_lines_and_control_tokens():
    expected = golden(prompt=observed(golden()).prompt.model_copy(update={"text": "<|im_start|>user\nHi \n"}))
    page = body(of((expected, trace(expected))))
    assert (
        '<pre><span class="ct">&lt;|im_start|&gt;</span>user<span class="nl">\u240a</span>\nHi<span class="sp"> </span>'
        '<span class="nl">\u240a</span>\n</pre>'
    ) in page


def test_what_a_crash_left_is_shown():
    shown = text(case(body(faulty()), "crash"))
    assert "died by SIGSEGV; last log line: ggml: out of order" in shown
    assert "with a value" in shown


def test_a_call_that_ended_as_a_whole_is_shown():
    sheet = bare(result(Stage.CLIENT))
    broke = Observation(broke=Refusal(error="E", message="as a whole"))
    broken = sheet.model_copy(update={"cases": (sheet.cases[0].model_copy(update={"observed": broke}),)})
    assert "the whole call ended E: as a whole" in text(body(broken))


def test_what_shows_in_the_chain_only_is_shown_as_diverged():
    page = body(bare(chained_only()))
    assert 'data-results="client:diverged"' in page
    assert "it keeps state; only in the chained run" in text(page)


def test_a_stage_that_inherits_says_whose_output_it_got():
    page = body(bare(result(Stage.INFERENCE, follows=Stage.TEMPLATE)))
    assert "in the chain it gets what template made" in text(page)


def test_the_rule_of_an_equivalent_is_shown():
    equivalent = Comparison(outcome=Outcome.EQUIVALENT, rule="declared policy p: because")
    assert "declared policy p: because" in text(body(bare(result(Stage.CLIENT, isolated=equivalent))))


def test_streams_are_shown():
    shown = text(case(body(clean()), "greeting"))
    assert 'stream, 3 deltas made {"role": "assistant"} {"content": "Hi there!"} {}' in shown
    expected = golden()
    ended = Observation(reply=Refusal(error="E", message="no stream"))
    page = text(body(of((expected, trace(expected, {Run.ISOLATED_STREAM: ended})))))
    assert "how the stream ended" in page
    assert "E: no stream" in page


def test_bad_stages_are_open_and_plotted_and_others_are_not():
    page = body(faulty())
    shown = case(page, "numbers")
    assert shown.count('<details class="stage" open>') == 1
    assert shown.count("<svg") == 1
    assert case(page, "ids").count("<svg") == 0
    assert page.count("<svg") == 2  # one case, and the sheet
    assert body(clean()).count("<svg") == 1
    assert body(bare(result(Stage.CLIENT))).count("<svg") == 0


def test_two_sheets_stand_below_each_other_with_ids_of_their_own():
    page = body(clean(), faulty())
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert 'id="s1-c0"' in page
    assert page.count("<h1 ") == 2


def test_nothing_that_others_say_becomes_markup():
    page = to_html([hostile()])
    outline = Outline(re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL))
    harmless = Outline(re.sub(r'<script type="application/json".*?</script>', "", to_html([faulty()]), flags=re.DOTALL))
    assert set(outline.elements) <= set(harmless.elements) | {"li", "ul", "h4", "details"}
    assert outline.elements.count("script") == 1
    assert "img" not in outline.elements
    names = {name for _, name, _ in outline.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"src", "srcset", "action", "formaction"}
    links = [value for tag, name, value in outline.attributes if name == "href" and tag == "a"]
    assert all(re.fullmatch(r"#s0-c\d+", link) for link in links)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b\u2028\u2029]", page)
    assert HOSTILE_SHOWN.strip() in "".join(outline.prose)


def test_the_data_is_all_there_and_cannot_end_its_element():
    page = to_html([hostile()])
    data = re.search(r'<script type="application/json" id="sheets">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data) == [hostile().model_dump(mode="json")]
    assert "<" not in data


def test_only_our_own_script_may_run_and_nothing_is_fetched():
    page = to_html([faulty()])
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    addresses = set(re.findall(r"https?://[^\s\"'<]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!#)|<link|\bsrc=", page)


def test_the_same_sheets_give_the_same_bytes():
    assert to_html([faulty(), clean()]) == to_html([faulty(), clean()])


def test_long_texts_are_cut_in_the_view_and_whole_in_the_data():
    long = golden(prompt=observed(golden()).prompt.model_copy(update={"text": "x" * 9000}))
    page = to_html([of((long, trace(long)))])
    assert '<span class="gap">6,600 characters</span>' in page
    assert page.count("x" * 9000) == 2  # both sides, in the data


def test_what_the_data_leaves_out_is_said(monkeypatch):
    assert "leaves out" not in text(body(clean()))
    monkeypatch.setattr("harness.report.html.embedded", lambda sheets: ("[]", "the cases"))
    assert "leaves out: the cases. The JSON report holds all of it." in text(body(clean()))


def test_no_more_plots_than_a_page_can_bear(monkeypatch):
    monkeypatch.setattr("harness.report.html._PLOTS", 0)
    assert body(faulty()).count("<svg") == 1


@pytest.mark.usefixtures("smollm")
def test_fifty_real_cases_are_at_most_three_megabytes(project):
    sheet = planted_sheet(project)
    assert len(sheet.cases) == 50
    assert sum(case.bad for case in sheet.cases) > 40
    assert len(to_html([sheet]).encode()) <= 3_000_000
