"""What came of every trial of a bench, and the folder that it is kept in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from harness.checking.compare.outcome import Kind
from harness.checking.verdict import Evidence
from harness.errors import UserError
from harness.project.documents import read_json
from harness.project.files import append_lines, whole_lines, write_file
from harness.stage import Stage
from harness.values import OwnError, Value

SETUP, TRIALS = "bench.json", "trials.jsonl"

Ended = Literal["judged", "no place", "raised", "leaks", "error"]
"""How a trial ended: with a verdict; the stack has no such place; the defect's own function raised; something of it was
still there after it had been taken out; or code of ours raised."""


class Conviction(Value):
    """A finding of the verdict, as far as it is counted.

    Attributes:
        stage: The stage convicted.
        kind: Of what.
        summary: In one line.
        evidence: On what.
        cases: In which cases.
    """

    stage: Stage
    kind: Kind
    summary: str
    evidence: Evidence
    cases: tuple[str, ...]


class Trial(Value):
    """One stack that was checked, with defects in it or without.

    Attributes:
        name: The defects' ids joined by `+`, or of a control its number and setting.
        stack: The stack's name.
        model: The model's name.
        defects: What was planted; empty for a control.
        setting: Of a control in another healthy setting, which.
        ended: How it ended.
        why: Of one without a verdict, why; of one that leaks, what was still there.
        error: What code of ours raised, of one that it ended.
        changed: The stages whose bytes, ids or numbers were not those of the clean stack, on golden input.
        chained: The same in the stack's own path from end to end.
        status: The verdict's.
        line: The verdict in one line.
        convictions: What was convicted.
        by_stage: Of each stage convicted on golden input, the cases that showed it.
        answers: The cases whose answer was not the golden's text, while the clean stack's was.
        comparisons: How many stages of cases were compared.
        left_out: What the clean stack is convicted of itself. The cases that show it can tell nothing of a defect, and
            are not asked.
        seconds: What it took.
    """

    name: str
    stack: str
    model: str
    defects: tuple[str, ...] = ()
    setting: str = ""
    ended: Ended = "judged"
    why: str = ""
    error: OwnError | None = None
    changed: tuple[Stage, ...] = ()
    chained: tuple[Stage, ...] = ()
    status: Literal["convicted", "clean", "unjudged", "none"] = "none"
    line: str = ""
    convictions: tuple[Conviction, ...] = ()
    by_stage: dict[Stage, tuple[str, ...]] = Field(default_factory=dict)
    answers: tuple[str, ...] = ()
    comparisons: int = 0
    left_out: tuple[Conviction, ...] = ()
    seconds: float = 0.0

    @property
    def effective(self) -> bool:
        """Whether anything that a stage made was other than without the defect."""
        return bool(self.changed or self.chained)

    @property
    def noticed(self) -> bool:
        """Whether the verdict speaks against the stack."""
        return self.status == "convicted"

    @property
    def named(self) -> Conviction | None:
        """The conviction that the verdict's line names: of the first stage the one in most cases."""
        if not self.convictions:
            return None
        first = next(stage for stage in Stage if any(one.stage is stage for one in self.convictions))
        return max((one for one in self.convictions if one.stage is first), key=lambda one: len(one.cases))


class Setup(Value):
    """What a bench is made of; a folder holds trials of one setup only.

    Attributes:
        stack: The stack's name.
        models: The models, the first of which is the one that most defects are planted around.
        shallow: The cases of each model that are run up to tokenization, and with made-up ids after it.
        deep: Those that are run in full.
        names: The trials, in order.
        versions: What ran, by component.
    """

    stack: str
    models: tuple[str, ...]
    shallow: dict[str, tuple[str, ...]]
    deep: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    versions: dict[str, str] = Field(default_factory=dict)


def save_setup(folder: Path, setup: Setup) -> None:
    """Write what a bench is made of.

    Raises:
        UserError: the folder cannot be written.
    """
    write_file(folder / SETUP, setup.model_dump_json(indent=1).encode("utf-8"))


def load_setup(folder: Path) -> Setup:
    """Read what a bench is made of.

    Raises:
        UserError: it is not there, or is damaged.
    """
    return read_json(folder / SETUP, Setup)


def append(folder: Path, trial: Trial) -> None:
    """Add a trial, as a line of its own.

    Raises:
        UserError: it cannot be written.
    """
    append_lines(folder / TRIALS, [json.dumps(trial.model_dump(mode="json"), ensure_ascii=True)])


def trials_in(folder: Path) -> Iterator[Trial]:
    """Return the trials that a folder holds. A last line that an interruption has cut is passed over.

    Raises:
        UserError: a line is damaged.
    """
    path = folder / TRIALS
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            yield Trial.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{path}:{number} is no trial", "begin the bench anew in another folder") from error
