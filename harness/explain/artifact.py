"""Whether a stage is wrong or the file that it was given: what the reference makes of the very file that is served.

A golden holds for one exact file. Where another one is served, the part may do what that file says and diverge all the
same. Where the golden's own file is at hand and the stack can be opened again, it is swapped in: a part that then has
it, by its hash, and is right was given a wrong file, which is an `artifact`. Otherwise the reference of the convicted
stage is made anew over the file that is served and asked for the same cases: a part that does what the reference does
is right, and the file is wrong.

A file that is not the golden's is always said, and convicts where it holds another network or a strict check was asked
for, unless the stack is around another file on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.checking.compare.inference import divergences
from harness.checking.compare.outcome import Comparison, Difference, Outcome
from harness.checking.judge import Judge
from harness.checking.opened import judge_of
from harness.checking.own import OwnSeenError
from harness.checking.running import RunningStack, around_its_model, open_stack
from harness.checking.trace import Run, Trace, Tracer
from harness.checking.verdict import Finding, Verdict, adding, with_findings
from harness.errors import MissingPackageError, UserError
from harness.explain.served import SERVED, SHOWN, OtherFile, by_stage, other_files, served_file, told_file
from harness.models.cache import remembered_sha256
from harness.models.file_difference import FileDifference, difference
from harness.models.gguf import read_metadata
from harness.project.golden import Golden, GoldenError, load_provenance
from harness.project.project import Project
from harness.project.stack import Stack, resolve_model
from harness.stage import Stage
from harness.values import Failure, Generation, ModelRef, Refusal

if TYPE_CHECKING:
    from harness.reference.reference import Reference

_STAGES: Final = (Stage.TEMPLATE, Stage.TOKENIZATION, Stage.INFERENCE, Stage.POSTPROCESS)
_NOT_SWAPPED: Final = "the golden's own file could not be swapped in"
_TRIED: Final = 2
"""How many cases of a finding about the engine's numbers are asked of the reference: each takes about a second."""

Reopen = Callable[[ModelRef], AbstractContextManager[RunningStack]]
"""Opens a stack around a model, with everything else as it is but a component's own choice of a file."""


def reopening(stack: Stack) -> Reopen:
    """Return what opens a stack around another file."""
    return lambda model: open_stack(around_its_model(stack), model)


