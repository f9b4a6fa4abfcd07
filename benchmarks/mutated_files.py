"""What `harness doctor` says of mutated files, held against what llama.cpp does with them.

`python -m benchmarks.mutated_files --count 10000 --seed 1`. Every file is loaded by llama.cpp in a process of its own,
with its vocabulary, gets a context, computes three tokens and tokenizes a text. `--show N` names the first N files that
are not called bad though llama.cpp does not take them, and the reverse. Run from a checkout: the mutator is a test's.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from harness.doctor import examine
from harness.errors import ModelFileError
from harness.statistics import wilson
from tests.doctor.healthy import NAMES, healthy
from tests.doctor.llama_cpp_load import COMPUTES, try_files
from tests.doctor.mutations import mutants

Judged = tuple[str, str, str]


def main() -> None:
    """Judge the files and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0)
    wanted = parser.parse_args()
    began, slowest = time.monotonic(), 0.0
    missed, accused = [], []
    said: Counter[tuple[str, str]] = Counter()
    outcomes: Counter[str] = Counter()
    blamed: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryDirectory() as folder:
        names: dict[Path, str] = {}
        for path, outcome, words in try_files(_written(Path(folder), wanted.count, wanted.seed, names)):
            start = time.monotonic()
            status, found, checks = judged(path)
            slowest = max(slowest, time.monotonic() - start)
            path.unlink()
            takes = outcome == COMPUTES
            outcomes[outcome] += 1
            said["takes it" if takes else "does not take it", status] += 1
            if not takes and status != "bad":
                missed.append(f"{names[path]}: {status}: {outcome}: {words}")
            if takes and status == "bad":
                accused.append(f"{names[path]}: {found}")
                for check in checks:
                    blamed[check] += 1
    healthy_bad = sum(_healthy_ones())
    for title, shown in (("Missed", missed), ("Accused", accused)):
        for line in shown[: wanted.show]:
            print(f"{title}: {line}")
    print(f"llama.cpp: {', '.join(f'{count:,} {name}' for name, count in outcomes.most_common())}")
    for (takes_it, status), count in sorted(said.items()):
        print(f"llama.cpp {takes_it}, the doctor says {status}: {count:,}")
    refused = sum(count for (takes_it, _), count in said.items() if takes_it != "takes it")
    not_ok = refused - said["does not take it", "ok"]
    print(f"of {refused:,} that it does not take, not ok: {_share(not_ok, refused)}")
    print(f"of these, bad: {_share(said['does not take it', 'bad'], refused)}")
    taken = sum(outcomes.values()) - refused
    print(f"of {taken:,} that it takes, bad: {_share(len(accused), taken)}; by check {dict(blamed)}")
    print(f"of {2 * len(NAMES)} healthy ones, not ok: {healthy_bad}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - began:,.0f} s, the slowest file {slowest:.2f} s, peak memory {peak:,.0f} MB")


def judged(path: Path) -> tuple[str, str, list[str]]:
    """Return the doctor's worst status, what it says, and the checks that are bad. A traceback is one of ours."""
    try:
        diagnosis = examine(path)
    except ModelFileError as error:
        return "bad", str(error), ["reading"]
    bad = [check for check in diagnosis.checks if check.status == "bad"]
    return diagnosis.worst, "; ".join(f"{check.name}: {check.found}" for check in bad), [check.name for check in bad]


def _written(folder: Path, count: int, seed: int, names: dict[Path, str]) -> Iterator[Path]:
    for number, (name, content) in enumerate(mutants(count, seed)):
        path = folder / f"{number:05}.gguf"
        path.write_bytes(content)
        names[path] = name
        yield path


def _healthy_ones() -> Iterator[bool]:
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            for tokenizer in ("gpt2", "llama"):
                path = Path(folder) / "healthy.gguf"
                path.write_bytes(healthy(name, tokenizer).encoded())
                yield judged(path)[0] != "ok"


def _share(part: int, whole: int) -> str:
    share = wilson(part, whole)
    return f"{part:,} ({100 * share.value:.2f} %, 95 % interval {100 * share.low:.2f} to {100 * share.high:.2f})"


if __name__ == "__main__":
    main()
