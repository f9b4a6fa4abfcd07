"""The swap: which part performs which stage, and who is fed by whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.checking.swap import swapped
from harness.checking.trace import Tracer
from harness.stage import Stage
from harness.values import Observation, Prompt
from tests.made import Back, Front, Route, Whole, answers, golden, observed, running

GREETING = golden()


def whole():
    return running(Whole(answers(GREETING)))


@pytest.mark.parametrize("stage", list(Stage))
def test_one_stage_is_the_other_s_and_the_rest_stay(stage):
    ours, theirs = whole(), whole()
    made = swapped(ours, theirs, {stage})
    (own,), (other,) = ours.parts.values(), theirs.parts.values()
    assert [made.part(one) for one in Stage] == [other if one is stage else own for one in Stage]


def test_several_stages_and_none_and_all():
    ours, theirs = whole(), whole()
    (own,), (other,) = ours.parts.values(), theirs.parts.values()
    for stages in ({Stage.TEMPLATE, Stage.INFERENCE}, set(), set(Stage)):
        made = swapped(ours, theirs, stages)
        assert [made.part(one) for one in Stage] == [other if one in stages else own for one in Stage]


def test_parts_of_the_same_name_are_told_apart():
    ours, theirs = running(Front(answers(GREETING)), Back(answers(GREETING))), whole()
    made = swapped(ours, theirs, {Stage.POSTPROCESS})
    assert made.stack.components == ("ours part-0", "ours part-1", "theirs part-0")
    assert made.parts == {
        "ours part-0": ours.parts["part-0"],
        "ours part-1": ours.parts["part-1"],
        "theirs part-0": theirs.parts["part-0"],
    }
    assert (made.stack.name, made.model) == (ours.stack.name, ours.model)


def test_both_stacks_stay_as_they_are():
    ours, theirs = whole(), whole()
    before = replace(ours), replace(theirs)
    swapped(ours, theirs, set(Stage))
    assert (ours, theirs) == before


def test_a_swapped_stack_runs_stage_after_stage_and_not_the_route_of_one_part():
    ours, theirs = Route(answers(GREETING), Observation()), Route(answers(GREETING), Observation())
    other = Prompt(text="theirs")
    theirs.answers[Stage.TEMPLATE] = other
    made = swapped(running(ours), running(theirs), {Stage.TEMPLATE})
    assert made.chat_route is None
    found = Tracer(made).chained(GREETING.case, stream=False)
    assert found == observed(GREETING, prompt=other)
    assert (ours.chats, theirs.chats) == ([], [])
    assert [stage for stage, _ in theirs.received] == [Stage.TEMPLATE]
    assert ours.given(Stage.TOKENIZATION) == [(other,)], "ours is fed with what theirs rendered"
