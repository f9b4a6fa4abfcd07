from __future__ import annotations

import importlib.util
import os
import signal
import sys

import pytest

from harness.doctor import examine_machine, machine

CPU = {"model name": "Example 1", "flags": "fpu pni ssse3 avx avx2 fma"}
INFO = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | LLAMAFILE = 1 | REPACK = 1 | "


def run(code, **options):
    return machine._load_library([sys.executable, "-c", code], **options).check


def test_this_machine_is_described():
    diagnosis = examine_machine()
    found = {check.name: check for check in diagnosis.checks}
    assert len(found) == len(diagnosis.checks)
    assert diagnosis.kind == "environment"
    assert found["python"].found.endswith(sys.version.split()[0])
    assert {"platform", "processor", "cores", "memory", "llama-cpp-python", "transformers", "gguf"} <= set(found)
    assert all(check.found for check in diagnosis.checks)


def test_the_installed_engine_loads_and_suits_the_processor():
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    found = {check.name: check for check in examine_machine().checks}
    assert found["llama-cpp-python libraries"].status == "ok"
    assert found["instruction sets"].status in ("ok", "unobserved")


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(machine, "version", lambda name: "0.3.36")


@pytest.mark.usefixtures("installed")
class TestLibrary:
    def test_its_words_are_kept(self):
        library = machine._load_library([sys.executable, "-c", f"print({INFO!r})"])
        assert library.check.status == "ok"
        assert library.system_info.startswith("CPU : SSE3 = 1")

    @pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGSEGV, signal.SIGABRT])
    def test_a_crash_is_named(self, number):
        check = run(f"import os; os.kill(os.getpid(), {int(number)})")
        assert check.status == "bad"
        assert number.name in check.found
        assert ("instruction" in check.advice) == (number == signal.SIGILL)

    def test_a_real_time_signal_has_no_name(self):
        assert "signal 40" in run("import os; os.kill(os.getpid(), 40)").found

    def test_an_error_is_quoted(self):
        check = run("raise OSError('libllama.so: \\x1b[31mcannot open')")
        assert check.status == "bad"
        assert "libllama.so: \\x1b[31mcannot open" in check.found

    def test_a_silent_error_has_no_message(self):
        assert "no message" in run("raise SystemExit(3)").found

    def test_a_hang_ends(self):
        check = run("import time; time.sleep(60)", timeout=0.2)
        assert (check.status, "did not end" in check.found) == ("bad", True)


def test_an_engine_that_is_not_installed_is_unobserved(monkeypatch):
    def missing(name):
        raise machine.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", missing)
    assert run("raise AssertionError('not to be run')").status == "unobserved"
    packages = list(machine._packages())
    assert {check.status for check in packages} == {"unobserved"}
    assert "run: pip install 'llm-stack-harness[llama-cpp]'" in [check.advice for check in packages]
    assert "run: pip install numpy" in [check.advice for check in packages]


@pytest.mark.parametrize(
    ("info", "cpu", "status", "found"),
    [
        (INFO, CPU, "ok", "uses SSE3, AVX, AVX2"),
        (INFO + "AVX512 = 1 | F16C = 1", CPU, "bad", "compiled for AVX512, F16C, which this processor lacks"),
        ("AVX512 = 0 | AVX = 1", CPU, "ok", "uses AVX;"),
        ("CPU : NEON = 1 | DOTPROD = 1", {"Features": "fp asimd"}, "bad", "compiled for DOTPROD"),
        ("", CPU, "unobserved", "does not say"),
        (INFO, {}, "unobserved", "the processor lists none"),
    ],
)
def test_instruction_sets(info, cpu, status, found):
    check = machine._instruction_sets(info, cpu)
    assert (check.status, found in check.found) == (status, True), check


def test_processor():
    text = "processor : 0\nmodel name\t: Example 1\nflags : avx avx2\n\nprocessor : 1\nmodel name : Example 2\n"
    check = machine._processor(machine._cpu_info(text))
    assert (check.status, check.found) == ("ok", "Example 1 with AVX, AVX2")
    assert machine._processor(machine._cpu_info("")).status == "unobserved"


@pytest.mark.parametrize(
    ("meminfo", "status", "found"),
    [
        ("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n", "ok", "8.0 GiB available"),
        ("MemAvailable:   524288 kB\n", "warning", "0.5 GiB available"),
        ("", "unobserved", "does not say"),
    ],
)
def test_memory(meminfo, status, found):
    check = machine._memory(meminfo)
    assert (check.status, found in check.found) == (status, True), check


@pytest.mark.parametrize(("present", "usable", "status"), [(4, 4, "ok"), (4, 2, "warning"), (None, 1, "unobserved")])
def test_cores(monkeypatch, present, usable, status):
    monkeypatch.setattr(os, "cpu_count", lambda: present)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), raising=False)
    assert machine._cores().status == status


def test_variables_that_change_behaviour_are_listed():
    variables = {
        "LLAMA_ARG_CTX_SIZE": "512",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HOME": "x",
        "GGML_A": "\x1b",
    }
    check = machine._environment(variables)
    assert check.status == "warning"
    assert check.found == "GGML_A='\\x1b', HF_HUB_OFFLINE='1', LLAMA_ARG_CTX_SIZE='512', OMP_NUM_THREADS='1'"
    assert machine._environment({"HOME": "x", "EDITOR": "vi"}).status == "ok"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "sesame"),
        ("LLAMA_ARG_API_KEY", "sesame"),
        ("LLAMA_ARG_HF_TOKEN", "sesame"),
        ("HF_CLIENT_SECRET", "sesame"),
        ("HF_PASSWORD", "sesame"),
        ("HF_ENDPOINT", "https://user:sesame@example.org"),
        ("HF_ENDPOINT", "https://example.org/?a=sesame"),
        ("HF_OTHER", "hf_sesamesesame"),
    ],
)
def test_a_credential_is_never_shown(name, value):
    found = machine._environment({name: value}).found
    assert name in found
    assert "sesame" not in found
