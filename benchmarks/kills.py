"""Kills `harness record` while it writes, and holds every golden that is then on disk against what may be there.

    python -m benchmarks.kills [--kills 200] [--seed 0] [--quick]

The goldens are ready values; what writes them is the real thing. Each kind of writing (new, changed and stale goldens,
noise, checksums) is killed before each of its steps on the file system, one run a step, and by SIGKILL at instants that
are drawn. After each kill every golden must load without anything being written, and be the old or the new one; and the
next run must do what the killed one did not, and leave nothing lying about.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.checking.noise import EngineNoise, NoiseClass, load_noise, save_noise
from harness.errors import UserError
from harness.explain.checksums import CHECKSUMS, Recorded
from harness.explain.checksums import save as save_checksums
from harness.project.cases import case_names
from harness.project.documents import read_json
from harness.project.golden import Golden, load_golden, load_provenance
from harness.project.golden_writing import writing
from harness.project.project import Project
from harness.reference.record import Change, Recording
from harness.values import Case, Distributions, Generation, ModelRef, Prompt, Reply, Request, Tokens

_MODEL = ModelRef(name="m", path=Path("m.gguf"), sha256="5" * 64)
_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_KILLED = 9


class _Reference:
    """A reference that has its answers ready."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def __call__(self, _: ModelRef) -> Any:
        return self

    def __enter__(self) -> _Reference:
        return self

    def __exit__(self, *ended: object) -> None:
        pass

    def versions(self) -> dict[str, str]:
        return {"client": self._answer}

    def golden(self, case: Case) -> Golden:
        logits = np.linspace(0, 3, 40_000, dtype=np.float32).reshape(2, -1) + len(self._answer)
        return Golden(
            case=case,
            model=_MODEL.name,
            request=Request(messages=tuple(case.body["messages"])),
            prompt=Prompt(text=self._answer * 2000),
            tokens=Tokens(ids=(1, 2)),
            generation=Generation(
                ids=(1, 2), chosen=(1, 2), finish="length", distributions=Distributions.from_logits(logits).top()
            ),
            reply=Reply(content=self._answer),
        )


@dataclass(frozen=True)
class Writing:
    """A kind of writing.

    Attributes:
        write: Does it, in a project; does nothing where it was done.
        seen: Returns what is on disk, by name; raises UserError where something is refused.
        prepare: Brings the project into the state before it.
    """

    write: Callable[[Project], None]
    seen: Callable[[Project], Mapping[str, Any]]
    prepare: Callable[[Project], None] = lambda _: None


def _put_cases(project: Project, names: Sequence[str]) -> None:
    folder = project.golden / "cases"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        case = Case(description="d", covers=(), body={"messages": [{"role": "user", "content": name}], "max_tokens": 2})
        (folder / f"{name}.json").write_text(case.model_dump_json(exclude={"name"}), encoding="utf-8")


def _record(project: Project, answer: str, *approve: Change) -> None:
    for _ in Recording(project, _MODEL, frozenset(approve)).run(_Reference(answer)):
        pass


def _answers(project: Project) -> dict[str, Any]:
    """Return the answer of each golden that the provenance names."""
    try:
        provenance = load_provenance(project, _MODEL)
    except UserError as error:
        if "no goldens" in error.message:
            return {}
        raise
    found = {}
    for name in provenance.cases:
        body = {"messages": [{"role": "user", "content": name}], "max_tokens": 2}
        golden = load_golden(project, _MODEL, Case(name=name, description="d", covers=(), body=body), provenance)
        assert golden.reply is not None
        assert golden.prompt is not None
        found[name] = golden.reply.content
    return found


def _noise(number: float) -> EngineNoise:
    seen = NoiseClass(variations=("v",), positions=1, mean=number, p99=number, max=number, case_mean=number)
    return EngineNoise(engine={}, classes={"fine": seen})


def _write_noise(project: Project) -> None:
    with writing(project, _MODEL.name):
        save_noise(project, _MODEL.name, "part", _noise(0.5))


def _seen_noise(project: Project) -> dict[str, Any]:
    noise = load_noise(project, _MODEL.name)
    return {"noise": None if noise is None else noise.root["part"].classes["fine"].max}


def _write_checksums(project: Project) -> None:
    with writing(project, _MODEL.name):
        save_checksums(project, _MODEL.name, {"part": {"a": {"node": "new"}}})


def _seen_checksums(project: Project) -> dict[str, Any]:
    path = project.golden / _MODEL.name / CHECKSUMS
    return {"checksums": read_json(path, Recorded).root["part"]["a"]["node"] if path.is_file() else None}


