"""Sheets of checks: both sides, the divergence, and what counts as bad."""

import numpy as np
import pytest

from harness.checking.compare.outcome import Comparison, Outcome
from harness.checking.trace import Run
from harness.checking.verdict import Finding
from harness.report.sheet import Sheet, by_weight, difference_of, divergence, is_bad, outcome_of
from harness.stage import Stage
from harness.values import Distributions, Refusal
from tests.made import (
    HEALTHY,
    LOGITS,
    difference,
    distributions,
    generation,
    golden,
    observed,
    result,
    row,
    streamed,
    trace,
)
from tests.report.sheets import COMMAND, MADE, PARTS, chained_only, clean, faulty, of


def test_a_sheet_says_what_the_verdict_says_and_what_ran():
    sheet = clean()
    assert (sheet.title, sheet.model, sheet.status, sheet.verb) == ("made around tiny", "tiny", "good", "convicted")
    assert sheet.line == "clean: five stages cleared, 10 comparisons in 2 cases"
    assert sheet.sides == ("golden", "made")
    assert (sheet.limit, sheet.parts, sheet.command, sheet.made) == (0.01, PARTS, COMMAND, MADE)
    assert [case.name for case in sheet.cases] == ["greeting", "farewell"]
    assert not any(case.bad for case in sheet.cases)


@pytest.mark.parametrize(("made", "status"), [(clean, "good"), (faulty, "bad")])
def test_status(made, status):
    assert made().status == status


def test_a_sheet_in_which_a_stage_was_never_seen_is_unknown():
    expected = golden()
    assert of((expected, trace(expected)), floor=None).status == "unknown"


def test_both_sides_are_the_golden_and_the_isolated_run():
    expected = golden()
    seen = observed(expected, prompt=Refusal(error="E", message="no"))
    (case,) = of((expected, trace(expected, {Run.ISOLATED: seen}))).cases
    assert case.description == "Asks for a greeting."
    assert case.observed == seen
    assert (case.expected.request, case.expected.prompt) == (expected.request, expected.prompt)
    assert (case.expected.tokens, case.expected.reply) == (expected.tokens, expected.reply)
    assert case.expected.generation == expected.generation
    assert case.streams == (None, streamed(expected.reply))
    assert [one.stage for one in case.results] == list(Stage)
    assert case.bad


def test_divergence_is_that_of_the_comparison():
    other = generation(distributions=distributions(row(4, 1), *LOGITS[1:]))
    expected = golden()
    found = divergence(expected.generation, other)
    (case,) = of((expected, trace(expected, {Run.ISOLATED: observed(expected, generation=other)}))).cases
    (inference,) = (one for one in case.results if one.stage is Stage.INFERENCE)
    assert case.divergence == found
    assert len(found) == 4
    assert found[0] == max(found) == inference.isolated.measured["kl"] > 1
    assert max(found[1:]) < 1e-6


def test_divergence_ends_behind_the_first_id_that_differs():
    assert len(divergence(golden().generation, generation(ids=(1, 4, 3, 0)))) == 2


def test_divergence_of_what_is_not_a_number_is_none():
    broken = HEALTHY.logprobs.copy()
    broken[1, 2] = np.nan
    found = divergence(golden().generation, generation(distributions=Distributions(broken)))
    assert found[1] is None
    assert None not in (found[0], *found[2:])


def test_divergence_holds_two_stacks_against_each_other_that_show_whole_distributions():
    assert divergence(generation(), generation()) == pytest.approx((0, 0, 0, 0), abs=1e-6)


@pytest.mark.parametrize(
    ("expected", "seen"),
    [
        (None, generation()),
        (generation(), Refusal(error="E", message="m")),
        (generation(distributions=None), generation()),
    ],
)
def test_no_divergence_without_two_distributions(expected, seen):
    assert divergence(expected, seen) == ()


def test_what_differs_in_the_chain_only_is_shown_as_diverged():
    assert is_bad(chained_only())
    assert outcome_of(chained_only()) is Outcome.DIVERGED
    assert difference_of(chained_only()) == difference("it keeps state")


def test_outcomes_on_golden_input_are_shown_as_they_are():
    failed = result(Stage.CLIENT, isolated=Comparison(outcome=Outcome.FAILED, difference=difference("died")))
    assert (outcome_of(failed), difference_of(failed)) == (Outcome.FAILED, difference("died"))
    assert (outcome_of(result(Stage.CLIENT)), difference_of(result(Stage.CLIENT))) == (Outcome.EQUAL, None)
    assert not is_bad(result(Stage.CLIENT))


def test_findings_with_the_most_cases_come_first_within_a_stage():
    def found(stage, *cases):
        return Finding(
            stage=stage,
            kind="engine",
            summary="s",
            cases=cases,
            example=cases[0],
            difference=difference(cause=cases[0]),
        )

    one, two, three = found(Stage.CLIENT, "a"), found(Stage.CLIENT, "b", "c"), found(Stage.TEMPLATE, "d", "e", "f")
    assert by_weight([three, one, two]) == [two, one, three]


def test_a_sheet_survives_json():
    sheet = faulty()
    again = Sheet.model_validate_json(sheet.model_dump_json())
    assert again.model_dump_json() == sheet.model_dump_json()
    assert again.cases[1].divergence == sheet.cases[1].divergence
