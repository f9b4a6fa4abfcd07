"""Batched injection beside the naive way, and the time of a campaign.

Naive: for every fault a fresh prefill and decode with the fault planted, in an engine that is loaded already. Batched:
the same faults through `Subject.inject`. Wanted: at least 20 times the faults in the same time on a prompt of 64 ids,
and 1,000 faults in activations in less than two minutes on two cores.

    python -m benchmarks.injection [FAULTS]
"""

from __future__ import annotations

import sys
import time

from harness.inject.draw import draw
from harness.inject.fault import Fault
from harness.inject.kinds import PLANTINGS
from harness.inject.kinds.strike import Effect
from harness.inject.subject import Subject
from harness.llama.laboratory.engine import Row
from harness.project.project import find_project
from harness.project.stack import resolve_model

_STEPS = 2
_NAIVE = 12
_ROUNDS = 3


def main(count: int) -> None:
    """Measure and print."""
    path = str(resolve_model(find_project(), "smollm2-135m-instruct").path)
    prompt = [(7919 * at + 104729) % 49152 for at in range(64)]
    subject = Subject(path, prompt, _STEPS, 64, 0.05)
    faults = draw(
        subject.sites(), count, 1, ("activation-bit", "activation-scale", "activation-zero"), ("first",), _STEPS
    )
    naive, batched = [], []
    share = max(count // _ROUNDS, 1)
    for number in range(_ROUNDS):
        some = faults[number * share : (number + 1) * share]
        few = some[:_NAIVE]
        start = time.perf_counter()
        for one in few:
            _alone(subject, one)
        between = time.perf_counter()
        subject.inject([one.model_dump() for one in some])
        naive.append((between - start) / len(few))
        batched.append((time.perf_counter() - between) / len(some))
    ratios = sorted(one / other for one, other in zip(naive, batched, strict=True))
    middle = _ROUNDS // 2
    print(f"naive {1e3 * sorted(naive)[middle]:.1f} ms a fault, batched {1e3 * sorted(batched)[middle]:.2f} ms")
    print(
        f"throughput {ratios[middle]:.1f} times the naive way ({ratios[0]:.1f} to {ratios[-1]:.1f}; wanted at least 20)"
    )
    print(f"{count} faults: {sum(batched) / _ROUNDS * count:.1f} s (of 1,000 wanted less than 120 s)")


def _alone(subject: Subject, fault: Fault) -> None:
    engine, prompt = subject._engine, subject._prompt
    engine.clear()
    first = engine.feed([Row(token, at) for at, token in enumerate(prompt)], only_last=True)[-1]
    with PLANTINGS[fault.kind](engine, fault, subject._moment, Effect()):
        subject._continued(first)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 945)
