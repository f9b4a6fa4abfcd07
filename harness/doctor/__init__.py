"""Examination of what lies below the stages: the model file (an artifact) and the machine (the environment)."""

from __future__ import annotations

from pathlib import Path

from harness.doctor.diagnosis import Check, Diagnosis, Status

__all__ = ["Check", "Diagnosis", "Status", "examine", "examine_machine"]


def examine(path: Path) -> Diagnosis:
    """Examine a GGUF model file: its metadata, vocabulary, chat template and weights. Nothing of it is executed.

    Raises:
        ModelFileError: the file is missing, truncated, damaged, not GGUF or of an unknown version.
        MissingPackageError: gguf or jinja2 is not installed.
    """
    from harness.doctor.model_file import examine_model_file

    return examine_model_file(path)


def examine_machine() -> Diagnosis:
    """Examine this machine: interpreter, processor, memory, packages, the engine's libraries, the environment."""
    from harness.doctor.machine import examine_this_machine

    return examine_this_machine()
