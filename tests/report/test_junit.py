"""JUnit XML: counts, what is a failure and what an error, and nothing that XML forbids."""

import re
from xml.etree import ElementTree

import pytest

from harness.checking.compare.outcome import Outcome
from harness.checking.rows import Row
from harness.checking.verdict import finding_of_row
from harness.report.junit import to_junit
from harness.stage import Stage
from tests.report.sheets import HOSTILE_SHOWN, MADE, bare, chained_only, clean, faulty, hostile

# What the schema that Jenkins and GitLab read by lets stand where: attributes, and children in order.
ALLOWED = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, ("testsuite",)),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": (set(), ("property",)),
    "property": ({"name", "value"}, ()),
    "testcase": ({"name", "classname", "time", "status"}, ("skipped", "error", "failure", "system-out", "system-err")),
    "skipped": ({"message"}, ()),
    "failure": ({"message", "type"}, ()),
    "error": ({"message", "type"}, ()),
    "system-out": (set(), ()),
}
NEEDED = {"testsuite": {"name", "tests"}, "testcase": {"name", "classname"}, "property": {"name", "value"}}


def read(*sheets):
    return ElementTree.fromstring(to_junit(sheets).encode())


def check(node):
    """Hold an element against what may stand where."""
    attributes, children = ALLOWED[node.tag]
    assert NEEDED.get(node.tag, set()) <= set(node.attrib) <= attributes
    order = [children.index(child.tag) for child in node]
    assert order == sorted(order)
    for child in node:
        check(child)


@pytest.mark.parametrize("made", [clean, faulty, hostile])
def test_everything_stands_where_it_may(made):
    check(read(made(), clean()))


def test_suites_and_counts():
    root = read(clean(), faulty())
    assert root.attrib == {"tests": "40", "failures": "3", "errors": "2"}
    one, other = root
    assert one.attrib == {
        "name": "made around tiny",
        "tests": "10",
        "failures": "0",
        "errors": "0",
        "skipped": "0",
        "timestamp": MADE,
    }
    assert (other.get("tests"), other.get("failures"), other.get("errors"), other.get("skipped")) == (
        "30",
        "3",
        "2",
        "1",
    )
    for suite in root:
        tags = [child.tag for test in suite.iter("testcase") for child in test]
        assert [tags.count(tag) for tag in ("failure", "error", "skipped")] == [
            int(suite.get(name)) for name in ("failures", "errors", "skipped")
        ]
    assert one.find("properties/property[@name='engine']").get("value") == "1.2.3"


def of(case, stage):
    return read(faulty()).find(f".//testcase[@classname='tiny.{case}'][@name='{stage}']")


def test_what_differs_is_a_failure_with_its_difference():
    failure = of("ids", "tokenization").find("failure")
    assert failure.attrib == {"message": "other ids: 4 instead of 3, differing in 1 place", "type": "integration"}
    assert failure.text.splitlines() == [
        "other ids: 4 instead of 3, differing in 1 place",
        "@@ 1 @@",
        "- 4[?] \u27e61[Hi]\u27e7 3[!]",
        "+ 4[?] \u27e62[ there] 2[ there]\u27e7 3[!]",
    ]


def test_what_failed_is_an_error_and_what_was_not_seen_is_skipped_with_its_reason():
    assert of("crash", "inference").find("error").attrib == {
        "message": "died by SIGSEGV; last log line: ggml: out of order",
        "type": "engine",
    }
    assert of("unseen", "template").find("skipped").get("message") == "it cannot be asked"


def test_what_is_well_has_nothing_to_say_but_the_rule_by_which_it_is():
    assert list(of("ids", "client")) == []
    (said,) = of("ids", "inference")
    assert said.tag == "system-out"
    assert said.text.startswith("within the noise floor")


def test_what_shows_in_the_chain_only_is_a_failure():
    assert read(bare(chained_only())).find(".//failure").get("message") == "it keeps state"


def test_nothing_that_xml_forbids_or_that_does_not_show_is_left():
    written = to_junit([hostile()])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]", written)
    root = ElementTree.fromstring(written.encode())
    assert root.find("testsuite").get("name") == HOSTILE_SHOWN
    assert root.find("testsuite/system-out").text == HOSTILE_SHOWN


def test_the_same_sheets_give_the_same_bytes():
    assert to_junit([faulty()]) == to_junit([faulty()])


def test_a_finding_of_no_case_is_a_test_of_its_own():
    row = Row(
        of="load",
        name="context of a slot",
        expected="2,048",
        found="1,024",
        source="-c",
        outcome=Outcome.DIVERGED,
        stage=Stage.INFERENCE,
        why="the context is divided",
        remedy="-np 1",
    )
    found = read(bare(findings=(finding_of_row(row),)))
    check(found)
    (case,) = found.iter("testcase")
    assert case.attrib["name"] == "inference: the context is divided"
    assert case.attrib["classname"].endswith(".load")
    failure = case.find("failure")
    assert failure.attrib == {"message": "the context is divided", "type": "integration"}
    assert failure.text.startswith("the context is divided\ndeclared by -c\nremedy: -np 1\n")
