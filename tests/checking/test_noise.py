"""The noise floor: measured over an engine's healthy variations, by class, and never above what was seen."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from harness.checking.compare.inference import Floor, divergences
from harness.checking.noise import (
    FACTOR,
    SMALLEST,
    EngineNoise,
    Noise,
    NoiseClass,
    floor_of,
    load_noise,
    measure_noise,
    noise_path,
    save_noise,
)
from harness.checking.running import RunningStack
from harness.errors import UserError
from harness.project.golden import Golden
from harness.project.project import Project
from harness.project.stack import Stack, Stages
from harness.stage import SETTINGS_ELSEWHERE, Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    Distributions,
    Failure,
    Generation,
    ModelRef,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
)

MODEL = ModelRef(name="m", path=Path("m.gguf"), sha256="5" * 64)
LOGITS = np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 12)


def distributions(nudge=0.0):
    """Return distributions whose first row is off by a little."""
    logits = LOGITS.copy()
    logits[0, 0] += nudge
    return Distributions.from_logits(logits)


class Engine:
    """An engine of two classes of settings, one noisier than the other."""

    name: ClassVar[str] = "engine"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)
    requires: ClassVar[tuple[str, str]] = ("", "")
    variations: ClassVar[dict[str, dict[str, float]]] = {
        "as configured": {},
        "coarse cache": {"kind": "coarse", "nudge": 0.5},
        "1 thread": {"nudge": 0.25},
        "8 threads": {"threads": 8, "nudge": 0.125},
    }
    opened: ClassVar[list[dict[str, float]]] = []
    fed: ClassVar[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []

    def __init__(self, model, options):
        assert model is MODEL
        self.options = dict(options)

    def __enter__(self):
        self.opened.append(self.options)
        return self

    def __exit__(self, *_):
        self.opened.append({"closed": 1})

    def identity(self):
        return {"version": "1", "threads": str(self.options.get("threads", 4))}

    def noise_class(self):
        return self.options.get("kind", "fine")

    def generate(self, tokens, request, forced):
        self.fed.append((tokens.ids, forced))
        return Generation(
            ids=forced, chosen=forced, finish="forced", distributions=distributions(self.options.get("nudge", 0.0))
        )

    def request(self, case):
        raise NotImplementedError

    def render(self, request, options):
        raise NotImplementedError

    def tokenize(self, prompt):
        raise NotImplementedError

    def reply(self, generation, tokens, request, *, stream):
        raise NotImplementedError


class MayBeElsewhere(Engine):
    """An engine that may run elsewhere with settings that it does not show."""

    brief: ClassVar[frozenset[str]] = frozenset({"as configured"})
    elsewhere: ClassVar[dict[str, dict[str, float | str]]] = {"no flash attention": {"kind": "unseen", "nudge": 0.5}}


class NeverStarts(Engine):
    """An engine that cannot be started."""

    def identity(self):
        dead()


class NoCoarse(Engine):
    """An engine that starts with no coarse cache."""

    def identity(self):
        if self.options.get("kind") == "coarse":
            raise StageFailedError(Failure(reason="start", message="no block of 32 fits 20"))
        return super().identity()


class Refuses(Engine):
    def generate(self, tokens, request, forced):
        raise StageRefusedError(Refusal(error="ValueError", message="no such batch"))


class Dies(Engine):
    def generate(self, tokens, request, forced):
        raise StageFailedError(Failure(reason="crash", signal="SIGSEGV"))


class ShowsNothing(Engine):
    def generate(self, tokens, request, forced):
        raise StageUnobservedError("it has no log-probabilities")


class NoDistributions(Engine):
    def generate(self, tokens, request, forced):
        return Generation(ids=forced, chosen=forced, finish="forced")


class NotANumber(Engine):
    def generate(self, tokens, request, forced):
        whole = np.full((2, 12), np.nan, np.float32)
        return Generation(ids=forced, chosen=forced, finish="forced", distributions=Distributions(whole))


class NoVariations(Engine):
    variations: ClassVar[dict[str, dict[str, float]]] = {}


@pytest.fixture
def engine(monkeypatch):
    """Register a class of this module as the component `engine`."""

    def register(cls):
        point = importlib.metadata.EntryPoint("engine", f"{__name__}:{cls.__name__}", "harness.components")
        monkeypatch.setattr("harness.project.stack.component_entry_points", lambda: {"engine": point})

    Engine.opened.clear()
    Engine.fed.clear()
    register(Engine)
    return register


def make_golden(name, **changes):
    case = Case(name=name, description="d", covers=(), body={"messages": [{"role": "user", "content": name}]})
    made = {
        "case": case,
        "model": "m",
        "request": Request(messages=tuple(case.body["messages"])),
        "prompt": Prompt(text=name),
        "tokens": Tokens(ids=(len(name), 1)),
        "generation": Generation(ids=(11, 11), chosen=(11, 11), finish="length", distributions=distributions().top()),
        "reply": Reply(content=""),
    }
    return Golden(**{**made, **changes})


REFUSED = make_golden("refused", prompt=Refusal(error="E", message="no"), tokens=None, generation=None, reply=None)
TOO_LONG = make_golden("long", generation=Refusal(error="ContextLength", message="m", context=True), reply=None)
STACK = Stack(
    name="s",
    description="d",
    models=("m",),
    stages=Stages(**dict.fromkeys(map(str, Stage), "engine")),
    options={"engine": {"threads": 4}},
)


def divergence(nudge):
    return divergences(distributions().top(), distributions(nudge))


def engine_noise(**classes):
    """Return an engine's noise; of each class its largest divergence, or that and the largest mean of a case."""
    pairs = {name: seen if isinstance(seen, tuple) else (seen, seen / 2) for name, seen in classes.items()}
    return EngineNoise(
        engine={"version": "1"},
        classes={
            name: NoiseClass(variations=("v",), positions=1, mean=most, p99=most, max=most, case_mean=mean)
            for name, (most, mean) in pairs.items()
        },
    )


