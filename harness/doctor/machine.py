"""The examination of the machine: what an engine runs on, and whether it can run here at all."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.doctor.diagnosis import Check, Diagnosis

# Distribution, and the extra that installs it.
_PACKAGES = {
    "llama-cpp-python": "llama-cpp",
    "transformers": "reference",
    "tokenizers": "reference",
    "jinja2": "doctor",
    "gguf": "doctor",
    "numpy": "",
}
_ENGINE = "llama-cpp-python"
_SYSTEM_INFO = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
_LIBRARY_TIMEOUT = 60.0
_REBUILD = "pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python"
# Less than this and the smallest models swap.
_LITTLE_MEMORY = 1 << 30

# What llama.cpp calls an instruction set, and what Linux does. Its other features are not of the processor.
_CPU_FLAGS = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
    "SME": "sme",
}

_INFLUENTIAL = re.compile(
    r"(GGML|LLAMA|HF|HUGGINGFACE|TRANSFORMERS|TOKENIZERS|OMP|KMP|GOMP|MKL|OPENBLAS|CUDA|HIP|ROCR|VK)_.*"
    r"|LD_PRELOAD|LD_LIBRARY_PATH|DYLD_.*|PYTHONPATH|TZ"
)
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
# A name need not say that the value is one: addresses carry passwords, and well-known prefixes tell.
_SECRET_VALUE = re.compile(r"://\S*[@?]|\b(hf|sk|ghp)[_-]\w{8}", re.IGNORECASE)


@dataclass(frozen=True)
class _Library:
    """How loading the engine's shared libraries in a child process ended."""

    check: Check
    system_info: str = ""


def examine_this_machine() -> Diagnosis:
    """Run every check of the machine."""
    # -P: a folder named llama_cpp in the working directory is not the installed package.
    library = _load_library([sys.executable, "-P", "-c", _SYSTEM_INFO])
    cpu = _cpu_info(_read(Path("/proc/cpuinfo")))
    checks = (
        Check(name="python", status="ok", found=f"{platform.python_implementation()} {platform.python_version()}"),
        Check(name="platform", status="ok", found=platform.platform()),
        _processor(cpu),
        _cores(),
        _memory(_read(Path("/proc/meminfo"))),
        *_packages(),
        library.check,
        _instruction_sets(library.system_info, cpu),
        _environment(os.environ),
    )
    return Diagnosis(subject="this machine", kind="environment", checks=checks)


def _read(path: Path) -> str:
    """Return a file of the Linux kernel, or nothing on another system."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_info(text: str) -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo."""
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _flags(cpu: Mapping[str, str]) -> list[str]:
    # x86 and Arm spell it differently.
    return (cpu.get("flags") or cpu.get("Features") or "").split()


def _processor(cpu: Mapping[str, str]) -> Check:
    has = [name for name, flag in _CPU_FLAGS.items() if flag in _flags(cpu)]
    if not _flags(cpu):
        return Check(name="processor", status="unobserved", found=f"{platform.machine()}; no list of instruction sets")
    model = cpu.get("model name") or platform.machine()
    return Check(name="processor", status="ok", found=f"{model} with {', '.join(has) or 'no vector instructions'}")


def _cores() -> Check:
    present = os.cpu_count()
    if present is None:
        return Check(name="cores", status="unobserved", found="the system does not say")
    # Containers and taskset allow fewer; an engine that starts a thread for each one present then slows down.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    if usable < present:
        advice = f"give the engine {usable} threads; by default it may start one for each core present"
        return Check(name="cores", status="warning", found=f"{usable} of {present} usable", advice=advice)
    return Check(name="cores", status="ok", found=str(present))


def _memory(meminfo: str) -> Check:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    if not match:
        return Check(name="memory", status="unobserved", found="the system does not say")
    available = int(match[1]) * 1024
    found = f"{available / 2**30:.1f} GiB available"
    if available < _LITTLE_MEMORY:
        return Check(name="memory", status="warning", found=found, advice="free some, or take a smaller model")
    return Check(name="memory", status="ok", found=found)


def _packages() -> Iterator[Check]:
    for package, extra in _PACKAGES.items():
        try:
            yield Check(name=package, status="ok", found=version(package))
        except PackageNotFoundError:
            target = f"'llm-stack-harness[{extra}]'" if extra else package
            yield Check(name=package, status="unobserved", found="not installed", advice=f"run: pip install {target}")


def _load_library(command: Sequence[str], timeout: float = _LIBRARY_TIMEOUT) -> _Library:
    """Load the libraries where a crash does no harm, and have them say what they were compiled for."""
    name = f"{_ENGINE} libraries"
    try:
        version(_ENGINE)
    except PackageNotFoundError:
        return _Library(Check(name=name, status="unobserved", found=f"{_ENGINE} is not installed"))
    try:
        child = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        found = f"loading them did not end within {timeout:g} seconds"
        return _Library(Check(name=name, status="bad", found=found, advice=f"install them again: {_REBUILD}"))
    if child.returncode < 0:
        found = f"loading them crashed with {_signal_name(-child.returncode)}"
        illegal = child.returncode == -signal.SIGILL
        why = "they use an instruction that this processor lacks; build them here" if illegal else "install them again"
        return _Library(Check(name=name, status="bad", found=found, advice=f"{why}: {_REBUILD}"))
    if child.returncode > 0:
        last_line = next((line for line in reversed(child.stderr.splitlines()) if line.strip()), "no message")
        found = f"they do not load: {last_line.strip()[:300]!r}"
        advice = f"check LLAMA_CPP_LIB_PATH and LD_LIBRARY_PATH, or install them again: {_REBUILD}"
        return _Library(Check(name=name, status="bad", found=found, advice=advice))
    system_info = child.stdout.strip(" |\n")
    return _Library(Check(name=name, status="ok", found=f"they load: {system_info}"), system_info)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _instruction_sets(system_info: str, cpu: Mapping[str, str]) -> Check:
    """Hold what the engine was compiled for against what the processor has."""
    name = "instruction sets"
    compiled = [feature for feature in re.findall(r"(\w+) = 1\b", system_info) if feature in _CPU_FLAGS]
    flags = _flags(cpu)
    if not system_info or not flags:
        missing = "the processor lists none" if system_info else f"{_ENGINE} does not say what it was compiled for"
        return Check(name=name, status="unobserved", found=missing)
    lacking = [feature for feature in compiled if _CPU_FLAGS[feature] not in flags]
    if lacking:
        found = f"{_ENGINE} was compiled for {', '.join(lacking)}, which this processor lacks"
        return Check(name=name, status="bad", found=found, advice=f"build it on this machine: {_REBUILD}")
    found = f"{_ENGINE} uses {', '.join(compiled) or 'none'}; the processor has them all"
    return Check(name=name, status="ok", found=found)


def _environment(variables: Mapping[str, str]) -> Check:
    shown = [_shown(name, value) for name, value in sorted(variables.items()) if _INFLUENTIAL.fullmatch(name)]
    if not shown:
        return Check(name="environment variables", status="ok", found="none that change an engine's behaviour")
    advice = "they change behaviour behind the stack's back; unset those that you did not mean"
    return Check(name="environment variables", status="warning", found=", ".join(shown), advice=advice)


def _shown(name: str, value: str) -> str:
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
        return f"{name} (value not shown)"
    return f"{name}={value[:200]!r}"
