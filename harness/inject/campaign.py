"""Many faults, one after the other or on many machines: drawn first, saved, resumable, none counted twice.

A campaign is a folder: `manifest.json` holds what is run and every fault, `results.jsonl` a line for each that was run.
What is in the manifest and not in the results is still to do. Two campaigns over one manifest can be compared fault by
fault.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from harness.errors import MissingPackageError, UserError
from harness.inject.fault import Fault, Injection, LeakError
from harness.models.gguf import sha256_of
from harness.process.child import Child
from harness.process.worker import RemoteError, Worker
from harness.project.files import append_lines, whole_lines, write_file
from harness.stage import StageFailedError
from harness.values import Value

MANIFEST, RESULTS = "manifest.json", "results.jsonl"
_CHUNK: Final = 252
"""Faults in one task: four batches of 63 and a control."""
_PATIENCE: Final = 600.0
_SUBJECT: Final = "harness.inject.subject:Subject"
_CONNECTING: Final = "10s"
_ATTEMPTS: Final = 3
"""How often a task is given to the executor whose worker is lost."""


class Setup(Value):
    """What a campaign hurts.

    Attributes:
        path: The GGUF.
        sha256: Its hash.
        prompt: The ids that it is fed.
        steps: How many ids are generated after the first.
        rows: Sequences in one batch.
        limit: The KL divergence in nats above which the check of distributions notices.
        threads: How many threads compute.
        context: Further fields of `llama_context_params`.
    """

    path: str
    sha256: str
    prompt: tuple[int, ...]
    steps: int = 2
    rows: int = 64
    limit: float = 0.05
    threads: int = 2
    context: dict[str, int | float] = {}  # noqa: RUF012 - pydantic copies it


class Manifest(Value):
    """A campaign before it is run.

    Attributes:
        version: Of this form; another one is refused.
        model: The model's name.
        engine: What identifies the engine.
        setup: What is hurt.
        seed: What the faults were drawn from.
        kinds: Their kinds.
        population: How many different faults of these kinds there are, where that is known.
        types: The `enum ggml_type` of the tensors that are hurt, by name, where they are known; a bit of a packed
            weight has no meaning without.
        faults: The faults.
    """

    version: Literal[1] = 1
    model: str
    engine: dict[str, str]
    setup: Setup
    seed: int
    kinds: tuple[str, ...]
    population: int | None = None
    types: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    faults: tuple[Fault, ...]


def again(manifest: Manifest, threads: int, context: Mapping[str, float]) -> Manifest:
    """Return the same faults for an engine with other settings, so that the two can be compared fault by fault.

    Args:
        manifest: The campaign.
        threads: How many threads compute.
        context: Fields of `llama_context_params`, besides those of the campaign.
    """
    setup = manifest.setup.model_copy(
        update={"threads": threads, "context": {**manifest.setup.context, **context}},
    )
    return manifest.model_copy(update={"setup": setup})


def save(manifest: Manifest, folder: Path) -> None:
    """Write a manifest into a new campaign's folder.

    Raises:
        UserError: there is a campaign already, or no folder can be made.
    """
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"no folder can be made at {folder} ({error.strerror})", "name another one") from error
    write_file(folder / MANIFEST, manifest.model_dump_json(exclude_defaults=True, indent=1).encode("utf-8"))


def check_new(folder: Path) -> None:
    """Raise UserError where a folder holds a campaign, or is none."""
    if (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds a campaign", "go on with it (--resume), or choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder", "name another one")


def load(folder: Path) -> Manifest:
    """Read a campaign's manifest.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} holds no campaign ({MANIFEST})", "draw one: harness inject without --resume"
        ) from error
    except ValidationError as error:
        where = ".".join(str(one) for one in error.errors()[0]["loc"])
        raise UserError(
            f"{folder / MANIFEST} is damaged at {where or 'its beginning'}", "draw the campaign anew"
        ) from error


def results(folder: Path, manifest: Manifest) -> dict[str, Injection]:
    """Read what was run so far, by fault. A last line that a kill has cut is passed over.

    Raises:
        UserError: a line is damaged, or of a fault that the manifest does not have.
    """
    path = folder / RESULTS
    known = {fault.id for fault in manifest.faults}
    found: dict[str, Injection] = {}
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            one = Injection.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{path}, line {number} is damaged", "remove that line: its fault is run again") from error
        if one.fault not in known:
            raise UserError(
                f"{path}, line {number} is of a fault that is not in the manifest", "the two do not belong together"
            )
        found[one.fault] = one
    return found


