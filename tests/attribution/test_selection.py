"""Which defects a bench plants: of every stage, kind and place, far apart, the same ones for the same catalogue."""

from __future__ import annotations

from collections import Counter

from harness.attribution.selection import of_stack, spread
from harness.defects.catalogue import catalogue
from harness.defects.defect import Defect, Place
from harness.project.stack import load_stack
from harness.stage import Stage


def defects(place, count):
    return [Defect(f"{place}-{at}", Stage.CLIENT, "integration", "", place, "a:b") for at in range(count)]


def test_every_group_gives_one_in_turn_and_neighbours_come_last():
    some = [*defects(Place.BODY, 8), *defects(Place.PART, 2)]
    assert [one.id for one in spread(some, 5)] == ["body-0", "body-2", "body-4", "part-0", "part-1"]
    assert spread(some, 99) == some
    assert spread(some, 0) == []


def test_of_the_catalogue_every_stage_and_kind_is_there():
    every = list(catalogue().values())
    chosen = spread(every, 240)
    assert len(chosen) == 240
    assert {(one.stage, one.kind) for one in chosen} == {(one.stage, one.kind) for one in every}
    assert min(Counter(one.stage for one in chosen).values()) >= 20


def test_what_a_stack_has_no_component_for_is_left_out(project):
    every = list(catalogue().values())
    left = of_stack(every, load_stack(project, "llama-cpp-python"))
    assert {one.component for one in left} == {None, "llama-cpp-python"}
    assert {one.component for one in every} > {"llama-server"}
