"""What was measured of the costs of defects, and the file that it is kept in."""

from __future__ import annotations

import json
from pathlib import Path

from harness.attribution.held import FREE, POSITIONS, Held
from harness.attribution.scale import Setting, Step
from harness.project.documents import read_json
from harness.project.files import write_file
from harness.stage import Stage
from harness.values import Value


class Effect(Value):
    """What a defect does.

    Attributes:
        id: The defect.
        stage: The stage at fault.
        place: Where it is planted.
        model: The model that it is measured around.
        cases: KL(right ids || the defect's), of the cases that were fed to the engine.
        struck: How many cases it strikes: their ids are other ones, or there are none.
        of: Of how many.
        lost: Cases of which no answer comes: nothing is rendered, or the engine refuses it.
    """

    id: str
    stage: Stage
    place: str
    model: str
    cases: tuple[Held, ...]
    struck: int
    of: int
    lost: tuple[str, ...] = ()


class Study(Value):
    """Everything that was measured.

    Attributes:
        engine: What identifies the engine.
        positions: Positions of an answer that are looked at, at most.
        free: Ids that an answer may have that is left to the engine.
        cases: By model, the cases of which those are taken that a defect strikes.
        effects: What the defects do.
        scale: What quantizing costs; of the first model.
        settings: What healthy settings do; of the first model.
    """

    engine: dict[str, str]
    positions: int = POSITIONS
    free: int = FREE
    cases: dict[str, tuple[str, ...]]
    effects: tuple[Effect, ...] = ()
    scale: tuple[Step, ...] = ()
    settings: tuple[Setting, ...] = ()


def save(study: Study, out: Path) -> None:
    """Write a study, with a line for each thing that was measured.

    Raises:
        UserError: it cannot be written; the old file is then intact.
    """
    parts = []
    for key, value in study.model_dump(mode="json").items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(one) for one in value)
            parts.append(f'"{key}": [\n{lines}\n]')
        else:
            parts.append(f'"{key}": {json.dumps(value)}')
    write_file(out, ("{\n" + ",\n".join(parts) + "\n}\n").encode("utf-8"))


def load(out: Path) -> Study:
    """Read a study.

    Raises:
        UserError: the file is missing, or is none.
    """
    return read_json(out, Study)
