"""An error of our own convicts nobody, clears nobody, and is said first."""

from __future__ import annotations

import pytest

from harness.checking.compare.outcome import Outcome, diverged, errored
from harness.checking.judge import Chained, Judge
from harness.checking.own import OwnSeenError, own_error
from harness.checking.trace import Run, Tracer, load_trace, save_trace
from harness.checking.verdict import adding, convict, explain_by_rerun
from harness.errors import UserError
from harness.process.worker import RemoteError
from harness.stage import Stage
from harness.values import Observation, OwnError, Refusal
from tests.made import (
    FLOOR,
    Route,
    Whole,
    answers,
    difference,
    golden,
    never_explained,
    observed,
    result,
    running,
    trace,
)

GREETING = golden()
PLANTED = [KeyError("planted"), AttributeError("'NoneType' object has no attribute 'planted'")]
OWN = OwnError(error="KeyError", message="'planted'", place="_tokenize, harness/components/part/_taps.py:7")


def judged(*parts):
    return Judge({}, FLOOR).case(GREETING, Tracer(running(*parts)).trace(GREETING))


def said(results, explain=never_explained):
    return convict("made", "tiny", results, explain)


@pytest.mark.parametrize("error", PLANTED, ids=["KeyError", "AttributeError"])
@pytest.mark.parametrize("stage", Stage)
def test_what_a_stages_method_raises_is_an_error_of_ours_and_convicts_nobody(stage, error):
    found = said(judged(Whole({**answers(GREETING), stage: error})))
    assert (found.status, found.findings) == ("error", ())
    assert {one: told.status for one, told in found.stages.items() if told.status == "error"} == {stage: "error"}
    assert found.line.startswith(f"an error of our own (nobody is convicted): {type(error).__name__}: ")
    [told] = found.errors
    assert (told.stage, told.cases, told.error.error) == (stage, ("greeting",), type(error).__name__)
    assert "Traceback (most recent call last)" in told.error.traceback
    assert "in answer" in told.error.traceback


@pytest.mark.parametrize("stage", Stage)
def test_the_stages_behind_it_are_not_seen_in_the_chain_and_not_said_to_differ(stage):
    results = {one.stage: one for one in judged(Whole({**answers(GREETING), stage: KeyError("planted")}))}
    behind = list(Stage)[list(Stage).index(stage) + 1 :]
    assert all(results[one].chained is Chained.NOT_SEEN and results[one].unexplained is None for one in behind)
    assert all(results[one].isolated.outcome in (Outcome.EQUAL, Outcome.EQUIVALENT) for one in behind)
    assert results[stage].isolated.outcome is Outcome.ERROR


def test_a_call_of_the_whole_path_that_raises_ends_the_chain_only():
    found = said(judged(Route(answers(GREETING), KeyError("planted"))))
    assert (found.status, found.findings) == ("error", ())
    assert {told.stage for told in found.errors} == {Stage.INFERENCE}
    assert all(one.isolated.outcome in (Outcome.EQUAL, Outcome.EQUIVALENT) for one in found.results)


def test_an_error_in_the_stream_alone_outweighs_what_the_whole_reply_was():
    def reply(generation, tokens, request, stream):
        return KeyError("planted") if stream else GREETING.reply.model_copy(update={"content": "wrong"})

    found = said(judged(Whole({**answers(GREETING), Stage.POSTPROCESS: reply})))
    assert (found.status, found.findings) == ("error", ())


def test_what_the_user_can_mend_is_none_of_our_errors():
    with pytest.raises(UserError):
        judged(Whole({**answers(GREETING), Stage.CLIENT: UserError("the key is wrong")}))


def test_another_stage_that_differs_on_golden_input_stays_listed_behind_the_error():
    wrong = diverged(difference("the template is wrong"))
    results = (result(Stage.TEMPLATE, isolated=wrong), result(Stage.INFERENCE, isolated=errored(OWN)))
    found = said(results)
    assert (found.status, [one.stage for one in found.findings]) == ("error", [Stage.TEMPLATE])
    assert found.line == (
        "an error of our own: KeyError: 'planted' in _tokenize, harness/components/part/_taps.py:7 "
        "[inference, 1 of 1 case]; apart from it: convicted: template (integration): the template is wrong "
        "[1 of 1 case]"
    )
    assert found.stages[Stage.INFERENCE].status == "error"


def test_a_stage_with_an_error_of_ours_in_one_case_is_not_convicted_for_another_case():
    wrong = diverged(difference("it is wrong"))
    found = said((result(Stage.TEMPLATE, "one", isolated=wrong), result(Stage.TEMPLATE, "two", isolated=errored(OWN))))
    assert (found.status, found.findings) == ("error", ())


def test_what_shows_in_the_chain_only_convicts_nobody_beside_an_error_of_ours():
    unexplained = {"chained": Chained.UNEXPLAINED, "unexplained": (Run.CHAINED, difference("odd"))}
    found = said((result(Stage.TEMPLATE, **unexplained), result(Stage.INFERENCE, isolated=errored(OWN))))
    assert (found.status, found.findings) == ("error", ())


def test_an_error_of_ours_while_a_case_is_run_again_is_no_nondeterminism():
    unexplained = result(Stage.TEMPLATE, chained=Chained.UNEXPLAINED, unexplained=(Run.CHAINED, difference("odd")))

    def rerun(expected, run):
        return trace(expected, {run: Observation(request=expected.request, prompt=OWN)})

    judge = Judge({}, FLOOR)
    found = said((unexplained,), lambda one: explain_by_rerun(judge, GREETING, one, rerun))
    assert (found.status, found.findings) == ("error", ())


