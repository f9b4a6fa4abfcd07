"""Reports for machines: valid JSON that names its form, from which a verdict comes back whole."""

import json

import pytest

from harness.checking.compare.outcome import Comparison, Hunk, Outcome
from harness.checking.judge import Chained
from harness.checking.trace import Run
from harness.checking.verdict import Verdict, convict
from harness.report import machine
from harness.stage import Stage
from harness.values import Prompt, Reply, Unobserved
from tests.made import difference, golden, observed, result


def made_verdict(text="H\u00e9 \U0001f98a\n\x1b[0m"):
    """Return a verdict that uses every field."""
    hunk = Hunk(at="content", golden=text, observed="", before="b", after="a")
    results = [
        result(Stage.CLIENT),
        result(Stage.TEMPLATE, isolated=Comparison(outcome=Outcome.EQUIVALENT, rule="by design", policy="p")),
        result(
            Stage.TOKENIZATION,
            isolated=Comparison(outcome=Outcome.DIVERGED, difference=difference(text, hunk, cause=f"{text}\0")),
        ),
        result(
            Stage.INFERENCE,
            isolated=Comparison(outcome=Outcome.EQUIVALENT, rule="near", measured={"kl": 1e-7, "limit": 0.25}),
            chained=Chained.UNEXPLAINED,
            unexplained=(Run.CHAINED_STREAM, difference("it went", cause="gone", kind="engine")),
        ),
        result(
            Stage.POSTPROCESS,
            isolated=Comparison(outcome=Outcome.UNOBSERVED, rule="hidden"),
            chained=Chained.INHERITS,
            follows=Stage.TOKENIZATION,
        ),
    ]
    return convict("made", "tiny", results, lambda _: "state")


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def parsed(text):
    return json.loads(text, parse_constant=no_constant)


def test_a_verdict_comes_back_whole():
    verdict = made_verdict()
    report = parsed(machine.to_json(machine.CHECK, exit_status=1, verdicts=[verdict]))
    assert list(report) == ["schema", "exit_status", "verdicts"]
    assert (report["schema"], report["exit_status"]) == ("harness.check/1", 1)
    (content,) = report["verdicts"]
    assert Verdict.model_validate(content) == verdict
    assert Verdict.model_validate_json(json.dumps(content)) == verdict


def test_a_verdict_is_plain_words_by_name():
    content = parsed(machine.to_json(machine.CHECK, verdict=made_verdict()))["verdict"]
    assert content["status"] == "convicted"
    assert content["stages"]["client"] == {
        "status": "cleared",
        "outcomes": {"equal": 1},
        "why": "golden in, golden out",
        "seen": None,
    }
    assert [finding["evidence"] for finding in content["findings"]] == ["isolated", "state"]
    assert content["results"][3]["unexplained"][0] == "chained-stream"
    assert content["results"][4]["follows"] == "tokenization"
    assert content["results"][3]["isolated"]["measured"] == {"kl": 1e-7, "limit": 0.25}


def test_several_verdicts_keep_their_order():
    verdicts = (made_verdict("one"), made_verdict("two"))
    found = parsed(machine.to_json(machine.CHECK, verdicts=verdicts))["verdicts"]
    assert [Verdict.model_validate(content) for content in found] == list(verdicts)
    assert parsed(machine.to_json(machine.CHECK, verdicts=[])) == {"schema": "harness.check/1", "verdicts": []}


def test_text_is_kept_exactly_and_control_codes_are_escaped():
    text = 'H\u00e9 \U0001f98a\n\x1b[31m\u2028"\\ [red]x[/red]'
    written = machine.to_json(machine.TRACE, said=text)
    assert parsed(written) == {"schema": "harness.trace/1", "said": text}
    assert "\x1b" not in written


@pytest.mark.parametrize("plain", [None, True, 1, 0.5, "x", {"a": [1]}, ["a", {"b": None}], []])
def test_plain_data_passes_unchanged(plain):
    assert parsed(machine.to_json("form/1", value=plain)) == {"schema": "form/1", "value": plain}


def test_an_observation_is_shown_without_its_arrays():
    report = parsed(machine.to_json(machine.TRACE, observation=observed(golden(), prompt=Unobserved(reason="hidden"))))
    found = report["observation"]
    assert found["prompt"] == {"kind": "unobserved", "reason": "hidden"}
    assert found["generation"]["ids"] == [1, 2, 3, 0]
    assert "distributions" not in found["generation"]
    assert Reply.model_validate(found["reply"]) == observed(golden()).reply
    assert found["broke"] is None


def test_models_deep_in_lists_are_made_plain():
    found = parsed(machine.to_json("form/1", pairs=[(Prompt(text="x"), "y")]))["pairs"]
    assert found == [[Prompt(text="x").model_dump(mode="json"), "y"]]


def test_every_form_has_a_name_and_a_number():
    names = [machine.CHECK, machine.DEMO, machine.DOCTOR, machine.RECORD, machine.STACKS, machine.TRACE]
    assert names == [f"harness.{name}/1" for name in ("check", "demo", "doctor", "record", "stacks", "trace")]


def test_text_that_no_wire_could_carry_can_be_printed():
    verdict = made_verdict(json.loads('"\\ud83e"'))
    written = machine.to_json(machine.CHECK, verdicts=[verdict])
    assert written.encode("utf-8")
