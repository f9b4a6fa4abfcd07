"""Ports of servers that are started here: a free one, and whether it is really ours that answers on it.

Between the choice of a port and the start of a server another program may take it, and would be held for the server.
The kernel tells whose a listening socket is (`/proc/net/tcp`, `/proc/<pid>/fd`); where it does not, as on macOS, the
server is believed.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from harness.stage import StageUnobservedError

_PROC = Path("/proc")
_LISTENS = "0A"
_ADDRESS, _STATUS, _INODE = 1, 3, 9
"""Their places in a line of `/proc/net/tcp`."""
_PARENT = 1
"""Its place in `/proc/<pid>/stat`, counted after the name in brackets."""


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_ours(pid: int, port: int) -> None:
    """Make sure that what listens on a port is a process or a descendant of it.

    Nothing is raised where nobody listens, nor where the kernel does not tell.

    Raises:
        StageUnobservedError: another program listens there, so that nothing was seen of this one.
    """
    listening = _listening(port)
    if listening and not any(listening & _sockets(one) for one in _family(pid)):
        raise StageUnobservedError(f"another program took port {port} before the server could; run it again")


def _listening(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[_STATUS] == _LISTENS and int(fields[_ADDRESS].rpartition(":")[2], 16) == port:
                    found.add(fields[_INODE])
    return found


def _sockets(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for link in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _family(pid: int) -> set[int]:
    """Return a process and its descendants."""
    parents = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name may hold blanks and brackets.
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[_PARENT])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
