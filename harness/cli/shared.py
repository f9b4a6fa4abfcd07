"""What the commands share: exit statuses, options, the console, progress, and the files of a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.project.project import Project
    from harness.values import OwnError

CLEAN, CONVICTED, WRONG, UNJUDGED, OWN_ERROR = 0, 1, 2, 3, 4


class Format(StrEnum):
    """How a report is written to standard output."""

    TEXT = "text"
    JSON = "json"


Where = Annotated[
    Path | None,
    typer.Option("--project", help="The folder with stacks/ and golden/ in it; else the nearest upwards, else ours."),
]
As = Annotated[Format, typer.Option("--format", help="A report for a reader, or one JSON object and nothing else.")]
Cases = Annotated[list[str] | None, typer.Option("--case", help="Only this case; may be given several times.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write the report as one page that needs no network.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the report for a pull-request comment.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write the report as JUnit XML.")]
Sarif = Annotated[Path | None, typer.Option("--sarif", help="Write the report as SARIF 2.1.0.")]
Model = Annotated[str | None, typer.Option("--model", help="A model of stacks/models.toml.")]


class Outputs:
    """The files that a report is written to. Their folders are looked at before the work begins, not after it."""

    def __init__(self, package: str = "harness.report", **files: Path | None) -> None:
        """Look at the files, by kind: `html=`, `markdown=`, ...; `package` is where their writers are.

        Raises:
            UserError: a file cannot be written, or what it is made with is not installed.
        """
        self._package = package
        self._files = files
        for kind, path in self.wanted.items():
            if path.is_dir() or not path.absolute().parent.is_dir():
                raise UserError(f"no file can be written at {path}", "name a file in a folder that exists")
            self._writer(kind)

    @property
    def wanted(self) -> dict[str, Path]:
        """The files asked for, by kind."""
        return {kind: path for kind, path in self._files.items() if path is not None}

    def write(self, report: Any) -> None:
        """Write the reports asked for."""
        from harness.project.files import write_file

        for kind, path in self.wanted.items():
            write_file(path, self._writer(kind)(report).encode("utf-8"))

    def _writer(self, kind: str) -> Any:
        return writer(f"{self._package}.{kind}", f"to_{kind}", f"a report as {kind}")


def writer(module: str, function: str, what: str) -> Any:
    """Return a function of the reports.

    Raises:
        MissingPackageError: what it needs is not installed.
    """
    import importlib

    from harness.errors import MissingPackageError

    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise MissingPackageError(what, str(error.name), "report") from error


def command_line() -> str:
    """Return the command as it was typed."""
    import shlex

    return shlex.join(["harness", *sys.argv[1:]])


def print_own_errors(errors: Sequence[OwnError]) -> None:
    """Write the full report of errors of our own, and say in one line what they are and where it is."""
    from harness.report.own import line_of, write_own_report

    print(f"harness: {line_of(errors, write_own_report(command_line(), errors))}", file=sys.stderr)


def project_at(root: Path | None) -> Project:
    """Return the project in a folder, or the nearest upwards, or ours."""
    from harness.project.project import find_project

    return find_project(root)


def console() -> Any:
    """Return standard output, for a report."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


_EVERY = 30.0
"""Seconds between two lines of progress where nobody sits before a terminal."""


class _Progress:
    """Shows what is being done, in one line of a terminal that goes away before anything else is printed.

    In a log or a pipe a line is written now and then instead, so that long work is seen to go on.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        console = Console(stderr=True)
        self._status = Status("starting", console=console) if console.is_terminal else None
        self._told = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._status is not None:
            self._status.start()
            self._status.update(f"{what}  {done}/{total}")
        elif time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            print(f"harness: {what}  {done}/{total}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away; the next step shows it again."""
        if self._status is not None:
            self._status.stop()


@contextmanager
def progress_line() -> Iterator[_Progress]:
    """Show what is being done, as long as the context is open."""
    shown = _Progress()
    try:
        yield shown
    finally:
        shown.clear()