def _prepare_stale(project: Project) -> None:
    _record(project, "old", Change.NEW)
    names = case_names(project)
    _put_cases(project, names[: len(names) // 2])


WRITINGS: Mapping[str, Writing] = {
    "--approve new": Writing(lambda project: _record(project, "new", Change.NEW), _answers),
    "--approve changed": Writing(
        lambda project: _record(project, "new", Change.CHANGED),
        _answers,
        lambda project: _record(project, "old", Change.NEW),
    ),
    "--approve stale": Writing(lambda project: _record(project, "old", Change.STALE), _answers, _prepare_stale),
    "--noise": Writing(
        _write_noise, _seen_noise, lambda project: save_noise(project, _MODEL.name, "part", _noise(0.25))
    ),
    "--checksums": Writing(
        _write_checksums,
        _seen_checksums,
        lambda project: save_checksums(project, _MODEL.name, {"part": {"a": {"node": "old"}}}),
    ),
}


class _Steps:
    """Counts a process's steps that change what is below a folder, and ends the process before one of them."""

    def __init__(self, folder: Path, last: int) -> None:
        self.done = 0
        self._folder = str(folder)
        self._last = last
        # What a process has written survives its death without this, which is slow.
        os.fsync = lambda fd: self._step()  # noqa: ARG005 - its name is part of the function
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        # What removes a tree names its files by a folder that is open.
        relative = event in ("os.remove", "os.rmdir")
        if event not in _EVENTS or (event == "open" and not (arguments[2] or 0) & _WRITES):
            return
        if relative or str(arguments[0]).startswith(self._folder):
            self._step()

    def _step(self) -> None:
        if self.done == self._last:
            os._exit(_KILLED)
        self.done += 1


def _in_child(work: Callable[[], int]) -> int:
    """Do something in a process of its own, and return that process's id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = work()
        except UserError as error:
            print(f"the child's own: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    return child


def _killed_at_step(written: Writing, project: Project, step: int) -> bool:
    """Return whether the process got as far as the step, and was killed there."""

    def work() -> int:
        _Steps(project.root, step)
        written.write(project)
        return 0

    status = os.waitstatus_to_exitcode(os.waitpid(_in_child(work), 0)[1])
    if status not in (0, _KILLED):
        raise RuntimeError(f"the process that was to be killed ended with {status}")
    return status == _KILLED


def _killed_after(written: Writing, project: Project, seconds: float) -> bool:
    """Kill the process after a time; return whether it was still there."""

    def work() -> int:
        written.write(project)
        return 0

    child = _in_child(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def content(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder, and every folder."""
    paths = [path for path in folder.rglob("*") if "cases" not in path.relative_to(folder).parts[:1]]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def problems_after_kill(
    written: Writing, project: Project, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[str]:
    """Return what is wrong after a kill: with what is there, and with what the next run makes of it."""
    disk = content(project.golden)
    try:
        seen = written.seen(project)
    except UserError as error:
        return [f"refused: {error}"]
    found = [
        f"{name} is {seen.get(name)!r}"
        for name in {**before, **after}
        if seen.get(name, "absent") not in (before.get(name, "absent"), after.get(name, "absent"))
    ]
    if content(project.golden) != disk:
        found.append("looking at it has changed it")
    try:
        written.write(project)
        if written.seen(project) != after:
            found.append("the next run did not finish it")
    except UserError as error:
        found.append(f"the next run: {error}")
    hidden = [path for path in content(project.golden) if "/." in f"/{path}"]
    return found + [f"the next run left {path}" for path in hidden]


def kills(name: str, root: Path, cases: Sequence[str], random_kills: int, seed: int) -> tuple[int, int, list[str]]:
    """Kill one kind of writing at each step, and at drawn instants.

    Args:
        name: A key of `WRITINGS`.
        root: An empty folder.
        cases: The cases that are recorded.
        random_kills: How many are killed at drawn instants.
        seed: What these are drawn from.

    Returns:
        How many processes were killed at a step, how many at an instant, and what was wrong after any.
    """
    written = WRITINGS[name]
    clean = Project(root / "clean")
    (clean.root / "stacks").mkdir(parents=True)
    (clean.root / "stacks" / "models.toml").touch()
    _put_cases(clean, cases)
    written.prepare(clean)
    before = dict(written.seen(clean))
    whole = _copy(clean, root / "whole")
    started = time.perf_counter()
    written.write(whole)
    took = time.perf_counter() - started
    after = dict(written.seen(whole))
    if before == after:
        raise RuntimeError(f"{name} writes nothing")
    found: list[str] = []
    step = 0
    while True:
        project = _copy(clean, root / "killed")
        if not _killed_at_step(written, project, step):
            break
        found += [f"{name}, step {step}: {one}" for one in problems_after_kill(written, project, before, after)]
        step += 1
    draw = random.Random(seed)
    instants = 0
    while instants < random_kills:
        project = _copy(clean, root / "killed")
        seconds = draw.uniform(0, 1.2 * took)
        if _killed_after(written, project, seconds):
            instants += 1
            found += [
                f"{name}, after {seconds:.4f} s: {one}" for one in problems_after_kill(written, project, before, after)
            ]
    return step, instants, found


def _copy(project: Project, root: Path) -> Project:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(project.root, root, symlinks=True)
    return Project(root)


def main() -> int:
    """Print how many were killed, and what was wrong; 1 where anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at drawn instants, over all kinds of writing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one case, and nothing waits for the disk")
    wanted = parser.parse_args()
    if wanted.quick:
        os.fsync = lambda fd: None  # noqa: ARG005 - its name is part of the function
    cases = ("a",) if wanted.quick else ("a", "b", "c")
    each = -(-wanted.kills // len(WRITINGS))
    wrong: list[str] = []
    for name in WRITINGS:
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            steps, instants, found = kills(name, Path(folder), cases, each, wanted.seed)
        counted = f"{steps:4} killed at a step, {instants:3} at an instant, {len(found)} wrong"
        print(f"record {name:17} {counted}", flush=True)
        wrong += found
    print("\n".join(wrong) or "every golden is accepted after every kill, and the next run leaves nothing behind")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
