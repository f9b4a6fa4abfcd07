"""A child process that does what may crash, hang or eat memory: engines, and templates of unknown origin.

Parent and child speak over two pipes of their own, so whatever the part prints on standard output or error is its log
and nothing else. A message is a JSON head, the raw bytes of the arrays that it describes, and a JSON object that they
belong into. No code and no pickled object crosses the pipe in either direction.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np

from harness.errors import ModelFileError, UserError
from harness.process import owner
from harness.process.patience import MOST, Limit, Wait
from harness.process.pipes import Pipes
from harness.process.upstream import gone
from harness.stage import StageUnobservedError
from harness.values import Failure

_LENGTH = struct.Struct("<Q")
_LOG_LINES = 12
_LOG_TAIL_BYTES = 16_384
_LOG_HEAD_BYTES = 4 << 20
"""Of its beginning: a load of 30 layers at llama.cpp's highest verbosity writes half a megabyte."""
_LOG_LIMIT = 16 << 20
"""Bytes of log after which it is begun anew: a part may be told to log much, and only the tail is evidence."""
_ARRAY_TYPES = {"float32", "int32"}
_MAX_MESSAGE = 1 << 32
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
"""The second for what the part itself starts with Python."""
_DEFAULTS = {"OMP_WAIT_POLICY": "passive"}
"""For children whose user has not said otherwise: threads that wait for each other sleep. Spinning, those of two
engines on two processors keep each other from what they spin for. It changes no number."""

Whose = Literal["part", "ours", "unobserved", "user"]
"""Whose an exception of the child is: the real part's own; ours; nobody's, as the part does not show what was to be
seen; or the user's, who can mend what it says."""


class RemoteError(Exception):
    """An ordinary exception that the called code raised in the child.

    Attributes:
        error: The exception's class name.
        message: Its text.
        traceback: Where in the child it was raised, for a defect of ours.
        log: The last lines that the child had written by then.
        whose: Whose it is; see `harness.process.owner`.
    """

    def __init__(self, error: str, message: str, traceback: str, log: tuple[str, ...], whose: Whose = "ours") -> None:
        super().__init__(f"{error}: {message}")
        self.whose = whose
        self.log = log
        self.error = error
        self.message = message
        self.traceback = traceback


