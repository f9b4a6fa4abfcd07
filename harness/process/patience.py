"""How long a child is waited for: the one rule, for workers and for the servers in them.

A limit is meant for a part that does nothing, or works on without an end, on a machine that is its own. So time in
which the machine keeps the child waiting for a processor or for the disk does not count: two checks at once are both
slower, and neither hangs. What then never ends is given up after a longer time by the clock. A larger model file takes
longer in proportion, and both limits grow with it.

The kernel tells for every thread how long it ran and how long it waited to run (`/proc/<pid>/task/<tid>/schedstat`).
Where it does not, as on macOS, all time counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.values import Failure

_PROC = Path("/proc")
_BETWEEN = 1.0
"""Seconds between two looks at the child."""
_SOON = 0.1
"""Seconds between two looks at one whose limit is near."""
_CROWDED = 0.1
"""Seconds of a second that its threads may wait for a processor, all together, on a machine that is its own."""
MOST = 10.0
"""How many times its limit a child is waited for by the clock. Spinning threads of two engines on two processors were
seen to slow each other down more than 40 times, so it is far from what a healthy one needs."""
_ORDINARY_FILE = 256 << 20
"""Bytes of a model file for which a limit is meant as it is given."""
_WAITED = 1
"""Its place in `schedstat`: nanoseconds."""
_STATE, _PARENT, _SESSION = 0, 1, 3
"""Their places in `/proc/<pid>/stat`, counted after the name in brackets."""


@dataclass(frozen=True)
class Limit:
    """A limit on one call.

    Attributes:
        seconds: How much time may count.
        most: How long the call may take by the clock, counted or not.
        why: What made the limit longer than the one that was set; empty where nothing did.
    """

    seconds: float
    most: float
    why: str = ""

    @classmethod
    def of(cls, seconds: float, file: Path | None = None, patience: float = MOST) -> Limit:
        """Return the limit that is set as `seconds`, for work on a model file, and `patience` times that in all."""
        size = file.stat().st_size if file is not None and file.is_file() else 0
        scale = max(1.0, size / _ORDINARY_FILE)
        why = f"{seconds:g} s for each {_ORDINARY_FILE >> 20} MB of the model file" if scale > 1 else ""
        return cls(seconds * scale, seconds * scale * patience, why)


class Wait:
    """The wait for one answer of a child process.

    Args:
        limit: The limit.
        pid: The child; it, its descendants and the processes of their sessions are looked at.
    """

    def __init__(self, limit: Limit, pid: int) -> None:
        self._limit = limit
        self._pid = pid
        self._begun = self._looked = time.monotonic()
        self._counted = 0.0
        self._seen: dict[int, int] | None = None

    def left(self) -> float:
        """Return for how many seconds to wait before this is asked again; none are left at 0."""
        now = time.monotonic()
        if now - self._looked >= self._pause():
            self._counted += 0.0 if self._is_kept_waiting(now - self._looked) else now - self._looked
            self._looked = now
            if self._counted >= self._limit.seconds:
                return 0.0
        return max(0.0, min(self._looked + self._pause() - now, self._begun + self._limit.most - now))

    def _pause(self) -> float:
        """Return how long after the last look the next one is due."""
        return min(_BETWEEN, max(self._limit.seconds - self._counted, min(_SOON, self._limit.seconds)))

    @property
    def failure(self) -> Failure:
        """What is said of a child whose time is over."""
        by_clock = self._counted < self._limit.seconds
        seconds = self._limit.most if by_clock else self._limit.seconds
        crowded = "the machine kept it waiting for a processor or the disk, which is waited for no longer"
        message = "; ".join(part for part in (crowded if by_clock else "", self._limit.why) if part)
        return Failure(reason="hang", seconds=seconds, message=message or None)

    def _is_kept_waiting(self, seconds: float) -> bool:
        """Whether, in the seconds since the last look, the machine kept it from going on."""
        before, self._seen = self._seen, {}
        waited, on_disk = 0, False
        for folder in _tasks(self._pid):
            with contextlib.suppress(OSError, ValueError, IndexError):
                task = int(folder.name)
                now = self._seen[task] = int((folder / "schedstat").read_text("ascii").split()[_WAITED])
                # A thread that is new has waited since it began.
                waited += now - (before or {}).get(task, 0)
                on_disk |= _fields(folder)[_STATE] == "D"
        return on_disk or (before is not None and waited > _CROWDED * seconds * 1e9)


def _tasks(pid: int) -> Iterator[Path]:
    """Yield the folder of every thread of a process, of its descendants, and of whatever shares a session with them."""
    stats: dict[int, tuple[int, int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _fields(folder)
            stats[int(folder.name)] = int(fields[_PARENT]), int(fields[_SESSION])
    members = {pid} & stats.keys()
    while True:
        sessions = {stats[one][1] for one in members}
        more = {one for one, (parent, session) in stats.items() if parent in members or session in sessions}
        if more <= members:
            break
        members |= more
    for one in members:
        with contextlib.suppress(OSError):
            yield from (_PROC / str(one) / "task").iterdir()


def _fields(folder: Path) -> list[str]:
    # The name may hold blanks and brackets.
    return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
