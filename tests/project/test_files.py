"""Files are written whole or not at all, and grow by whole lines, also on a disk that is full."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.project.files import append_lines, remove_file, sweep, whole_lines, write_file

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "step"), [(tempfile, "mkstemp"), (os, "fsync"), (Path, "chmod"), (Path, "replace")], ids=lambda x: str(x)
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, owner, step):
    path = tmp_path / "folder" / "file"
    write_file(path, b"old")

    def full(*_, **__):
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, full)
        with pytest.raises(UserError) as caught:
            write_file(path, b"new")
    assert str(caught.value) == f"{path} cannot be written: No space left on device; the old one is intact"
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [("file", b"old")]
    write_file(path, b"new")
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [("file", b"new")]


WRITE = """
import os, sys, time
from pathlib import Path
from harness.project import files
real = os.fsync
def wait(handle):
    print("writing", flush=True)
    time.sleep(600)
os.fsync = wait
files.write_file(Path(sys.argv[1]), b"killed")
"""


def test_what_a_killed_write_left_is_removed_by_the_next_and_not_before(tmp_path):
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "writing\n"
            write_file(path, b"new")
            assert len(list(tmp_path.iterdir())) == 2, "somebody still writes the other one"
        finally:
            other.send_signal(signal.SIGKILL)
    left = next(one for one in tmp_path.iterdir() if one != path)
    write_file(tmp_path / "another", b"x")
    assert left.exists(), "it is another file's"
    write_file(path, b"newer")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["another", "file"]


def test_only_what_was_made_here_is_swept(tmp_path):
    kept = [".x.tmp", "x.abcdefgh.tmp", ".x.abcdefg.tmp", ".x.ABCDEFGH.tmp", ".x.abcdefgh"]
    for name in (*kept, ".x.abcdefgh.tmp"):
        (tmp_path / name).touch()
    (tmp_path / ".y.abcdefgh.tmp").mkdir()
    (tmp_path / ".z.abcdefgh.tmp").symlink_to(tmp_path / ".x.tmp")
    sweep(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*kept, ".y.abcdefgh.tmp", ".z.abcdefgh.tmp"])
    sweep(tmp_path / "nowhere")


def test_lines_are_added_behind_whole_ones(tmp_path):
    path = tmp_path / "lines"
    assert whole_lines(path) == []
    append_lines(path, ["a", "\u00e9"])
    append_lines(path, [])
    assert path.read_bytes() == "a\n\u00e9\n".encode()
    for cut in (b"cut", b"x" * 200_000):
        with path.open("ab") as file:
            file.write(cut)
        assert whole_lines(path) == [b"a", "\u00e9".encode()]
        assert path.read_bytes().endswith(cut), "a reader changes nothing"
        append_lines(path, [])
        assert path.read_bytes() == "a\n\u00e9\n".encode()
    path.write_bytes(b"only a cut line")
    append_lines(path, ["b"])
    assert path.read_bytes() == b"b\n"


class Filling(io.FileIO):
    """A file on a disk with room for so many bytes more."""

    room = 0

    def write(self, data):
        if self.room == 0:
            raise FULL
        taken = min(len(data), self.room)
        Filling.room -= taken
        return super().write(data[:taken])


@pytest.mark.parametrize("room", [0, 1, 5, 9])
def test_lines_that_do_not_fit_are_not_there_at_all(tmp_path, monkeypatch, room):
    path = tmp_path / "lines"
    append_lines(path, ["first"])
    monkeypatch.setattr(Filling, "room", room)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode, buffering: Filling(self, mode.replace("b", "")))
        with pytest.raises(UserError) as caught:
            append_lines(path, ["second", "third"])
    said = "cannot be written: No space left on device; what is in it is whole; make room, then go on with --resume"
    assert str(caught.value) == f"{path} {said}"
    assert path.read_bytes() == b"first\n"
    append_lines(path, ["second"])
    assert whole_lines(path) == [b"first", b"second"]


def test_a_file_that_cannot_be_removed_is_one_line(tmp_path):
    remove_file(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be removed"):
        remove_file(tmp_path / "folder")
