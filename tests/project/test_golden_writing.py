"""Goldens are replaced whole: a failure, an interruption or a kill leaves the old one or the new one, accepted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.project import project as project_module
from harness.project.files import write_file
from harness.project.golden import GoldenError, Provenance, encode, load_golden, load_provenance
from harness.project.golden_writing import finish_killed, writing
from harness.project.project import Project
from tests.project.test_golden import MODEL, ROOT, content, load, make_golden, plain, record, refused_at_template

OLD, NEW = make_golden(), make_golden(seed=1)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
FORBIDDEN = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    """Nothing here outlives the machine, so nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "p"
    (root / "golden" / "cases").mkdir(parents=True)
    (root / "stacks").mkdir()
    (root / "stacks" / "models.toml").touch()
    return Project(root)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def left_of(project):
    """Return what is in the model's folder, but the empty folder that stays where its own removal fails."""
    folder = project.golden / "m"
    if not folder.exists():
        return []
    empty = (folder / ".recording").exists() and not names(folder / ".recording")
    return [name for name in names(folder) if not (empty and name == ".recording")]


def write(project, golden):
    with writing(project, "m") as writer:
        return writer.write(golden, load_provenance(project, MODEL))


def remove(project, case="c"):
    with writing(project, "m") as writer:
        return writer.remove(case, load_provenance(project, MODEL))


# Whole


def test_a_write_replaces_the_whole_folder_and_leaves_nothing_beside_it(project):
    record(project, OLD)
    refused = refused_at_template()
    write(project, refused)
    assert sorted(content(project.golden)) == ["m/c/refusal.json", "m/c/request.json", "m/provenance.toml"]
    assert names(project.golden / "m") == ["c", "provenance.toml"]
    assert plain(load(project, refused)) == plain(refused)


def test_a_removed_golden_leaves_nothing(project):
    record(project, OLD)
    assert remove(project).cases == {}
    assert remove(project).cases == {}, "it need not be there"
    assert sorted(content(project.golden)) == ["m/provenance.toml"]


def test_what_is_written_is_readable_by_others(project):
    record(project, OLD)
    assert (project.golden / "m" / "c").stat().st_mode & 0o777 == 0o755
    assert (project.golden / "m" / "provenance.toml").stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_place_of_the_models_folder(project):
    (project.golden / "m").write_text("not a folder")
    with pytest.raises(UserError) as caught, writing(project, "m"):
        pass
    path = project.golden / "m" / ".recording"
    assert str(caught.value) == f"the goldens of 'm' cannot be written: Not a directory: {path}"
    assert content(project.golden) == {"m": b"not a folder"}


# Failures


class FailingDisk:
    """Lets so many file-system steps pass, and raises at the next one. `after` None counts only."""

    STEPS = (
        (tempfile, "mkstemp"),
        (os, "fsync"),
        (shutil, "rmtree"),
        (Path, "chmod"),
        (Path, "mkdir"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "rmdir"),
    )

    def __init__(self, patch, after, error):
        self.left = after
        self.error = error
        self.seen = []
        for owner, name in self.STEPS:
            patch.setattr(owner, name, self.counted(name, getattr(owner, name)))

    def counted(self, name, real):
        def step(*arguments, **keywords):
            if self.left is not None and len(self.seen) >= self.left and self.error is not None:
                error, self.error = self.error, None
                raise error
            self.seen.append(name)
            return real(*arguments, **keywords)

        return step


def steps_of(project, action):
    """Return the steps of an action on a copy of the project."""
    copy = Project(project.root.with_name("counted"))
    shutil.copytree(project.root, copy.root)
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, None, FULL)
        action(copy)
    shutil.rmtree(copy.root)
    return disk.seen


