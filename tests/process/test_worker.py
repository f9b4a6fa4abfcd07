"""The child process: what crosses the pipe, and how every way of dying, hanging and ending looks from outside."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.process.patience import Limit
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.values import Failure

ROOT = Path(__file__).parents[2]
THING = "tests.served:Thing"
FAR = 30.0
"""Seconds after which a wait in a test has failed; a healthy one takes milliseconds."""


@pytest.fixture(scope="module", autouse=True)
def _children_find_the_tests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def shared():
    """One child for all that does it no harm; whoever kills it gets a new one at the next call."""
    with Worker(THING, {"greeting": "hello"}, seconds=FAR) as worker:
        yield worker


def gone(pid):
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid):
    until = time.monotonic() + FAR
    while not gone(pid):
        assert time.monotonic() < until, f"process {pid} still runs"
        time.sleep(0.02)


def end(pid):
    """End a process that a failing test would leave behind."""
    if not gone(pid):
        os.kill(pid, signal.SIGKILL)


# What crosses the pipe


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**70,
        0.1,
        "",
        "plain",
        'quotes " and \\ and \n \r\n \t \0',
        "\u2028 \ufeff \U0001f600 e\u0301 \u202e",
        "\ud800",
        [],
        {},
        {"a": [{"b": None}, [[]], ""], "": 1},
        {"shape": [1], "dtype": "float32"},
        "x" * 300_000,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_json_comes_back_as_it_went(shared, value):
    assert shared.call("echo", value=value) == value
    assert type(shared.call("echo", value=value)) is type(value)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (7,), (2, 3), (2, 3, 4), ()])
def test_arrays_come_back_as_they_went(shared, dtype, shape):
    array = (np.arange(int(np.prod(shape)), dtype=dtype) - 2).reshape(shape)
    back = shared.call("echo", value=array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


def test_special_floats_keep_their_bits(shared):
    array = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, np.finfo(np.float32).max], np.float32)
    assert shared.call("echo", value=array).tobytes() == array.tobytes()


def test_an_array_larger_than_a_pipe_crosses_both_ways(shared):
    array = np.arange(500_000, dtype=np.int32).reshape(500, 1000)
    assert np.array_equal(shared.call("double", array=array), array * 2)


def test_arrays_arrive_in_the_child_with_type_shape_and_numbers(shared):
    sent = [np.array([[1, 2], [3, 4]], np.int32), np.zeros((0, 5), np.float32), np.array([0.5], np.float32)]
    assert shared.call("types", values=sent) == [
        ["int32", [2, 2], [1, 2, 3, 4]],
        ["float32", [0, 5], []],
        ["float32", [1], [0.5]],
    ]


def test_an_array_in_another_memory_order_keeps_its_indices(shared):
    assert shared.call("fortran").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert shared.call("echo", value=np.arange(10, dtype=np.int32)[::-3]).tolist() == [9, 6, 3, 0]


def test_several_arrays_in_one_answer_keep_their_places(shared):
    answer = shared.call("several")
    assert set(answer) == {"second", "none", "plain"}
    assert answer["plain"] is None
    assert answer["none"].shape == (0, 4)
    first, second = answer["second"]
    assert (first.dtype, first.tolist()) == (np.int32, [1])
    assert (second["deep"].dtype, second["deep"].tolist()) == (np.float32, [[1.5, 2.5]])


def test_an_array_of_another_type_breaks_the_protocol(shared):
    with pytest.raises(WorkerDiedError) as caught:
        shared.call("make", dtype="float64", shape=[2])
    assert caught.value.failure.reason == "broken"
    assert caught.value.failure.message == "an array of float64"
    assert shared.pid is None
    assert shared.call("greet") == "hello"


def test_an_object_that_looks_like_an_array_is_an_object(shared):
    assert shared.call("echo", value={"__array__": 0}) == {"__array__": 0}


# What the part raises


def test_an_exception_has_its_name_its_message_and_its_place(shared):
    before = shared.call("pid")
    with pytest.raises(RemoteError, match=r"^AwkwardError: no such\nthing$") as caught:
        shared.call("fail", message="no such\nthing")
    error = caught.value
    assert (error.error, error.message) == ("AwkwardError", "no such\nthing")
    assert "in fail" in error.traceback
    assert shared.call("pid") == before, "an ordinary error does not end the child"


def test_a_builtin_exception_and_a_wrong_call_are_ordinary_errors(shared):
    with pytest.raises(RemoteError) as caught:
        shared.call("fail_builtin")
    assert (caught.value.error, caught.value.message) == ("KeyError", "'absent'")
    with pytest.raises(RemoteError) as caught:
        shared.call("no_such_method")
    assert caught.value.error == "AttributeError"
    with pytest.raises(RemoteError) as caught:
        shared.call("greet", unknown=1)
    assert caught.value.error == "TypeError"


def test_an_error_brings_the_log(shared):
    shared.call("say", lines=["loading"])
    with pytest.raises(RemoteError) as caught:
        shared.call("fail", message="after it")
    assert caught.value.log[-1] == "raw error: loading"


def test_an_answer_that_cannot_cross_is_an_ordinary_error(shared):
    with pytest.raises(RemoteError) as caught:
        shared.call("unspeakable")
    assert (caught.value.error, caught.value.message) == ("TypeError", "set cannot cross the pipe")


def test_an_argument_that_cannot_cross_is_the_callers_error(shared):
    before = shared.call("pid")
    with pytest.raises(TypeError, match="set cannot cross the pipe"):
        shared.call("echo", value={1})
    assert shared.call("pid") == before


# What the part prints


def test_what_the_part_prints_is_its_log_and_nothing_else(capfd):
    with Worker(THING, {}, seconds=FAR) as worker:
        worker.call("say", lines=["one", "", "two"])
        assert worker.call("greet") == "hello"
        assert worker.log_tail() == (
            "one",
            "error: one",
            "raw: one",
            "raw error: one",
            "error: ",
            "raw: ",
            "raw error: ",
            "two",
            "error: two",
            "raw: two",
            "raw error: two",
        )
        worker.call("say_bytes")
        assert worker.call("greet") == "hello", "bytes that look like an answer are none on another pipe"
        assert worker.log_tail()[-1] == "\ufffd\ufffd not UTF-8"
        worker.call("say", lines=[f"{i:05}" for i in range(3000)])
        assert worker.log_tail() == tuple(
            f"{by}{i:05}" for i in (2997, 2998, 2999) for by in ("", "error: ", "raw: ", "raw error: ")
        )
        assert worker.call("read_input") == "", "it has no standard input"
    assert capfd.readouterr() == ("", "")
    assert worker.log_tail() == ()


def test_reading_the_log_does_not_move_where_the_child_writes():
    with Worker(THING, {}, seconds=FAR) as worker:
        worker.call("say", lines=["x" * 60] * 100)
        log, offset = worker._log, []
        assert log is not None

        class Watched:
            """The log, with a look at the child's position at the moment of reading."""

            def __getattr__(self, name):
                return getattr(log, name)

            def read(self):
                offset.append(os.lseek(log.fileno(), 0, os.SEEK_CUR))
                return log.read()

        worker._log = Watched()
        worker.log_tail()
        assert all(place == os.fstat(log.fileno()).st_size for place in offset)


