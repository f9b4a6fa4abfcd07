"""The parent's ends of a child's two pipes: whatever goes in or comes out is under one limit of time."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Protocol

_PART = 1 << 20


class Waiting(Protocol):
    """How long may still be waited."""

    def left(self) -> float:
        """Return for how many seconds to wait before this is asked again; none are left at 0."""


class Pipes:
    """What is written to a child and read from it.

    `poll`, not `select`, which takes no descriptor above 1,023. A child that does not read is waited for no longer
    than one that does not answer.

    Args:
        writes: The descriptor to write to.
        reads: The descriptor to read from.
    """

    def __init__(self, writes: int, reads: int) -> None:
        self._writes = writes
        self._reads = reads
        os.set_blocking(writes, False)

    def close(self) -> None:
        """Close both."""
        os.close(self._writes)
        os.close(self._reads)

    def send(self, parts: Sequence[bytes], waiting: Waiting) -> None:
        """Write everything.

        Raises:
            TimeoutError: no time is left.
            BrokenPipeError: nobody reads.
        """
        for part in parts:
            left = memoryview(part)
            while left:
                _await(self._writes, select.POLLOUT, waiting)
                try:
                    left = left[os.write(self._writes, left[:_PART]) :]
                except BlockingIOError:
                    # Room for less than is written at once.
                    continue

    def read(self, size: int, waiting: Waiting) -> bytes:
        """Return exactly `size` bytes.

        Raises:
            TimeoutError: no time is left.
            EOFError: the pipe ends.
        """
        parts = bytearray()
        while len(parts) < size:
            _await(self._reads, select.POLLIN, waiting)
            part = os.read(self._reads, min(size - len(parts), _PART))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _await(descriptor: int, event: int, waiting: Waiting) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    while not poll.poll(max(0.0, waiting.left()) * 1000):
        if waiting.left() <= 0:
            raise TimeoutError
