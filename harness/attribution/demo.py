"""The demonstration: three defects planted in the real stack, one after the other, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.checking.judge import StageResult
from harness.checking.opened import Progress, open_session
from harness.checking.verdict import Verdict
from harness.defects import Defect
from harness.defects.catalogue import catalogue
from harness.defects.planting import plant
from harness.explain.pipeline import Pipeline
from harness.project.project import Project
from harness.project.stack import load_stack, resolve_model

STACK = "llama-cpp-python"
PLANTED = ("tpl-generation-prompt-lost", "tok-parse-special-ignored", "eng-rope-base")
CASES = ("system-and-user", "two-user-turns", "stop-across-tokens", "digits-and-contractions")
"""A few short cases, so that the demonstration takes seconds."""


@dataclass(frozen=True)
class Scene:
    """One part of the demonstration.

    Attributes:
        defect: What was planted; None for the healthy stack.
        verdict: What the harness says, without having been told.
    """

    defect: Defect | None
    verdict: Verdict

    @property
    def right(self) -> bool:
        """Whether the verdict names the planted stage and kind and nothing else, or clears the healthy stack."""
        convicted = {(finding.stage, finding.kind) for finding in self.verdict.findings}
        return convicted == ({(self.defect.stage, self.defect.kind)} if self.defect else set())


def demo(project: Project, progress: Progress = lambda *_: None) -> Iterator[Scene]:
    """Check the healthy stack, then plant each defect in turn.

    Raises:
        UserError: the stack, its model or a golden is missing.
    """
    stack = load_stack(project, STACK)
    model = resolve_model(project, stack.models[0])
    known = catalogue()
    with Pipeline(project) as pipeline:
        for planted in (None, *(known[name] for name in PLANTED)):
            with (
                plant(stack, model, [planted] if planted else []) as hurt,
                open_session(project, hurt.stack, hurt.model, CASES, wrap=hurt.wrap, prepare=hurt.prepare) as session,
            ):
                results: list[StageResult] = []
                for done, case in enumerate(session.goldens):
                    progress(planted.id if planted else "healthy", done, len(session.goldens))
                    results.extend(session.results(case))
                yield Scene(planted, pipeline.verdict(session, results))
