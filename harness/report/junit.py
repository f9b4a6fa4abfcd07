"""Verdicts as JUnit XML, as CI servers read it: a suite a model, a test a case and stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as Xml

from harness.checking.compare.outcome import Outcome
from harness.checking.judge import StageResult
from harness.checking.verdict import Finding
from harness.report.difference import diff_lines
from harness.report.sheet import Sheet, difference_of, outcome_of
from harness.report.visible import shorten, visible

_PLACES = 8
_LONGEST = 1_000
_COUNTED = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def to_junit(sheets: Sequence[Sheet]) -> str:
    """Return sheets as one XML document: `failure` is diverged, `error` failed, `skipped` unobserved.

    Args:
        sheets: What to show, one a model.
    """
    return document([_suite(sheet) for sheet in sheets])


def document(suites: Sequence[Xml.Element]) -> str:
    """Return suites as one document, with the sums of their counts."""
    root = Xml.Element("testsuites")
    # The root has no count of skipped tests in the schema.
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.attrib[name]) for suite in suites)))
    root.extend(suites)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def suite(
    title: str, tests: Sequence[Xml.Element], facts: Mapping[str, str], notes: Sequence[str], made: str = ""
) -> Xml.Element:
    """Return tests as a suite, counted.

    Args:
        title: Its name.
        tests: Its tests.
        facts: Its properties, by name.
        notes: What it says besides.
        made: When it ran, as ISO 8601; nothing where that is not known.
    """
    found = Xml.Element("testsuite", name=plain(title), tests=str(len(tests)))
    tags = Counter(child.tag for test in tests for child in test)
    found.attrib.update({name: str(tags[tag]) for tag, name in _COUNTED.items()})
    if made:
        found.set("timestamp", plain(made))
    properties = Xml.SubElement(found, "properties")
    for name, value in facts.items():
        Xml.SubElement(properties, "property", name=plain(name), value=plain(value))
    found.extend(tests)
    if notes:
        Xml.SubElement(found, "system-out").text = "\n".join(map(plain, notes))
    return found


def plain(text: str) -> str:
    """Return text with nothing in it that XML forbids: what does not show is written as its code point."""
    return visible(shorten(text, _LONGEST))


def _suite(sheet: Sheet) -> Xml.Element:
    tests = [_test(sheet, result) for case in sheet.cases for result in case.results]
    tests += [_finding(sheet, finding) for finding in sheet.findings if not finding.cases]
    facts = {"verdict": sheet.line, "command": sheet.command, **sheet.parts}
    return suite(sheet.title, tests, facts, sheet.notes, sheet.made)


def _finding(sheet: Sheet, finding: Finding) -> Xml.Element:
    """Return a finding of no case as a test that fails."""
    name = f"{finding.stage}: {plain(finding.summary)}"
    test = Xml.Element("testcase", classname=f"{plain(sheet.model)}.{finding.evidence}", name=name)
    ended = Xml.SubElement(test, "failure", message=plain(finding.summary), type=finding.kind)
    said = [finding.summary, finding.location, finding.remedy and f"remedy: {finding.remedy}"]
    lines = [plain(one) for one in said if one]
    ended.text = "\n".join((*lines, *diff_lines(finding.difference, _PLACES)))
    return test


def _test(sheet: Sheet, result: StageResult) -> Xml.Element:
    test = Xml.Element("testcase", classname=f"{plain(sheet.model)}.{plain(result.case)}", name=str(result.stage))
    outcome, difference = outcome_of(result), difference_of(result)
    if outcome is Outcome.UNOBSERVED:
        Xml.SubElement(test, "skipped", message=plain(result.isolated.rule))
    elif result.own_error is not None:
        ended = Xml.SubElement(test, "error", message=plain(result.own_error.describe()), type="harness")
        ended.text = plain(result.own_error.traceback)
    elif outcome.bad and difference is not None:
        tag = "failure" if outcome is Outcome.DIVERGED else "error"
        ended = Xml.SubElement(test, tag, message=plain(difference.summary), type=difference.kind)
        ended.text = "\n".join((plain(difference.summary), *diff_lines(difference, _PLACES)))
    elif result.isolated.rule:
        Xml.SubElement(test, "system-out").text = plain(result.isolated.rule)
    return test
