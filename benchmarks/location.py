"""How often the first wrong number is found in the layer that a fault was planted in.

Single faults in weights, activations of the prompt and operators of one layer are planted one after the other. Of those
that move the last position's distribution by more than the noise, and of those that move it less, the share is counted
in which the first node found wrong is in that layer. Between them the clean engine is looked at: any node found wrong
there is a false alarm. Wanted: at least 95 % of the former, and no false alarm.

    python -m benchmarks.location [FAULTS]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.checking.noise import load_noise
from harness.explain.locate import NodeNoise, locate
from harness.inject.draw import draw, kinds_named
from harness.inject.fault import Fault
from harness.inject.kinds import PLANTINGS
from harness.inject.kinds.strike import Effect, Moment, VoidError
from harness.inject.subject import Subject, _Clean
from harness.llama.ggml import VIEWS, Watcher, rows_of
from harness.llama.laboratory.engine import Engine
from harness.llama.laboratory.noise import MEASURED
from harness.llama.layout import Tensor
from harness.project.cases import cases_for
from harness.project.golden import load_golden, load_provenance
from harness.project.project import find_project
from harness.project.stack import resolve_model
from harness.reference.oracle import Oracle
from harness.statistics import wilson

_KINDS = ("weight", "activation-bit", "activation-scale", "activation-zero", "operator")
_EVERY = 20
"""Faults between two looks at the clean engine."""


class Tapped:
    """An engine whose nodes can be read while a fault is planted in it."""

    def __init__(self, engine: Engine, moment: Moment) -> None:
        self._engine, self._moment = engine, moment
        self.last = np.empty(0, dtype=np.float32)

    def watch(self) -> None:
        """It is looked into from the start."""

    def activations(self, ids: Sequence[int], names: Sequence[str]) -> Mapping[str, Any]:
        """Feed ids and return nodes; see `harness.stage.Transparent`."""
        wanted, found = frozenset(names), {}

        def note(tensor: Tensor) -> None:
            rows = rows_of(tensor, len(ids))
            if rows is not None:
                found[tensor.name.decode()] = rows.copy()

        self._engine.clear()
        self._moment.phase, self._moment.start, self._moment.rows = "prefill", 0, len(ids)
        with self._engine.nodes.watched(Watcher(lambda name, op: name in wanted and op not in VIEWS, after=note)):
            self.last = self._engine.prompt(ids)[-1]
        return found


def main(count: int) -> None:
    """Measure and print."""
    project = find_project()
    model = resolve_model(project, "smollm2-135m-instruct")
    (case,) = cases_for(project, model.name, ("several-turns",))
    golden = load_golden(project, model, case, load_provenance(project, model))
    noise = load_noise(project, model.name)
    assert golden.tokens is not None
    assert noise is not None
    ids, limit = golden.tokens.ids, noise.floor(*MEASURED).limit
    text = (project.golden / model.name / "nodes.json").read_text(encoding="utf-8")
    limits = NodeNoise.model_validate_json(text).limits(*MEASURED)
    subject = Subject(str(model.path), ids, 1, 2, limit, threads=1)
    faults = draw(subject.sites(), 2 * count, 1, kinds_named(_KINDS), ("prefill",), 1)
    engine, moment = subject._engine, subject._moment
    part, oracle = Tapped(engine, moment), Oracle.from_file(model.path)
    assert locate(part, oracle, ids, limits) is None
    clean = _Clean([int(part.last.argmax())], part.last[None])
    right: Counter[bool] = Counter()
    seen: Counter[bool] = Counter()
    wrong: list[str] = []
    alarms = looks = 0
    for at, fault in enumerate(one for one in faults if one.layer is not None):
        if sum(seen.values()) == count:
            break
        try:
            with PLANTINGS[fault.kind](engine, fault, moment, effect := Effect()):
                place = locate(part, oracle, ids, limits)
            effect.check()
        except VoidError:
            continue
        numbers = bool(np.isfinite(part.last).all())
        strong = not numbers or clean.divergence(0, part.last) > limit
        seen[strong] += 1
        right[strong] += place is not None and place.layer == fault.layer
        if strong and (place is None or place.layer != fault.layer):
            wrong.append(f"{_name(fault)}: {None if place is None else place.node}")
        if at % _EVERY == 0:
            looks += 1
            alarms += locate(part, oracle, ids, limits) is not None
    for strong, name in ((True, "beyond the noise"), (False, "within the noise")):
        share = wilson(right[strong], seen[strong])
        interval = f"{share.low:.1%} to {share.high:.1%}"
        print(f"{name}: {share.count} of {share.of} in the right layer, {share.value:.1%} ({interval})")
    print(f"false alarms: {alarms} in {looks} looks at the clean engine")
    print(f"beyond the noise and missed or elsewhere: {'; '.join(wrong) or 'none'}")


def _name(fault: Fault) -> str:
    return f"{fault.kind} {fault.site or fault.module} {fault.field or ''} {fault.layer}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