def noise(**classes):
    return Noise({"engine": engine_noise(**classes)})


# The limit


def test_the_limit_of_a_class_that_was_measured_is_its_own():
    floor = noise(fine=(0.01, 0.002), coarse=0.5).floor("engine", "fine")
    assert FACTOR == 3.0
    assert floor == Floor(limit=0.03, mean=3 * 0.002, source="3 times the noise of engine, fine")


def test_the_limit_of_a_class_that_was_not_is_that_of_the_noisiest_and_says_so():
    floor = noise(fine=0.01, coarse=(0.5, 0.125), middle=(0.25, 0.2)).floor("engine", "new")
    source = "3 times the noise of engine, coarse, as engine, new was never measured"
    assert floor == Floor(limit=1.5, mean=0.375, source=source)


def test_each_component_has_limits_of_its_own():
    both = Noise({"engine": engine_noise(fine=0.01), "other": engine_noise(fine=(0.5, 0.25), rough=0.25)})
    assert both.floor("engine", "fine") == Floor(limit=0.03, mean=0.015, source="3 times the noise of engine, fine")
    assert both.floor("other", "fine") == Floor(limit=1.5, mean=0.75, source="3 times the noise of other, fine")


@pytest.mark.parametrize(("component", "kind"), [("engine", "rough"), ("third", "fine"), ("third", "none")])
def test_what_was_never_measured_gets_the_limits_of_the_noisiest_of_all_components(component, kind):
    quiet_first = {"engine": engine_noise(fine=0.01), "other": engine_noise(fine=(0.5, 0.25), rough=0.25)}
    source = f"3 times the noise of other, fine, as {component}, {kind} was never measured"
    for measured in (quiet_first, dict(reversed(quiet_first.items()))):
        assert Noise(measured).floor(component, kind) == Floor(limit=1.5, mean=0.75, source=source)


def test_a_server_elsewhere_has_the_limits_of_its_own_components_noisiest_settings():
    measured = {"engine": engine_noise(fine=0.01, coarse=(0.5, 0.25)), "other": engine_noise(fine=2.0)}
    source = "3 times the noise of engine, coarse, the noisiest of its settings"
    found = Noise(measured).floor("engine", SETTINGS_ELSEWHERE)
    assert found == Floor(limit=1.5, mean=0.75, source=source)
    assert Noise(measured).floor("third", SETTINGS_ELSEWHERE).limit == 6.0


def test_a_brief_measurement_covers_what_a_server_elsewhere_may_have(engine):
    engine(MayBeElsewhere)
    made = measure_noise(STACK, MODEL, [make_golden("a")], brief=True)
    assert {kind: seen.variations for kind, seen in made.classes.items()} == {
        "fine": ("as configured",),
        "unseen": ("no flash attention",),
    }
    assert "unseen" not in measure_noise(STACK, MODEL, [make_golden("a")]).classes


class Part:
    def __init__(self, kind=None):
        if kind is not None:
            self.noise_class = kind


def running(part, model="m"):
    return RunningStack(STACK, MODEL.model_copy(update={"name": model}), {"engine": part})


def dead():
    raise StageFailedError(Failure(reason="start", message="no such file"))


