"""Whether a stage is wrong or the file that it was given: what the reference makes of the very file that is served.

A golden holds for one exact file. Where another one is served, the part may do what that file says and diverge all the
same. Where the golden's own file is at hand and the stack can be opened again, it is swapped in: a part that is right
with it was given a wrong file, which is an `artifact`. Otherwise the reference of the convicted stage is made anew over
the file that is served and asked for the same cases: a part that does what the reference does is right, and the file is
wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.check.checking import judge_of
from harness.check.compare.inference import divergences
from harness.check.compare.outcome import Difference, Outcome
from harness.check.running import RunningStack
from harness.check.trace import Run, Trace, Tracer
from harness.check.verdict import Finding, Judge, Verdict, adding, with_findings
from harness.errors import MissingPackageError, UserError
from harness.models.cache import remembered_sha256
from harness.models.file_difference import difference
from harness.models.gguf import read_metadata
from harness.project.golden import Golden, GoldenError, load_provenance
from harness.project.project import Project
from harness.project.stack import resolve_model
from harness.stage import Stage
from harness.values import Failure, Generation, ModelRef, Refusal

if TYPE_CHECKING:
    from harness.reference.record import Reference

_STAGES: Final = (Stage.TEMPLATE, Stage.TOKENIZATION, Stage.INFERENCE, Stage.POSTPROCESS)
_TRIED: Final = 2
"""How many cases of a finding about the engine's numbers are asked of the reference: each takes about a second."""
_SHOWN: Final = 12
"""How much of a hash is shown."""


Reopen = Callable[[ModelRef], AbstractContextManager[RunningStack]]
"""Opens a stack around a model, with everything else as it is."""


class Inspector:
    """Tells a wrong file from a wrong part. Nothing is read unless a stage is convicted around another file.

    Args:
        project: Where the goldens are.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
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

        Where nothing is convicted at the engine and its weights are not the golden's, that is a finding of its own.

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
        if any(finding.stage is Stage.INFERENCE for finding in found):
            return verdict
        other = self._other_weights(running, goldens)
        return verdict if other is None else adding(verdict, other)

    def _other_weights(self, running: RunningStack, goldens: Mapping[str, Golden]) -> Finding | None:
        path = served_file(running, Stage.INFERENCE)
        if not path.is_file() or remembered_sha256(path) == running.model.sha256:
            return None
        original = self._original(running)
        try:
            found = None if original is None else difference(original, path)
        except UserError:
            return None
        settings = f"{read_metadata(path).get('general.architecture')}."
        if found is None or not (found.tensors or any(key.startswith(settings) for key in found.keys)):
            return None
        summary = f"the file that is served holds another network than the golden's: {found.describe()}"
        return Finding(
            stage=Stage.INFERENCE,
            kind="artifact",
            summary=summary,
            cases=tuple(sorted(goldens)),
            example=next(iter(goldens)),
            difference=Difference(summary=summary, causes=("weights",), kind="artifact"),
            evidence="file",
        )

    def _original(self, running: RunningStack) -> Path | None:
        """Return the golden's own file, if it is at hand."""
        try:
            return resolve_model(self._project, running.model.name).path
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
            if digest == running.model.sha256 or not self._around_the_goldens_template(running):
                return finding
            original = self._original(running)
            if original is not None and reopen is not None:
                same, why = self._with_the_original(finding, running, goldens, original, reopen)
            else:
                same, why = self._as_the_reference(finding, running, goldens, path)
        except OSError as error:
            return finding.model_copy(
                update={"location": f"the file that is served cannot be read here ({error.strerror})"}
            )
        file = (
            "the file that is served is not the golden's "
            f"(SHA-256 {digest[:_SHOWN]}... instead of {running.model.sha256[:_SHOWN]}...)"
        )
        if original is not None and reopen is not None:
            with contextlib.suppress(UserError):
                file += f": {difference(original, path).describe()}"
        kind = "artifact" if same else finding.kind
        return finding.model_copy(update={"kind": kind, "location": f"{file}, {why}"})

    def _with_the_original(
        self,
        finding: Finding,
        running: RunningStack,
        goldens: Mapping[str, Golden],
        original: Path,
        reopen: Reopen,
    ) -> tuple[bool, str]:
        """Return whether the same part is right with the golden's own file, and that in words."""
        with reopen(running.model.model_copy(update={"path": original})) as other:
            judge = judge_of(self._project, other)
            for case in finding.cases[:_TRIED]:
                trace = _traced(other, finding.stage, goldens[case])
                if not _is_right(judge, finding.stage, goldens[case], trace):
                    return False, "but with the golden's the same part is wrong too"
        return True, "and with the golden's the same part is right"

    def _around_the_goldens_template(self, running: RunningStack) -> bool:
        """Whether a template that replaces the file's own is the one that the goldens were made with."""
        try:
            load_provenance(self._project, running.model)
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
                if not _agree(judge, finding.stage, reference.again(finding.stage, goldens[case]), trace):
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
                from harness.reference.record import Reference
            except ImportError as error:
                raise MissingPackageError("the reference", str(error.name), "reference") from error
            model = running.model.model_copy(update={"path": path})
            self._references[key] = Reference(model, finite=False)
        return self._references[key]


def served_file(running: RunningStack, stage: Stage) -> Path:
    """Return the model file that a stage's part was given."""
    own = running.stack.options.get(running.stack.stages.component(stage), {}).get("file")
    return running.model.path if own is None else Path(own)


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
    comparison = judge.isolated(stage, golden, trace)
    return not comparison.outcome.bad and comparison.outcome is not Outcome.UNOBSERVED


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
