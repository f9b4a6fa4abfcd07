"""The load stage: what was declared of how a model is loaded, against what is in force; one row a setting.

A component tells what it was asked for and what is in force (`harness.stage.TellsSettings`). What it should be is said
by `rules`, after what the model file says (`declared`).
"""

from __future__ import annotations

from harness.checking.compare.outcome import Outcome
from harness.checking.load.declared import Declared, declared_by
from harness.checking.load.rules import Rules
from harness.checking.own import own_error
from harness.checking.rows import Row
from harness.checking.running import RunningStack
from harness.errors import UserError
from harness.settings import Loaded
from harness.stage import (
    Stage,
    StageFailedError,
    StageRefusedError,
    StageUnobservedError,
    TellsFile,
    TellsSettings,
)
from harness.values import ModelRef


def load_rows(running: RunningStack) -> tuple[Row, ...]:
    """Return the rows of every component of a running stack that loads a model."""
    rows: list[Row] = []
    for name, part in running.parts.items():
        stages = frozenset(stage for stage in Stage if running.stack.stages.component(stage) == name)
        if stages != {Stage.CLIENT}:
            rows += _of_part(name, part, stages - {Stage.CLIENT}, running)
    return tuple(rows)


def rows_of(loaded: Loaded, model: ModelRef, golden: Declared | None, served: Declared | None) -> tuple[Row, ...]:
    """Return the rows of what a part tells.

    Args:
        loaded: That.
        model: The model that it was to load.
        golden: What that model's file declares; None where it cannot be read here.
        served: What the file declares that the part has; None where the part does not tell, or it is not here.
    """
    judge = Rules(loaded, model, golden, served)
    return tuple(judge.row(one) for one in loaded.settings)


def _of_part(name: str, part: object, stages: frozenset[Stage], running: RunningStack) -> list[Row]:
    first = Stage.INFERENCE if Stage.INFERENCE in stages else min(stages, key=list(Stage).index)
    nothing = Row(
        of="load",
        name=f"settings of {name}",
        expected="",
        source=name,
        outcome=Outcome.UNOBSERVED,
        stage=first,
        why="it does not tell with which settings its model is loaded",
    )
    if not isinstance(part, TellsSettings):
        return [nothing]
    try:
        loaded = part.loaded()
        served = _served_file(part)
        # On purpose around another file: that one says what is right.
        model = running.model if running.purpose else running.golden_model
        golden = _file_of(model)
        if loaded.any_model:
            golden, model = None, model.model_copy(update={"chat_template": None})
        return [one for one in rows_of(loaded, model, golden, served) if one.stage in stages]
    except (StageFailedError, StageRefusedError, StageUnobservedError, UserError) as ended:
        return [nothing.model_copy(update={"why": str(ended)})]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is ours and speaks against no part
        return [nothing.model_copy(update={"outcome": Outcome.ERROR, "why": "", "error": own_error(error)})]


def _file_of(model: ModelRef) -> Declared | None:
    try:
        return declared_by(model.path)
    except (OSError, UserError):
        return None


def _served_file(part: object) -> Declared | None:
    try:
        path = part.model_file() if isinstance(part, TellsFile) else None
        return None if path is None else declared_by(path)
    except (OSError, UserError, StageFailedError, StageRefusedError, StageUnobservedError):
        return None
