"""Writing goldens: a kill at any moment leaves the old golden or the new one, whole and accepted.

A golden is several files, and its hash in `provenance.toml`. They change together because one step alone counts:

1. The new files are written into `golden/<model>/.recording/<case>/` and brought to the disk.
2. `provenance.toml` is replaced by one with the new hash. From here on the new golden holds: whoever loads it takes, of
   the two folders, the one with this hash.
3. The new folder takes the old one's place.

To remove a golden an empty folder stands for the new one. What a killed run has left is brought to its end by the next
one, or thrown away: `provenance.toml` tells which. Only who holds the lock in `.recording` writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from harness.errors import UserError
from harness.project.documents import read_toml, toml_key, toml_value
from harness.project.files import replace_file, sweep, sync, sync_folder
from harness.project.golden import (
    PROVENANCE,
    RECORDING,
    CaseRecord,
    Golden,
    GoldenError,
    Provenance,
    case_digest,
    checked,
    encode,
    files_digest,
    model_folder,
    read_files,
)
from harness.project.names import case_name
from harness.project.project import Project

_LOCK: Final = ".lock"
_ASIDE: Final = ".aside"
"""The folder that is being filled or removed. No case can have this name, nor that of the lock."""
_ATTEMPTS: Final = 100


@contextlib.contextmanager
def writing(project: Project, model: str) -> Iterator[GoldenWriter]:
    """Let nobody else write a model's goldens while the context is open, and bring to an end what a kill has left.

    Raises:
        UserError: somebody else writes them, they are not to be written, or `provenance.toml` cannot be read.
    """
    folder = _writable(project, model)
    recording = folder / RECORDING
    try:
        handle = _lock(recording, model)
    except OSError as error:
        raise UserError(f"the goldens of {model!r} cannot be written: {error.strerror}: {recording}") from error
    writer = GoldenWriter(folder)
    try:
        writer.recover()
        yield writer
    finally:
        # Where something could not be brought to its end, it stays for the next run.
        with contextlib.suppress(OSError):
            (recording / _LOCK).unlink()
            recording.rmdir()
            # Of a model that has no goldens yet.
            folder.rmdir()
        os.close(handle)


def finish_killed(project: Project, model: str) -> None:
    """Bring to an end what a killed run has left; nothing where there is nothing, or it cannot be done now."""
    if (model_folder(project, model) / RECORDING).exists():
        with contextlib.suppress(UserError), writing(project, model):
            pass


class GoldenWriter:
    """Writes the goldens of one model. `writing` makes it.

    Args:
        folder: The model's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recording = folder / RECORDING

    def write(self, golden: Golden, provenance: Provenance) -> Provenance:
        """Write a golden and the provenance that names it, in one step, and return that provenance.

        Raises:
            UserError: they cannot be written, or the disk is full. The error says whether the old one holds.
        """
        files = encode(golden)
        record = CaseRecord(asked=case_digest(golden.case), golden=files_digest(files))
        return self._change(checked(case_name, golden.case.name), files, provenance.with_case(golden.case.name, record))

    def remove(self, case: str, provenance: Provenance) -> Provenance:
        """Remove a golden, in one step with its entry in the provenance, and return what is left of that.

        Raises:
            UserError: it cannot be removed. The error says whether it holds.
        """
        return self._change(checked(case_name, case), {}, provenance.with_case(case, None))

    def recover(self) -> None:
        """Bring to an end, or throw away, what a killed run has left.

        Raises:
            UserError: `provenance.toml` cannot be read, or something cannot be written.
        """
        try:
            self._recover()
        except OSError as error:
            raise UserError(
                f"what a killed run has left in {self._recording} cannot be brought to its end: {error.strerror}"
            ) from error

    def _change(self, case: str, files: Mapping[str, bytes], after: Provenance) -> Provenance:
        name = f"the golden {self._folder.name}/{case}"
        held = "the old one is intact"
        try:
            self._stage(case, files)
            replace_file(self._folder / PROVENANCE, provenance_bytes(after))
            held = "it is recorded, and the next `harness record` moves it there"
            sync_folder(self._folder)
            self._settle(case)
        except BaseException as error:
            # Back or forward, as the provenance says. If that fails as well, the next run does it.
            with contextlib.suppress(OSError, UserError):
                self._recover()
            if isinstance(error, OSError):
                raise UserError(f"{name} cannot be written: {error.strerror}; {held}") from error
            raise
        return after

    def _stage(self, case: str, files: Mapping[str, bytes]) -> None:
        """Put the new golden beside the old one, whole; no files stand for none."""
        aside = self._cleared()
        aside.mkdir()
        for name, data in files.items():
            with (aside / name).open("wb") as file:
                file.write(data)
                sync(file)
        aside.chmod(0o755)
        sync_folder(aside)
        aside.rename(self._recording / case)
        sync_folder(self._recording)

    def _settle(self, case: str) -> None:
        """Put the new golden, which the provenance names, in the place of the old one."""
        new, old = self._recording / case, self._folder / case
        aside = self._cleared()
        if old.is_symlink() or old.exists():
            old.rename(aside)
        if any(new.iterdir()):
            new.rename(old)
        else:
            new.rmdir()
        sync_folder(self._folder)
        self._cleared()

    def _recover(self) -> None:
        sweep(self._folder)
        self._cleared()
        path = self._folder / PROVENANCE
        left = [one for one in self._recording.iterdir() if one.name != _LOCK]
        provenance = read_toml(path, Provenance) if left and path.exists() else None
        for new in left:
            if provenance is not None and _holds(new, provenance.cases.get(new.name)):
                self._settle(new.name)
            else:
                new.rename(self._recording / _ASIDE)
                self._cleared()

    def _cleared(self) -> Path:
        """Remove what is aside, and return where it was."""
        aside = self._recording / _ASIDE
        if aside.is_symlink() or aside.is_file():
            aside.unlink()
        elif aside.exists():
            # This follows no link.
            shutil.rmtree(aside)
        return aside


