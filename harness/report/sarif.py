"""Verdicts as SARIF 2.1.0, for code scanning: a result a finding, at the case that shows it best."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from harness.checking.compare.outcome import Outcome
from harness.checking.verdict import Finding
from harness.report.difference import diff_lines
from harness.report.sheet import Sheet, by_weight
from harness.report.visible import shorten, visible
from harness.stage import Stage

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_DISTRIBUTION = "llm-stack-harness"
_PLACES = 3
_LONGEST = 1_000
_UNOBSERVED = "unobserved"
_KINDS = {
    "integration": "differs from its golden though its engine is sound: what was put around it is wrong",
    "engine": "differs from its golden because the engine itself does",
    "artifact": "differs from its golden because the model file is bad",
    "environment": "cannot run here",
    _UNOBSERVED: "could not be looked at",
}


def to_sarif(sheets: Sequence[Sheet]) -> str:
    """Return sheets as one SARIF log with one run.

    Args:
        sheets: What to show, one a model.
    """
    results = [result for sheet in sheets for result in (*_findings(sheet), *_unobserved(sheet))]
    rules = sorted({result["ruleId"] for result in results}, key=_rule_order)
    # What was not seen is a result each.
    notes = [f"{sheet.title}: {note}" for sheet in sheets for note in sheet.notes if not note.startswith(_UNOBSERVED)]
    return log([_rule(rule) for rule in rules], results, notes)


def log(rules: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Return a log of one run.

    Args:
        rules: The descriptors of all rules that results name by `ruleId`.
        results: The results, without `ruleIndex`.
        notes: What a reader must know beside.
    """
    index = {rule["id"]: at for at, rule in enumerate(rules)}
    driver = {"name": "harness", "version": version(_DISTRIBUTION), "rules": rules}
    indexed = [{**result, "ruleIndex": index[result["ruleId"]]} for result in results]
    run: dict[str, Any] = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": indexed}
    if notes:
        told = [{"level": "note", "message": {"text": message(note)}} for note in notes]
        run["invocations"] = [{"executionSuccessful": True, "toolExecutionNotifications": told}]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, ensure_ascii=True, indent=2) + "\n"


def message(text: str) -> str:
    """Return text as a message's: no link and no placeholder is read in it (SARIF 2.1.0, 3.11.5 and 3.11.6)."""
    shown = visible(shorten(text, _LONGEST)).replace("{", "{{").replace("}", "}}")
    return re.sub(r"\[(?=[^\[\]]*\]\()", r"\\[", shown)


def _rule_order(rule: str) -> tuple[int, int]:
    stage, kind = rule.split("/")
    return list(Stage).index(Stage(stage)), list(_KINDS).index(kind)


def _rule(rule: str) -> dict[str, Any]:
    stage, kind = rule.split("/")
    return {
        "id": rule,
        "name": f"{stage.capitalize()}{kind.capitalize()}",
        "shortDescription": {"text": f"The {stage} stage {_KINDS[kind]}."},
        "defaultConfiguration": {"level": _level(kind)},
    }


def _level(kind: str) -> str:
    return "note" if kind == _UNOBSERVED else "error"


def _findings(sheet: Sheet) -> Iterator[dict[str, Any]]:
    for finding in by_weight(sheet.findings):
        shown = diff_lines(finding.difference, _PLACES)
        said = [finding.summary, *([] if finding.location is None else [finding.location]), *finding.hints, *shown]
        said += [] if finding.remedy is None else [f"remedy: {finding.remedy}"]
        others = [case for case in finding.cases if case != finding.example]
        yield {
            **_result(sheet, finding.stage, finding.kind, said, finding.example, others),
            "partialFingerprints": {"rootCause/v1": _fingerprint(sheet, finding.stage, finding.kind, _cause(finding))},
        }


def _unobserved(sheet: Sheet) -> Iterator[dict[str, Any]]:
    """Yield a note for each stage and reason."""
    unseen: dict[tuple[Stage, str], list[str]] = {}
    for case in sheet.cases:
        for result in case.results:
            if result.own_error is not None:
                said = f"an error of our own: {result.own_error.describe()}"
                unseen.setdefault((result.stage, said), []).append(case.name)
            elif result.isolated.outcome is Outcome.UNOBSERVED:
                unseen.setdefault((result.stage, result.isolated.rule), []).append(case.name)
    for (stage, reason), cases in unseen.items():
        yield {
            **_result(sheet, stage, _UNOBSERVED, [f"unobserved: {reason}"], cases[0], cases[1:]),
            "partialFingerprints": {"rootCause/v1": _fingerprint(sheet, stage, _UNOBSERVED, [reason])},
        }


def _result(
    sheet: Sheet, stage: Stage, kind: str, lines: Sequence[str], case: str, others: Sequence[str]
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": f"{stage}/{kind}",
        "level": _level(kind),
        "message": {"text": "\n".join(map(message, (f"{sheet.title}: {stage}: {lines[0]}", *lines[1:])))},
        "locations": [_location(sheet, stage, case)],
    }
    if others:
        result["relatedLocations"] = [{**_location(sheet, stage, other), "id": at} for at, other in enumerate(others)]
    return result


def _location(sheet: Sheet, stage: Stage, case: str) -> dict[str, Any]:
    """Return where a case is; of a finding of no case the models, which say what is loaded."""
    uri = f"golden/cases/{quote(case, safe='')}.json" if case else "stacks/models.toml"
    whole = "/".join((visible(sheet.model), *([visible(case)] if case else []), stage))
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 1},
        },
        "logicalLocations": [{"name": str(stage), "fullyQualifiedName": whole}],
    }


def _cause(finding: Finding) -> Iterable[str]:
    return (finding.evidence, *sorted(finding.difference.causes))


def _fingerprint(sheet: Sheet, stage: Stage, kind: str, cause: Iterable[str]) -> str:
    """Return what is the same for the same defect in another run: no number, no case, no place, no time."""
    told = json.dumps([sheet.title, sheet.model, stage, kind, *cause])
    return hashlib.sha256(told.encode()).hexdigest()
