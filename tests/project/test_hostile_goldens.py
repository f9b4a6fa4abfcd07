"""A folder of goldens by other hands: whatever is in it is taken, or refused in one line that names the file."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from harness.checking.noise import load_noise
from harness.errors import UserError
from harness.project.golden import CaseRecord, case_digest, files_digest, load_provenance
from tests.project.test_golden import MODEL, load, make_golden, project, record, write_provenance

__all__ = ["project"]


def refused(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable(), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 1\nextra = 1", ":3: extra: Extra inputs are not permitted"),
        ("format = 1", 'format = "x"', ":2: format: Input should be 1"),
        ("format = 1", '"\\u001b[2J" = 1\nformat = 1', ": \\u001b[2J: Extra inputs are not permitted"),
        ("[cases]", "[cases]\nd = 3", ":10: cases.d: Input should be a valid dictionary or instance of CaseRecord"),
        ("[cases]", "[cases]\nd = { asked = 3, golden = [] }", ":10: cases.d.asked: Input should be a valid string"),
        ("format = 1", "format = " + "[" * 3000, ": nested too deeply to read"),
        ("format = 1", "format = ", ": not valid TOML"),
        ("format = 1", "format = 1 # " + "x" * (1 << 24), "bytes; a file of its kind has at most 16,777,216"),
    ],
)
def test_a_provenance_that_is_none(project, old, new, said):
    record(project, make_golden())
    path = project.golden / "m" / "provenance.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    message = refused(load_provenance, project, MODEL)
    assert message.startswith(str(path))
    assert said in message


def test_a_provenance_that_is_no_text_or_a_pipe(project):
    record(project, make_golden())
    path = project.golden / "m" / "provenance.toml"
    path.write_bytes(b"\xff")
    assert refused(load_provenance, project, MODEL).startswith(f"{path} cannot be read: 'utf-8' codec")
    path.unlink()
    os.mkfifo(path)
    assert refused(load_provenance, project, MODEL).startswith("no goldens for model 'm'")
    noise = project.golden / "m" / "noise.json"
    for text, said in (("{}", "at least 1 item"), ("[" * 3000, "nested too deeply"), ("[]", "valid dictionary")):
        noise.write_text(text)
        message = refused(load_noise, project, "m")
        assert message.startswith(str(noise))
        assert said in message


def test_links_in_the_place_of_goldens(project, tmp_path):
    golden = make_golden()
    record(project, golden)
    folder = project.golden / "m" / "c"
    shutil.move(folder / "prompt.txt", tmp_path / "elsewhere")
    (folder / "prompt.txt").symlink_to(tmp_path / "elsewhere")
    assert refused(load, project, golden).startswith(f"{folder / 'prompt.txt'} is a symbolic link, no golden")
    shutil.move(folder, tmp_path / "c")
    folder.symlink_to(tmp_path / "c")
    assert refused(load, project, golden).startswith(f"{folder} is a symbolic link, no golden")


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("ids.npy", "w") as entry:
        for _ in range(300):
            entry.write(bytes(1 << 20))
    return buffer.getvalue()


FLOATS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("request.json", b"{"),
        ("request.json", b"[" * 100_000),
        ("request.json", b"{}"),
        ("tokens.json", b"[]"),
        ("tokens.json", b"{}"),
        ("tokens.json", b"3"),
        ("prompt.txt", b"\xff"),
        ("reply.json", json.dumps({"content": 3}).encode()),
        ("refusal.json", b"{}"),
        ("refusal.json", b"[1]"),
        ("logits.npz", b""),
        ("logits.npz", b"PK\x03\x04"),
        ("logits.npz", npz(ids=FLOATS)),
        ("logits.npz", npz(ids=FLOATS, logprobs=FLOATS, rest=FLOATS)),
        ("logits.npz", npz(ids=FLOATS[0], logprobs=FLOATS[0], rest=FLOATS[0, 0])),
        ("logits.npz", bomb),
    ],
)
def test_files_that_are_no_golden_though_their_hash_is_right(project, name, data):
    golden = make_golden()
    provenance = record(project, golden)
    folder = project.golden / "m" / "c"
    # What takes a second to make is made where it is asked for.
    (folder / name).write_bytes(data() if callable(data) else data)
    digest = files_digest({path.name: path.read_bytes() for path in folder.iterdir()})
    made = CaseRecord(asked=case_digest(golden.case), golden=digest)
    write_provenance(project, provenance.with_case("c", made))
    message = refused(load, project, golden)
    assert message.startswith(f"the files in {folder} are no golden, though they have the hash that was recorded (")
    assert message.endswith("record it again: harness record m")