class Inspector:
    """Tells a wrong file from a wrong part. Nothing is read unless a stage is convicted around another file.

    Args:
        project: Where the goldens are.
        strict: Whether any file that is not the golden's is convicted, whatever it differs in.
    """

    def __init__(self, project: Project, *, strict: bool = False) -> None:
        self._project = project
        self._strict = strict
        self._differences: dict[tuple[str, str], FileDifference | None] = {}
        self._references: dict[tuple[Path, str], Reference] = {}

    def close(self) -> None:
        """End what the references have started."""
        for reference in self._references.values():
            reference.close()
        self._references.clear()

    def verdict(
        self,
        verdict: Verdict,
        running: RunningStack,
        goldens: Mapping[str, Golden],
        reopen: Reopen | None = None,
    ) -> Verdict:
        """Return a verdict whose findings say where the file is wrong and not the part.

        Its first notes name the files that are served and are not the golden's. Where nothing is convicted at the
        engine and its weights are not the golden's, that is a finding of its own; so is any other file, where the
        check is strict.

        Args:
            verdict: The verdict.
            running: The stack, still open.
            goldens: By case.
            reopen: Opens the same stack around another file.

        Raises:
            UserError: the goldens' folder is damaged.
        """
        found = [self._inspected(finding, running, goldens, reopen) for finding in verdict.findings]
        verdict = verdict if found == list(verdict.findings) else with_findings(verdict, found)
        notes = []
        for other in other_files(running):
            differs = self._difference(running, other.path, other.digest)
            notes.append(_note(other, differs, running.purpose))
            if not running.purpose:
                for finding in self._of_the_file(other, differs, goldens):
                    if all(one.stage is not finding.stage for one in verdict.findings):
                        verdict = adding(verdict, finding)
        return verdict.model_copy(update={"notes": (*notes, *verdict.notes)}) if notes else verdict

    def _of_the_file(
        self, other: OtherFile, differs: FileDifference | None, goldens: Mapping[str, Golden]
    ) -> Iterator[Finding]:
        """Yield what a file that is not the golden's is convicted of by itself, a finding a stage."""
        if self._strict:
            for stage, part in by_stage(differs or FileDifference((), ()), other.stages).items():
                what = f": {part.describe()}" if differs is not None else ""
                yield _file_finding(stage, f"the file that is served is not the golden's{what}", goldens)
        elif differs is not None and Stage.INFERENCE in other.stages:
            settings = f"{read_metadata(other.path).get('general.architecture')}."
            if differs.tensors or any(key.startswith(settings) for key in differs.keys):
                said = f"the file that is served holds another network than the golden's: {differs.describe()}"
                yield _file_finding(Stage.INFERENCE, said, goldens)

    def _difference(self, running: RunningStack, path: Path, digest: str) -> FileDifference | None:
        """Return what a file differs in from the golden's; None where they cannot be held against each other."""
        key = digest, running.golden_model.name
        if key not in self._differences:
            original = self._original(running)
            try:
                self._differences[key] = None if original is None or not digest else difference(original, path)
            except (UserError, OSError):
                self._differences[key] = None
        return self._differences[key]

    def _original(self, running: RunningStack) -> Path | None:
        """Return the golden's own file, if it is at hand."""
        try:
            return resolve_model(self._project, running.golden_model.name).path
        except UserError:
            return None

    def _inspected(
        self, finding: Finding, running: RunningStack, goldens: Mapping[str, Golden], reopen: Reopen | None
    ) -> Finding:
        if finding.stage not in _STAGES or finding.evidence != "isolated":
            return finding
        path = served_file(running, finding.stage)
        try:
            digest = remembered_sha256(path)
            if digest == running.golden_model.sha256 or not self._around_the_goldens_template(running):
                return finding
            original = self._original(running)
            swapped = original is not None and reopen is not None
            if original is not None and reopen is not None:
                same, why = self._with_the_original(finding, running, goldens, original, reopen)
                if same is None:
                    kept, more = self._as_the_reference(finding, running, goldens, path)
                    same, why = kept, f"{why}, {more}"
            else:
                same, why = self._as_the_reference(finding, running, goldens, path)
        except OSError as error:
            return finding.model_copy(
                update={"location": f"the file that is served cannot be read here ({error.strerror})"}
            )
        file = (
            "the file that is served is not the golden's "
            f"(SHA-256 {digest[:SHOWN]}... instead of {running.golden_model.sha256[:SHOWN]}...)"
        )
        differs = self._difference(running, path, digest) if swapped else None
        if differs is not None:
            file += f": {differs.describe()}"
        kind = "artifact" if same else finding.kind
        return finding.model_copy(update={"kind": kind, "location": f"{file}, {why}"})

    def _with_the_original(
        self,
        finding: Finding,
        running: RunningStack,
        goldens: Mapping[str, Golden],
        original: Path,
        reopen: Reopen,
    ) -> tuple[bool | None, str]:
        """Return whether the same part is right with the golden's own file, and that in words.

        None where that file was not really served, or the part then shows nothing: nothing follows from it.
        """
        golden = running.golden_model.sha256
        try:
            with reopen(running.model.model_copy(update={"path": original, "sha256": golden})) as opened:
                # Its noise is that of the model that the goldens are of.
                other = replace(opened, held_against=running.golden_model)
                served = told_file(other, finding.stage)
                if served is None:
                    return None, f"{_NOT_SWAPPED}: the part does not say which file it then serves"
                digest = remembered_sha256(served)
                if digest != golden:
                    return None, f"{_NOT_SWAPPED}: what is then served has SHA-256 {digest[:SHOWN]}..."
                judge = judge_of(self._project, other)
                for case in finding.cases[:_TRIED]:
                    trace = _traced(other, finding.stage, goldens[case])
                    comparison = _sound(judge.isolated(finding.stage, goldens[case], trace))
                    if comparison.outcome is Outcome.UNOBSERVED:
                        return None, f"with the golden's own file the part shows nothing: {comparison.rule}"
                    if comparison.outcome.bad:
                        return False, "but with the golden's the same part is wrong too"
        except (UserError, OSError) as error:
            return None, f"{_NOT_SWAPPED}: {error}"
        return True, "and with the golden's the same part is right"

    def _around_the_goldens_template(self, running: RunningStack) -> bool:
        """Whether a template that replaces the file's own is the one that the goldens were made with."""
        try:
            template = running.model.chat_template
            load_provenance(self._project, running.golden_model.model_copy(update={"chat_template": template}))
        except GoldenError:
            return False
        return True

    def _as_the_reference(
        self, finding: Finding, running: RunningStack, goldens: Mapping[str, Golden], path: Path
    ) -> tuple[bool, str]:
        """Return whether the part does what the reference does with this file, and that in words."""
        try:
            reference = self._reference(running, path)
            judge = judge_of(self._project, running)
            cases = finding.cases[:_TRIED] if finding.stage is Stage.INFERENCE else finding.cases
            for case in cases:
                trace = _traced(running, finding.stage, goldens[case])
                observed = trace.output(Run.ISOLATED, finding.stage)
                if isinstance(observed, Failure) and observed.reason == "start":
                    return _refused(reference, finding.stage, goldens[case], path)
                expected = reference.again(finding.stage, goldens[case])
                if _sound(judge.isolated(finding.stage, expected, trace)).outcome is Outcome.UNOBSERVED:
                    return False, "and whether the part does what its file says cannot be seen"
                if not _agree(judge, finding.stage, expected, trace):
                    return (
                        False,
                        "but the reference makes something else of it: the part does not do what its file says",
                    )
        except MissingPackageError as error:
            return False, f"and whether the part does what its file says cannot be said: {error}"
        except UserError as error:
            return False, f"and what the reference would make of it is not known: {_told(error, path)}"
        return True, "and the reference makes the same of it: the part does what its file says"

    def _reference(self, running: RunningStack, path: Path) -> Reference:
        key = (path, remembered_sha256(path))
        if key not in self._references:
            # One at a time: each holds the weights of a file.
            self.close()
            try:
                from harness.reference.reference import Reference
            except ImportError as error:
                raise MissingPackageError("the reference", str(error.name), "reference") from error
            model = running.model.model_copy(update={"path": path})
            self._references[key] = Reference(model, finite=False)
        return self._references[key]


