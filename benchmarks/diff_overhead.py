"""A whole diff of two real stacks, warm, against the two engines' own work in it.

The first engine notes its evaluations, which are repeated in the same process with nothing around them; the second, a
server, says itself in every answer how long it computed (`timings`). Wanted: a ratio of at most 1.2.

    python benchmarks/diff_overhead.py [MODEL]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from harness.checking.diff import Pair
from harness.checking.running import open_stack
from harness.components.llama_server import LlamaServer
from harness.process.serving import Server
from harness.project.cases import cases_for
from harness.project.project import find_project
from harness.project.stack import load_stack, resolve_model
from harness.stage import Stage

spent_by_server = 0.0


def main(name: str) -> None:
    """Measure and print."""
    project = find_project()
    model = resolve_model(project, name)
    cases = cases_for(project, name)
    _note_timings()
    with (
        open_stack(load_stack(project, "llama-cpp-python"), model) as first,
        open_stack(load_stack(project, "llama-server"), model) as second,
    ):
        engine: Any = first.part(Stage.INFERENCE)
        engine.plant("benchmarks.work:record")
        pair = Pair(project, first, second)
        pair.run(cases[:2])  # warm
        engine.observe("take")
        global spent_by_server
        spent_by_server = 0.0
        start = time.perf_counter()
        compared = pair.run(cases)
        seconds = time.perf_counter() - start
        bare = engine.observe("replay", work=engine.observe("take"))
    own = bare + spent_by_server
    print(compared.diff.line)
    print(
        f"{name}: {len(cases)} cases; diff {seconds:.1f} s, llama-cpp-python's engine {bare:.1f} s, llama-server's "
        f"{spent_by_server:.1f} s, ratio {seconds / own:.3f} (wanted at most 1.2)"
    )


def _note_timings() -> None:
    """Add up what the server says of its own time, of every call that goes to the model."""
    ask, seen = Server._ask, LlamaServer.seen

    def noted_ask(self: Server, call: Any) -> Any:
        answer = ask(self, call)
        _add(answer)
        return answer

    def noted_seen(self: LlamaServer, case: Any, body: Any, answer: Any) -> Any:
        _add(answer)
        return seen(self, case, body, answer)

    Server._ask = noted_ask  # type: ignore[method-assign]
    LlamaServer.seen = noted_seen  # type: ignore[method-assign]


def _add(answer: Any) -> None:
    global spent_by_server
    for one in answer if isinstance(answer, list) else [answer]:
        timings = one.get("timings") if isinstance(one, Mapping) else None
        if timings:
            spent_by_server += (timings["prompt_ms"] + timings["predicted_ms"]) / 1000


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct")
