"""The rule of how long a child is waited for, over a made-up `/proc` and clock; and what of it the real one shows."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from harness.process import patience
from harness.process.patience import Limit, Wait
from harness.process.worker import Worker
from harness.values import Failure

CHILD = 100


class Machine:
    """A clock, and the processes that Linux would show."""

    def __init__(self, folder):
        self.now = 1000.0
        self.folder = folder
        self.waited = {}

    def show(self, pid, *, parent=1, session=CHILD, state="S", waited=0, threads=1):
        """Write what the kernel tells of a process: nanoseconds that each of its threads has waited for a processor."""
        stat = f"{pid} (a b) c) {state} {parent} {session} {session} 0"
        for task in range(pid, pid + threads):
            folder = self.folder / str(pid) / "task" / str(task)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "stat").write_text(stat)
            (folder / "schedstat").write_text(f"5000000 {waited} 7\n")
        (self.folder / str(pid) / "stat").write_text(stat)

    def wait(self, limit, each=lambda: None):
        """Wait as one who is told to look again and again, and return how many seconds that took, and what is said."""
        waiting, begun = Wait(limit, CHILD), self.now
        while seconds := waiting.left():
            self.now += seconds
            each()
        return round(self.now - begun, 3), waiting.failure


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path)
    monkeypatch.setattr(patience, "_PROC", tmp_path)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0, 2.5, 30.0])
def test_a_child_that_does_nothing_is_waited_for_as_long_as_was_set(machine, seconds):
    machine.show(CHILD)
    assert machine.wait(Limit.of(seconds)) == (seconds, Failure(reason="hang", seconds=seconds))


def test_one_that_works_alone_without_an_end_is_too(machine):
    machine.show(CHILD, state="R")
    assert machine.wait(Limit.of(10.0)) == (10.0, Failure(reason="hang", seconds=10.0))


def test_where_the_kernel_tells_nothing_all_time_counts(machine):
    assert machine.wait(Limit.of(10.0)) == (10.0, Failure(reason="hang", seconds=10.0))


KEPT = (
    "no answer in 100 s (the machine kept it waiting for a processor or the disk, which is waited for no longer); "
    "last log line: x"
)


@pytest.mark.parametrize(("threads", "share"), [(1, 0.5), (2, 0.06), (4, 0.9)])
def test_time_in_which_the_machine_keeps_it_waiting_does_not_count(machine, threads, share):
    waited = 0

    def crowded():
        nonlocal waited
        waited += round(share * 1e9)
        machine.show(CHILD, state="R", waited=waited, threads=threads)

    machine.show(CHILD, state="R", threads=threads)
    took, failure = machine.wait(Limit.of(10.0), crowded)
    assert took == 100.0, "ten times as long, by the clock"
    assert failure.model_copy(update={"log": ("x",)}).describe() == KEPT


def test_time_in_which_it_waits_for_the_disk_does_not_count(machine):
    machine.show(CHILD, state="D")
    assert machine.wait(Limit.of(10.0))[0] == 100.0


def test_short_waits_of_a_child_that_does_nothing_are_no_excuse(machine):
    waited = 0

    def woken():
        nonlocal waited
        waited += 5_000_000
        machine.show(CHILD, waited=waited)

    machine.show(CHILD)
    assert machine.wait(Limit.of(10.0), woken)[0] == 10.0


def test_only_the_time_that_was_kept_from_it_is_given_back(machine):
    waited, looks = 0, 0

    def crowded_for_20_seconds():
        nonlocal waited, looks
        looks += 1
        waited += 10**9 if 3 <= looks < 23 else 0
        machine.show(CHILD, state="R", waited=waited)

    machine.show(CHILD, state="R")
    assert machine.wait(Limit.of(10.0), crowded_for_20_seconds) == (30.0, Failure(reason="hang", seconds=10.0))


@pytest.mark.parametrize(
    "where",
    [
        {"pid": 200, "parent": CHILD, "session": 200},
        {"pid": 200, "parent": 1, "session": CHILD},
        {"pid": 300, "parent": 1, "session": 200},
    ],
    ids=["a child of it", "whose parent is gone", "in the session of a child of it"],
)
def test_what_it_has_started_is_looked_at_too(machine, where):
    machine.show(CHILD)
    machine.show(200, parent=CHILD, session=200)
    machine.show(**where, state="D")
    assert machine.wait(Limit.of(10.0))[0] == 100.0


def test_what_is_not_its_own_is_no_excuse(machine):
    machine.show(CHILD)
    machine.show(200, parent=1, session=200, state="D")
    assert machine.wait(Limit.of(10.0))[0] == 10.0


def test_both_limits_grow_with_the_model_file(tmp_path):
    file = tmp_path / "model.gguf"
    file.touch()
    for size, scale in ((1 << 20, 1), (256 << 20, 1), (512 << 20, 2), (4 << 30, 16)):
        with file.open("r+b") as opened:
            opened.truncate(size)
        limit = Limit.of(120.0, file)
        assert (limit.seconds, limit.most) == (120.0 * scale, 1200.0 * scale)
        assert limit.why == ("120 s for each 256 MB of the model file" if scale > 1 else "")
    assert Limit.of(120.0, tmp_path / "none") == Limit(120.0, 1200.0)
    assert Limit.of(10.0, patience=2.0) == Limit(10.0, 20.0)


def test_the_limit_of_a_large_file_is_said(machine, tmp_path):
    file = tmp_path / "model.gguf"
    with file.open("wb") as opened:
        opened.truncate(512 << 20)
    _, failure = machine.wait(Limit.of(1.0, file))
    assert failure.describe() == "no answer in 2 s (1 s for each 256 MB of the model file)"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it")
def test_the_real_kernel_shows_a_child_and_what_it_started(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    with Worker("tests.served:Thing", {}) as worker:
        helper = worker.call("helper")
        folders = list(patience._tasks(worker.pid))
        assert {int(folder.parents[1].name) for folder in folders} == {worker.pid, helper}
        assert all(int((folder / "schedstat").read_text().split()[1]) >= 0 for folder in folders)
