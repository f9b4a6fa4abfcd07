"""How large effects are: divergences in a few numbers, their places on the scale, and who would notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.attribution.held import Held
from harness.attribution.scale import SHIPPED, Setting, Step
from harness.attribution.study import Effect, Study
from harness.stage import Stage
from harness.statistics import Share, bootstrap, wilson

Interval = tuple[float, float]
STEP = "Q8_0"
"""The smallest step that users choose: an effect below it is no worse than what most of them take for lossless."""


@dataclass(frozen=True)
class Size:
    """Divergences of several cases, in nats, over all their positions.

    Attributes:
        cases: How many cases.
        mean: The mean.
        mean_within: Its 95 % interval, with cases drawn again; None where there are too few.
        median: The median.
        median_within: Its interval.
        largest: The largest one.
        turned: Positions where the greedy choice is another.
        texts: Cases whose greedy text is another.
    """

    cases: int
    mean: float
    mean_within: Interval | None
    median: float
    median_within: Interval | None
    largest: float
    turned: Share
    texts: Share


@dataclass(frozen=True)
class Placed:
    """A defect on the scale.

    Attributes:
        effect: What was measured.
        size: How large it is where it strikes; None where no case has a number.
        place: Between which steps its mean stands.
        above: Whether its mean is above the step `STEP`.
    """

    effect: Effect
    size: Size | None
    place: str
    above: bool

    @property
    def silent(self) -> bool:
        """Whether every case has an answer, and the greedy text of the right prompt."""
        return not self.effect.lost and not any(one.text for one in self.effect.cases)

    @property
    def fluent(self) -> bool | None:
        """Whether every answer that should end by itself does, and says something; None where none was asked."""
        answers = [one.answer for one in self.effect.cases if one.answer is not None]
        return all(one == "ends" for one in answers) and not self.effect.lost if answers else None


@dataclass(frozen=True)
class OfStage:
    """The defects of one stage.

    Attributes:
        stage: The stage.
        measured: How many.
        idle: How many change the ids of no case.
        lost: How many leave some case without an answer.
        struck: How many have a size.
        means: The smallest of their means, the median one and the largest.
        above: How many are above the step `STEP`.
        silent: How many of these change the greedy text of no case.
        fluent: How many of these answer fluently in every case that shows it.
        kept: How many of the cases that these strike keep their greedy text.
    """

    stage: Stage
    measured: int
    idle: int
    lost: int
    struck: int
    means: tuple[float, float, float] | None
    above: int
    silent: Share
    fluent: Share
    kept: Share


@dataclass(frozen=True)
class Sizes:
    """Everything that a study says.

    Attributes:
        study: What was measured.
        scale: What quantizing costs, the smallest mean first.
        steps: By name the means of what is a step to be placed by: it is not the shipped file's own grid.
        effects: The defects, the smallest mean first; those without a size last.
        stages: By stage.
        settings: Healthy settings: against the default, and against the oracle's golden.
    """

    study: Study
    scale: tuple[tuple[Step, Size], ...]
    steps: Mapping[str, float]
    effects: tuple[Placed, ...]
    stages: tuple[OfStage, ...]
    settings: tuple[tuple[Setting, Size, Size], ...]


def sizes_of(study: Study) -> Sizes:
    """Return what a study says."""
    scale = sorted(((step, size_of(step.cases)) for step in study.scale), key=lambda pair: pair[1].mean)
    steps = {step.name: size.mean for step, size in scale if not _on_own_grid(step, study.scale)}
    placed = [_placed(effect, steps) for effect in study.effects]
    stages = {stage: [one for one in placed if one.effect.stage is stage] for stage in Stage}
    return Sizes(
        study=study,
        scale=tuple(scale),
        steps=steps,
        effects=tuple(sorted(placed, key=lambda one: (one.size is None, 0.0 if one.size is None else one.size.mean))),
        stages=tuple(_of_stage(stage, own) for stage, own in stages.items() if own),
        settings=tuple((one, size_of(one.cases), size_of(one.golden)) for one in study.settings),
    )


def size_of(cases: Sequence[Held]) -> Size:
    """Return how large the divergences of one or more cases are."""
    groups = [one.kl for one in cases]
    every = np.concatenate([np.asarray(group) for group in groups])
    return Size(
        cases=len(cases),
        mean=float(every.mean()),
        mean_within=bootstrap(groups, np.nanmean),
        median=float(np.median(every)),
        median_within=bootstrap(groups, np.nanmedian),
        largest=float(every.max()),
        turned=wilson(sum(one.turned for one in cases), len(every)),
        texts=wilson(sum(one.text for one in cases), len(cases)),
    )


def place_of(value: float, scale: Mapping[str, float]) -> str:
    """Return where a divergence stands among those of the scale, in words.

    Args:
        value: In nats.
        scale: By step, its divergence.
    """
    below = [name for name, size in scale.items() if size <= value]
    above = [name for name, size in scale.items() if size > value]
    upper = min(above, key=lambda name: scale[name]) if above else None
    if not below:
        return f"below {upper}"
    lower = max(below, key=lambda name: scale[name])
    return f"above {lower}" if upper is None else f"{lower} to {upper}"


def _on_own_grid(step: Step, scale: Sequence[Step]) -> bool:
    """Return whether a step is the shipped file again: its weights are on that grid already, so it costs nothing.

    What its divergence shows is the engine's own arithmetic, and no step.
    """
    return any(one.name == SHIPPED and one.types == step.types for one in scale)


def _placed(effect: Effect, steps: Mapping[str, float]) -> Placed:
    if not effect.cases:
        return Placed(effect, None, "no answer" if effect.lost else "no case", above=False)
    size = size_of(effect.cases)
    return Placed(effect, size, place_of(size.mean, steps), above=size.mean > steps[STEP])


def _of_stage(stage: Stage, placed: Sequence[Placed]) -> OfStage:
    means = sorted(one.size.mean for one in placed if one.size is not None)
    above = [one for one in placed if one.above]
    asked = [one.fluent for one in above if one.fluent is not None]
    texts = [case.text for one in above for case in one.effect.cases]
    return OfStage(
        stage=stage,
        measured=len(placed),
        idle=sum(not one.effect.struck for one in placed),
        lost=sum(bool(one.effect.lost) for one in placed),
        struck=len(means),
        means=(means[0], float(np.median(means)), means[-1]) if means else None,
        above=len(above),
        silent=wilson(sum(one.silent for one in above), len(above)),
        fluent=wilson(sum(asked), len(asked)),
        kept=wilson(texts.count(False), len(texts)),
    )
