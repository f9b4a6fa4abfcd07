"""What a conviction looks like: known defects that, planted in the reference, give exactly what was observed.

Asked after the verdict and never before: a hint names where to look, and convicts nobody. Of the engine's own defects
there are none, as their numbers cannot be made by a function of a golden.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from harness.errors import UserError
from harness.faults.catalogue import catalogue
from harness.faults.defect import Defect, Place
from harness.faults.places import DefectError, Generated, Tokenizing
from harness.faults.planting import template_of
from harness.golden import Golden
from harness.model_file import read_model_file
from harness.reference.client import expected_request
from harness.reference.tokenizer import ReferenceTokenizer
from harness.stack import RunningStack
from harness.stage import Stage, StageFailedError
from harness.trace import Run, Tracer
from harness.values import Generation, Json, ModelRef, Prompt, Reply, Request, Tokens
from harness.verdict import Finding, Verdict
from harness.wire.chat import answer_of, reply_of
from harness.worker import RemoteError, Worker, WorkerDiedError

_CASES = 4
"""How many cases of a finding a defect must give exactly."""
_NAMED = 3
"""How many defects are named of those that do."""
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_SECONDS, _MEMORY = 20.0, 2 << 30
_RENDERED = (Place.REQUEST, Place.SOURCE, Place.ENVIRONMENT)


def with_hints(verdict: Verdict, running: RunningStack, goldens: Mapping[str, Golden]) -> Verdict:
    """Return a verdict whose findings say which known defects give exactly what was observed.

    Args:
        verdict: The verdict.
        running: The stack, still open: the convicted stages are asked again.
        goldens: By case.
    """
    if all(not _is_asked(finding) for finding in verdict.findings):
        return verdict
    with ExitStack() as opened, contextlib.suppress(UserError):
        reference = _Reference(running.model, opened)
        findings = [
            finding.model_copy(update={"hints": _hints(finding, running, goldens, reference)})
            if _is_asked(finding)
            else finding
            for finding in verdict.findings
        ]
        return verdict.model_copy(update={"findings": tuple(findings)})
    # Something that the reference needs is not installed.
    return verdict


def _is_asked(finding: Finding) -> bool:
    return finding.stage is not Stage.INFERENCE and finding.evidence == "isolated"


def _hints(
    finding: Finding, running: RunningStack, goldens: Mapping[str, Golden], reference: _Reference
) -> tuple[str, ...]:
    cases = [finding.example, *(case for case in finding.cases if case != finding.example)][:_CASES]
    seen = {case: _observed(running, finding.stage, goldens[case]) for case in cases}
    left = [one for one in catalogue().values() if one.stage is finding.stage]
    for case in cases:
        golden, observed = goldens[case], seen[case]
        healthy = _essence(golden.value(finding.stage))
        left = [one for one in left if _gives(reference.makes(one, golden), observed, healthy)]
    return tuple(_said(one, len(cases)) for one in left[:_NAMED])


def _gives(made: object, observed: object, healthy: object) -> bool:
    return made is not None and made == observed and made != healthy


def _observed(running: RunningStack, stage: Stage, golden: Golden) -> object:
    return _essence(Tracer(running).stage(stage, golden, Run.ISOLATED))


def _essence(value: object) -> object:
    """Return what two makers of one output have in common."""
    if isinstance(value, Prompt):
        return value.text
    if isinstance(value, Tokens):
        return value.ids
    if isinstance(value, Request):
        return value.model_dump(include={"messages", "tools", "tool_choice", "settings"})
    if isinstance(value, Reply):
        return value.model_dump(include={"content", "reasoning", "tool_calls", "finish_reason"})
    return None


def _said(defect: Defect, cases: int) -> str:
    where = f"; see {', '.join(defect.references)}" if defect.references else ""
    fixed = f"; fixed in {defect.fixed}" if defect.fixed else ""
    exactly = "it gives exactly this" + (f" in all {cases} cases that were tried" if cases > 1 else "")
    sentence = defect.sentence.rstrip(".")
    return f"this looks like {defect.id}: {sentence} (planted in the reference, {exactly}{where}{fixed})"


class _Reference:
    """The reference of each stage with a defect in it; what it needs is loaded when a stage is first asked."""

    def __init__(self, model: ModelRef, opened: ExitStack) -> None:
        self._model = model
        self._opened = opened
        self._known: ReferenceTokenizer | None = None
        self._worker: Worker | None = None

    def makes(self, defect: Defect, golden: Golden) -> object:
        """Return what a stage would make of a golden's input with a defect in it; None where nobody can say."""
        try:
            if defect.place in _RENDERED:
                return self._rendered(defect, golden)
            if defect.place not in _OUTCOMES:
                return None
            return _essence(_OUTCOMES[defect.place](self, defect.planting(), golden))
        except (DefectError, StageFailedError):
            return None

    def _rendered(self, defect: Defect, golden: Golden) -> str | None:
        worker = self._rendering()
        given = golden.request.model_dump(mode="json", include={"messages", "tools", "tool_choice"})
        try:
            made: str | None = worker.call(
                "render",
                given=given,
                options=golden.case.options.model_dump(mode="json"),
                place=defect.place.value,
                function=defect.hook,
                arguments=dict(defect.arguments),
            )
        except (RemoteError, WorkerDiedError):
            return None
        return made

    def body(self, edit: Callable[..., Any], golden: Golden) -> Request:
        """What must reach the server of an edited body."""
        return expected_request(golden.case.model_copy(update={"body": edit(copy.deepcopy(golden.case.body))}))

    def prompt(self, edit: Callable[..., Any], golden: Golden) -> Prompt | None:
        """The golden's text, edited."""
        return Prompt(text=edit(golden.prompt.text)) if isinstance(golden.prompt, Prompt) else None

    def ids(self, edit: Callable[..., Any], golden: Golden) -> Tokens | None:
        """The golden's ids, edited."""
        if not isinstance(golden.prompt, Prompt) or golden.tokens is None:
            return None
        tokenizer = self._tokenizer()
        seen = Tokenizing(
            text=golden.prompt.text,
            ids=golden.tokens.ids,
            encode=self._encode,
            bos=tokenizer.bos_id,
            eos=tokenizer.eos_id,
        )
        return Tokens(ids=tuple(int(one) for one in edit(seen)))

    def answer(self, edit: Callable[..., Any], golden: Golden) -> Reply | None:
        """The golden's reply, edited."""
        if not isinstance(golden.reply, Reply) or not isinstance(golden.generation, Generation):
            return None
        tokenizer = self._tokenizer()
        ids = golden.generation.ids + golden.generation.beyond
        body: Json = {**golden.case.body}
        seen = Generated(pieces=tuple(tokenizer.piece(one) for one in ids), body=body)
        return reply_of(edit(answer_of(golden.reply), seen))

    def _encode(self, text: str, parsed: bool) -> Sequence[int]:
        tokenizer = self._tokenizer()
        added = len(tokenizer.encode(""))
        return tokenizer.encode(text, () if parsed else ((0, len(text)),))[added:]

    def _tokenizer(self) -> ReferenceTokenizer:
        if self._known is None:
            self._known = ReferenceTokenizer.from_model_file(read_model_file(self._model.path))
        return self._known

    def _rendering(self) -> Worker:
        if self._worker is None:
            texts = self._tokenizer().special_texts
            init = {
                "template": template_of(self._model),
                "special_texts": {_SPECIAL[role]: text for role, text in texts.items() if role in _SPECIAL},
            }
            worker = Worker("harness.faults.rendering:HurtRenderer", init, seconds=_SECONDS, memory=_MEMORY)
            self._worker = self._opened.enter_context(worker)
        return self._worker


_OUTCOMES: Mapping[Place, Callable[[_Reference, Callable[..., Any], Golden], object]] = {
    Place.BODY: _Reference.body,
    Place.PROMPT: _Reference.prompt,
    Place.IDS: _Reference.ids,
    Place.ANSWER: _Reference.answer,
}