def test_the_floor_of_a_running_stack_is_that_of_its_engine_and_its_class(tmp_path):
    project = Project(tmp_path)
    assert floor_of(project, running(Part(lambda: "fine"))) is None
    save_noise(project, "m", "engine", engine_noise(fine=0.01, coarse=0.5))
    assert floor_of(project, running(Part(lambda: "fine"))).source == "3 times the noise of engine, fine"
    noisiest = "3 times the noise of engine, coarse, as engine,"
    kinds = {
        "an engine of another kind": Part(),
        "an engine that does not start": Part(dead),
        "new": Part(lambda: "new"),
    }
    for kind, part in kinds.items():
        floor = floor_of(project, running(part))
        assert (floor.limit, floor.source) == (1.5, f"{noisiest} {kind} was never measured")
    assert floor_of(project, running(Part(lambda: "fine"), "another")) is None


# Measured


def test_every_healthy_variation_runs_every_case_that_has_a_generation(engine):
    told = []
    made = measure_noise(
        STACK, MODEL, [make_golden("a"), REFUSED, TOO_LONG, make_golden("bb")], lambda *args: told.append(args)
    )
    closed = {"closed": 1}
    assert Engine.opened == [
        {"threads": 4},
        closed,
        {"threads": 4, "kind": "coarse", "nudge": 0.5},
        closed,
        {"threads": 4, "nudge": 0.25},
        closed,
        {"threads": 8, "nudge": 0.125},
        closed,
    ]
    assert Engine.fed == [((1, 1), (11, 11)), ((2, 1), (11, 11))] * 4, "the golden ids are forced"
    assert told == [(label, done, 2) for label in Engine.variations for done in (0, 1)]
    assert made.engine == {"version": "1", "threads": "4"}, "the engine as it is configured, not as it was varied"


def test_each_class_has_its_own_figures(engine):
    made = measure_noise(STACK, MODEL, [make_golden("a"), make_golden("b")])
    assert set(made.classes) == {"fine", "coarse"}
    fine, coarse = made.classes["fine"], made.classes["coarse"]
    assert fine.variations == ("as configured", "1 thread", "8 threads")
    assert coarse.variations == ("coarse cache",)
    assert (fine.positions, coarse.positions) == (12, 4)
    seen = np.concatenate([divergence(nudge) for nudge in (0.0, 0.25, 0.125)] * 2)
    assert seen.max() == divergence(0.25)[0] > 0
    assert fine.max == float(f"{seen.max():.6g}")
    assert fine.mean == float(f"{seen.mean():.6g}")
    assert fine.p99 == float(f"{np.percentile(seen, 99):.6g}")
    assert coarse.max == float(f"{divergence(0.5)[0]:.6g}") > fine.max
    means = [np.mean(divergence(nudge)) for nudge in (0.0, 0.25, 0.125)]
    assert fine.case_mean == float(f"{max(means):.6g}") > fine.mean
    assert coarse.case_mean == float(f"{divergence(0.5).mean():.6g}")
    floor = Noise({"engine": made}).floor("engine", "fine")
    assert (floor.limit, floor.mean) == (3 * fine.max, 3 * fine.case_mean)


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (Refuses, "Refusal(kind='refusal', error='ValueError', message='no such batch', context=False, policies={})"),
        (Dies, "reason='crash', message=None, signal='SIGSEGV'"),
        (ShowsNothing, "Unobserved(kind='unobserved', reason='it has no log-probabilities')"),
        (NoDistributions, "finish='forced', distributions=None"),
    ],
)
def test_a_run_without_numbers_is_no_measurement(engine, cls, why):
    engine(cls)
    with pytest.raises(UserError) as caught:
        measure_noise(STACK, MODEL, [make_golden("a")])
    assert str(caught.value).startswith("case 'a' gave no distributions while measuring noise: ")
    assert why in str(caught.value)
    assert Engine.opened == [{"threads": 4}, {"closed": 1}]


def test_a_variation_that_the_engine_refuses_is_unmeasured_and_the_rest_is_not(engine):
    engine(NoCoarse)
    made = measure_noise(STACK, MODEL, [make_golden("a")])
    assert set(made.classes) == {"fine"}
    assert made.classes["fine"].variations == ("as configured", "1 thread", "8 threads")
    assert made.unmeasured == {"coarse cache": "could not start: no block of 32 fits 20"}


def test_what_was_unmeasured_is_stored_and_other_settings_take_the_noisiest(engine, tmp_path):
    engine(NoCoarse)
    project = Project(tmp_path)
    save_noise(project, "m", "engine", measure_noise(STACK, MODEL, [make_golden("a")]))
    noise = load_noise(project, "m")
    assert noise.root["engine"].unmeasured == {"coarse cache": "could not start: no block of 32 fits 20"}
    assert noise.floor("engine", "coarse").source.endswith("as engine, coarse was never measured")


