"""Files that are written whole or not at all, and files that grow by whole lines."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from harness.errors import UserError

_SUFFIX: Final = ".tmp"
_TEMPORARY: Final = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)


def write_file(path: Path, data: bytes) -> None:
    """Write one file in one step.

    Raises:
        UserError: it cannot be written; the old one is then untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; the old one is intact") from error


def remove_file(path: Path) -> None:
    """Remove a file that need not be there.

    Raises:
        UserError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be removed: {error.strerror}") from error


def replace_file(path: Path, data: bytes) -> None:
    """Write one file in one step, into a folder that exists, and sweep what writes of it that were killed have left.

    Raises:
        OSError: it cannot be written, or is no file; the old one is then untouched.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(None, "it is there and is no file", str(path))
    sweep(path.parent, path.name)
    with _temporary(path) as (file, temporary):
        file.write(data)
        sync(file)
        temporary.chmod(0o644)
        temporary.replace(path)


def sync(file: IO[bytes]) -> None:
    """Bring to the disk what was written into a file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring to the disk what was made, renamed and removed in a folder, on file systems that know how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Open a file beside another one that is gone afterwards if it was not renamed.

    Its lock says that somebody writes it, so that `sweep` leaves it alone; a lock ends with its process.
    """
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:
                # It was swept before it was locked.
                continue
            try:
                yield file, Path(name)
            finally:
                Path(name).unlink(missing_ok=True)
            return


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what writes that were killed have left in a folder: of one file, or of every one."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _TEMPORARY.fullmatch(entry.name)
            if found is None or name not in (None, found[1]) or not entry.is_file(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError), Path(entry.path).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(entry.path).unlink()


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file, all or none of them. A last line that a kill has cut is dropped first.

    Raises:
        UserError: they cannot be written; what was there is then as it was.
    """
    data = memoryview("".join(f"{line}\n" for line in lines).encode("utf-8"))
    try:
        with path.open("a+b", buffering=0) as file:
            end = _end_of_lines(file)
            file.truncate(end)
            try:
                while data:
                    data = data[file.write(data) :]
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; what is in it is whole",
            "make room, then go on with --resume",
        ) from error


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that `append_lines` wrote, without a last one that a kill has cut; none of no file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1].splitlines()


def _end_of_lines(file: IO[bytes]) -> int:
    """Return where the last whole line of a file ends."""
    place = file.seek(0, os.SEEK_END)
    while place:
        start = max(0, place - 65536)
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0
