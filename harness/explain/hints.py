"""What a conviction looks like: known defects that, planted in the reference, give exactly what was observed.

Asked after the verdict and never before: a hint names where to look, and convicts nobody. Of the engine's own defects
there are none, as their numbers cannot be made by a function of a golden. They are planted in the reference over the
golden's own file, never over the one that is served: over a bad file they would say what they should be held against.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from harness.checking.own import OwnSeenError
from harness.checking.running import RunningStack
from harness.checking.trace import Run, Tracer
from harness.checking.verdict import Finding, Verdict
from harness.defects.catalogue import catalogue
from harness.defects.defect import Defect
from harness.defects.reference import HurtReference
from harness.errors import UserError
from harness.models.cache import remembered_sha256
from harness.project.golden import Golden
from harness.stage import Stage
from harness.values import ModelRef, OwnError, Prompt, Reply, Request, Tokens

_CASES = 4
"""How many cases of a finding a defect must give exactly."""
_NAMED = 3
"""How many defects are named of those that do."""
_NO_FILE = "known defects were not looked for: the file that the goldens were made of is not at hand"


def with_hints(verdict: Verdict, running: RunningStack, goldens: Mapping[str, Golden]) -> Verdict:
    """Return a verdict whose findings say which known defects give exactly what was observed.

    Args:
        verdict: The verdict.
        running: The stack, still open: the convicted stages are asked again.
        goldens: By case.
    """
    if all(not _is_asked(finding) for finding in verdict.findings):
        return verdict
    model = running.golden_model
    if not _is_at_hand(model):
        return verdict.model_copy(update={"notes": (*verdict.notes, _NO_FILE)})
    with HurtReference(model) as reference, contextlib.suppress(UserError):
        findings = [
            finding.model_copy(update={"hints": _hints(finding, running, goldens, reference)})
            if _is_asked(finding)
            else finding
            for finding in verdict.findings
        ]
        return verdict.model_copy(update={"findings": tuple(findings)})
    # Something that the reference needs is not installed.
    return verdict


def _is_at_hand(model: ModelRef) -> bool:
    try:
        return remembered_sha256(model.path) == model.sha256
    except OSError:
        return False


def _is_asked(finding: Finding) -> bool:
    return finding.stage is not Stage.INFERENCE and finding.evidence == "isolated"


def _hints(
    finding: Finding, running: RunningStack, goldens: Mapping[str, Golden], reference: HurtReference
) -> tuple[str, ...]:
    cases = [finding.example, *(case for case in finding.cases if case != finding.example)][:_CASES]
    seen = {case: _observed(running, finding.stage, goldens[case]) for case in cases}
    left = [one for one in catalogue().values() if one.stage is finding.stage]
    for case in cases:
        golden, observed = goldens[case], seen[case]
        healthy = _essence(golden.value(finding.stage))
        left = [one for one in left if _gives(_essence(reference.made(one, golden)), observed, healthy)]
    return tuple(_said(one, len(cases)) for one in left[:_NAMED])


def _gives(made: object, observed: object, healthy: object) -> bool:
    return made is not None and made == observed and made != healthy


def _observed(running: RunningStack, stage: Stage, golden: Golden) -> object:
    seen = Tracer(running).stage(stage, golden, Run.ISOLATED)
    if isinstance(seen, OwnError):
        raise OwnSeenError(seen)
    return _essence(seen)


def _essence(value: object) -> object:
    """Return what two makers of one output have in common."""
    if isinstance(value, Prompt):
        return value.text
    if isinstance(value, Tokens):
        return value.ids
    if isinstance(value, Request):
        # What the part sets by itself nobody asked for.
        settings = {name: one for name, one in value.settings.items() if name not in (value.defaults or ())}
        return {**value.model_dump(include={"messages", "tools", "tool_choice"}), "settings": settings}
    if isinstance(value, Reply):
        return value.model_dump(include={"content", "reasoning", "tool_calls", "finish_reason"})
    return None


def _said(defect: Defect, cases: int) -> str:
    where = f"; see {', '.join(defect.references)}" if defect.references else ""
    fixed = f"; fixed in {defect.fixed}" if defect.fixed else ""
    exactly = "it gives exactly this" + (f" in all {cases} cases that were tried" if cases > 1 else "")
    sentence = defect.sentence.rstrip(".")
    return f"this looks like {defect.id}: {sentence} (planted in the reference, {exactly}{where}{fixed})"
