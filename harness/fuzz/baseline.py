"""What is known to be broken already: a file that is kept beside the code, so that only what is new fails a build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from harness.fuzz.finding import Finding
from harness.project.documents import read_json
from harness.project.files import write_file
from harness.values import Value


class Known(Value):
    """A root cause that is known.

    Attributes:
        fingerprint: See `Finding.fingerprint`.
        property: The property's name, for the reader.
        path: The parts, for the reader.
        cause: The cause, for the reader.
        subjects: Which subjects show it; another one is new.
    """

    fingerprint: str
    property: str
    path: str
    cause: str
    subjects: tuple[str, ...]


class Baseline(Value):
    """All of them."""

    version: Literal[1] = 1
    findings: tuple[Known, ...] = ()


def load_baseline(path: Path) -> Baseline:
    """Return a baseline.

    Raises:
        UserError: the file is missing, or is none.
    """
    return read_json(path, Baseline)


def save_baseline(path: Path, findings: Sequence[Finding]) -> None:
    """Write a baseline that holds these findings.

    Raises:
        UserError: it cannot be written.
    """
    known = [
        Known(
            fingerprint=one.fingerprint,
            property=one.broken.name,
            path=one.broken.path,
            cause=one.broken.cause,
            subjects=tuple(sorted(one.subjects)),
        )
        for one in findings
    ]
    baseline = Baseline(findings=tuple(sorted(known, key=lambda one: one.fingerprint)))
    write_file(path, (baseline.model_dump_json(indent=1) + "\n").encode("utf-8"))


def marked(findings: Sequence[Finding], baseline: Baseline) -> list[Finding]:
    """Return the findings, those that are known marked and last."""
    known = {one.fingerprint: set(one.subjects) for one in baseline.findings}
    told = [
        one.model_copy(update={"known": set(one.subjects) <= known.get(one.fingerprint, set())}) for one in findings
    ]
    return sorted(told, key=lambda one: one.known)