# How it dies


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_death_by_signal_is_named_and_the_next_call_starts_anew(shared, name):
    before = shared.call("pid")
    with pytest.raises(WorkerDiedError) as caught:
        shared.call("die", name=name)
    assert caught.value.failure.model_dump(exclude={"log"}) == {
        "kind": "failure",
        "reason": "crash",
        "message": None,
        "signal": name,
        "status": None,
        "seconds": None,
    }
    assert caught.value.failure.log[-2:] == ("about to go", "the last words")
    assert str(caught.value) == f"died by {name}; last log line: the last words"
    assert gone(before)
    assert shared.pid is None
    assert shared.call("greet") == "hello"
    assert shared.pid == shared.call("pid") != before


def test_a_death_by_exit_has_its_status_and_the_object_is_made_anew(shared):
    shared.call("count")
    assert shared.call("count") > 1
    with pytest.raises(WorkerDiedError) as caught:
        shared.call("leave", status=7)
    assert caught.value.failure == Failure(reason="crash", status=7, log=("about to leave",))
    assert str(caught.value) == "exited with status 7; last log line: about to leave"
    assert shared.call("count") == 1
    with pytest.raises(WorkerDiedError) as caught:
        shared.call("leave_orderly", status=3)
    assert (caught.value.failure.reason, caught.value.failure.status) == ("crash", 3)


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="this system has no real-time signals")
def test_a_death_by_a_signal_without_a_name_is_a_death(shared):
    try:
        with pytest.raises(WorkerDiedError) as caught:
            shared.call("die_by_number", number=signal.SIGRTMIN + 3)
        assert caught.value.failure.reason == "crash"
    finally:
        shared.close()


