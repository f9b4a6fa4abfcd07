"""The rows of the load stage in a verdict: what they explain of other findings is no finding of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from harness import settings as names
from harness.checking.compare.outcome import Outcome
from harness.checking.rows import Row
from harness.checking.verdict import Finding, Verdict, finding_of_row, replacing, with_rows
from harness.settings import SAMPLING
from harness.stage import Stage

_ANOTHER_MODEL: Final = (names.ARCHITECTURE, names.VOCABULARY, names.WEIGHTS, names.SIZE, names.TRAINED)
_OF_A_MODEL: Final = (names.BOS, names.EOS, names.ROPE_BASE, names.ROPE_SCALE, names.WINDOW)
_EXPLAINS: Final = frozenset({names.TEMPLATE, *_ANOTHER_MODEL})
IN_FORCE: Final = "in force though nobody asks"
"""How the note begins on what a model file sets."""


def with_load(verdict: Verdict, rows: Sequence[Row]) -> Verdict:
    """Return a verdict with the rows of the load stage.

    Another template, vocabulary or network than the declared one is the cause of what its stage did wrong, and so is a
    sampling setting of what it turned: the two are one finding, with the cases of the second.
    """
    found = with_rows(verdict, [row for row in rows if row.outcome is not Outcome.DIVERGED])
    for row in _causes(rows):
        explained = [one for one in found.findings if one.stage is row.stage and _explains(row, one)]
        finding = finding_of_row(row)
        found = replacing(found, explained, _joined(finding, explained) if explained else finding)
    return found.model_copy(update={"rows": (*verdict.rows, *rows), "notes": (*found.notes, *_notes(rows))})


def findings_of(rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Return what rows say that is wrong, where no outputs stand beside them."""
    return tuple(finding_of_row(row) for row in _causes(rows))


def _explains(row: Row, finding: Finding) -> bool:
    if row.name.startswith(SAMPLING):
        return f"setting\0{row.name.removeprefix(SAMPLING)}" in finding.difference.causes
    return row.name in _EXPLAINS and finding.evidence != row.of


def _causes(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows that diverged; of what has one cause the first, which then says all of it.

    Another model differs in more than one thing, and has a template and tokens of its own; without Jinja a template of
    the server's own is rendered.
    """
    diverged = [row for row in rows if row.outcome is Outcome.DIVERGED]
    others = sorted((row for row in diverged if row.name in _ANOTHER_MODEL), key=_place)
    has_template = any(row.name == names.TEMPLATE for row in diverged)
    without_jinja = any(row.name == names.JINJA for row in diverged)
    for row in diverged:
        if row.name == names.TEMPLATE and others:
            yield row.model_copy(update={"why": f"{row.why}; another model is loaded", "remedy": others[0].remedy})
        elif row.name == names.TEMPLATE and without_jinja:
            yield row.model_copy(update={"why": f"{row.why}; {names.JINJA} is off"})
        elif row.name in _ANOTHER_MODEL or (row.name == names.JINJA and has_template):
            continue
        elif not (others and row.name in _OF_A_MODEL):
            yield row
    for _, group in groupby(others, key=_place):
        first, *more = group
        said = [first.why, *(row.why.partition(": ")[2] for row in more)]
        yield first.model_copy(update={"why": ", ".join(said)})


def _place(row: Row) -> int:
    return list(Stage).index(row.stage)


def _joined(finding: Finding, explained: Sequence[Finding]) -> Finding:
    """Return a finding with the cases, the difference and the evidence of those that it explains."""
    shown = max(explained, key=lambda one: len(one.cases))
    places = [place for place in (finding.location, shown.location) if place is not None]
    return shown.model_copy(
        update={
            "kind": "artifact" if shown.kind == "artifact" else finding.kind,
            "summary": finding.summary,
            "cases": tuple(sorted({case for one in explained for case in one.cases})),
            "location": "; ".join(places) or None,
            "remedy": finding.remedy,
        }
    )


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what a file or a Modelfile adds to every request that does not ask for something else."""
    said = [
        f"{row.name.removeprefix(SAMPLING)} {row.found} ({row.source})"
        for row in rows
        if row.outcome is Outcome.EQUAL
        and row.found
        and (row.source.startswith("general.sampling.") or row.name == names.SYSTEM)
    ]
    if said:
        yield f"{IN_FORCE}: {', '.join(said)}"