def run(
    folder: Path,
    manifest: Manifest,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Injection]:
    """Run what is left of a campaign, and return all that was run. Each task's results are on disk when it ends.

    Args:
        folder: The campaign's folder.
        manifest: Its manifest.
        executor: Where tasks are run; one child process of this machine if None. Its workers need the same file at the
            same path.
        progress: Called with how many faults were run by now.

    Raises:
        LeakError: an engine is not what it was after its faults were undone.
        UserError: the folder's results are damaged, or cannot be written; what was written stays.
    """
    done = results(folder, manifest)
    setup = manifest.setup.model_dump(mode="json")
    tasks = [manifest.faults[at : at + _CHUNK] for at in range(0, len(manifest.faults), _CHUNK)]
    # Whole tasks, so that a fault has the same row in its batch again: another row may round otherwise.
    tasks = [task for task in tasks if any(fault.id not in done for fault in task)]
    if progress is not None:
        progress(len(done))
    for found in _executed(executor, setup, tasks):
        # A task that a kill has cut is run again, and a worker that was taken for lost may answer after all.
        new = {one.fault: one for one in found if one.fault not in done}
        append_lines(folder / RESULTS, (one.model_dump_json(exclude_defaults=True) for one in new.values()))
        done |= new
        if progress is not None:
            progress(len(done))
    return done


def _executed(
    executor: Executor | None, setup: Mapping[str, Any], tasks: Sequence[Sequence[Fault]]
) -> Iterator[list[Injection]]:
    if executor is None:
        with _Local(setup) as local:
            yield from (local.inject(task) for task in tasks)
        return
    attempts = dict.fromkeys(range(len(tasks)), 0)
    waiting: dict[Future[list[dict[str, Any]]], int] = {}

    def submit(at: int) -> None:
        attempts[at] += 1
        sent = [fault.model_dump(mode="json") for fault in tasks[at]]
        waiting[executor.submit(in_worker, json.dumps(setup, sort_keys=True), sent)] = at

    for at in attempts:
        submit(at)
    while waiting:
        for future in as_completed(list(waiting)):
            at = waiting.pop(future)
            try:
                answer = future.result()
            except (UserError, LeakError):
                raise
            except Exception:
                # Whatever else it is, the worker or the way to it was lost; each executor has its own words for that.
                if attempts[at] >= _ATTEMPTS:
                    raise
                submit(at)
                continue
            yield [Injection.model_validate(one) for one in answer]


class _Local:
    """One child process with the engine, begun again when it dies.

    Raises:
        UserError: the file is not here, or is another one.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        _check_file(Path(setup["path"]), setup["sha256"])
        left = {name: value for name, value in setup.items() if name != "sha256"}
        self.child = Child(Worker(_SUBJECT, left, seconds=_PATIENCE))

    def __enter__(self) -> _Local:
        return self

    def __exit__(self, *ended: object) -> None:
        self.child.close()

    def inject(self, faults: Sequence[Fault]) -> list[Injection]:
        """Run faults; where the engine dies of one, find which."""
        try:
            answer = self.child.call("inject", faults=[fault.model_dump(mode="json") for fault in faults])
        except RemoteError as error:
            if error.error == LeakError.__name__:
                raise LeakError(error.message) from error
            raise
        except StageFailedError as failed:
            if failed.failure.reason == "start":
                raise UserError(f"the engine {failed.failure.describe()}") from failed
            if len(faults) > 1:
                middle = len(faults) // 2
                return [*self.inject(faults[:middle]), *self.inject(faults[middle:])]
            outcome: Any = "due_hang" if failed.failure.reason == "hang" else "due_crash"
            return [Injection(fault=faults[0].id, outcome=outcome, reason=failed.failure.describe())]
        return [Injection.model_validate(one) for one in answer]


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(f"there is no file {path}", "a campaign needs its model at the same path, on every machine")
    if sha256_of(path) != sha256:
        raise UserError(f"{path} is not the file that the campaign was drawn for", "draw the campaign anew")


_ENGINES: dict[str, _Local] = {}
_LOCK: Final = threading.Lock()


def in_worker(setup: str, faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Run faults in a process of an executor, which keeps its engine for the tasks that follow."""
    with _LOCK:
        if setup not in _ENGINES:
            _ENGINES[setup] = _Local(json.loads(setup))
        found = _ENGINES[setup].inject([Fault.model_validate(one) for one in faults])
    return [one.model_dump(mode="json") for one in found]


@contextmanager
def executor_at(scheduler: str | None) -> Iterator[Executor | None]:
    """Connect to a dask cluster, for as long as the context is open; None where no scheduler is named.

    Raises:
        MissingPackageError: dask.distributed is not installed.
        UserError: nothing answers at the address.
    """
    if scheduler is None:
        yield None
        return
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise MissingPackageError("running on a cluster", "distributed", "cluster") from error
    try:
        client = distributed.Client(scheduler, timeout=_CONNECTING)
    except (OSError, ValueError) as error:
        raise UserError(f"no scheduler answers at {scheduler}", "start one: dask scheduler") from error
    with client:
        # Each task needs a whole engine: one at a time in every worker, which keeps it for the next.
        yield client.get_executor(pure=False)


def sites_of(setup: Setup) -> dict[str, Any]:
    """Return everything that can be hurt in an engine; see `Subject.sites`.

    Raises:
        UserError: it does not start.
    """
    with _Local(setup.model_dump(mode="json")) as local:
        try:
            found: dict[str, Any] = local.child.call("sites")
        except StageFailedError as failed:
            raise UserError(f"the engine {failed.failure.describe()}") from failed
        return found