def test_a_child_that_was_killed_between_two_calls_is_a_death_too(shared):
    shared.start()
    os.kill(shared.pid, signal.SIGKILL)
    wait_until_gone(shared.pid)
    with pytest.raises(WorkerDiedError) as caught:
        shared.call("greet")
    assert caught.value.failure.signal == "SIGKILL"
    assert shared.call("greet") == "hello"


def test_a_hang_is_ended_at_its_limit():
    with Worker(THING, {}, seconds=FAR) as worker:
        before = worker.call("pid")
        worker._limit = Limit.of(0.5)  # the start alone may take longer on a busy machine
        with pytest.raises(WorkerDiedError) as caught:
            worker.call("hang")
        assert caught.value.failure == Failure(reason="hang", seconds=0.5, log=("thinking",))
        assert str(caught.value) == "no answer in 0.5 s; last log line: thinking"
        assert gone(before)
        assert worker.pid is None


def test_a_start_that_takes_too_long_is_a_hang():
    with Worker(THING, {}, seconds=0.0) as worker:
        with pytest.raises(WorkerDiedError) as caught:
            worker.start()
        assert caught.value.failure.reason == "hang"
        assert worker.pid is None


@pytest.mark.parametrize("size", [0, 1 << 16, 10 << 20])
def test_a_child_that_is_stopped_is_ended_at_the_limit_whatever_it_is_sent(size):
    with Worker(THING, {}, seconds=FAR) as worker:
        pid = worker.call("pid")
        worker._limit = Limit.of(0.5)
        os.kill(pid, signal.SIGSTOP)
        never = threading.Timer(FAR, end, [pid])
        never.start()
        try:
            with pytest.raises(WorkerDiedError) as caught:
                worker.call("echo", value="x" * size)
        finally:
            never.cancel()
        assert (caught.value.failure.reason, caught.value.failure.seconds) == ("hang", 0.5)
        assert gone(pid)


def test_a_child_that_dies_while_it_is_sent_something_is_a_death():
    with Worker(THING, {}, seconds=FAR) as worker:
        pid = worker.call("pid")
        os.kill(pid, signal.SIGSTOP)
        killer = threading.Timer(0.5, end, [pid])
        killer.start()
        with pytest.raises(WorkerDiedError) as caught:
            worker.call("echo", value="x" * (10 << 20))
        killer.join()
        assert (caught.value.failure.reason, caught.value.failure.signal) == ("crash", "SIGKILL")


def test_more_descriptors_than_select_can_take_are_no_hindrance():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this system does not let a process open so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert opened[-1] > 1023
        with Worker(THING, {}, seconds=FAR) as worker:
            assert worker.call("echo", value="x" * 300_000) == "x" * 300_000
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_DATA")
def test_memory_beyond_the_limit_is_refused():
    with Worker(THING, {}, seconds=FAR, memory=1 << 30) as worker:
        assert worker.call("allocate", size=1 << 20) == 1 << 20
        for method, size in (("allocate", 2 << 30), ("allocate_array", 1 << 29)):
            with pytest.raises((RemoteError, WorkerDiedError)) as caught:
                worker.call(method, **{"size" if method == "allocate" else "count": size})
            if isinstance(caught.value, RemoteError):
                assert caught.value.error.endswith("MemoryError")
            else:
                assert caught.value.failure.reason == "crash"
        assert worker.call("greet") == "hello"


# Where it looks for packages


