"""The whole check against the bare engine's time for the same prefill and decode work, side by side in one run.

The engine notes each evaluation of a warm check; the same evaluations are then repeated in the same process with
nothing around them, check and bare in turn. Wanted: a ratio of at most 1.10, and at most 1 s in the stages other than
inference together.

    python benchmarks/check_overhead.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from harness.checking.opened import Session, open_session
from harness.checking.running import RunningStack
from harness.project.project import find_project
from harness.project.stack import load_stack, resolve_model
from harness.stage import Stage


def main(rounds: int) -> None:
    """Measure and print, model by model and together."""
    project = find_project()
    stack = load_stack(project, "llama-cpp-python")
    totals: list[tuple[float, float]] = []
    others = 0.0
    for name in stack.models:
        model = resolve_model(project, name)
        with open_session(project, stack, model, prepare=_record) as session:
            part: Any = session.running.part(Stage.INFERENCE)
            checked(session)  # warm
            part.observe("take")
            pairs, spent = [], []
            for _ in range(rounds):
                seconds, stages = checked(session)
                work = part.observe("take")
                pairs.append((seconds, part.observe("replay", work=work)))
                spent.append(stages)
                part.observe("take")
        ratios = [check / bare for check, bare in pairs]
        fed = sum(len(tokens) for _, tokens in work)
        whole, bare = statistics.median(c for c, _ in pairs), statistics.median(b for _, b in pairs)
        print(
            f"{name}: {len(session.goldens)} cases, {fed} tokens; check {whole:.2f} s, bare engine {bare:.2f} s, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
            f"other stages {statistics.median(spent):.2f} s"
        )
        totals.append((whole, bare))
        others += statistics.median(spent)
    together = sum(check for check, _ in totals) / sum(bare for _, bare in totals)
    print(f"together: ratio {together:.3f} (wanted at most 1.10), other stages {others:.2f} s (wanted at most 1 s)")


def _record(running: RunningStack) -> None:
    running.part(Stage.INFERENCE).plant("benchmarks.work:record")


def checked(session: Session) -> tuple[float, float]:
    """Check every case to the verdict; return the seconds in all, and those in stages other than inference."""
    session.seconds.clear()
    start = time.perf_counter()
    results = [result for case in session.goldens for result in session.results(case)]
    verdict = session.verdict(results)
    seconds = time.perf_counter() - start
    assert verdict.status == "clean", verdict.line
    return seconds, sum(spent for stage, spent in session.seconds.items() if stage is not Stage.INFERENCE)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
