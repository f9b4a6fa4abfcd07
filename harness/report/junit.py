"""Verdicts as JUnit XML, as CI servers read it: a suite a model, a test a case and stage."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from harness.compare.outcome import Outcome
from harness.report.difference import diff_lines
from harness.report.sheet import Sheet, difference_of, outcome_of
from harness.report.visible import shorten, visible
from harness.verdict import StageResult

_PLACES = 8
_LONGEST = 1_000
_COUNTED = {Outcome.DIVERGED: "failures", Outcome.FAILED: "errors", Outcome.UNOBSERVED: "skipped"}


def to_junit(sheets: Sequence[Sheet]) -> str:
    """Return sheets as one XML document: `failure` is diverged, `error` failed, `skipped` unobserved.

    Args:
        sheets: What to show, one a model.
    """
    root = Xml.Element("testsuites")
    totals = dict.fromkeys(("tests", *_COUNTED.values()), 0)
    for sheet in sheets:
        suite = _suite(sheet)
        root.append(suite)
        for name in totals:
            totals[name] += int(suite.attrib[name])
    # The root has no count of skipped tests in the schema.
    root.attrib.update({name: str(count) for name, count in totals.items() if name != "skipped"})
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def _suite(sheet: Sheet) -> Xml.Element:
    results = [result for case in sheet.cases for result in case.results]
    counts = dict.fromkeys(_COUNTED.values(), 0)
    for result in results:
        if outcome_of(result) in _COUNTED:
            counts[_COUNTED[outcome_of(result)]] += 1
    suite = Xml.Element("testsuite", name=_text(sheet.title), tests=str(len(results)))
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    if sheet.made:
        suite.set("timestamp", _text(sheet.made))
    facts = {"verdict": sheet.line, "command": sheet.command, **sheet.parts}
    properties = Xml.SubElement(suite, "properties")
    for name, value in facts.items():
        Xml.SubElement(properties, "property", name=_text(name), value=_text(value))
    suite.extend(_test(sheet, result) for result in results)
    if sheet.notes:
        Xml.SubElement(suite, "system-out").text = "\n".join(map(_text, sheet.notes))
    return suite


def _test(sheet: Sheet, result: StageResult) -> Xml.Element:
    test = Xml.Element("testcase", classname=f"{_text(sheet.model)}.{_text(result.case)}", name=str(result.stage))
    outcome, difference = outcome_of(result), difference_of(result)
    if outcome is Outcome.UNOBSERVED:
        Xml.SubElement(test, "skipped", message=_text(result.isolated.rule))
    elif outcome.bad and difference is not None:
        tag = "failure" if outcome is Outcome.DIVERGED else "error"
        ended = Xml.SubElement(test, tag, message=_text(difference.summary), type=difference.kind)
        ended.text = "\n".join((_text(difference.summary), *diff_lines(difference, _PLACES)))
    elif result.isolated.rule:
        Xml.SubElement(test, "system-out").text = _text(result.isolated.rule)
    return test


def _text(text: str) -> str:
    """Return text with nothing in it that XML forbids: what does not show is written as its code point."""
    return visible(shorten(text, _LONGEST))