@pytest.mark.parametrize("error", [FULL, FORBIDDEN, KeyboardInterrupt()], ids=["full", "read-only", "interrupted"])
def test_a_write_that_fails_at_any_step_leaves_the_old_golden_or_the_new_one(project, error):
    record(project, OLD)
    steps = steps_of(project, lambda copy: write(copy, NEW))
    assert steps.count("fsync") >= len(encode(NEW)) + 1, "every file, and the provenance, is brought to the disk"
    sound = project.root.with_name("sound")
    project.root.rename(sound)
    held = set()
    for step in range(len(steps)):
        shutil.copytree(sound, project.root)
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, step, error)
            try:
                write(project, NEW)
            except KeyboardInterrupt:
                said = "interrupted"
            except UserError as caught:
                said = str(caught)
                assert said.isprintable()
            else:
                said = "done"
        now = plain(load_golden(project, MODEL, NEW.case, load_provenance(project, MODEL)))
        assert now in (plain(OLD), plain(NEW))
        held.add(now == plain(NEW))
        if "old one is intact" in said:
            assert now == plain(OLD)
            assert said == f"the golden m/c cannot be written: {error.strerror}; the old one is intact"
        if "it is recorded" in said or said == "done":
            assert now == plain(NEW)
        assert left_of(project) == ["c", "provenance.toml"], (step, steps[step])
        write(project, NEW)
        assert plain(load(project, NEW)) == plain(NEW)
        shutil.rmtree(project.root)
    assert held == {False, True}


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "interrupted"])
def test_a_first_write_that_fails_at_any_step_leaves_nothing_or_the_golden(project, error):
    def first(place):
        with writing(place, "m") as writer:
            writer.write(NEW, Provenance(format=1, model_sha256=MODEL.sha256, references={}))

    for step in range(len(steps_of(project, first))):
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, step, error)
            with contextlib.suppress(UserError, KeyboardInterrupt):
                first(project)
        left = left_of(project)
        assert left in ([], ["c", "provenance.toml"]), step
        if left:
            assert plain(load(project, NEW)) == plain(NEW)
            shutil.rmtree(project.golden / "m")


def test_a_removal_that_fails_at_any_step_leaves_the_golden_or_nothing_of_it(project):
    record(project, OLD)
    steps = steps_of(project, remove)
    sound = project.root.with_name("sound")
    project.root.rename(sound)
    for step in range(len(steps)):
        shutil.copytree(sound, project.root)
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, step, FULL)
            with contextlib.suppress(UserError):
                remove(project)
        there = "c" in load_provenance(project, MODEL).cases
        assert left_of(project) == (["c"] if there else []) + ["provenance.toml"], (step, steps[step])
        if there:
            assert plain(load(project, OLD)) == plain(OLD)
        remove(project)
        assert names(project.golden / "m") == ["provenance.toml"]
        shutil.rmtree(project.root)


# Kills


def test_after_a_kill_at_any_step_every_golden_is_accepted_and_the_next_run_leaves_nothing():
    """All kinds of `harness record`, one killed process a step: see `benchmarks/kills.py`."""
    command = [sys.executable, "-m", "benchmarks.kills", "--quick", "--kills", "5"]
    found = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert found.returncode == 0, found.stdout + found.stderr
    *kinds, last = found.stdout.splitlines()
    assert last == "every golden is accepted after every kill, and the next run leaves nothing behind"
    assert [line.split(" killed")[0].rsplit(maxsplit=1)[0] for line in kinds] == [
        "record --approve new",
        "record --approve changed",
        "record --approve stale",
        "record --noise",
        "record --checksums",
    ]
    assert all(int(line.split(" killed")[0].rsplit(maxsplit=1)[1]) > 8 for line in kinds), found.stdout


def killed(project, golden=NEW, *, committed):
    """Bring about what a kill leaves after the new golden was staged: before its provenance, or just after."""
    whole = Project(project.root.with_name("whole"))
    shutil.copytree(project.root, whole.root)
    write(whole, golden)
    recording = project.golden / "m" / ".recording"
    recording.mkdir()
    shutil.copytree(whole.golden / "m" / "c", recording / "c")
    if committed:
        shutil.copy(whole.golden / "m" / "provenance.toml", project.golden / "m")
    shutil.rmtree(whole.root)
    return recording


@pytest.mark.parametrize("committed", [False, True])
def test_what_a_kill_left_is_loaded_as_it_is_and_brought_to_its_end_by_the_next_run(project, committed):
    record(project, OLD)
    recording = killed(project, committed=committed)
    (recording / ".aside").mkdir()
    (recording / ".aside" / "request.json").write_text("{")
    (recording / "d").mkdir()
    (recording / "d" / "request.json").write_text("{")
    (recording / "e").write_text("no folder")
    (recording / "f").symlink_to(project.golden / "m" / "c")
    before = content(project.root)
    held = NEW if committed else OLD
    assert plain(load(project, held)) == plain(held)
    assert content(project.root) == before, "a load writes nothing"
    finish_killed(project, "m")
    assert names(project.golden / "m") == ["c", "provenance.toml"]
    assert plain(load(project, held)) == plain(held)
    assert encode(held)["logits.npz"] == (project.golden / "m" / "c" / "logits.npz").read_bytes()


