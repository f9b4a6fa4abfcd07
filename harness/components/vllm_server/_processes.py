"""The processes of one session and the shared memory they have open, as Linux shows them; empty elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_SHARED = "/dev/shm/"  # noqa: S108 - where Linux keeps shared memory
_STATE, _SESSION = 0, 3
"""Their places in `/proc/<pid>/stat`, counted after the name in brackets."""


def members(session: int) -> list[int]:
    """Return the processes of a session; not those that have ended and are not yet waited for."""
    found = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name may hold blanks and brackets.
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[_SESSION]) == session and fields[_STATE] != "Z":
                found.append(int(folder.name))
    return found


def shared_memory(pids: Iterable[int]) -> set[Path]:
    """Return the files of shared memory that processes have mapped."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "maps").read_text(encoding="utf-8", errors="replace").splitlines():
                path = line.partition(_SHARED)[2]
                if path and not path.endswith(" (deleted)"):
                    found.add(Path(_SHARED + path))
    return found
