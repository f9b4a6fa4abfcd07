"""Files made to exhaust whoever reads them. All are examined in one child process, whose memory is measured."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pytest

from tests.doctor.gguf_bytes import STRING, U8, Entry, Tensor
from tests.doctor.healthy import healthy

EXAMINE = """
import json, re, resource, sys
from pathlib import Path
from harness.doctor import examine
from harness.errors import ModelFileError
def peak():
    # What getrusage tells begins with the memory of the process that this one was forked from.
    if (status := Path("/proc/self/status")).exists():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
for line in sys.stdin:
    try:
        said = examine(Path(line.rstrip())).worst
    except ModelFileError as error:
        said = str(error)
    print(json.dumps([said, peak()]), flush=True)
"""


def entry(key, raw):
    return Entry(key, STRING, b"", raw=raw)


def counts(file):
    file.counts = 2**60, 2**60


def long_text(file):
    file.entries.append(entry(b"x", struct.pack("<IQ", STRING, 2**60)))


def long_array(file):
    file.entries.append(entry(b"x", struct.pack("<IIQ", 9, STRING, 2**60)))


def nested(file):
    file.entries.append(entry(b"x", struct.pack("<IIQ", 9, 9, 2**60) + struct.pack("<IQ", 9, 2**60) * 1000))


def large_tensor(file):
    file.tensors.append(Tensor(b"output.weight", (32, 2**55), 0, b""))


def many_numbers(file):
    file.entries.append(Entry(b"x", U8, [0] * 2_900_000, array=True))


def many_texts(file):
    file.entry("tokenizer.ggml.merges").value = [b"a b"] * 300_000


def wide_text(file):
    file.entries.append(Entry(b"x", STRING, b"a" * (60 << 20) + "\U0001f642".encode()))


def too_long_text(file):
    file.entries.append(Entry(b"x", STRING, b"a" * (65 << 20)))


def many_tensors(file):
    file.tensors = [Tensor(b"%d" % number, (1,), 0, bytes(4)) for number in range(5_000)]


def more_tensors(file):
    file.tensors = [Tensor(b"%d" % number, (1,), 0, bytes(4)) for number in range(100_001)]


def sparse_behind(file):
    """Nothing: the file is made 40 GB long."""


def sparse_text(file):
    file.entries.append(entry(b"x", struct.pack("<IQ", STRING, 20 << 30)))


def sparse_tensor(file):
    file.tensors.append(Tensor(b"output.weight", (32, 1 << 28), 0, b""))


SPARSE = (sparse_behind, sparse_text, sparse_tensor)


@pytest.fixture(scope="module")
def child():
    with subprocess.Popen(
        [sys.executable, "-c", EXAMINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        yield running
        running.stdin.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (counts, "its tables declare"),
        (long_text, "bytes are declared at byte"),
        (long_array, "its tables declare"),
        (nested, "its tables declare"),
        (large_tensor, "tensor 'output.weight' ends at byte"),
        (many_numbers, "ok"),
        (many_texts, "bad"),
        (wide_text, "ok"),
        (too_long_text, "more than 67,108,864 bytes"),
        (many_tensors, "bad"),
        (more_tensors, "its tables declare 100,001 tensors"),
        (sparse_behind, "bad"),
        (sparse_text, "more than 67,108,864 bytes"),
        (sparse_tensor, "bad"),
    ],
)
def test_a_hostile_file_takes_less_than_a_gigabyte(tmp_path, child, change, said):
    file = healthy("llama").copy()
    change(file)
    path = tmp_path / "m.gguf"
    path.write_bytes(file.encoded())
    if change in SPARSE:
        os.truncate(path, 40 << 30)
    child.stdin.write(f"{path}\n")
    child.stdin.flush()
    found, megabytes = json.loads(child.stdout.readline())
    path.unlink()
    assert said in found
    assert megabytes < 1000