def _holds(new: Path, record: CaseRecord | None) -> bool:
    """Return whether a folder is what the provenance names: a golden, or the empty folder that stands for none."""
    if new.is_symlink() or not new.is_dir():
        return False
    if record is None:
        return not any(new.iterdir())
    try:
        return files_digest(read_files(new)) == record.golden
    except GoldenError:
        return False


def provenance_bytes(provenance: Provenance) -> bytes:
    """Return a model's provenance as a file, one sorted line a case."""
    lines = [
        "# Where these goldens come from. Written by `harness record`.",
        f"format = {provenance.format}",
        f"model_sha256 = {toml_value(provenance.model_sha256)}",
        f"template_sha256 = {toml_value(provenance.template_sha256)}",
        "",
        "[references]",
        *(f"{toml_key(key)} = {toml_value(value)}" for key, value in provenance.references.items()),
        "",
        "[cases]",
        *(
            f"{toml_key(name)} = {{ asked = {toml_value(record.asked)}, golden = {toml_value(record.golden)} }}"
            for name, record in sorted(provenance.cases.items())
        ),
    ]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _writable(project: Project, model: str) -> Path:
    """Return the folder of a model's goldens, which is part of a project that may be written.

    Raises:
        UserError: the project is the one that is shipped, or the folder is elsewhere.
    """
    folder = model_folder(project, model)
    if project.is_shipped:
        raise UserError(
            "the project inside the installed package is not written: its goldens are those that were shipped",
            f"work in one of your own, a folder with stacks/ and golden/: harness record {model} --project FOLDER",
        )
    recording = folder / RECORDING
    if not recording.resolve().is_relative_to(project.root.resolve()) or recording.is_symlink():
        raise UserError(
            f"the goldens of {model!r} are not written: {folder} leads out of the project {project.root}",
            "replace the symbolic link with a folder",
        )
    return folder


def _lock(recording: Path, model: str) -> int:
    """Take the lock in a folder, which is made, and return what must stay open to hold it. It ends with its process.

    Raises:
        UserError: another process has it.
        OSError: the folder cannot be written.
    """
    for _ in range(_ATTEMPTS):
        recording.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(recording / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            # Who had the lock has just removed the folder.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Or what was locked is a file that was just removed.
            if os.path.samestat(os.fstat(handle), (recording / _LOCK).stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            break
        except FileNotFoundError:
            pass
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    raise UserError(
        f"the goldens of {model!r} are being written by another `harness record`", "wait until it has ended"
    )
