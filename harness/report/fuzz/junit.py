"""A search as JUnit XML: a test a property, which fails where a new root cause breaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from harness.report.fuzz.view import Row, block, notes, rows
from harness.report.junit import document, plain, suite
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport


def to_junit(report: FuzzReport) -> str:
    """Return a search as one XML document.

    `failure` is broken by a root cause that no baseline holds; those of the baseline stand in `system-out`. `skipped`
    was held against nothing.
    """
    tests = [_test(report, row) for row in rows(report)]
    facts = {"result": report.line, **report.facts}
    return document([suite(f"{report.kind} {report.subject}", tests, facts, notes(report))])


def _test(report: FuzzReport, row: Row) -> Xml.Element:
    test = Xml.Element("testcase", classname=plain(f"{report.kind}.{report.subject}"), name=plain(row.name))
    found = [finding for finding in report.findings if finding.broken.name == row.name]
    if not found and not row.held:
        Xml.SubElement(test, "skipped", message=row.result)
    for known, tag in ((False, "failure"), (True, "system-out")):
        blocks = [_block(finding, report) for finding in found if finding.known is known]
        if blocks:
            said = Xml.SubElement(test, tag)
            said.text = "\n\n".join("\n".join(lines) for lines in blocks)
            if tag == "failure":
                said.attrib.update(message=f"{row.result}: {blocks[0][1]}", type=plain(row.name))
    return test


def _block(finding: Finding, report: FuzzReport) -> list[str]:
    again = [f"again: {visible(finding.command)}"] if finding.command else []
    return [*block(finding, report), *again]