class WorkerDiedError(Exception):
    """The child is gone, or was ended because it did not answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.describe())
        self.failure = failure


class Worker:
    """One child process that serves an object's methods, started at the first call and again after a death.

    Args:
        target: `package.module:factory`; called in the child with `init` as keywords, it returns the object served.
        init: JSON-able keywords.
        seconds: How long one call may take before the child is ended, by the rule of `harness.process.patience`.
        file: The model file that it works on: a larger one takes longer.
        patience: How many times its limit a child is waited for by the clock.
        memory: Bytes of private memory that the child may have, or None (`RLIMIT_DATA`: heap and anonymous mappings,
            not a mapped model file). Enforced on Linux; macOS ignores the limit.
        environment: Variables for the child beside the parent's own.
    """

    def __init__(
        self,
        target: str,
        init: Mapping[str, Any],
        *,
        seconds: float = 120.0,
        file: Path | None = None,
        patience: float = MOST,
        memory: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._target = target
        self._init = dict(init)
        self._limit = Limit.of(seconds, file, patience)
        self._memory = memory
        self._environment = {**_ENVIRONMENT, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: Pipes | None = None
        self._log: BinaryIO | None = None
        self._head = b""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when none runs."""
        return self._process.pid if self._process else None

    def wait(self) -> Wait:
        """Begin the wait for one answer that comes another way than by a call: over HTTP."""
        assert self._process is not None
        return Wait(self._limit, self._process.pid)

    def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method of the served object and return its answer.

        Raises:
            RemoteError: the method raised.
            WorkerDiedError: the child died or had to be ended; the next call starts a new one.
        """
        self.start()
        self._trim_log()
        return self._exchange({"method": method, "arguments": arguments})

    def start(self) -> None:
        """Start the child and make the served object, unless both are there.

        Raises:
            RemoteError: making the object raised.
            WorkerDiedError: the child died, or did not answer in time.
        """
        if self._process is None:
            self._spawn()
            self._exchange({"init": self._init})

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines that the child wrote to its standard output and error."""
        if self._log is None:
            return ()
        # The child writes at the position of this very file, so it must not be moved.
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
        text = tail.decode("utf-8", errors="replace")
        return tuple(line for line in text.splitlines() if line.strip())[-_LOG_LINES:]

    def log_head(self) -> str:
        """Return what the child wrote first: as it started."""
        head = self._head
        if not head and self._log is not None:
            head = os.pread(self._log.fileno(), _LOG_HEAD_BYTES, 0)
        return head.decode("utf-8", errors="replace")

    def close(self) -> None:
        """End the child. Called again, it does nothing."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if self._pipes is not None:
            self._pipes.close()
            self._pipes = None
        try:
            process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # What the part itself has started is in the child's process group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._log is not None:
            self._log.close()
            self._log = None

    def _trim_log(self) -> None:
        if self._log is not None and os.fstat(self._log.fileno()).st_size > _LOG_LIMIT:
            self._head = self._head or os.pread(self._log.fileno(), _LOG_HEAD_BYTES, 0)
            os.ftruncate(self._log.fileno(), 0)

    def _spawn(self) -> None:
        child_reads, parent_writes = os.pipe()
        parent_reads, child_writes = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._head = b""
        # The child appends, so that the log can be cut without a hole of zeros before what it writes next.
        fcntl.fcntl(self._log, fcntl.F_SETFL, fcntl.fcntl(self._log, fcntl.F_GETFL) | os.O_APPEND)
        # The working directory is not on its path (-P): a folder there may have the name of a package.
        command = [
            sys.executable,
            "-P",
            "-m",
            "harness.process.worker",
            self._target,
            str(child_reads),
            str(child_writes),
        ]
        if self._memory is not None:
            command.append(str(self._memory))
        try:
            # Its own session: Ctrl-C reaches the parent alone, which then ends the child in good order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(child_reads, child_writes),
                start_new_session=True,
                env=_DEFAULTS | os.environ | self._environment,
            )
        except BaseException:
            os.close(parent_writes)
            os.close(parent_reads)
            raise
        finally:
            os.close(child_reads)
            os.close(child_writes)
        self._pipes = Pipes(parent_writes, parent_reads)

    def _exchange(self, message: dict[str, Any]) -> Any:
        assert self._pipes is not None
        assert self._process is not None
        encoded = _encode(message)
        wait = Wait(self._limit, self._process.pid)
        try:
            self._pipes.send(encoded, wait)
            answer = _read(partial(self._pipes.read, waiting=wait))
        except TimeoutError:
            raise WorkerDiedError(self._end(wait.failure)) from None
        except (EOFError, BrokenPipeError, ConnectionError):
            raise WorkerDiedError(self._end(None)) from None
        except (ValueError, LookupError, TypeError) as error:
            raise WorkerDiedError(self._end(Failure(reason="broken", message=str(error)))) from error
        except BaseException:
            # Ctrl-C, or what a signal's handler raises. The answer may be half read: this child cannot be spoken to.
            self._kill()
            raise
        if "error" in answer:
            raised = RemoteError(
                answer["error"], answer["message"], answer["traceback"], self.log_tail(), answer["whose"]
            )
            if "init" in message:
                self.close()
            raise raised
        return answer["result"]

    def _end(self, failure: Failure | None) -> Failure:
        """Reap the child and return how it ended; without a failure given, its exit tells."""
        assert self._process is not None
        if failure is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5.0)
            code = self._process.poll()
            name = _signal_name(-code) if code is not None and code < 0 else None
            failure = Failure(reason="crash", signal=name, status=code if name is None else None)
        failure = failure.model_copy(update={"log": failure.log or self.log_tail()})
        self._kill()
        return failure

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _encode(message: Any) -> list[bytes]:
    """Return what goes through the pipe. Raises TypeError for what cannot."""
    # No text from outside can guess the key that marks an array in this message.
    mark = secrets.token_hex(8)
    arrays: list[np.ndarray[Any, Any]] = []

    def place(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {mark: len(arrays) - 1}
        raise TypeError(f"{type(value).__name__} cannot cross the pipe")

    body = json.dumps(message, default=place).encode("utf-8")
    shapes = [{"dtype": array.dtype.name, "shape": array.shape} for array in arrays]
    head = json.dumps({"mark": mark, "arrays": shapes, "size": len(body)}).encode("utf-8")
    return [_LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays), body]


def _send(pipe: BinaryIO, encoded: Sequence[bytes]) -> None:
    for part in encoded:
        pipe.write(part)
    pipe.flush()


def _read(read: Callable[[int], bytes]) -> dict[str, Any]:
    """Read a message by what reads exactly as many bytes as it is asked for."""
    head = json.loads(_part(read, _LENGTH.unpack(read(_LENGTH.size))[0]))
    arrays = [_array(read, **array) for array in head["arrays"]]
    mark = head["mark"]

    def place(value: dict[str, Any]) -> Any:
        return arrays[int(value[mark])] if mark in value else value

    message = json.loads(_part(read, head["size"]), object_hook=place if arrays else None)
    assert isinstance(message, dict)
    return message


def _part(read: Callable[[int], bytes], size: int) -> bytes:
    if size > _MAX_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    return read(size) if size else b""


def _array(read: Callable[[int], bytes], dtype: str, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    if dtype not in _ARRAY_TYPES:
        raise ValueError(f"an array of {dtype}")
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return np.frombuffer(_part(read, size), dtype=np.dtype(dtype)).reshape(shape)


def _whole(pipe: BinaryIO, size: int) -> bytes:
    """Read the child's blocking end."""
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _serve(target: str, reads: int, writes: int, memory: int | None) -> None:
    """Answer calls until the parent closes its end."""
    if memory is not None:
        import resource

        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    over = threading.Event()
    # Registered before the part is made, so it runs after whatever the part registers.
    atexit.register(_end_what_was_started, over)
    requests, answers = partial(_whole, os.fdopen(reads, "rb")), os.fdopen(writes, "wb")
    served: Any = None
    while True:
        try:
            message = _read(requests)
        except EOFError:
            over.set()
            return
        try:
            if "init" in message:
                served, result = _make(target, message["init"]), None
            else:
                result = getattr(served, message["method"])(**message["arguments"])
            encoded = _encode({"result": result})
        except Exception as error:  # noqa: BLE001 - whatever is raised is the answer
            encoded = _encode(_describe(error))
        ours = owner.noted()
        _send(answers, encoded if ours is None else _encode(_describe(ours)))


def _end_with(parent: int) -> None:
    """End this process, and what it started, when its parent is gone; while it works it does not look at its pipe."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def _end_what_was_started(over: threading.Event) -> None:
    """End what the part has started, and this process: a parent that closed its end may be gone and cannot do it."""
    if over.is_set():
        os.killpg(0, signal.SIGKILL)


def imported(target: str) -> Any:
    """Return what a name like `package.module:function` means."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _make(target: str, init: Mapping[str, Any]) -> Any:
    try:
        return imported(target)(**init)
    except Exception as error:
        if owner.is_unimportable(error, target) or isinstance(error, ModelFileError):
            # It cannot start here, or not with this file.
            owner.as_the_parts(error)
        elif missing := owner.missing_name(error, target):
            raise gone(*missing) from error
        raise


def _describe(error: Exception) -> dict[str, str]:
    import traceback

    return {
        "error": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "whose": _whose(error),
    }


def _whose(error: Exception) -> Whose:
    if owner.is_the_parts(error):
        return "part"
    if isinstance(error, StageUnobservedError):
        return "unobserved"
    return "user" if isinstance(error, UserError) else "ours"


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