def test_an_engine_that_starts_with_no_settings_is_one_line(engine):
    engine(NeverStarts)
    with pytest.raises(UserError) as caught:
        measure_noise(STACK, MODEL, [make_golden("a")])
    assert str(caught.value) == "the engine of stack 's' could not start: no such file"


def test_an_engine_that_gives_no_numbers_sets_no_limit(engine):
    engine(NotANumber)
    with pytest.raises(UserError, match="case 'a'"):
        measure_noise(STACK, MODEL, [make_golden("a")])


def test_nothing_to_measure_is_an_error(engine):
    with pytest.raises(UserError):
        measure_noise(STACK, MODEL, [REFUSED, TOO_LONG])


def test_a_component_without_variations_cannot_be_measured(engine):
    engine(NoVariations)
    with pytest.raises(UserError) as caught:
        measure_noise(STACK, MODEL, [make_golden("a")])
    assert str(caught.value) == "the component 'engine' declares no healthy variations to measure noise over"
    assert Engine.opened == []


def test_no_limit_is_below_what_two_processors_differ_by():
    assert SMALLEST == 1e-4
    quiet = Noise({"engine": engine_noise(exact=(0.0, 0.0), fine=(1e-6, 1e-7), loud=(1e-3, 1e-7))})
    assert [(floor.limit, floor.mean) for floor in (quiet.floor("engine", name) for name in ("exact", "fine"))] == [
        (SMALLEST, SMALLEST)
    ] * 2
    loud = quiet.floor("engine", "loud")
    assert (loud.limit, loud.mean) == (FACTOR * 1e-3, SMALLEST)


# Stored


def test_what_is_loaded_is_what_was_stored(engine, tmp_path):
    project = Project(tmp_path)
    made = measure_noise(STACK, MODEL, [make_golden("a")])
    assert load_noise(project, "m") is None
    save_noise(project, "m", "engine", made)
    assert noise_path(project, "m") == tmp_path / "golden" / "m" / "noise.json"
    assert load_noise(project, "m") == Noise({"engine": made})
    assert load_noise(project, "other") is None
    text = noise_path(project, "m").read_bytes()
    save_noise(project, "m", "engine", made)
    assert noise_path(project, "m").read_bytes() == text
    assert text.endswith(b"}\n")


def test_what_is_stored_of_one_component_leaves_the_others_as_they_are(tmp_path):
    project = Project(tmp_path)
    one, other, again = engine_noise(fine=0.01), engine_noise(fine=0.5, rough=0.25), engine_noise(rough=0.125)
    save_noise(project, "m", "one", one)
    save_noise(project, "m", "other", other)
    assert load_noise(project, "m") == Noise({"one": one, "other": other})
    save_noise(project, "m", "one", again)
    assert load_noise(project, "m") == Noise({"one": again, "other": other}), "replaced as a whole, not class by class"
    assert load_noise(project, "n") is None


def test_a_stored_floor_that_is_wrong_is_not_overwritten(tmp_path):
    project = Project(tmp_path)
    noise_path(project, "m").parent.mkdir(parents=True)
    noise_path(project, "m").write_text('{"engine": 1}')
    with pytest.raises(UserError):
        save_noise(project, "m", "other", engine_noise(fine=0.5))
    assert noise_path(project, "m").read_text() == '{"engine": 1}'


def test_a_stored_floor_that_is_wrong_names_the_place(tmp_path):
    project = Project(tmp_path)
    save_noise(project, "m", "engine", engine_noise(fine=0.5))
    path = noise_path(project, "m")
    path.write_text(path.read_text().replace('"max": 0.5', '"max": "much"'))
    with pytest.raises(UserError) as caught:
        load_noise(project, "m")
    assert str(caught.value) == (
        f"{path}:14: engine.classes.fine.max: Input should be a valid number, unable to parse string as a number"
    )


@pytest.mark.parametrize("field", ["max", "case_mean"])
@pytest.mark.parametrize("largest", [math.nan, math.inf, -1.0])
def test_a_limit_that_nothing_can_exceed_is_refused(tmp_path, largest, field):
    project = Project(tmp_path)
    save_noise(project, "m", "engine", engine_noise(fine=(0.5, 0.5)))
    path = noise_path(project, "m")
    text = {"nan": "NaN", "inf": "Infinity"}.get(str(largest), str(largest))
    path.write_text(path.read_text().replace(f'"{field}": 0.5', f'"{field}": {text}'))
    with pytest.raises(UserError):
        load_noise(project, "m")
