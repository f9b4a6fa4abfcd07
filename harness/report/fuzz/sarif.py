"""A search as SARIF 2.1.0: a rule a property, a result a root cause, at the subject of its shortest input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from harness.report.fuzz.view import block, rows
from harness.report.sarif import log, message
from harness.report.visible import visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding, FuzzReport

_RELATED: Final = 100
"""Other subjects of a result; code scanning shows no more."""


def to_sarif(report: FuzzReport) -> str:
    """Return a search as one SARIF log with one run. What a baseline holds is there, unchanged and suppressed."""
    rules = [_rule(report, row.name, row.sentence) for row in rows(report)]
    return log(rules, [_result(report, finding) for finding in report.findings])


def _rule(report: FuzzReport, name: str, sentence: str) -> dict[str, Any]:
    return {
        "id": _rule_id(report, name),
        "name": "".join(part.capitalize() for part in visible(f"{report.kind}-{name}").split("-")),
        "shortDescription": {"text": message(sentence or name)},
        "defaultConfiguration": {"level": "error"},
    }


def _rule_id(report: FuzzReport, name: str) -> str:
    return visible(f"{report.kind}/{name}")


def _result(report: FuzzReport, finding: Finding) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": _rule_id(report, finding.broken.name),
        "level": "note" if finding.known else "error",
        "baselineState": "unchanged" if finding.known else "new",
        "message": {"text": "\n".join(map(message, block(finding, report)))},
        "locations": [_location(finding, finding.subject)],
        "partialFingerprints": {"rootCause/v1": finding.fingerprint},
    }
    others = [name for name in finding.subjects if name != finding.subject][:_RELATED]
    if others:
        result["relatedLocations"] = [{**_location(finding, other), "id": at} for at, other in enumerate(others)]
    if finding.command:
        result["properties"] = {"command": visible(finding.command)}
    if finding.known:
        result["suppressions"] = [{"kind": "external", "justification": "in the baseline"}]
    return result


def _location(finding: Finding, subject: str) -> dict[str, Any]:
    name, path = visible(subject), visible(finding.broken.path)
    return {
        "physicalLocation": {
            # A location must be relative to the project, whatever the subject is.
            "artifactLocation": {"uri": quote(name, safe="/").lstrip("/") or ".", "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 1},
        },
        "logicalLocations": [{"name": path, "fullyQualifiedName": f"{name}/{path}"}],
    }
