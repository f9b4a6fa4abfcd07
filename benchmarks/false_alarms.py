"""False alarms: the check of the healthy stack, repeated and under every healthy setting. Wanted: none.

python benchmarks/false_alarms.py [REPEATS]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from harness.checking.compare.outcome import Outcome
from harness.components.llama_cpp_python import LlamaCppPython
from harness.explain.pipeline import check
from harness.project.project import find_project
from harness.project.stack import load_stack


def main(repeats: int) -> int:
    """Check and print one line a run; return how many were not clean."""
    project = find_project()
    stack = load_stack(project, LlamaCppPython.name)
    repeated: list[tuple[str, Mapping[str, Any]]] = [(f"repeat {n + 1}", {}) for n in range(repeats)]
    runs = repeated + list(LlamaCppPython.variations.items())
    alarms = comparisons = 0
    for label, options in runs:
        for verdict in check(project, stack.with_options(LlamaCppPython.name, options)):
            compared = [r for r in verdict.results if r.isolated.outcome is not Outcome.UNOBSERVED]
            kl = max(r.isolated.measured.get("kl", 0.0) for r in compared)
            limit = max(r.isolated.measured.get("limit", 0.0) for r in compared)
            comparisons += len(compared)
            alarms += verdict.status != "clean"
            print(
                f"{label:16} {verdict.model:28} {verdict.status:9} KL {kl:.4f} of {limit:.4f}  {verdict.line}",
                flush=True,
            )
    print(f"{alarms} alarms in {comparisons} comparisons of {len(runs)} runs")
    return alarms


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]) if len(sys.argv) > 1 else 10) else 0)
