"""The comment on a pull request, read by a Markdown parser: what is others' stands in code and nowhere else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.checking.compare.outcome import Hunk
from harness.checking.verdict import Finding
from harness.report.markdown import LIMIT, code, fence, to_markdown
from harness.report.visible import visible
from harness.stage import Stage
from tests.made import difference, result
from tests.report.sheets import HOSTILE, HOSTILE_SHOWN, Outline, bare, chained_only, clean, faulty, hostile


def outline(markdown):
    """Return what a reader's browser gets of Markdown."""
    return Outline(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


def test_the_verdict_comes_first_and_the_stages_are_a_table():
    comment = to_markdown([clean()])
    assert comment.splitlines()[:7] == [
        "### \u2705 <code>clean&#58; five stages cleared, 10 comparisons in 2 cases</code>",
        "",
        "<code>made around tiny</code>, 2 cases, <code>2026-01-02T03&#58;04&#58;05+00&#58;00</code>",
        "",
        "| stage | status | cases | why |",
        "|---|---|---|---|",
        "| client | cleared | 2 equal | <code>golden in, golden out</code> |",
    ]
    found = outline(comment)
    assert found.elements.count("table") == 3  # stages, what ran, cases
    assert found.elements.count("details") == 2
    assert "```sh\nharness check made --model tiny\n```" in comment


def test_findings_are_diffs_and_bad_cases_stand_in_details():
    comment = to_markdown([faulty()])
    assert comment.startswith("### \u274c <code>convicted&#58; template (integration)&#58; ")
    assert "| template | **<code>convicted</code>** | 3 equal, 1 diverged, 1 failed, 1 unobserved |" in comment
    assert (
        "#### tokenization (integration)\n\n<code>other ids&#58; 4 instead of 3, differing in 1 place</code>\n\n"
        "In 1 of 6 cases: <code>ids</code>\n\nHow, in <code>ids</code>:\n\n"
        "```diff\n@@ 1 @@\n- 4[?] \u27e61[Hi]\u27e7 3[!]\n+ 4[?] \u27e62[ there] 2[ there]\u27e7 3[!]\n```\n"
    ) in comment
    assert "<details><summary><code>crash</code></summary>\n\ninference: failed: <code>died by SIGSEGV; " in comment
    assert "| <code>ids</code> | = equal | = equal | \u2260 diverged | \u2248 equivalent | = equal |" in comment


def test_what_shows_in_the_chain_only_is_diverged():
    comment = to_markdown([bare(chained_only())])
    assert "client: diverged: <code>it keeps state</code>" in comment
    assert "| <code>greeting</code> | \u2260 diverged |  |  |  |  |" in comment


def test_all_verdicts_of_several_sheets_come_before_their_findings():
    comment = to_markdown([faulty(), clean()])
    assert comment.index("clean&#58;") < comment.index("####")


def test_nothing_that_others_say_leaves_its_code():
    found = outline(to_markdown([hostile()]))
    allowed = {"h3", "h4", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "strong", "ul", "li"}
    assert set(found.elements) <= allowed | {"details", "summary"}
    prose = "".join(found.prose)
    for word in ("pwned", "evil", "octocat", "math", "smile", "bold", "#1", "\u27e6"):
        assert word not in prose
    assert {name for _, name, _ in found.attributes} <= {"class"}
    shown = "".join(found.code)
    assert HOSTILE_SHOWN in shown
    # Every row of the table of stages has the cells of its head.
    (rows, *_) = re.findall(
        r"<table>(.*?)</table>", MarkdownIt().enable("table").render(to_markdown([hostile()])), re.S
    )
    assert [row.count("<t") - row.count("<tbody") for row in rows.split("</tr>")[:6]].count(5) == 5


def test_a_fence_is_longer_than_any_run_of_backticks_within():
    assert fence(["a"], "diff") == "```diff\na\n```"
    assert fence(["a ``` b", "`````"], "") == "``````\na ``` b\n`````\n``````"


@given(st.text(st.sampled_from("`~|<>&\\@#*_[](){}!:.$\n\r\t -+w1a\u202e\u200b/^="), max_size=40))
def test_code_is_read_back_as_it_was_shown_in_a_paragraph_and_in_a_cell(text):
    for source in (f"x {code(text)} y", f"| a | b |\n|---|---|\n| {code(text)} | z |"):
        found = outline(source)
        assert "".join(found.code) == visible(text)
        assert found.elements.count("code") == 1
        assert set(found.elements) <= {"p", "code", "table", "thead", "tbody", "tr", "th", "td"}
        assert found.elements.count("td") in (0, 2)


@pytest.mark.parametrize(
    "text", ["@octocat", "#1", "a@b.c", "http://a.b", "WWW.a.b", ":smile:", "$x$", "~~x~~", "GH\\|1"]
)
def test_what_github_would_read_has_lost_the_sign_it_is_known_by(text):
    inside = code(text).removeprefix("<code>").removesuffix("</code>")
    assert not re.search(r"@|#(?!\d+;)|://|(?i:www)\.|:\w|\$|~|\|", inside)


def test_long_text_is_cut():
    assert len(code("x" * 5000)) < 700


def test_a_comment_is_no_longer_than_github_takes_and_says_what_is_left_out():
    places = [Hunk(at=str(at), golden=HOSTILE * 3, observed="b") for at in range(5)]
    findings = [
        Finding(
            stage=Stage.CLIENT,
            kind="engine",
            summary=f"number {at}",
            cases=("greeting",),
            example="greeting",
            difference=difference("d", *places),
        )
        for at in range(100)
    ]
    comment = to_markdown([bare(result(Stage.CLIENT), findings=tuple(findings))])
    assert LIMIT - 4000 < len(comment) <= LIMIT
    (left, whole) = re.search(r"> \*\*Truncated:\*\* (\d+) of (\d+) parts of this report do not fit", comment).groups()
    assert comment.endswith("a comment.\n")
    assert int(whole) - int(left) == len(re.findall("number", comment)) + 3
    assert outline(comment).elements.count("blockquote") == 1


def test_a_comment_that_fits_says_nothing_of_it_and_is_the_same_every_time():
    assert "Truncated" not in to_markdown([faulty()])
    assert to_markdown([faulty()]) == to_markdown([faulty()])
