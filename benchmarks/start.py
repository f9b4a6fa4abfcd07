"""What the package costs those who did not ask: importing the plugin in an unrelated run, and `harness --help`.

Wanted: at most 50 ms and at most 0.3 s. The time of an empty interpreter stands beside the second.

    python benchmarks/start.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

_IMPORT = "import time, pytest; t = time.perf_counter(); import harness.pytest_plugin; print(time.perf_counter() - t)"


def main(rounds: int) -> None:
    """Measure in turn and print medians."""
    imports, helps, empty = [], [], []
    for _ in range(rounds):
        imports.append(float(subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True).stdout))
        helps.append(
            seconds("-c", "import sys; sys.argv = ['harness', '--help']; from harness.cli import main; main()")
        )
        empty.append(seconds("-c", "pass"))
    print(f"plugin import: {statistics.median(imports) * 1000:.1f} ms (wanted at most 50 ms)")
    print(
        f"harness --help: {statistics.median(helps):.3f} s (wanted at most 0.3 s), empty interpreter "
        f"{statistics.median(empty):.3f} s, ratio {statistics.median(helps) / statistics.median(empty):.1f}"
    )


def seconds(*arguments: str) -> float:
    """Return how long an interpreter with these arguments took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
