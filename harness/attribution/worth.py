"""What a suite of cases is worth: which defects it notices, which of its cases add nothing, and how few would do.

A case notices a defect where a stage that the defect breaks is wrong in it. What the nodes of an engine show needs no
case, and is counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from harness.attribution.published import load_published
from harness.attribution.results import Setup, Trial
from harness.defects.defect import Defect
from harness.project.project import find_project
from harness.stage import Stage
from harness.values import Value

PUBLISHED = Path("docs") / "studies" / "attribution.json"
"""Where the results of the shipped suite are, in a checkout."""
_STEPS = 200_000
"""Branches that the search for the smallest set may try; after that the best one found is given."""


class Score(Value):
    """How many of the effective defects of a stage some case notices.

    Attributes:
        effective: The defects that changed anything.
        noticed: Those that a case notices.
        by_nodes: Those that no case notices, but a node of the engine's network does.
    """

    effective: int
    noticed: int
    by_nodes: int = 0


class Worth(Value):
    """What a suite is worth.

    Attributes:
        model: The model.
        scores: By stage.
        unnoticed: The defects that took effect and that no case notices.
        without_effect: The defects that no case triggers.
        noticed: By case, how many defects it notices.
        only: By case, the defects that no other one notices.
        idle: The cases that notice nothing that another one does not notice as well, each seen alone.
        smallest: The fewest cases that notice as much as all do.
        exact: Whether it was proven that no fewer do.
        suggestions: By defect that is not noticed, or not triggered, cases of the shipped suite that notice it.
    """

    model: str
    scores: dict[Stage, Score]
    unnoticed: tuple[str, ...]
    without_effect: tuple[str, ...]
    noticed: dict[str, int]
    only: dict[str, tuple[str, ...]]
    idle: tuple[str, ...]
    smallest: tuple[str, ...]
    exact: bool
    suggestions: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def worth_of(
    setup: Setup,
    trials: Sequence[Trial],
    defects: Mapping[str, Defect],
    model: str,
    published: Mapping[str, Sequence[str]] | None = None,
) -> Worth:
    """Return what the cases of a model are worth.

    Args:
        setup: What the bench is made of.
        trials: Its trials; those with one defect around this model count.
        defects: What was planted, by id.
        model: The model.
        published: By defect, the cases of the shipped suite that notice it.
    """
    own = [trial for trial in trials if trial.model == model and len(trial.defects) == 1 and trial.ended == "judged"]
    effective = {trial.name: trial for trial in own if trial.effective}
    by_defect = {name: noticing(trial, defects[name]) for name, trial in effective.items()}
    cases = (*setup.shallow[model], *setup.deep[model])
    by_case = {case: frozenset(name for name, seen in by_defect.items() if case in seen) for case in cases}
    unnoticed = tuple(name for name, seen in by_defect.items() if not seen)
    silent = tuple(trial.name for trial in own if not trial.effective)
    smallest, exact = smallest_cover(by_case)
    only = {case: tuple(sorted(name for name in by_case[case] if len(by_defect[name]) == 1)) for case in cases}
    return Worth(
        model=model,
        scores={stage: _score(stage, effective, by_defect, defects) for stage in Stage},
        unnoticed=unnoticed,
        without_effect=silent,
        noticed={case: len(by_case[case]) for case in cases},
        only={case: names for case, names in only.items() if names},
        idle=tuple(case for case in cases if not only[case]),
        smallest=smallest,
        exact=exact,
        suggestions={
            name: tuple(case for case in (published or {}).get(name, ()) if case not in cases)
            for name in (*unnoticed, *silent)
            if (published or {}).get(name)
        },
    )


def shipped() -> dict[str, tuple[str, ...]]:
    """Return by defect the cases of the shipped suite that notice it, as far as results were published with it."""
    path = find_project().root / PUBLISHED
    if not path.is_file():
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for summary in load_published(path).stacks.values():
        for told in summary.defects:
            cases = (case for stage in (told.stage, *told.touches) for case in told.noticed_by.get(stage, ()))
            found[told.id] = tuple(dict.fromkeys((*found.get(told.id, ()), *cases)))
    return found


def noticing(trial: Trial, defect: Defect) -> frozenset[str]:
    """Return the cases in which a stage that the defect breaks is wrong."""
    stages = (defect.stage, *defect.touches)
    return frozenset(case for stage in stages for case in trial.by_stage.get(stage, ()))


def _score(
    stage: Stage,
    effective: Mapping[str, Trial],
    by_defect: Mapping[str, frozenset[str]],
    defects: Mapping[str, Defect],
) -> Score:
    own = [name for name in effective if defects[name].stage is stage]
    blind = [name for name in own if not by_defect[name]]
    nodes = [name for name in blind if any(one.evidence == "nodes" for one in effective[name].convictions)]
    return Score(effective=len(own), noticed=len(own) - len(blind), by_nodes=len(nodes))


def smallest_cover(sets: Mapping[str, frozenset[str]]) -> tuple[tuple[str, ...], bool]:
    """Return the fewest sets whose union is that of all, in their order, and whether that was proven.

    A search by branch and bound over what only few sets hold, after Karp's set cover; it gives up after so many steps
    and returns the best found, which is never worse than the greedy one.
    """
    wanted = frozenset[str]().union(*sets.values())
    best = _greedy(sets, wanted)
    steps = 0

    def search(chosen: tuple[str, ...], left: frozenset[str]) -> None:
        nonlocal best, steps
        steps += 1
        if steps > _STEPS:
            return
        if not left:
            best = chosen if len(chosen) < len(best) else best
            return
        largest = max(len(held & left) for held in sets.values())
        if len(chosen) + -(-len(left) // largest) >= len(best):
            return
        rarest = min(left, key=lambda one: (sum(one in held for held in sets.values()), one))
        holders = [name for name, held in sets.items() if rarest in held]
        for name in sorted(holders, key=lambda name: -len(sets[name] & left)):
            search((*chosen, name), left - sets[name])

    search((), wanted)
    return tuple(name for name in sets if name in best), steps <= _STEPS


def _greedy(sets: Mapping[str, frozenset[str]], wanted: frozenset[str]) -> tuple[str, ...]:
    chosen: list[str] = []
    left = wanted
    while left:
        name = max(sets, key=lambda one: len(sets[one] & left))
        chosen.append(name)
        left -= sets[name]
    return tuple(chosen)
