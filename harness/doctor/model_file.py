"""The examination of a GGUF model file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.doctor.architecture import architecture_checks
from harness.doctor.diagnosis import Check, Diagnosis
from harness.doctor.ending import ending_checks
from harness.doctor.facts import Facts
from harness.doctor.loading import loading_checks
from harness.doctor.template import template_checks
from harness.doctor.tensors import tensor_checks
from harness.doctor.vocabulary import vocabulary_checks
from harness.models.gguf import read_model_file, sha256_of

# A smaller file is read in a moment, whatever is in it.
_LARGE = 1 << 30
_BLOCK = 512


def examine_model_file(path: Path) -> Diagnosis:
    """Run every check of a model file.

    Raises:
        ModelFileError: the file is missing, truncated, damaged, not GGUF or of an unknown version.
        MissingPackageError: gguf or jinja2 is not installed.
    """
    facts = Facts(read_model_file(path))
    hollow = _hollow(path)
    checks = (
        *_identity(path, hollow),
        *architecture_checks(facts),
        *loading_checks(facts),
        *template_checks(facts),
        *vocabulary_checks(facts),
        *ending_checks(facts),
        *tensor_checks(facts, readable=not hollow),
    )
    return Diagnosis(subject=str(path), kind="artifact", checks=checks)


def _hollow(path: Path) -> str:
    """Say how much of a large file is not on the disk, if that is more than half of it: it reads as zeros."""
    status = path.stat()
    held = status.st_blocks * _BLOCK
    if status.st_size <= _LARGE or held >= status.st_size / 2:
        return ""
    return f"of {status.st_size:,} bytes the disk holds {held:,}; the others are a hole"


def _identity(path: Path, hollow: str) -> Iterator[Check]:
    if hollow:
        yield Check(name="sha256", status="unobserved", found="not computed: most of the file is a hole")
        yield Check(name="size", status="bad", found=hollow, advice="a download was cut off; download the model again")
    else:
        yield Check(name="sha256", status="ok", found=sha256_of(path))
