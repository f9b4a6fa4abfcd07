"""One trial: a stack is checked with defects in it, of which the check is told nothing, and held against the clean one.

Whether a defect took effect is not asked of the check: what the stages made, on golden input and in the stack's own
path, is compared by bytes, ids and bits with what the clean stack made of the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.attribution.results import Conviction, Trial
from harness.checking.judge import StageResult
from harness.checking.opened import Session, open_session
from harness.checking.own import own_error
from harness.checking.running import RunningStack, around_its_model, open_stack
from harness.checking.trace import FIELDS, Run, Trace
from harness.checking.verdict import Verdict
from harness.defects.defect import Defect
from harness.defects.places import DefectError
from harness.defects.planting import NoPlaceError, plant
from harness.errors import UserError
from harness.explain.artifact import Reopen
from harness.explain.pipeline import Pipeline
from harness.llama.layout import NotReadableError
from harness.project.project import Project
from harness.project.stack import Stack
from harness.stage import Stage, Transparent
from harness.values import Ending, Failure, Generation, ModelRef, Prompt, Refusal, Reply, Tokens, Value

_ISOLATED = (Run.ISOLATED, Run.ISOLATED_STREAM)
_CHEAP = tuple(stage for stage in Stage if stage is not Stage.INFERENCE)
_DEFECT = DefectError.__name__
_UNREADABLE = NotReadableError.__name__
"""What keeps a defect from seeing the nodes that it is to change."""


@dataclass(frozen=True)
class Plan:
    """What a check asks.

    Attributes:
        shallow: Cases whose stages but inference are run on golden input.
        deep: Cases that are run in full.
    """

    shallow: tuple[str, ...]
    deep: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """What a check saw.

    Attributes:
        traces: What every stage made, by case.
        verdict: What is said of it.
        texts: Of each case that was run in full, the golden's text.
        place: Where in the network the first wrong number is, if there is one.
    """

    traces: Mapping[str, Trace]
    verdict: Verdict
    texts: Mapping[str, str]
    place: str | None = None


def run(
    project: Project,
    stack: Stack,
    model: ModelRef,
    plan: Plan,
    defects: Sequence[Defect],
    clean: Checked | None,
    pipeline: Pipeline,
    *,
    name: str,
    setting: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Trial, Checked | None]:
    """Check a stack with defects in it.

    Args:
        project: Where stacks and goldens are.
        stack: The stack.
        model: The model.
        plan: What is asked.
        defects: What is planted.
        clean: What the clean stack made; None for the clean stack itself.
        pipeline: Gives the verdict.
        name: The trial's name.
        setting: Of a control, the healthy setting that it is in.
        progress: Told of every case.
    """
    start = time.perf_counter()
    made: dict[str, Any] = {
        "name": name,
        "stack": stack.name,
        "model": model.name,
        "defects": tuple(one.id for one in defects),
        "setting": setting,
    }
    try:
        with _opened(project, stack, model, plan, defects) as (session, reopen):
            checked = check(session, plan, pipeline, reopen, progress)
    except NoPlaceError as none:
        return Trial(**made, ended="no place", why=str(none)), None
    except (DefectError, UserError) as error:
        return Trial(**made, ended="raised", why=str(error)), None
    except Exception as error:  # noqa: BLE001 - whatever else it is, it is ours: neither noticed nor missed
        own = own_error(error)
        return Trial(**made, ended="error", why=own.describe(), error=own), None
    raised = next((said for said in map(_raised, checked.traces.values()) if said is not None), None)
    if raised is not None:
        return Trial(**made, ended="raised", why=raised), checked
    if checked.verdict.status == "error":
        own = checked.verdict.errors[0].error
        return Trial(**made, ended="error", why=checked.verdict.line, error=own), checked
    changed, chained = ((), ()) if clean is None else differing(clean, checked)
    trial = Trial(
        **made,
        changed=changed,
        chained=chained,
        status=checked.verdict.status,
        line=checked.verdict.line,
        convictions=convictions_of(checked.verdict),
        by_stage=_by_stage(checked.verdict.results),
        answers=() if clean is None else _other_answers(clean, checked),
        comparisons=sum(one.isolated.outcome.seen for one in checked.verdict.results),
        seconds=time.perf_counter() - start,
    )
    return trial, checked


@contextmanager
def _opened(
    project: Project, stack: Stack, model: ModelRef, plan: Plan, defects: Sequence[Defect]
) -> Iterator[tuple[Session, Reopen]]:
    """Open a session with defects planted, and return with it what opens the same around another file."""
    cases = tuple(dict.fromkeys((*plan.shallow, *plan.deep)))

    def prepare(running: RunningStack) -> None:
        planted.prepare(running)
        engine = running.part(Stage.INFERENCE)
        if isinstance(engine, Transparent):
            engine.watch()

    @contextmanager
    def reopen(other: ModelRef) -> Iterator[RunningStack]:
        with open_stack(around_its_model(planted.stack), other, planted.wrap) as running:
            planted.prepare(running)
            yield running

    with (
        plant(stack, model, defects) as planted,
        # The goldens are those of the healthy model, whatever was planted in its file or template.
        open_session(project, planted.stack, model, cases, planted.wrap, prepare, around=planted.model) as session,
    ):
        yield session, reopen


def convictions_of(verdict: Verdict) -> tuple[Conviction, ...]:
    """Return the findings of a verdict, as far as they are counted."""
    return tuple(
        Conviction(stage=f.stage, kind=f.kind, summary=f.summary, evidence=f.evidence, cases=f.cases)
        for f in verdict.findings
    )


def check(
    session: Session,
    plan: Plan,
    pipeline: Pipeline,
    reopen: Reopen | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Checked:
    """Check an open stack by a plan, as users' checks do; `reopen` opens the same around another file."""
    traces: dict[str, Trace] = {}
    results: list[StageResult] = []
    for case, golden in session.goldens.items():
        progress(case)
        deep = case in plan.deep
        traces[case] = session.trace(case) if deep else session.trace(case, _ISOLATED, _CHEAP)
        results.extend(session.judge.case(golden, traces[case]))
    texts = {
        case: golden.reply.content or ""
        for case, golden in session.goldens.items()
        if case in plan.deep and isinstance(golden.reply, Reply)
    }
    verdict = pipeline.verdict(session, results, reopen)
    place = next((finding.summary for finding in verdict.findings if finding.evidence == "nodes"), None)
    return Checked(traces, verdict, texts, place)