def _note(other: OtherFile, differs: FileDifference | None, purpose: str) -> str:
    unknown = "what it differs in cannot be said, as one of them is not at hand"
    what = unknown if differs is None else differs.describe()
    return f"{SERVED}: {other.describe()}: {what}{f'; {purpose}' if purpose else ''}"


def _file_finding(stage: Stage, summary: str, goldens: Mapping[str, Golden]) -> Finding:
    return Finding(
        stage=stage,
        kind="artifact",
        summary=summary,
        cases=tuple(sorted(goldens)),
        example=next(iter(goldens)),
        difference=Difference(summary=summary, causes=("file",), kind="artifact"),
        evidence="file",
    )


def _traced(running: RunningStack, stage: Stage, golden: Golden) -> Trace:
    runs = (Run.ISOLATED, Run.ISOLATED_STREAM) if stage is Stage.POSTPROCESS else (Run.ISOLATED,)
    return Tracer(running).trace(golden, runs, (stage,))


def _refused(reference: Reference, stage: Stage, golden: Golden, path: Path) -> tuple[bool, str]:
    """Return whether the reference cannot take a file either with which a part does not start, and that in words."""
    try:
        if stage is not Stage.TEMPLATE:
            reference.load()
        elif isinstance(prompt := reference.again(stage, golden).prompt, Refusal):
            return True, f"and the reference does not take it either: {prompt.error}: {prompt.message}"
    except UserError as error:
        return True, f"and the reference does not take it either: {_told(error, path)}"
    return False, "but the reference takes it: this part cannot, or not here"


def _told(error: UserError, path: Path) -> str:
    return error.message.replace(str(path), "the file")


def _agree(judge: Judge, stage: Stage, expected: Golden, trace: Trace) -> bool:
    """Return whether a stage did what is expected, numbers within the noise."""
    observed = trace.output(Run.ISOLATED, stage)
    if stage is Stage.INFERENCE and isinstance(observed, Generation) and isinstance(expected.generation, Generation):
        broken = _broken(observed)
        if len(broken):
            return _broken_alike(expected.generation, observed, broken, judge)
    return _is_right(judge, stage, expected, trace)


def _is_right(judge: Judge, stage: Stage, golden: Golden, trace: Trace) -> bool:
    comparison = _sound(judge.isolated(stage, golden, trace))
    return not comparison.outcome.bad and comparison.outcome is not Outcome.UNOBSERVED


def _sound(comparison: Comparison) -> Comparison:
    """Return a comparison, unless code of ours raised in it: then nothing follows.

    Raises:
        OwnSeenError: it did.
    """
    if comparison.error is not None:
        raise OwnSeenError(comparison.error)
    return comparison


def _broken(generation: Generation) -> Sequence[int]:
    """Return the positions whose numbers are none."""
    if generation.distributions is None:
        return ()
    rows: Sequence[int] = np.flatnonzero(np.isnan(generation.distributions.logprobs).any(axis=1)).tolist()
    return rows


def _broken_alike(expected: Generation, observed: Generation, broken: Sequence[int], judge: Judge) -> bool:
    """Return whether the same positions are no numbers, and those before the first of them are within the noise."""
    if _broken(expected) != broken or judge.floor is None:
        return False
    if broken[0] == 0:
        return True
    assert expected.distributions is not None
    assert observed.distributions is not None
    before = divergences(expected.distributions.head(broken[0]), observed.distributions.head(broken[0]))
    return bool((before <= judge.floor.limit).all())
