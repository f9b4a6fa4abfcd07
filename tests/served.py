"""What the child processes of these tests serve: a part that answers, misbehaves, or dies, as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np


class AwkwardError(Exception):
    """An error of the part's own."""


class Thing:
    """Misbehaves on request."""

    def __init__(self, greeting: str = "hello", fail: str = "") -> None:
        if fail:
            raise AwkwardError(fail)
        self.greeting = greeting
        self.calls = 0

    def greet(self) -> str:
        return self.greeting

    def pid(self) -> int:
        return os.getpid()

    def started_python(self, code: str) -> int:
        """How a Python that this process starts ends with some code."""
        return subprocess.run([sys.executable, "-c", code], check=False).returncode

    def count(self) -> int:
        """How often this very object was asked."""
        self.calls += 1
        return self.calls

    def echo(self, value: Any) -> Any:
        return value

    def types(self, *, values: list[Any]) -> list[list[Any]]:
        """What arrived here: the type of each array, its shape and its numbers."""
        return [[array.dtype.name, list(array.shape), array.ravel().tolist()] for array in values]

    def double(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return array * 2

    def make(self, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
        return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)

    def fortran(self) -> np.ndarray[Any, Any]:
        """An array whose memory is in another order than its indices."""
        return np.arange(6, dtype=np.int32).reshape(2, 3).T

    def several(self) -> dict[str, Any]:
        return {
            "second": [np.array([1], np.int32), {"deep": np.array([[1.5, 2.5]], np.float32)}],
            "none": np.zeros((0, 4), np.float32),
            "plain": None,
        }

    def unspeakable(self) -> Any:
        return {1, 2}

    def fail(self, message: str) -> None:
        raise AwkwardError(message)

    def fail_builtin(self) -> None:
        {}["absent"]

    def say(self, lines: list[str]) -> None:
        """Write by every way a part has."""
        for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stderr.write(f"error: {line}\n")
            os.write(1, f"raw: {line}\n".encode())
            os.write(2, f"raw error: {line}\n".encode())

    def say_bytes(self) -> None:
        os.write(1, b'\x0c\0\0\0\0\0\0\0{"result": 1}\n\xff\xfe not UTF-8\n')

    def read_input(self) -> str:
        return sys.stdin.read()

    def die(self, name: str) -> None:
        sys.stderr.write("about to go\nthe last words\n")
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)

    def die_by_number(self, number: int) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    def leave(self, status: int) -> None:
        os.write(2, b"about to leave\n")
        os._exit(status)

    def leave_orderly(self, status: int) -> None:
        sys.exit(status)

    def hang(self) -> None:
        sys.stderr.write("thinking\n")
        while True:
            time.sleep(60)

    def interrupt_parent(self, name: str, answer: str) -> str:
        """Send the parent a signal while it waits for this very answer."""
        os.kill(os.getppid(), getattr(signal, name))
        time.sleep(0.2)
        return answer

    def orphan(self) -> None:
        """Kill the parent and go on for ever."""
        os.kill(os.getppid(), signal.SIGKILL)
        self.hang()

    def allocate(self, size: int) -> int:
        return len(bytearray(size))

    def allocate_array(self, count: int) -> int:
        return int(np.ones(count, np.float32).sum())

    def helper(self) -> int:
        """Start a process that outlives its caller, as an engine's own server would."""
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid


def no_process(value: int) -> Thing:
    """A factory that kills its process before there is anything to serve."""
    sys.stderr.write("cannot even start\n")
    os._exit(value)
