"""The noise floor: how far from the reference healthy engines were seen to be.

An engine that is healthy but quantizes activations, sums in another order or keeps its cache in fewer bits gives other
numbers than a float32 reference. How far other is measured on the engine itself, over its healthy settings and all
cases, and stored beside the goldens. Settings whose noise differs in kind (a quantized cache, flash attention) are
classes of their own, so that the tighter ones are not drowned by the looser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, RootModel

from harness.checking.compare.inference import Floor, divergences
from harness.checking.running import RunningStack, open_stack
from harness.checking.trace import Tracer
from harness.errors import UserError
from harness.project.documents import read_json
from harness.project.files import write_file
from harness.project.golden import NOISE, Golden, beside_goldens, model_folder
from harness.project.project import Project
from harness.project.stack import Stack, load_component
from harness.stage import SETTINGS_ELSEWHERE, Stage, StageFailedError, StageUnobservedError
from harness.values import Generation, ModelRef

FACTOR = 3.0
"""The limit over the largest divergence seen: room for processors and builds that were not measured. A choice, not a
measurement; what a fault must do to exceed it depends on the noise of the class, which is stored."""


SMALLEST = 1e-4
"""Nats below which no limit goes: two processors sum float32 in different orders (seen: 1e-6 between two engines)."""


class NoiseClass(BaseModel):
    """What was seen of one class of settings.

    Attributes:
        variations: The settings that were measured.
        positions: How many generated positions, over all variations.
        mean: The mean divergence, in nats.
        p99: Its 99th percentile.
        max: The largest one.
        case_mean: The largest mean over the positions of one case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variations: tuple[str, ...]
    positions: int
    mean: float
    p99: float
    max: float = Field(ge=0, allow_inf_nan=False)
    case_mean: float = Field(ge=0, allow_inf_nan=False)


class EngineNoise(BaseModel):
    """The noise of one engine.

    Attributes:
        engine: The engine's identity.
        classes: By class of settings.
        unmeasured: By variation, why the engine does not start with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: dict[str, str]
    classes: dict[str, NoiseClass] = Field(min_length=1)
    unmeasured: dict[str, str] = Field(default_factory=dict)


class Noise(RootModel[Annotated[dict[str, EngineNoise], Field(min_length=1)]]):
    """The noise floor of one model, as it was measured, by component."""

    model_config = ConfigDict(frozen=True)

    def floor(self, component: str, name: str) -> Floor:
        """Return the limits for a component's class of settings; for one never measured, those of the noisiest.

        A server elsewhere does not show its settings: its limits are those of its component's noisiest.
        """
        own = self.root.get(component)
        if own is not None and name == SETTINGS_ELSEWHERE:
            kind, seen = max(own.classes.items(), key=lambda one: one[1].max)
            return _floor(seen, f"{FACTOR:g} times the noise of {component}, {kind}, the noisiest of its settings")
        measured = {(part, kind): seen for part, noise in self.root.items() for kind, seen in noise.classes.items()}
        key = component, name
        if key in measured:
            return _floor(measured[key], f"{FACTOR:g} times the noise of {component}, {name}")
        noisiest = max(measured, key=lambda other: measured[other].max)
        source = f"{FACTOR:g} times the noise of {', '.join(noisiest)}, as {component}, {name} was never measured"
        return _floor(measured[noisiest], source)


def _floor(seen: NoiseClass, source: str) -> Floor:
    limit, mean = (max(FACTOR * value, SMALLEST) for value in (seen.max, seen.case_mean))
    return Floor(limit=limit, mean=mean, source=source)


def load_noise(project: Project, model: str) -> Noise | None:
    """Return a model's noise floor, or None where none was measured.

    Raises:
        UserError: the file is wrong.
    """
    path = beside_goldens(project, model, NOISE)
    return read_json(path, Noise) if path.is_file() else None


def floor_of(project: Project, running: RunningStack) -> Floor | None:
    """Return the noise floor of a running stack; None where none was measured for the model it is held against.

    Raises:
        UserError: the file is wrong.
    """
    noise = load_noise(project, running.golden_model.name)
    if noise is None:
        return None
    part = running.part(Stage.INFERENCE)
    # Of two components around one engine, one is measured.
    component = getattr(part, "noise_of", running.stack.stages.component(Stage.INFERENCE))
    kind = getattr(part, "noise_class", None)
    try:
        return noise.floor(component, kind() if kind is not None else "an engine of another kind")
    except (StageFailedError, StageUnobservedError):
        # It does not start: nothing will be compared, and the stages say why.
        return noise.floor(component, "an engine that does not start")


def noise_path(project: Project, model: str) -> Path:
    """Return where a model's noise floor is written."""
    return model_folder(project, model) / NOISE


