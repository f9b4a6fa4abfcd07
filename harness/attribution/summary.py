"""What a bench says: what was noticed, at which stage, as what kind, and how often a healthy stack was blamed.

Shares are of the defects that took effect: of whatever changed no byte, id or number that a stage made, nothing can be
noticed. Those are counted apart and named. A pair of defects is in a table of its own and in no share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from harness.attribution.results import Setup, Trial
from harness.checking.compare.outcome import Kind
from harness.defects import catalogue as ours
from harness.defects.defect import Cause, Defect, Place, Symptom
from harness.stage import Stage
from harness.statistics import Share, wilson
from harness.values import Value

NOTHING: Final = "nothing"
"""The column of a matrix for what was not noticed."""

Result = Literal[
    "exact",
    "others too",
    "wrong kind",
    "wrong stage",
    "missed",
    "without effect",
    "no place",
    "raised",
    "leaks",
    "error",
]
"""What came of a defect: its stage and kind were named and no innocent stage convicted; they were named and an innocent
stage convicted as well; the stage alone was right; another stage was named; the verdict does not speak against the
stack; no stage made anything else than without it; and how a trial ends without a verdict that counts."""
EFFECTIVE: Final[tuple[Result, ...]] = ("exact", "others too", "wrong kind", "wrong stage", "missed")
WRONG: Final[tuple[Result, ...]] = ("wrong kind", "wrong stage", "missed")

Both = Literal[
    "both", "upstream only", "downstream only", "another stage", "none", "without effect", "not judged", "error"
]
"""What was convicted of two defects in two stages."""


class Told(Value):
    """One defect and what was said of the stack that it was in.

    Attributes:
        id: The defect.
        own: It is the caller's, not the catalogue's.
        stage: The stage that it is planted in.
        kind: What sort of defect it is.
        place: Where it is planted.
        symptom: How it shows.
        cause: Where it comes from.
        sentence: What it does.
        references: Upstream threads.
        touches: Other stages that it truly breaks as well.
        model: Around which model it was planted.
        result: What came of it.
        named_stage: The stage that the verdict's line names.
        named_kind: And as what kind.
        convicted: Every stage that was convicted.
        line: The verdict's line; of a trial without one, why there is none.
        changed: The stages that made something else on golden input.
        chained: The same in the stack's own path.
        noticed_by: Of each stage convicted on golden input, the cases that showed it.
        answers: How many cases a look at the answer alone would have noticed it in.
    """

    id: str
    own: bool
    stage: Stage
    kind: Kind
    place: Place
    symptom: Symptom
    cause: Cause
    sentence: str
    references: tuple[str, ...]
    touches: tuple[Stage, ...]
    model: str
    result: Result
    named_stage: Stage | None
    named_kind: Kind | None
    convicted: tuple[Stage, ...]
    line: str
    changed: tuple[Stage, ...]
    chained: tuple[Stage, ...]
    noticed_by: dict[Stage, tuple[str, ...]]
    answers: int


class Row(Value):
    """Defects that have something in common.

    Attributes:
        name: What that is.
        tried: How many there are.
        results: How many of them had each result; what none had is left out.
        noticed: Of the effective ones, those that the verdict speaks against the stack for.
        stage: Those of which the planted stage was named.
        exact: Those of which no stage was convicted but the planted one, named, and those that it truly breaks.
        kind: Those of which the kind was named.
        answer: Those that a look at the answer alone would have noticed.
    """

    name: str
    tried: int
    results: dict[Result, int]
    noticed: Share
    stage: Share
    exact: Share
    kind: Share
    answer: Share

    @property
    def effective(self) -> int:
        """How many took effect."""
        return self.noticed.of


class Matrix(Value):
    """What was planted against what was named.

    Attributes:
        planted: The names of the rows.
        named: The names of the columns; the last is `NOTHING`.
        counts: By row and column.
    """

    planted: tuple[str, ...]
    named: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Pair(Value):
    """Two defects in two stages of one stack.

    Attributes:
        ids: The upstream one and the downstream one.
        stages: Their stages.
        result: Which were convicted.
        convicted: Every stage that was convicted.
        line: The verdict's line, or why there is none.
    """

    ids: tuple[str, str]
    stages: tuple[Stage, Stage]
    result: Both
    convicted: tuple[Stage, ...]
    line: str


class Control(Value):
    """A check of the clean stack that does not call it clean.

    Attributes:
        name: The control.
        line: The verdict's line.
    """

    name: str
    line: str


class Controls(Value):
    """Checks of the clean stack.

    Attributes:
        checks: How many.
        comparisons: How many stages of cases were compared in them.
        settings: The other settings under which the engine is healthy that were tried.
        alarms: Those that convict the clean stack.
        unjudged: Those in which a stage was never seen, or that could not be run.
        errors: Those in which code of ours raised.
    """

    checks: int
    comparisons: int
    settings: tuple[str, ...]
    alarms: tuple[Control, ...]
    unjudged: tuple[Control, ...]
    errors: tuple[Control, ...] = ()


class Summary(Value):
    """What a bench says.

    Attributes:
        stack: The stack's name.
        models: The models.
        cases: Of each model how many cases were asked up to tokenization only, and how many in full.
        versions: What ran, by component.
        all: All defects.
        stages: By planted stage.
        places: By place.
        symptoms: By symptom.
        causes: By cause.
        by_stage: Planted stage against named stage.
        by_kind: Planted kind against named kind.
        swapped: Engine bugs called integration defects and integration defects called engine bugs, by id.
        defects: Every defect, in the order of the bench.
        pairs: Every pair.
        controls: What was said of the clean stack.
        seconds: What all trials took.
    """

    stack: str
    models: tuple[str, ...]
    cases: dict[str, tuple[int, int]]
    versions: dict[str, str]
    all: Row
    stages: tuple[Row, ...]
    places: tuple[Row, ...]
    symptoms: tuple[Row, ...]
    causes: tuple[Row, ...]
    by_stage: Matrix
    by_kind: Matrix
    swapped: tuple[str, ...]
    defects: tuple[Told, ...]
    pairs: tuple[Pair, ...]
    controls: Controls
    seconds: float

    def of(self, *results: Result) -> tuple[Told, ...]:
        """Return the defects with one of these results."""
        return tuple(one for one in self.defects if one.result in results)

    @property
    def status(self) -> Literal["right", "wrong", "unjudged", "error"]:
        """Whether everything was as it should be.

        `error` where code of ours raised in a trial; `unjudged` where no defect took effect or a control saw not all.
        """
        if self.of("error") or any(one.result == "error" for one in self.pairs) or self.controls.errors:
            return "error"
        badly_paired = any(one.result in ("another stage", "none") for one in self.pairs)
        if self.of(*WRONG, "raised", "leaks") or self.controls.alarms or badly_paired:
            return "wrong"
        paired = any(one.result not in ("without effect", "not judged", "error") for one in self.pairs)
        return "unjudged" if self.controls.unjudged or not (self.all.effective or paired) else "right"


def summarise(setup: Setup, trials: Iterable[Trial], defects: Mapping[str, Defect]) -> Summary:
    """Count what came of a bench.

    Args:
        setup: What it is made of.
        trials: Its trials.
        defects: The labels of what was planted, by id.
    """
    every = list(trials)
    told = [_told(one, defects[one.defects[0]]) for one in every if len(one.defects) == 1]
    effective = [one for one in told if one.result in EFFECTIVE]
    swapped = {("engine", "integration"), ("integration", "engine")}
    return Summary(
        stack=setup.stack,
        models=setup.models,
        cases={name: (len(setup.shallow[name]), len(setup.deep[name])) for name in setup.models},
        versions=setup.versions,
        all=_row("all", told),
        stages=_rows(told, Stage, lambda one: one.stage),
        places=_rows(told, Place, lambda one: one.place),
        symptoms=_rows(told, get_args(Symptom), lambda one: one.symptom),
        causes=_rows(told, get_args(Cause), lambda one: one.cause),
        by_stage=_matrix(list(Stage), [(one.stage, one.named_stage) for one in effective]),
        by_kind=_matrix(get_args(Kind), [(one.kind, one.named_kind) for one in effective]),
        swapped=tuple(one.id for one in effective if (one.kind, one.named_kind) in swapped),
        defects=tuple(told),
        pairs=tuple(_pair(one, [defects[name] for name in one.defects]) for one in every if len(one.defects) == 2),
        controls=_controls([one for one in every if not one.defects]),
        seconds=sum(one.seconds for one in every),
    )


def _told(trial: Trial, defect: Defect) -> Told:
    named = trial.named if trial.noticed else None
    convicted = _convicted(trial)
    return Told(
        id=defect.id,
        own=not defect.hook.startswith(f"{ours.__name__}."),
        stage=defect.stage,
        kind=defect.kind,
        place=defect.place,
        symptom=defect.symptom,
        cause=defect.cause,
        sentence=defect.sentence,
        references=defect.references,
        touches=defect.touches,
        model=trial.model,
        result=_result(trial, defect),
        named_stage=None if named is None else named.stage,
        named_kind=None if named is None else named.kind,
        convicted=convicted,
        line=trial.line if trial.ended == "judged" else trial.why,
        changed=trial.changed,
        chained=trial.chained,
        noticed_by=trial.by_stage,
        answers=len(trial.answers),
    )


def _result(trial: Trial, defect: Defect) -> Result:
    if trial.ended != "judged":
        return trial.ended
    if not trial.effective:
        return "without effect"
    named = trial.named
    if not trial.noticed or named is None:
        return "missed"
    if named.stage is not defect.stage:
        return "wrong stage"
    if named.kind != defect.kind:
        return "wrong kind"
    return "exact" if _only_guilty(_convicted(trial), defect.stage, defect.touches) else "others too"


def _convicted(trial: Trial) -> tuple[Stage, ...]:
    return tuple(stage for stage in Stage if any(one.stage is stage for one in trial.convictions))


def _only_guilty(convicted: Sequence[Stage], stage: Stage, touches: Sequence[Stage]) -> bool:
    return set(convicted) <= {stage, *touches}


def _row(name: str, told: Sequence[Told]) -> Row:
    effective = [one for one in told if one.result in EFFECTIVE]
    right = [one for one in effective if one.named_stage is one.stage]

    def share(count: int) -> Share:
        return wilson(count, len(effective))

    found = Counter(one.result for one in told)
    return Row(
        name=name,
        tried=len(told),
        results={result: found[result] for result in get_args(Result) if found[result]},
        noticed=share(sum(one.result != "missed" for one in effective)),
        stage=share(len(right)),
        exact=share(sum(_only_guilty(one.convicted, one.stage, one.touches) for one in right)),
        kind=share(sum(one.named_kind == one.kind for one in effective)),
        answer=share(sum(one.answers > 0 for one in effective)),
    )


def _rows(told: Sequence[Told], names: Iterable[str], of: Callable[[Told], str]) -> tuple[Row, ...]:
    """Return a row a name; what nothing has in common has none."""
    grouped = [(name, [one for one in told if of(one) == name]) for name in names]
    return tuple(_row(str(name), group) for name, group in grouped if group)


def _matrix(names: Sequence[str], found: Sequence[tuple[str, str | None]]) -> Matrix:
    counted = Counter((planted, NOTHING if named is None else named) for planted, named in found)
    columns = (*map(str, names), NOTHING)
    rows = tuple(str(name) for name in names if any(planted == name for planted, _ in found))
    return Matrix(
        planted=rows, named=columns, counts=tuple(tuple(counted[row, column] for column in columns) for row in rows)
    )


def _pair(trial: Trial, defects: Sequence[Defect]) -> Pair:
    upstream, downstream = sorted(defects, key=lambda one: list(Stage).index(one.stage))
    convicted = _convicted(trial) if trial.noticed else ()
    seen = (upstream.stage in convicted, downstream.stage in convicted)
    results: dict[Any, Both] = {
        (True, True): "both",
        (True, False): "upstream only",
        (False, True): "downstream only",
        (False, False): "another stage" if convicted else "none",
    }
    judged: Both = results[seen] if trial.effective else "without effect"
    return Pair(
        ids=(upstream.id, downstream.id),
        stages=(upstream.stage, downstream.stage),
        result=judged if trial.ended == "judged" else "error" if trial.ended == "error" else "not judged",
        convicted=convicted,
        line=trial.line if trial.ended == "judged" else trial.why,
    )


def _controls(trials: Sequence[Trial]) -> Controls:
    told = [(one, Control(name=one.name, line=one.line or one.why)) for one in trials]
    return Controls(
        checks=len(trials),
        comparisons=sum(one.comparisons for one in trials),
        settings=tuple(dict.fromkeys(one.setting for one in trials if one.setting)),
        alarms=tuple(control for one, control in told if one.status == "convicted"),
        unjudged=tuple(
            control for one, control in told if one.status not in ("clean", "convicted") and one.ended != "error"
        ),
        errors=tuple(control for one, control in told if one.ended == "error"),
    )
