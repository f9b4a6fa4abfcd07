"""Campaigns: drawn, saved, resumed after a kill, run on any executor, and refused where they are damaged."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from harness.errors import UserError
from harness.inject import campaign
from harness.inject.campaign import MANIFEST, RESULTS, Manifest, Setup, load, results, run, save
from harness.inject.fault import Fault, Injection
from tests.inject.conftest import PROMPT


@pytest.fixture
def manifest(smollm) -> Manifest:
    sites = [f"l_out-{layer}/ADD" for layer in range(12)]
    faults = [Fault(kind="activation-bit", site=s, phase="first", element=3, bit=b) for s in sites for b in (3, 25)]
    setup = Setup(path=str(smollm.path), sha256=smollm.sha256, prompt=tuple(PROMPT), rows=16, threads=1)
    return Manifest(model="m", engine={}, setup=setup, seed=1, kinds=("activation-bit",), faults=tuple(faults))


@pytest.fixture
def folder(tmp_path, manifest):
    save(manifest, tmp_path / "campaign")
    return tmp_path / "campaign"


def test_a_campaign_is_run_saved_and_not_run_twice(folder, manifest, engine, monkeypatch):
    seen = []
    done = run(folder, manifest, progress=seen.append)
    assert set(done) == {fault.id for fault in manifest.faults}
    assert (seen[0], seen[-1]) == (0, len(manifest.faults))
    assert load(folder) == manifest
    assert results(folder, manifest) == done
    monkeypatch.setattr(campaign, "_Local", None)
    assert run(folder, manifest, executor=Forbidden()) == done


class Forbidden(Executor):
    def submit(self, *arguments, **keywords):
        raise AssertionError("something is run again")


def test_a_killed_campaign_goes_on_where_it_was(folder, manifest, engine):
    whole = run(folder, manifest)
    lines = (folder / RESULTS).read_text().splitlines()
    # Cut in the middle of a line, as a kill does.
    (folder / RESULTS).write_text("\n".join(lines[:8]) + "\n" + lines[8][:9])
    seen = []
    assert run(folder, manifest, progress=seen.append) == whole
    assert seen[0] == 8
    assert len((folder / RESULTS).read_text().splitlines()) == len(manifest.faults)


def test_processes_of_an_executor_give_the_same(folder, manifest, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "_CHUNK", 12)
    alone = run(folder, manifest)
    save(manifest, tmp_path / "other")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        assert run(tmp_path / "other", manifest, executor) == alone


class Losing(Executor):
    """Loses the worker of every task once, after the task was done: nobody hears of its results."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def submit(self, function, *arguments, **keywords):
        future: Future = Future()
        key = json.dumps(arguments)
        if key in self.lost:
            future.set_result(function(*arguments, **keywords))
        else:
            self.lost.add(key)
            future.set_exception(ConnectionError("the worker is gone"))
        return future


def canned(setup, faults):
    return [Injection(fault=Fault.model_validate(one).id, outcome="sdc").model_dump(mode="json") for one in faults]


def test_a_lost_worker_loses_no_result_and_nothing_is_counted_twice(folder, manifest, monkeypatch):
    monkeypatch.setattr(campaign, "in_worker", canned)
    monkeypatch.setattr(campaign, "_CHUNK", 7)
    done = run(folder, manifest, Losing())
    assert set(done) == {fault.id for fault in manifest.faults}
    assert len((folder / RESULTS).read_text().splitlines()) == len(manifest.faults)


def test_a_task_that_always_fails_ends_the_campaign_and_keeps_the_rest(folder, manifest, monkeypatch):
    def failing(setup, faults):
        if any(one["site"] == "l_out-11/ADD" for one in faults):
            raise OSError("no such file on this machine")
        return canned(setup, faults)

    class Direct(Executor):
        def submit(self, function, *arguments, **keywords):
            future: Future = Future()
            try:
                future.set_result(function(*arguments))
            except OSError as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(campaign, "in_worker", failing)
    monkeypatch.setattr(campaign, "_CHUNK", 10)
    with pytest.raises(OSError, match="no such file"):
        run(folder, manifest, Direct())
    assert len(results(folder, manifest)) == 20


@pytest.mark.parametrize(("name", "outcome"), [("SIGABRT", "due_crash"), ("SIGSTOP", "due_hang")])
def test_an_engine_that_ends_is_an_outcome_of_its_fault(folder, manifest, engine, monkeypatch, name, outcome):
    """The first fault's node ends or stops the process; the other comes out as it is."""
    monkeypatch.setenv("TEST_FAULT_SIGNAL", name)
    monkeypatch.setattr(campaign, "_PATIENCE", 60.0 if outcome == "due_crash" else 4.0)
    monkeypatch.setattr(campaign, "_SUBJECT", "tests.inject.test_campaign:deadly")
    few = manifest.model_copy(update={"faults": manifest.faults[2:4]})
    found = run(folder, few)
    assert [found[fault.id].outcome == outcome for fault in few.faults] == [True, False]


def deadly(**keywords):
    """Make a subject that does not survive a fault in layer 1's output."""
    from harness.inject.subject import Subject

    class Deadly(Subject):
        def inject(self, faults):
            if any(one["site"] == "l_out-1/ADD" and one["bit"] == 3 for one in faults):
                os.kill(os.getpid(), getattr(signal, os.environ["TEST_FAULT_SIGNAL"]))
            return super().inject(faults)

    return Deadly(**keywords)


def test_a_damaged_campaign_is_one_clear_line(folder, manifest, tmp_path):
    with pytest.raises(UserError, match="holds a campaign"):
        save(manifest, folder)
    with pytest.raises(UserError, match="holds no campaign"):
        load(tmp_path)
    (folder / RESULTS).write_text('{"fault": "x", "outcome": "sdc"}\n')
    with pytest.raises(UserError, match="line 1 is of a fault that is not in the manifest"):
        results(folder, manifest)
    (folder / RESULTS).write_text("nothing\n")
    with pytest.raises(UserError, match="line 1 is damaged"):
        results(folder, manifest)
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace('"seed"', '"sown"'))
    with pytest.raises(UserError, match="is damaged at"):
        load(folder)
