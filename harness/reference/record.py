"""Recording goldens: what of the reference's is new, changed or stale beside the goldens on disk.

Importing this module needs the extra `reference`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.checking.compare.inference import divergences
from harness.project.cases import case_names, cases_for
from harness.project.golden import (
    FORMAT,
    PROVENANCE,
    Golden,
    GoldenError,
    Provenance,
    load_golden,
    load_provenance,
    model_folder,
    own_provenance,
    template_digest,
)
from harness.project.golden_writing import GoldenWriter, finish_killed, writing
from harness.project.project import Project
from harness.reference.reference import Reference
from harness.values import Case, Distributions, Generation, ModelRef

_SAME = 1e-4
"""Nats between two recordings of one distribution that count as the same: float32 sums differ with the processor."""


class Change(StrEnum):
    """What recording a case would do."""

    NEW = "new"
    CHANGED = "changed"
    STALE = "stale"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Recorded:
    """One case, recorded.

    Attributes:
        case: The case's name.
        change: What is different from the golden on disk.
        what: Which stages' values changed.
        written: Whether the golden on disk was brought up to date.
    """

    case: str
    change: Change
    what: tuple[str, ...] = ()
    written: bool = False


@dataclass
class Recording:
    """One pass over a model's cases; iterate over `run`.

    Attributes:
        approve: The kinds of change to write.
        only: The cases to record; all that are asked of the model, and those that are gone, where None.
        results: What was found so far.
    """

    project: Project
    model: ModelRef
    approve: frozenset[Change]
    only: frozenset[str] | None = None
    results: list[Recorded] = field(default_factory=list)

    def run(self, make: Callable[[ModelRef], Reference] = Reference) -> Iterator[Recorded]:
        """Record case after case. What is approved is on disk before the next case begins.

        Raises:
            UserError: a case or the model cannot be recorded, a file cannot be written, or somebody else records this
                model.
        """
        if self.approve:
            with writing(self.project, self.model.name) as writer:
                yield from self._run(make, writer)
        else:
            finish_killed(self.project, self.model.name)
            yield from self._run(make, None)

    def _run(self, make: Callable[[ModelRef], Reference], writer: GoldenWriter | None) -> Iterator[Recorded]:
        cases = cases_for(self.project, self.model.name, sorted(self.only or ()))
        with make(self.model) as reference:
            known = self._known(reference.versions())
            # Of the project's first folder: what is below is not written.
            own = self._own(known)
            for case in cases:
                golden = reference.golden(case)
                change, what = self._change(case, golden, known)
                written = writer is not None and change in self.approve and change is not Change.UNCHANGED
                if writer is not None and written:
                    own = writer.write(golden, own)
                yield self._note(Recorded(case.name, change, what, written=written))
            for name in sorted(set(own.cases) - {case.name for case in cases} if self.only is None else ()):
                if writer is not None and Change.STALE in self.approve:
                    own = writer.remove(name, own)
                yield self._note(self._stale(name))

    def _note(self, recorded: Recorded) -> Recorded:
        self.results.append(recorded)
        return recorded

    def _known(self, references: Mapping[str, str]) -> Provenance:
        """Return the provenance on disk, or an empty one where it speaks of another model."""
        fresh = Provenance(
            format=FORMAT,
            model_sha256=self.model.sha256,
            template_sha256=template_digest(self.model),
            references=dict(references),
        )
        with contextlib.suppress(GoldenError):
            return load_provenance(self.project, self.model).model_copy(update={"references": dict(references)})
        return fresh

    def _own(self, known: Provenance) -> Provenance:
        """Return what the project's first folder has of it."""
        own = Project(self.project.root)
        empty = known.model_copy(update={"cases": {}})
        if not (model_folder(own, self.model.name) / PROVENANCE).is_file():
            return empty
        with contextlib.suppress(GoldenError):
            return own_provenance(own, self.model).model_copy(update={"references": known.references})
        return empty

    def _change(self, case: Case, golden: Golden, known: Provenance) -> tuple[Change, tuple[str, ...]]:
        if case.name not in known.cases:
            return Change.NEW, ()
        try:
            old = load_golden(self.project, self.model, case, known)
        except GoldenError as error:
            # The case or the golden's files are not those that were recorded.
            return Change.CHANGED, (error.message,)
        what = _differing(old, golden)
        return (Change.CHANGED if what else Change.UNCHANGED), what

    def _stale(self, name: str) -> Recorded:
        gone = "the case is gone" if name not in case_names(self.project) else "the case is not asked of this model"
        return Recorded(name, Change.STALE, (gone,), written=Change.STALE in self.approve)


def _differing(old: Golden, new: Golden) -> tuple[str, ...]:
    """Return which values are not the same; distributions within the noise of float32 sums are."""
    what = []
    for name in ("request", "prompt", "tokens", "generation", "reply"):
        one, other = getattr(old, name), getattr(new, name)
        if type(one) is not type(other):
            what.append(name)
        elif isinstance(one, Generation):
            if one.model_dump() != other.model_dump() or not _same(one.distributions, other.distributions):
                what.append(name)
        elif one != other:
            what.append(name)
    return tuple(what)


def _same(one: Distributions | None, other: Distributions | None) -> bool:
    assert one is not None
    assert other is not None
    return bool((divergences(one, other) < _SAME).all())