@pytest.mark.parametrize("seen", [Observation(broke=OWN), Observation(request=GREETING.request, prompt=OWN)])
def test_what_raised_while_a_case_is_run_again_is_handed_on_as_it_is(seen):
    unexplained = result(Stage.POSTPROCESS, chained=Chained.UNEXPLAINED, unexplained=(Run.CHAINED, difference("odd")))
    with pytest.raises(OwnSeenError) as raised:
        explain_by_rerun(Judge({}, FLOOR), GREETING, unexplained, lambda _, run: trace(GREETING, {run: seen}))
    assert raised.value.own is OWN


def test_a_call_that_raises_where_the_reference_refuses_is_an_error_of_ours_at_the_last_stage():
    refused = golden(prompt=Refusal(error="TemplateError", message="no"), tokens=None, generation=None, reply=None)
    found = {
        one.stage: one for one in Judge({}, FLOOR).case(refused, trace(refused, {Run.CHAINED: Observation(broke=OWN)}))
    }
    assert found.keys() == {Stage.CLIENT, Stage.TEMPLATE}
    assert (found[Stage.TEMPLATE].erred, found[Stage.CLIENT].erred) == (OWN, None)


def test_a_comparison_with_a_replay_that_raises_is_an_error_of_ours(monkeypatch):
    other = GREETING.generation.model_copy(update={"ids": (*GREETING.generation.ids[:-1], 0)})
    seen = trace(GREETING, {Run.CHAINED: observed(GREETING, generation=other)})
    seen = seen.model_copy(update={"replays": {Run.CHAINED: GREETING.reply}})

    def raising(*_):
        raise KeyError("planted")

    monkeypatch.setattr("harness.checking.compare.postprocess.compare", raising)
    found = said(Judge({}, FLOOR).case(GREETING, seen))
    assert (found.status, found.findings) == ("error", ())
    assert [(told.stage, told.error.error) for told in found.errors] == [(Stage.POSTPROCESS, "KeyError")]


def test_a_client_is_not_convicted_where_the_servers_answer_could_not_be_compared(monkeypatch):
    wrong = GREETING.reply.model_copy(update={"content": "wrong"})
    seen = observed(GREETING, reply=wrong, answered=GREETING.reply)
    judge = Judge({}, FLOOR)
    real = judge.compare

    def compare(stage, expected, value):
        if value is GREETING.reply:
            return errored(OWN)
        return real(stage, expected, value)

    monkeypatch.setattr(judge, "compare", compare)
    results = judge.case(GREETING, trace(GREETING, {Run.CHAINED: seen}))
    assert not any(one.received for one in results)


@pytest.mark.parametrize(
    "module", ["client", "template", "tokenization", "inference", "postprocess"], ids=lambda name: name
)
def test_a_comparison_that_raises_is_an_error_of_ours(monkeypatch, module):
    def raising(*_):
        raise KeyError("planted")

    monkeypatch.setattr(f"harness.checking.compare.{module}.compare", raising)
    found = said(judged(Whole(answers(GREETING))))
    assert (found.status, found.findings) == ("error", ())
    assert [told.stage for told in found.errors] == [Stage(module)]
    assert found.errors[0].error.error == "KeyError"


def test_a_replay_that_raises_is_an_error_of_ours():
    other = GREETING.generation.model_copy(update={"ids": (*GREETING.generation.ids[:-1], 0)})
    seen = trace(GREETING, {Run.CHAINED: observed(GREETING, generation=other)})
    seen = seen.model_copy(update={"replays": {Run.CHAINED: OWN}})
    results = {one.stage: one for one in Judge({}, FLOOR).case(GREETING, seen)}
    assert results[Stage.POSTPROCESS].erred == OWN


def test_the_value_keeps_the_traceback_of_the_child_and_says_where_it_was():
    there = 'Traceback (most recent call last):\n  File "/x/harness/components/part/_taps.py", line 7, in _tokenize\n'
    found = own_error(RemoteError("KeyError", "'planted'", f"{there}KeyError: 'planted'\n", ()))
    assert (found.error, found.message) == ("KeyError", "'planted'")
    assert found.place == "_tokenize, harness/components/part/_taps.py:7"
    assert found.describe() == "KeyError: 'planted' in _tokenize, harness/components/part/_taps.py:7"
    assert found.traceback.startswith(there)
    assert own_error(OwnSeenError(OWN)) is OWN


def test_a_trace_with_an_error_of_ours_is_saved_and_loaded(tmp_path):
    seen = trace(GREETING, {Run.ISOLATED: Observation(request=OWN, broke=OWN)})
    save_trace(seen, tmp_path)
    assert load_trace(tmp_path, "greeting").runs[Run.ISOLATED] == seen.runs[Run.ISOLATED]


def test_a_verdict_with_an_error_of_ours_keeps_that_first_when_a_finding_is_added():
    found = said((result(Stage.TEMPLATE, isolated=errored(OWN)),))
    more = said((result(Stage.INFERENCE, isolated=diverged(difference("odd"))),)).findings[0]
    assert adding(found, more).status == "error"
    assert adding(found, more).line.startswith("an error of our own: KeyError")
