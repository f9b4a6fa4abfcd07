"""What the commands that search share: options, what failed before, the baseline, the report and the exit status."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.cli.shared import CLEAN, CONVICTED, UNJUDGED, Format, Outputs, console
from harness.errors import MissingPackageError, UserError

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding

Only = Annotated[list[str] | None, typer.Option("--only", help="Only this property; may be repeated.")]
Examples = Annotated[
    int | None, typer.Option("--examples", min=0, help="Made-up inputs for each subject, beside the fixed ones.")
]
Seconds = Annotated[float | None, typer.Option("--seconds", min=1, help="Stop making up inputs after so many seconds.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed makes the same inputs.")]
Again = Annotated[
    str | None, typer.Option("--example", metavar="JSON", help="Try this one input instead: JSON, or a file with it.")
]
BaselineFile = Annotated[
    Path | None, typer.Option("--baseline", help="What is broken already: only what is not in this file fails.")
]
Write = Annotated[Path | None, typer.Option("--write-baseline", help="Write what is broken now into this file.")]
Database = Annotated[
    Path | None,
    typer.Option("--database", metavar="FOLDER", help="Keep what fails here, and try it first; else in the cache."),
]
_LONGEST = 1 << 20


@dataclass
class Memory:
    """What failed before, by subject, and the findings to keep when the search ends."""

    failed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    findings: Sequence[Finding] = ()


def needs_hypothesis() -> None:
    """Say what is missing where inputs cannot be made up.

    Raises:
        MissingPackageError: Hypothesis is not installed.
    """
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("making up inputs", "hypothesis", "fuzz") from error


@contextmanager
def remembered(folder: Path | None, kind: str, subjects: Sequence[str]) -> Iterator[Memory]:
    """Give what failed before, and keep what fails now."""
    from harness.fuzz.failures import default_folder, load_failures, save_failures

    place = folder or default_folder()
    memory = Memory(load_failures(place, kind, subjects))
    yield memory
    try:
        save_failures(place, kind, memory.findings, memory.failed)
    except (OSError, UserError) as error:
        if folder is not None:
            raise
        # The cache that nobody asked for only costs time when it cannot be written.
        print(f"harness: what failed was not kept: {error}", file=sys.stderr)


def example_of(text: str) -> Any:
    """Return an input out of JSON, or out of a file.

    Raises:
        UserError: it is neither.
    """
    try:
        if not text.lstrip().startswith(("{", "[", '"')):
            path = Path(text)
            if path.stat().st_size > _LONGEST:
                raise UserError(f"{path} is too large for an input")
            text = path.read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--example is no JSON and no file with it: {error}") from None


def again(finding: Finding, words: Sequence[str], call: str, given: str) -> dict[str, str]:
    """Return the command and the pytest function that try a finding's example again.

    Args:
        finding: The finding.
        words: The command, without its example.
        call: The call of `harness.fuzz` that does the same.
        given: The name that the example has in it.
    """
    command = [*words, "--example", json.dumps(finding.example, ensure_ascii=True)]
    function = f"test_{finding.broken.name.replace('-', '_')}_{finding.fingerprint[:8]}"
    test = (
        f"from harness.fuzz import {call.partition('(')[0]}\n\n\n"
        f"def {function}():\n"
        f'    """{finding.sentence[0].upper()}{finding.sentence[1:]}."""\n'
        f"    {given} = {finding.example!a}\n"
        f"    assert {call} == []\n"
    )
    return {"command": shlex.join(command), "test": test}


def concluded(
    *,
    baseline: Path | None,
    write_baseline: Path | None,
    outputs: Outputs,
    form: Format,
    seed: int,
    findings: Sequence[Finding],
    unjudged: bool = False,
    **report: Any,
) -> NoReturn:
    """Write and print the report, and end with the status: new findings are convictions.

    Args:
        baseline: The file with what is broken already.
        write_baseline: Where to write what is broken now.
        outputs: The files that are asked for.
        form: What is printed.
        seed: The seed.
        findings: What is broken.
        unjudged: Whether something could not be judged: then nothing new is not clean.
        report: What else the report holds.

    Raises:
        typer.Exit: always.
        UserError: a file is wrong, or cannot be written.
    """
    from harness.fuzz.baseline import load_baseline, marked, save_baseline
    from harness.fuzz.finding import FuzzReport
    from harness.report import machine
    from harness.report.fuzz.console import print_report

    told = list(findings) if baseline is None else marked(findings, load_baseline(baseline))
    made = FuzzReport(findings=tuple(told), **report)
    if write_baseline is not None:
        save_baseline(write_baseline, told)
    outputs.write(made)
    judged = any(made.held.values()) or (made.mutation is not None and made.mutation.total.tried > 0)
    status = CONVICTED if made.new else CLEAN if judged and not unjudged else UNJUDGED
    if form is Format.JSON:
        print(machine.to_json(machine.FINDINGS, exit_status=status, seed=seed, report=made))
    else:
        print_report(console(), made)
    raise typer.Exit(status)