def differing(clean: Checked, hurt: Checked) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """Return the stages that made something else, on golden input and in the stack's own path."""
    found: dict[bool, set[Stage]] = {False: set(), True: set()}
    if clean.place != hurt.place:
        found[False].add(Stage.INFERENCE)
    for case, trace in clean.traces.items():
        for run_, stage in ((one, stage) for one in trace.runs for stage in Stage):
            if essence(trace.output(run_, stage)) != essence(hurt.traces[case].output(run_, stage)):
                found[run_.chained].add(stage)
        for run_ in trace.runs:
            if trace.runs[run_].broke != hurt.traces[case].runs[run_].broke:
                found[run_.chained].add(Stage.INFERENCE)
    isolated, chained = (tuple(stage for stage in Stage if stage in found[way]) for way in (False, True))
    return isolated, chained


def essence(value: object) -> object:
    """Return what of a stage's output two runs of one healthy stack have in common.

    That is no clock, no text for a reader, and of a call's id, which is drawn anew, which one it is and how long.
    """
    if isinstance(value, Prompt):
        return value.text, value.stop
    if isinstance(value, Tokens):
        return value.ids
    if isinstance(value, Generation):
        numbers = None if value.distributions is None else value.distributions.logprobs.tobytes()
        return value.ids, value.chosen, value.finish, value.digests or numbers, value.settings
    if isinstance(value, Reply):
        return json.dumps(_with_named_calls(value.model_dump(), {}), default=repr)
    if isinstance(value, Failure):
        return value.reason, value.signal, value.status
    # As text, because the order of keys counts.
    return json.dumps(value.model_dump(), default=repr) if isinstance(value, Value) else value


def _with_named_calls(value: Any, known: dict[str, str]) -> Any:
    """Return a reply's fields, each call's id as its number among those met before it."""
    if isinstance(value, dict):
        found = {name: _with_named_calls(one, known) for name, one in value.items()}
        own = value.get("id")
        if isinstance(own, str) and own:
            found["id"] = known.setdefault(own, f"{len(known)}, of {len(own)} characters")
        return found
    return [_with_named_calls(one, known) for one in value] if isinstance(value, list | tuple) else value


def _raised(trace: Trace) -> str | None:
    """Return what a defect's own function raised in the part's process, if it did."""
    for observation in trace.runs.values():
        for ended in (observation.broke, *(getattr(observation, field) for field in FIELDS.values())):
            if isinstance(ended, Refusal):
                # A server says it in words of its own.
                said = f"{ended.error}: {ended.message}".partition(f"{_DEFECT}: ")[2]
                if said:
                    return said
            if isinstance(ended, Failure) and any(name in (ended.message or "") for name in (_DEFECT, _UNREADABLE)):
                return str(ended.message)
    return None


def _by_stage(results: Sequence[StageResult]) -> dict[Stage, tuple[str, ...]]:
    found: dict[Stage, list[str]] = {}
    for one in results:
        if one.isolated.outcome.bad or one.unexplained is not None:
            found.setdefault(one.stage, []).append(one.case)
    return {stage: tuple(cases) for stage, cases in found.items()}


def _other_answers(clean: Checked, hurt: Checked) -> tuple[str, ...]:
    """Return the cases that a look at the answer alone would notice: its text was the golden's, and is no more."""
    found = []
    for case, text in clean.texts.items():
        if _text(clean.traces[case]) == text and _text(hurt.traces[case]) != text:
            found.append(case)
    return tuple(found)


def _text(trace: Trace) -> str | None:
    reply = trace.output(Run.CHAINED, Stage.POSTPROCESS)
    return None if reply is None or isinstance(reply, Ending) else reply.content or ""
