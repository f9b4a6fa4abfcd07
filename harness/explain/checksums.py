"""An engine against its own past, bit for bit: which node of its network is the first that computes other bits.

Where build, settings and processor are the same, llama.cpp on a CPU gives the same bits; so a difference after an
upgrade is a change of the engine, far below any tolerance. Of every row of every node four hexadecimal digits are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import RootModel

from harness.checking.running import RunningStack, open_stack
from harness.errors import UserError
from harness.explain.locate import LONGEST
from harness.models.gguf import read_model_file
from harness.project.cases import cases_for
from harness.project.documents import read_json
from harness.project.files import write_file
from harness.project.golden import beside_goldens, load_golden, load_provenance, model_folder
from harness.project.project import Project
from harness.project.stack import Stack, resolve_model
from harness.reference.model_config import ModelConfig
from harness.reference.nodes import node_names
from harness.stage import Stage, Transparent
from harness.values import Value

CHECKSUMS: Final = "checksums.json"
_CASES: Final = 2
"""The shortest prompts: a change of the network shows in any."""
_DIGITS: Final = 4

Sums = Mapping[str, str]
"""By node, in the order of the graph, the digits of its rows."""


class Recorded(RootModel[dict[str, dict[str, dict[str, str]]]]):
    """What was recorded, by component and settings, case and node."""


class Change(Value):
    """The first node of a case that computes other bits than it did.

    Attributes:
        case: The case.
        node: Its name in llama.cpp's graph.
        row: The first position of the prompt that differs there.
        nodes: How many nodes differ in all.
        of: Of how many.
    """

    case: str
    node: str
    row: int
    nodes: int
    of: int

    def describe(self) -> str:
        """Return one line for a human."""
        first = f"node {self.node}, token {self.row} is the first with other bits"
        return f"{self.case}: {first}; {self.nodes} of {self.of} nodes differ"


def record_checksums(project: Project, stack: Stack, model: str, *, write: bool) -> tuple[Change, ...] | None:
    """Hold an engine against what was recorded of it, or record it.

    Args:
        project: Where goldens are.
        stack: A stack whose engine can be looked into.
        model: The model.
        write: Record what is seen now.

    Returns:
        The changes, a case each; None where nothing was recorded of this engine in these settings.

    Raises:
        UserError: the engine cannot be looked into, or a file is wrong or cannot be written.
    """
    reference = resolve_model(project, model)
    provenance = load_provenance(project, reference)
    goldens = [load_golden(project, reference, case, provenance) for case in cases_for(project, model)]
    prompts = {golden.case.name: golden.tokens.ids for golden in goldens if golden.tokens is not None}
    shortest = sorted(prompts, key=lambda case: (len(prompts[case]), case))[:_CASES]
    with open_stack(stack, reference) as running:
        part = running.part(Stage.INFERENCE)
        if not isinstance(part, Transparent):
            raise UserError(f"the engine of stack {stack.name!r} cannot be looked into")
        names = node_names(ModelConfig.from_model_file(read_model_file(reference.path)))
        seen = {case: checksums(part, names, prompts[case]) for case in shortest}
        key = _key(running)
    path = beside_goldens(project, model, CHECKSUMS)
    known = read_json(path, Recorded).root if path.is_file() else {}
    if write:
        save(project, model, {**known, key: seen})
    if key not in known:
        return None
    return tuple(change for case in shortest if (change := compared(case, known[key].get(case, {}), seen[case])))


def checksums(part: Transparent, names: Sequence[str], ids: Sequence[int]) -> dict[str, str]:
    """Return the digits of every row of every node."""
    shown = part.activations(ids[:LONGEST], names)
    return {
        node: "".join(hashlib.sha256(row.tobytes()).hexdigest()[:_DIGITS] for row in shown[node])
        for node in names
        if node in shown
    }


def compared(case: str, recorded: Sums, seen: Sums) -> Change | None:
    """Return the first node with other bits; None where there is none."""
    differing = [node for node in seen if recorded.get(node) != seen[node]]
    if not differing:
        return None
    node = differing[0]
    rows = zip(_rows(recorded.get(node, "")), _rows(seen[node]), strict=False)
    row = next((at for at, (one, other) in enumerate(rows) if one != other), 0)
    return Change(case=case, node=node, row=row, nodes=len(differing), of=len(seen))


def _rows(digits: str) -> list[str]:
    return [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]


def _key(running: RunningStack) -> str:
    """Return the component and its settings; versions and builds are what may change."""
    part: Any = running.part(Stage.INFERENCE)
    seen = part.identity()
    settings = " ".join(f"{name}={seen[name]}" for name in ("n_batch", "n_ubatch") if name in seen)
    return f"{running.stack.stages.component(Stage.INFERENCE)}, {part.noise_class()}, {settings}"


def save(project: Project, model: str, recorded: Mapping[str, Mapping[str, Sums]]) -> None:
    """Write what was recorded of a model's engines.

    Raises:
        UserError: it cannot be written; the old one is then intact.
    """
    write_file(model_folder(project, model) / CHECKSUMS, (json.dumps(recorded, indent=1) + "\n").encode("utf-8"))