def measure_noise(
    stack: Stack,
    model: ModelRef,
    goldens: Sequence[Golden],
    progress: Callable[[str, int, int], None] = lambda *_: None,
    *,
    brief: bool = False,
) -> EngineNoise:
    """Run the inference stage of every case under every healthy variation that the component declares.

    An engine may refuse a variation for this model: no packed cache type fits a head of 20 numbers. That is then told
    as unmeasured.

    Args:
        stack: The stack.
        model: The model.
        goldens: Its goldens; those without a generation are passed over.
        progress: Told the variation, and how many cases of how many are done.
        brief: Run those variations only that the component names as `brief`, which are of every class; all where it
            names none. To them come those that a server elsewhere may have without showing it (`elsewhere`).

    Raises:
        UserError: the component declares no variations, the engine starts with none, or a run did not end with a
            generation.
    """
    name = stack.stages.component(Stage.INFERENCE)
    component = load_component(name)
    variations: Mapping[str, Mapping[str, Any]] = getattr(component, "variations", {})
    if brief:
        few = getattr(component, "brief", variations)
        variations = {label: options for label, options in variations.items() if label in few}
        variations = {**variations, **getattr(component, "elsewhere", {})}
    if not variations:
        raise UserError(f"the component {name!r} declares no healthy variations to measure noise over")
    usable = [golden for golden in goldens if isinstance(golden.generation, Generation)]
    if not usable:
        raise UserError(f"no case of model {model.name!r} has a generation to measure noise on")
    seen: dict[str, list[list[float]]] = {}
    members: dict[str, list[str]] = {}
    identity: Mapping[str, str] = {}
    unmeasured: dict[str, str] = {}
    for label, options in variations.items():
        with open_stack(stack.with_options(name, options), model) as running:
            part = running.part(Stage.INFERENCE)
            refused = why_not_started(part)
            if refused is not None:
                unmeasured[label] = refused
                continue
            identity = identity or dict(part.identity())
            kind = part.noise_class()
            members.setdefault(kind, []).append(label)
            for done, golden in enumerate(usable):
                progress(label, done, len(usable))
                seen.setdefault(kind, []).append(_divergences(Tracer(running), golden))
    if not seen:
        raise UserError(f"the engine of stack {stack.name!r} {next(iter(unmeasured.values()))}")
    return EngineNoise(
        engine=dict(identity),
        classes={kind: _summary(members[kind], values) for kind, values in seen.items()},
        unmeasured=unmeasured,
    )


def why_not_started(part: Any) -> str | None:
    """Return why an engine does not start, in one line; None where it does.

    Raises:
        StageFailedError: it starts, and ends.
    """
    try:
        part.identity()
    except StageFailedError as failed:
        if failed.failure.reason != "start":
            raise
        return failed.failure.describe()
    return None


def save_noise(project: Project, model: str, component: str, noise: EngineNoise) -> None:
    """Store a component's noise beside the goldens, and leave that of others as it is.

    Raises:
        UserError: it cannot be written; the old one is then intact.
    """
    known = load_noise(project, model)
    whole = Noise({**({} if known is None else known.root), component: noise})
    text = json.dumps(whole.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False) + "\n"
    write_file(noise_path(project, model), text.encode("utf-8"))


def _divergences(tracer: Tracer, golden: Golden) -> list[float]:
    found = tracer.stage(Stage.INFERENCE, golden)
    expected = golden.generation
    assert isinstance(expected, Generation)
    assert expected.distributions is not None
    if not isinstance(found, Generation) or found.distributions is None:
        raise UserError(f"case {golden.case.name!r} gave no distributions while measuring noise: {found!r}")
    found_noise = divergences(expected.distributions, found.distributions)
    if not np.isfinite(found_noise).all():
        raise UserError(f"case {golden.case.name!r} gave what is not a number while measuring noise")
    return [float(value) for value in found_noise]


def _summary(variations: Sequence[str], cases: Sequence[Sequence[float]]) -> NoiseClass:
    numbers = np.concatenate([np.array(values) for values in cases])
    return NoiseClass(
        variations=tuple(variations),
        positions=len(numbers),
        mean=float(f"{numbers.mean():.6g}"),
        p99=float(f"{np.percentile(numbers, 99):.6g}"),
        max=float(f"{numbers.max():.6g}"),
        case_mean=float(f"{max(np.mean(values) for values in cases):.6g}"),
    )
