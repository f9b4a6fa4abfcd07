"""What a bench says, of one that was made up: every number of it, and what is drawn in pairs."""

import json

import pytest

from harness.attribution.pairs import draw_pairs, together
from harness.attribution.published import Published, load_published, publish
from harness.attribution.results import Setup
from harness.attribution.summary import summarise
from harness.errors import UserError
from harness.stage import Stage
from harness.statistics import wilson
from tests.attribution.made import DEFECTS, SETUP, TRIALS, convicted, defect, trial


@pytest.fixture(scope="module")
def summary():
    return summarise(SETUP, TRIALS, DEFECTS)


def counts(row):
    shares = (row.noticed, row.stage, row.exact, row.kind, row.answer)
    return (row.name, row.tried, row.effective, *(share.count for share in shares))


def test_every_defect_came_to_its_end(summary):
    assert {one.id: one.result for one in summary.defects} == {
        "right": "exact",
        "touching": "exact",
        "blaming": "others too",
        "kind": "wrong kind",
        "swap": "wrong kind",
        "stage": "wrong stage",
        "missed": "missed",
        "chain": "exact",
        "nothing": "without effect",
        "nowhere": "no place",
        "raising": "raised",
        "leaking": "leaks",
    }
    assert [one.id for one in summary.defects if one.own] == ["raising", "leaking"]
    assert [one.line for one in summary.of("no place", "raised")] == ["there is no such place", "ValueError: no"]


def test_shares_are_of_what_took_effect(summary):
    row = summary.all
    assert counts(row) == ("all", 12, 8, 7, 6, 5, 5, 3)
    assert row.results["exact"] == 3
    assert row.noticed == wilson(7, 8)
    assert summary.swapped == ("swap",)
    assert summary.seconds == 46.0


def test_a_stage_that_a_defect_truly_breaks_as_well_is_not_innocent():
    blamed = trial("touching", convicted(Stage.TEMPLATE), convicted(Stage.TOKENIZATION), changed=(Stage.TEMPLATE,))
    (told,) = summarise(SETUP, [blamed], DEFECTS).defects
    # Yet the verdict's line names the first stage, which is not the planted one.
    assert (told.result, told.named_stage) == ("wrong stage", Stage.TEMPLATE)
    after = trial("touching", convicted(Stage.TOKENIZATION), convicted(Stage.INFERENCE), changed=(Stage.TEMPLATE,))
    assert summarise(SETUP, [after], DEFECTS).defects[0].result == "others too"
    touching = {"touching": defect("touching", "ids", touches=(Stage.INFERENCE,))}
    assert summarise(SETUP, [after], touching).defects[0].result == "exact"


def test_rows_by_stage_place_symptom_and_cause(summary):
    assert [counts(row) for row in summary.stages] == [
        ("client", 2, 1, 1, 1, 1, 0, 0),
        ("template", 3, 2, 2, 2, 1, 2, 1),
        ("tokenization", 3, 2, 1, 1, 1, 1, 2),
        ("inference", 2, 2, 2, 2, 2, 1, 0),
        ("postprocess", 2, 1, 1, 0, 0, 1, 0),
    ]
    assert [(row.name, row.tried) for row in summary.places] == [
        ("body", 2),
        ("environment", 1),
        ("prompt", 2),
        ("ids", 3),
        ("answer", 2),
        ("part", 2),
    ]
    assert [(row.name, row.tried) for row in summary.symptoms] == [
        ("crash", 1),
        ("incorrect functionality", 10),
        ("hang", 1),
    ]
    assert [(row.name, row.tried) for row in summary.causes] == [("data and computation", 11), ("API usage", 1)]


def test_the_matrices_hold_each_effective_defect_once(summary):
    assert summary.by_stage.named == ("client", "template", "tokenization", "inference", "postprocess", "nothing")
    assert dict(zip(summary.by_stage.planted, summary.by_stage.counts, strict=True)) == {
        "client": (1, 0, 0, 0, 0, 0),
        "template": (0, 2, 0, 0, 0, 0),
        "tokenization": (0, 0, 1, 0, 0, 1),
        "inference": (0, 0, 0, 2, 0, 0),
        "postprocess": (1, 0, 0, 0, 0, 0),
    }
    assert summary.by_kind.named == ("integration", "engine", "artifact", "environment", "nothing")
    assert dict(zip(summary.by_kind.planted, summary.by_kind.counts, strict=True)) == {
        "integration": (4, 0, 0, 1, 1),
        "engine": (1, 1, 0, 0, 0),
    }


