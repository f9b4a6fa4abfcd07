"""What failed before: one file a subject, so that the next run tries it first."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import platformdirs
from pydantic import ValidationError

from harness.fuzz.finding import Finding
from harness.project.files import write_file
from harness.values import Value

_KEPT: Final = 200
"""Inputs kept of one subject, the youngest."""


class _Kept(Value):
    subject: str
    examples: tuple[Any, ...]


def default_folder() -> Path:
    """Return where failures are kept if nobody names a folder."""
    return Path(platformdirs.user_cache_dir("llm-stack-harness")) / "failures"


def load_failures(folder: Path, kind: str, subjects: Iterable[str]) -> dict[str, Sequence[Any]]:
    """Return the inputs that failed before, by subject. A file that is damaged is none: it only cost time to make."""
    found: dict[str, Sequence[Any]] = {}
    for subject in subjects:
        with contextlib.suppress(OSError, ValueError, ValidationError):
            found[subject] = _Kept.model_validate_json(_path(folder, kind, subject).read_bytes()).examples
    return found


def save_failures(folder: Path, kind: str, findings: Sequence[Finding], before: Mapping[str, Sequence[Any]]) -> None:
    """Keep the examples of findings beside those that failed before.

    Raises:
        UserError: they cannot be written.
    """
    for subject in {one.subject for one in findings}:
        examples = [one.example for one in findings if one.subject == subject and one.example is not None]
        every = {json.dumps(one, sort_keys=True): one for one in [*before.get(subject, ()), *examples]}
        kept = _Kept(subject=subject, examples=tuple(list(every.values())[-_KEPT:]))
        path = _path(folder, kind, subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, (kept.model_dump_json() + "\n").encode("utf-8"))


def _path(folder: Path, kind: str, subject: str) -> Path:
    return folder / kind / f"{hashlib.sha256(subject.encode('utf-8')).hexdigest()[:24]}.json"