@pytest.mark.parametrize("name", ["numpy/__init__.py", "harness/__init__.py", "tests/__init__.py", "json.py"])
def test_what_lies_in_the_working_directory_is_not_imported(tmp_path, monkeypatch, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise RuntimeError('not the package')")
    monkeypatch.chdir(tmp_path)
    with Worker(THING, {}, seconds=FAR) as worker:
        assert worker.call("greet") == "hello"
        assert worker.call("started_python", code=f"import {Path(name).parts[0].removesuffix('.py')}") == 0


def test_what_the_user_put_on_the_path_is_imported(tmp_path, monkeypatch):
    (tmp_path / "users_own.py").write_text(
        "def made():\n    class Thing:\n        greet = lambda _: 'mine'\n    return Thing()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with Worker("users_own:made", {}, seconds=FAR) as worker:
        assert worker.call("greet") == "mine"


# How it starts and ends


def test_nothing_runs_before_the_first_call():
    worker = Worker(THING, {})
    assert worker.pid is None
    assert worker.log_tail() == ()
    worker.close()


def test_a_factory_that_raises_is_an_ordinary_error_of_the_start():
    worker = Worker(THING, {"fail": "no model"}, seconds=FAR)
    with pytest.raises(RemoteError) as caught:
        worker.start()
    assert (caught.value.error, caught.value.message) == ("AwkwardError", "no model")
    assert worker.pid is None
    worker.close()


def test_a_target_that_does_not_exist_is_an_ordinary_error_of_the_first_call():
    with Worker("tests.no_such_module:Thing", {}, seconds=FAR) as worker, pytest.raises(RemoteError) as caught:
        worker.call("greet")
    assert (caught.value.error, worker.pid) == ("ModuleNotFoundError", None)


def test_a_factory_that_dies_is_a_death():
    with Worker("tests.served:no_process", {"value": 9}, seconds=FAR) as worker:
        with pytest.raises(WorkerDiedError) as caught:
            worker.call("greet")
        assert (caught.value.failure.status, caught.value.failure.log) == (9, ("cannot even start",))


def test_close_leaves_no_process_and_can_be_repeated():
    worker = Worker(THING, {}, seconds=FAR)
    pid = worker.call("pid")
    assert worker.pid == pid != os.getpid()
    descriptors = psutil.Process().num_fds()
    worker.close()
    worker.close()
    assert worker.pid is None
    assert gone(pid)
    assert psutil.Process().num_fds() == descriptors - 3, "both pipes and the log are closed"
    assert worker.call("greet") == "hello", "a closed one starts again when it is called"
    worker.close()


def test_leaving_the_context_ends_the_child_whatever_happens():
    worker = Worker(THING, {}, seconds=FAR)
    pid = worker.call("pid")
    with pytest.raises(ZeroDivisionError), worker:
        raise ZeroDivisionError
    assert gone(pid)


def test_close_ends_what_the_part_started():
    with Worker(THING, {}, seconds=FAR) as worker:
        helper = worker.call("helper")
    try:
        until = time.monotonic() + 1
        while not gone(helper) and time.monotonic() < until:
            time.sleep(0.02)
        assert gone(helper)
    finally:
        end(helper)


class InterruptedByTestError(Exception):
    """What a signal's handler raises in the parent."""


def test_a_call_that_is_interrupted_never_answers_the_next_one(shared):
    def interrupt(*_):
        raise InterruptedByTestError

    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(InterruptedByTestError):
            shared.call("interrupt_parent", name="SIGUSR1", answer="the first")
        assert shared.call("greet") == "hello"
    finally:
        signal.signal(signal.SIGUSR1, old)
        shared.close()


# A log that grows


def log_size(worker):
    return os.fstat(worker._log.fileno()).st_size


def test_a_log_is_cut_at_the_next_call_when_it_has_grown_beyond_the_limit(monkeypatch):
    monkeypatch.setattr("harness.process.worker._LOG_LIMIT", 10_000)
    with Worker(THING, {}, seconds=FAR) as worker:
        worker.call("say", lines=[f"{n:0100}" for n in range(100)])
        assert log_size(worker) > 10_000
        assert worker.log_tail()[-1] == f"raw error: {99:0100}", "what was written is there until the next call"
        worker.call("greet")
        assert log_size(worker) == 0
        assert worker.log_tail() == ()
        worker.call("say", lines=["after"])
        written = b"after\nerror: after\nraw: after\nraw error: after\n"
        assert os.pread(worker._log.fileno(), 1000, 0) == written, "no hole of zeros before it"
        assert worker.log_tail() == ("after", "error: after", "raw: after", "raw error: after")


def test_a_log_within_the_limit_is_kept(monkeypatch):
    with Worker(THING, {}, seconds=FAR) as worker:
        worker.call("say", lines=["before"])
        monkeypatch.setattr("harness.process.worker._LOG_LIMIT", log_size(worker))
        worker.call("greet")
        assert worker.log_tail()[0] == "before"
        monkeypatch.setattr("harness.process.worker._LOG_LIMIT", log_size(worker) - 1)
        worker.call("greet")
        assert worker.log_tail() == ()


def test_how_a_log_began_is_kept_though_it_is_cut(monkeypatch):
    monkeypatch.setattr("harness.process.worker._LOG_LIMIT", 200)
    with Worker(THING, {}, seconds=FAR) as worker:
        assert worker.log_head() == ""
        worker.call("say", lines=["first", "x" * 300])
        began = worker.log_head()
        assert began.startswith("first\n")
        worker.call("greet")
        worker.call("say", lines=["y" * 300])
        worker.call("greet")
        assert (worker.log_tail(), worker.log_head()) == ((), began)
    with worker:
        worker.call("say", lines=["again"])
        assert worker.log_head().startswith("again\n"), "of the child that runs"


# The parent's end, and Ctrl-C

PARENT = """
import json, signal, sys, time
from harness.process.worker import Worker
signal.signal(signal.SIGINT, signal.default_int_handler)
worker = Worker("tests.served:Thing", {}, seconds=30)
def say(**what):
    sys.stdout.write(json.dumps(what) + "\\n")
    sys.stdout.flush()
say(child=worker.call("pid"))
"""


def start_parent(script):
    """Start a process with a worker of its own, in a process group of its own; return it and its child's id."""
    command = [sys.executable, "-c", PARENT + script]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)
    return parent, json.loads(parent.stdout.readline())["child"]


def finish(parent, child):
    """End both, whatever a failed test left."""
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end(child)


def test_an_idle_child_ends_by_itself_when_the_parent_is_killed():
    parent, child = start_parent("time.sleep(60)")
    try:
        assert not gone(child)
        parent.kill()
        parent.wait()
        wait_until_gone(child)
    finally:
        finish(parent, child)


def test_a_busy_child_ends_by_itself_when_the_parent_is_killed():
    parent, child = start_parent("worker.call('orphan')")
    try:
        parent.wait()
        until = time.monotonic() + 1
        while not gone(child) and time.monotonic() < until:
            time.sleep(0.02)
        assert gone(child)
    finally:
        finish(parent, child)


@pytest.mark.parametrize("then", ["time.sleep(60)", "worker.call('hang')"])
def test_what_the_part_started_ends_when_the_parent_is_killed(then):
    parent, child = start_parent(f"say(helper=worker.call('helper'))\n{then}")
    helper = json.loads(parent.stdout.readline())["helper"]
    try:
        assert not gone(helper)
        parent.kill()
        parent.wait()
        wait_until_gone(child)
        wait_until_gone(helper)
    finally:
        finish(parent, child)
        end(helper)


def test_ctrl_c_reaches_the_parent_and_not_the_child():
    script = """
try:
    say(ready=True)
    time.sleep(60)
except KeyboardInterrupt:
    say(interrupted=True, child=worker.call("pid"))
    worker.close()
"""
    parent, child = start_parent(script)
    try:
        assert json.loads(parent.stdout.readline()) == {"ready": True}
        os.killpg(parent.pid, signal.SIGINT)
        assert json.loads(parent.stdout.readline()) == {"interrupted": True, "child": child}
        assert parent.wait(FAR) == 0
        wait_until_gone(child)
    finally:
        finish(parent, child)


def test_ctrl_c_during_a_call_ends_the_child_and_the_next_call_has_a_new_one():
    script = """
try:
    worker.call("interrupt_parent", name="SIGINT", answer="the first")
except KeyboardInterrupt:
    say(left=worker.pid, greeting=worker.call("greet"))
    worker.close()
"""
    parent, child = start_parent(script)
    try:
        assert json.loads(parent.stdout.readline()) == {"left": None, "greeting": "hello"}
        assert parent.wait(FAR) == 0
        wait_until_gone(child)
    finally:
        finish(parent, child)