def test_controls_that_blame_the_clean_stack_and_those_that_saw_too_little(summary):
    controls = summary.controls
    assert (controls.checks, controls.comparisons, controls.settings) == (4, 40, ("one thread", "flash"))
    assert [one.name for one in controls.alarms] == ["control tiny flash"]
    assert [one.name for one in controls.unjudged] == ["control tiny 0"]


def test_two_defects_at_once_are_in_no_share(summary):
    assert [(one.ids, one.result) for one in summary.pairs] == [
        (("right", "missed"), "both"),
        (("right", "missed"), "downstream only"),
        (("kind", "right"), "upstream only"),
        (("kind", "missed"), "another stage"),
        (("kind", "swap"), "none"),
        (("kind", "stage"), "without effect"),
        (("kind", "chain"), "not judged"),
    ]


def status(*names, trials=TRIALS):
    return summarise(SETUP, [one for one in trials if one.name in names], DEFECTS).status


def test_all_is_right_only_where_nothing_was_missed_and_nothing_healthy_was_blamed():
    assert status("right", "chain", "nothing", "nowhere", "control tiny 1") == "right"
    # An innocent stage beside the right one is told, and fails nothing.
    assert status("blaming") == "right"
    for bad in ("kind", "swap", "stage", "missed", "raising", "leaking", "control tiny flash", "kind+swap"):
        assert status("right", bad) == "wrong", bad
    assert status("right", "control tiny 0") == "unjudged"
    assert status("nothing", "nowhere") == "unjudged"
    assert status("kind+stage") == "unjudged"
    assert status("right+missed") == "right"


def test_a_bench_of_nothing_says_nothing():
    empty = summarise(SETUP, [], {})
    assert (empty.all.tried, empty.all.noticed, empty.stages, empty.status) == (0, wilson(0, 0), (), "unjudged")


def test_results_are_published_by_stack(summary, tmp_path):
    path = tmp_path / "results.json"
    publish(path, summary)
    other = summarise(Setup(**{**SETUP.model_dump(), "stack": "another"}), TRIALS[:1], DEFECTS)
    publish(path, other)
    publish(path, summary)
    assert load_published(path) == Published(stacks={"another": other, "stack": summary})
    assert list(json.loads(path.read_text())["stacks"]) == ["another", "stack"]
    # A line a defect.
    assert sum('"id": "' in line for line in path.read_text().splitlines()) == len(summary.defects) + 1
    path.write_text("{}[")
    with pytest.raises(UserError, match="not valid JSON"):
        publish(path, summary)
    assert path.read_text() == "{}["


MANY = [
    *(defect(f"body-{at}", "body") for at in range(3)),
    *(defect(f"prompt-{at}", "prompt") for at in range(3)),
    *(defect(f"source-{at}", "source") for at in range(2)),
    *(defect(f"ids-{at}", "ids") for at in range(3)),
    *(defect(f"part-{at}", "part") for at in range(3)),
    defect("answer", "answer"),
]


def test_pairs_are_of_two_stages_and_spread_evenly_over_them():
    drawn = draw_pairs(MANY, 20)
    assert len({(one.id, other.id) for one, other in drawn}) == 20
    order = list(Stage)
    assert all(order.index(one.stage) < order.index(other.stage) for one, other in drawn)
    stages = [(one.stage, other.stage) for one, other in drawn]
    assert {stages.count(two) for two in stages} == {2}
    used = [name for pair in drawn for name in (pair[0].id, pair[1].id)]
    # Each of the three bodies is in two or three of its stage's eight pairs.
    assert {used.count(f"body-{at}") for at in range(3)} <= {2, 3}


def test_the_same_seed_draws_the_same_pairs_whatever_the_order():
    def ids(seed, defects=MANY):
        return [(one.id, other.id) for one, other in draw_pairs(defects, 12, seed)]

    assert ids(0) == ids(0, MANY[::-1])
    assert ids(0) != ids(1)
    assert ids(0)[:5] == [(one.id, other.id) for one, other in draw_pairs(MANY, 5)]
    assert len(draw_pairs(MANY[:2], 9)) == 0
    assert len(draw_pairs([MANY[0], MANY[3]], 9)) == 1


def test_what_cannot_be_planted_together_is_no_pair():
    one = defect("one", "options")
    assert not together(one, defect("other", "options", stage=Stage.POSTPROCESS))
    assert together(one, defect("other", "answer"))
    assert not together(one, defect("other", "part"))
    assert not together(one, defect("other", "answer", symptom="loading failure"))
    assert not together(defect("one", "ids", models=("a",)), defect("other", "answer", models=("b",)))
    assert together(defect("one", "ids", models=("a",)), defect("other", "answer", models=("b", "a")))
    assert together(defect("one", "ids", models=("a",)), defect("other", "answer"))