def test_what_a_kill_left_is_not_touched_where_the_provenance_cannot_be_read(project):
    record(project, OLD)
    killed(project, committed=True)
    path = project.golden / "m" / "provenance.toml"
    sound = path.read_text()
    path.write_text("<<<<<<< HEAD\n" + sound)
    before = content(project.golden)
    with pytest.raises(UserError, match="not valid TOML"), writing(project, "m"):
        pass
    finish_killed(project, "m")
    assert {name: data for name, data in content(project.golden).items() if ".lock" not in name} == before
    path.write_text(sound)
    finish_killed(project, "m")
    assert plain(load(project, NEW)) == plain(NEW)


def test_a_golden_that_is_neither_here_nor_there_is_refused(project):
    record(project, OLD)
    recording = killed(project, committed=True)
    (recording / "c" / "prompt.txt").write_bytes(b"x")
    with pytest.raises(GoldenError, match="the golden m/c is not what was recorded"):
        load(project, NEW)


def test_files_of_writes_that_were_killed_are_swept_and_nothing_else_is(project):
    record(project, OLD)
    folder = project.golden / "m"
    for name in (".noise.json.ab12_xyz.tmp", ".provenance.toml.00000000.tmp", ".keep", ".other.tmp", "notes.txt"):
        (folder / name).write_text("x")
    with writing(project, "m"):
        pass
    assert names(folder) == [".keep", ".other.tmp", "c", "notes.txt", "provenance.toml"]


def test_goldens_load_while_they_are_being_replaced(project):
    """The provenance may be read before a golden is replaced, and its files after it."""
    provenance = record(project, OLD)
    ended = threading.Event()

    def replace():
        with writing(project, "m") as writer:
            now = provenance
            for _ in range(25):
                for golden in (NEW, refused_at_template(), OLD):
                    now = writer.write(golden, now)
        ended.set()

    thread = threading.Thread(target=replace)
    thread.start()
    loads = 0
    try:
        while not ended.is_set():
            held = load_golden(project, MODEL, OLD.case, provenance)
            assert held.prompt in (OLD.prompt, refused_at_template().prompt)
            loads += 1
    finally:
        thread.join()
    assert loads > 0
    assert plain(load(project, OLD)) == plain(OLD)


def test_a_golden_that_is_replaced_between_the_looks_is_the_new_one(project):
    old = record(project, OLD)
    write(project, NEW)
    assert plain(load_golden(project, MODEL, OLD.case, old)) == plain(NEW)
    remove(project)
    with pytest.raises(GoldenError, match="case 'c' has no golden"):
        load_golden(project, MODEL, OLD.case, old)


# One at a time


HOLD = """
import sys, time
from pathlib import Path
from harness.project.golden_writing import writing
from harness.project.project import Project
with writing(Project(Path(sys.argv[1])), "m"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_do_not_write_at_once_and_a_lock_ends_with_its_process(project):
    record(project, OLD)
    said = "the goldens of 'm' are being written by another `harness record`; wait until it has ended"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(project.root)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(UserError) as caught, writing(project, "m"):
                pass
            assert str(caught.value) == said
            with writing(project, "another"):
                pass
            finish_killed(project, "m")
            assert plain(load(project, OLD)) == plain(OLD)
        finally:
            other.send_signal(signal.SIGKILL)
    assert names(project.golden / "m") == [".recording", "c", "provenance.toml"]
    with writing(project, "m"), pytest.raises(UserError) as caught, writing(project, "m"):
        pass
    assert str(caught.value) == said
    assert names(project.golden / "m") == ["c", "provenance.toml"]


def test_a_model_that_does_not_exist_yet_gets_no_folder_from_being_looked_at(project):
    with writing(project, "m"):
        pass
    finish_killed(project, "m")
    assert names(project.golden) == ["cases"]


# Where


def test_the_project_inside_the_installed_package_is_not_written(project, monkeypatch):
    record(project, OLD)
    monkeypatch.setattr(project_module, "_SHIPPED", project.root)
    before = content(project.root)
    with pytest.raises(UserError) as caught, writing(project, "m"):
        pass
    assert str(caught.value) == (
        "the project inside the installed package is not written: its goldens are those that were shipped; "
        "work in one of your own, a folder with stacks/ and golden/: harness record m --project FOLDER"
    )
    assert content(project.root) == before
    assert plain(load(project, OLD)) == plain(OLD)


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(UserError) as caught:
            write_file(path, b"x")
        assert str(caught.value) == f"{path} cannot be written: it is there and is no file; the old one is intact"
