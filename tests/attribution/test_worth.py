"""What a suite is worth, on trials that are made up: exact numbers, and the smallest set by trying all."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from harness.attribution.results import Conviction, Setup, Trial
from harness.attribution.worth import Score, smallest_cover, worth_of
from harness.defects.defect import Defect, Place
from harness.stage import Stage

MODEL = "m"


def defect(name, stage, touches=()):
    return Defect(name, stage, "integration", "It is wrong.", Place.PART, "a:b", touches=touches)


def trial(name, by_stage, changed=(Stage.TEMPLATE,), convictions=()):
    return Trial(
        name=name, stack="s", model=MODEL, defects=(name,), changed=changed, by_stage=by_stage, convictions=convictions
    )


DEFECTS = {
    one.id: one
    for one in (
        defect("a", Stage.TEMPLATE),
        defect("b", Stage.TEMPLATE),
        defect("c", Stage.TOKENIZATION, touches=(Stage.POSTPROCESS,)),
        defect("d", Stage.TEMPLATE),
        defect("e", Stage.INFERENCE),
        defect("f", Stage.CLIENT),
    )
}
NODE = Conviction(stage=Stage.INFERENCE, kind="engine", summary="it is", evidence="nodes", cases=("one",))
TRIALS = (
    trial("a", {Stage.TEMPLATE: ("one", "two")}),
    trial("b", {Stage.TEMPLATE: ("two",), Stage.CLIENT: ("three",)}),
    trial("c", {Stage.POSTPROCESS: ("three",)}),
    trial("d", {Stage.CLIENT: ("one",)}),
    trial("e", {}, changed=(Stage.INFERENCE,), convictions=(NODE,)),
    trial("f", {}, changed=()),
)
SETUP = Setup(
    stack="s",
    models=(MODEL,),
    shallow={MODEL: ("one", "two")},
    deep={MODEL: ("three", "four")},
    names=tuple("abcdef"),
)


def test_what_a_suite_is_worth():
    found = worth_of(SETUP, TRIALS, DEFECTS, MODEL, {"d": ("one", "shipped"), "a": ("shipped",), "f": ("other",)})
    assert found.scores[Stage.TEMPLATE] == Score(effective=3, noticed=2)
    assert found.scores[Stage.TOKENIZATION] == Score(effective=1, noticed=1)
    assert found.scores[Stage.INFERENCE] == Score(effective=1, noticed=0, by_nodes=1)
    assert found.scores[Stage.CLIENT] == Score(effective=0, noticed=0)
    # Another stage's being wrong is not the defect's being noticed.
    assert found.unnoticed == ("d", "e")
    assert found.without_effect == ("f",)
    assert found.noticed == {"one": 1, "two": 2, "three": 1, "four": 0}
    assert found.only == {"two": ("b",), "three": ("c",)}
    assert found.idle == ("one", "four")
    assert (found.smallest, found.exact) == (("two", "three"), True)
    assert found.suggestions == {"d": ("shipped",), "f": ("other",)}


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("0123456789")), min_size=1))
def test_no_fewer_sets_hold_as_much(sets):
    wanted = frozenset().union(*sets.values())
    found, exact = smallest_cover(sets)
    assert exact
    assert frozenset().union(*(sets[name] for name in found)) == wanted
    fewer = combinations(sets, max(len(found) - 1, 0))
    assert not found or all(frozenset().union(*(sets[name] for name in some)) != wanted for some in fewer)


def test_greed_alone_would_take_three():
    sets = {"big": frozenset("2345"), "left": frozenset("123"), "right": frozenset("456")}
    assert smallest_cover(sets) == (("left", "right"), True)
