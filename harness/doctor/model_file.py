"""The examination of a GGUF model file."""

from __future__ import annotations

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


def examine_model_file(path: Path) -> Diagnosis:
    """Run every check of a model file.

    Raises:
        ModelFileError: the file is missing, truncated, damaged, not GGUF or of an unknown version.
        MissingPackageError: gguf or jinja2 is not installed.
    """
    facts = Facts(read_model_file(path))
    identity = Check(name="sha256", status="ok", found=sha256_of(path))
    checks = (
        identity,
        *architecture_checks(facts),
        *loading_checks(facts),
        *template_checks(facts),
        *vocabulary_checks(facts),
        *ending_checks(facts),
        *tensor_checks(facts),
    )
    return Diagnosis(subject=str(path), kind="artifact", checks=checks)
