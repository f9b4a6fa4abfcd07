"""What looking into the network costs: a prefill of 64 ids without a callback, with nobody watching, and tapped.

Tapped: every node that the oracle knows is copied out, as locating a wrong number does. Wanted: at most 1.10 times the
untapped prefill; with nobody watching, 1.00.

    python -m benchmarks.tap [MODEL.gguf]
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from llama_cpp import llama_cpp as low_level

from harness.llama.ggml import VIEWS, Watcher, rows_of
from harness.llama.laboratory.engine import Engine
from harness.llama.layout import Tensor
from harness.project.project import find_project
from harness.project.stack import resolve_model
from harness.reference.oracle import Oracle

_IDS = [(7919 * at + 104729) % 49152 for at in range(64)]
_ROUNDS = 15


def main(path: str) -> None:
    """Measure and print."""
    watched = Engine(path, n_ctx=512)
    plain = Engine(path, n_ctx=512)
    plain.nodes.callback = low_level.ggml_backend_sched_eval_callback(0)
    plain.configure()
    copied: dict[str, object] = {}

    def note(tensor: Tensor) -> None:
        rows = rows_of(tensor, len(_IDS))
        if rows is not None:
            copied[tensor.name.decode()] = rows.copy()

    wanted = frozenset(Oracle.from_file(Path(path)).node_names)
    tap = Watcher(lambda name, operator: name in wanted and operator not in VIEWS, after=note)
    seconds: dict[str, list[float]] = {"no callback": [], "nobody watching": [], "tapped": []}
    for _ in range(_ROUNDS):
        seconds["no callback"].append(_prefill(plain))
        seconds["nobody watching"].append(_prefill(watched))
        with watched.nodes.watched(tap):
            seconds["tapped"].append(_prefill(watched))
    for name, all_of in seconds.items():
        ratios = [one / other for one, other in zip(all_of, seconds["no callback"], strict=True)]
        print(f"{name:>16}: {1e3 * statistics.median(all_of):6.1f} ms, ratio {statistics.median(ratios):.3f}")
    print(f"{len(copied)} nodes copied of {len(_IDS)} ids; wanted: tapped at most 1.10")


def _prefill(engine: Engine) -> float:
    engine.clear()
    start = time.perf_counter()
    engine.prompt(_IDS)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(resolve_model(find_project(), "smollm2-135m-instruct").path))
