"""The search: one finding a root cause, each with a short example, the same again under the same seed."""

from __future__ import annotations

import time

import pytest
from hypothesis import strategies as st

from harness.errors import UserError
from harness.fuzz.baseline import load_baseline, marked, save_baseline
from harness.fuzz.failures import load_failures, save_failures
from harness.fuzz.finding import Broken, Finding, cause_of, merged
from harness.fuzz.search import Search, found_in

WORDS = st.lists(st.text("abcz", max_size=30), max_size=12)


def check(words):
    """Three defects: a word too many, a letter, and too much text."""
    broken = []
    if len(words) > 3:
        broken.append(Broken(name="count", path="p", cause="too many", message=f"{len(words)} words"))
    if any("z" in word for word in words):
        broken.append(Broken(name="letter", path="p", cause="a z", message="a z"))
    if sum(map(len, words)) > 20:
        broken.append(Broken(name="size", path="p", cause="too long", message="too long"))
    return broken


def test_every_root_cause_is_found_and_made_small():
    search = Search(check)
    search.explore(WORDS, examples=200, number=0)
    found = {one.broken.name: one.example for one in found_in(search)}
    assert found["count"] == ["", "", "", ""]
    assert found["letter"] == ["z"]
    assert sum(map(len, found["size"])) in range(21, 25)
    assert all(one.inputs > 1 for one in found_in(search))


def test_the_same_seed_finds_the_same():
    searches = [Search(check) for _ in range(2)]
    for search in searches:
        search.explore(WORDS, examples=60, number=7)
    assert found_in(searches[0]) == found_in(searches[1])
    assert searches[0].result.inputs == searches[1].result.inputs


def test_what_failed_before_is_tried_first():
    seen = []
    search = Search(lambda words: seen.append(words) or check(words))
    search.replay([["zz"]])
    search.explore(WORDS, examples=5, number=0)
    assert seen[0] == ["zz"]


def test_the_time_budget_ends_a_search():
    def slow(words):
        time.sleep(0.02)
        return check(words)

    search = Search(slow, seconds=0.1)
    search.explore(WORDS, examples=10_000, number=0)
    assert search.result.ended
    assert search.result.inputs < 100


def finding(name="renders", cause="c", subjects=("one",), example=("e",), path="jinja2"):
    broken = Broken(name=name, path=path, cause=cause, message="m")
    return Finding(broken=broken, sentence="s", subjects=subjects, inputs=1, example=list(example), subject=subjects[0])


def test_equal_causes_are_one_finding_with_the_shortest_example():
    joined = merged(
        [
            finding(subjects=("one",), example=("long",)),
            finding(subjects=("two",), example=("e",)),
            finding(cause="other"),
            finding(path="minijinja"),
        ]
    )
    assert [(one.subjects, one.inputs, one.example, one.subject) for one in joined] == [
        (("one", "two"), 2, ["e"], "two"),
        (("one",), 1, ["e"], "one"),
        (("one",), 1, ["e"], "one"),
    ]
    assert len({one.fingerprint for one in joined}) == 3


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("'dict object' has no attribute 'content'", "'dict object' has no attribute 'content'"),
        ("unknown text 'Hi there' at 17", "unknown text TEXT at N"),
        ("<macro at 0x7f00>", "<macro at ADDRESS>"),
    ],
)
def test_a_cause_says_nothing_of_the_input(message, cause):
    assert cause_of(message) == cause


def test_a_baseline_knows_what_it_holds_and_nothing_else(tmp_path):
    path = tmp_path / "baseline.json"
    save_baseline(path, [finding(subjects=("one", "two")), finding(cause="old")])
    told = marked(
        [finding(subjects=("one",)), finding(cause="new"), finding(subjects=("one", "three"))], load_baseline(path)
    )
    assert [(one.broken.cause, one.subjects, one.known) for one in told] == [
        ("new", ("one",), False),
        ("c", ("one", "three"), False),
        ("c", ("one",), True),
    ]


def test_a_damaged_baseline_is_one_clear_line(tmp_path):
    path = tmp_path / "baseline.json"
    with pytest.raises(UserError, match="no file"):
        load_baseline(path)
    path.write_text('{"version": 2, "findings": []}')
    with pytest.raises(UserError, match="version"):
        load_baseline(path)


def test_failures_are_kept_by_subject_and_a_damaged_file_is_none(tmp_path):
    findings = [finding(example=("a",)), finding(cause="d", example=("b",)), finding(subjects=("two",))]
    save_failures(tmp_path, "template", findings, {"one": [["before"]]})
    assert load_failures(tmp_path, "template", ["one", "two", "three"]) == {
        "one": (["before"], ["a"], ["b"]),
        "two": (["e"],),
    }
    assert load_failures(tmp_path, "parser", ["one"]) == {}
    for path in (tmp_path / "template").iterdir():
        path.write_text("{")
    assert load_failures(tmp_path, "template", ["one"]) == {}
