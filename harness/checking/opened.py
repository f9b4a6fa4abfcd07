"""A stack open around a model, with the goldens that it is held against: what every runner works with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.checking.judge import Judge, Replying, StageResult, no_replies
from harness.checking.load import load_rows
from harness.checking.noise import EngineNoise, floor_of, measure_noise, save_noise
from harness.checking.rows import Row
from harness.checking.running import RunningStack, open_stack
from harness.checking.trace import Run, Trace, Tracer
from harness.checking.verdict import Verdict, convict, explain_by_rerun
from harness.errors import UserError
from harness.project.cases import cases_for, is_asked
from harness.project.golden import Golden, load_golden, load_provenance
from harness.project.project import Project
from harness.project.stack import Stack, load_component, resolve_model
from harness.stage import Component, Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, ModelRef, Observation

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many are done."""


@dataclass
class Session:
    """A stack open around a model, with its goldens: what both runners work with.

    Attributes:
        running: The open stack.
        goldens: The goldens, by case.
        judge: Holds traces against them.
        seconds: Time spent by stage so far.
    """

    running: RunningStack
    goldens: dict[str, Golden]
    judge: Judge
    seconds: dict[Stage, float] = field(default_factory=dict)
    _load: tuple[Row, ...] | None = None

    @property
    def load(self) -> tuple[Row, ...]:
        """The rows of the load stage; the parts are asked once."""
        if self._load is None:
            self._load = load_rows(self.running)
        return self._load

    def trace(self, case: str, runs: Sequence[Run] = tuple(Run), stages: Collection[Stage] = tuple(Stage)) -> Trace:
        """Run a case; see `Tracer.trace`."""
        trace = Tracer(self.running).trace(self.goldens[case], runs, stages)
        for stage, spent in trace.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        return trace

    def results(self, case: str) -> tuple[StageResult, ...]:
        """Run a case and return the result of each stage."""
        return self.judge.case(self.goldens[case], self.trace(case))

    def verdict(self, results: Sequence[StageResult]) -> Verdict:
        """Return the verdict on results; what shows only in the chain is run again to explain it."""
        return convict(
            self.running.stack.name,
            self.running.model.name,
            results,
            lambda result: explain_by_rerun(
                self.judge,
                self.goldens[result.case],
                result,
                lambda golden, run: Tracer(self.running).trace(golden, (run,)),
            ),
        )


def purpose_of(golden: str | None) -> str:
    """Return why a model is held against goldens that are named; nothing where none are."""
    return "" if golden is None else f"it is held against the goldens of {golden} on purpose"


@contextmanager
def open_session(
    project: Project,
    stack: Stack,
    model: ModelRef,
    cases: Sequence[str] = (),
    wrap: Callable[[str, Component], Component] = lambda _, part: part,
    prepare: Callable[[RunningStack], None] = lambda _: None,
    around: ModelRef | None = None,
    purpose: str = "",
    replying: Replying = no_replies,
) -> Iterator[Session]:
    """Open a stack around a model, with the goldens of the cases wanted.

    Args:
        project: Where stacks and goldens are.
        stack: The stack.
        model: The model.
        cases: Names; empty means all that the model is asked.
        wrap: Stands between a component and those who call it; see `open_stack`.
        prepare: Does something with the open stack before it is asked anything.
        around: What the stack is opened around, where that is not the model that the goldens were made of.
        purpose: Why, where that is meant: nobody is then at fault for the file.
        replying: Makes the reply that is due to a stack's own ids; see `Judge`.

    Raises:
        UserError: a case does not exist, or a golden is missing or not this model's.
    """
    provenance = load_provenance(project, model)
    asked = cases_for(project, model.name, cases)
    if not asked:
        raise UserError(f"none of the cases {', '.join(cases)} is asked of model {model.name!r}")
    goldens = {case.name: load_golden(project, model, case, provenance) for case in asked}
    with open_stack(stack, around or model, wrap, held_against=model, purpose=purpose) as running:
        prepare(running)
        # Ids that a part makes out of the texts that it is shown are not what was generated, but a guess at it.
        shows = getattr(running.part(Stage.POSTPROCESS), "shows_generated_ids", False)
        yield Session(running, goldens, judge_of(project, running, replying if shows else no_replies))


def judge_of(project: Project, running: RunningStack, replying: Replying = no_replies) -> Judge:
    """Return what holds a running stack's traces against goldens.

    Raises:
        UserError: the file of the noise floor is wrong.
    """
    policies = {(policy.stage, policy.rule): policy.reason for policy in running.stack.policies}
    return Judge(policies, floor_of(project, running), lambda: _context_of(running), replying)


def _context_of(running: RunningStack) -> int | None:
    """Return how many ids the engine's context takes, as it says itself; None if it does not."""
    try:
        said = running.part(Stage.INFERENCE).identity().get("n_ctx")
    except (StageFailedError, StageRefusedError, StageUnobservedError):
        return None
    return int(said) if isinstance(said, str) and said.isdigit() else None


@dataclass(frozen=True)
class Checked:
    """A verdict with what it rests on.

    Attributes:
        verdict: The verdict.
        goldens: The goldens, by case.
        traces: The traces, by case; empty unless they were to be kept.
        limit: The largest divergence that is noise, in nats; None where none was measured.
        parts: What ran, by component.
    """

    verdict: Verdict
    goldens: dict[str, Golden]
    traces: dict[str, Trace]
    limit: float | None
    parts: dict[str, str]


def identities(running: RunningStack) -> dict[str, str]:
    """Return what every component of a running stack says of itself, by name."""
    found = {}
    for name, part in running.parts.items():
        try:
            identity = part.identity()
        except Exception as error:  # noqa: BLE001 - what a part cannot say of itself must not end a run
            identity = {"identity": f"unknown ({type(error).__name__})"}
        found[name] = ", ".join(f"{key} {value}" for key, value in identity.items())
    return found


def observe(
    project: Project, stack: Stack, case: Case, model: str | None = None, *, stream: bool = False, dry_run: bool = False
) -> Observation:
    """Run one case through a stack and return what every stage produced; needs no golden.

    Args:
        project: Where the stacks are.
        stack: The stack.
        case: The case.
        model: A model's name; None takes the first of the stack's that the case is asked of.
        stream: Ask for a stream.
        dry_run: Stop before inference; components that can then leave the weights unloaded do.

    Raises:
        UserError: the model does not exist or is not the file it should be.
    """
    fitting = [name for name in stack.models if is_asked(project, case, name)]
    if model is None and not fitting:
        raise UserError(f"case {case.name!r} is asked of none of the models of stack {stack.name!r}", "give --model")
    reference = resolve_model(project, model or fitting[0])
    if dry_run:
        for name in stack.components:
            stack = stack.with_options(name, getattr(load_component(name), "without_weights", {}))
    with open_stack(stack, reference) as running:
        tracer = Tracer(running)
        return tracer.dry(case) if dry_run else tracer.chained(case, stream=stream)


def record_noise(project: Project, stack: Stack, model: str, progress: Progress = lambda *_: None) -> EngineNoise:
    """Measure and store the noise floor of a model on a stack that is known to be healthy.

    Raises:
        UserError: a run did not end with a generation, or a file cannot be written.
    """
    reference = resolve_model(project, model)
    provenance = load_provenance(project, reference)
    goldens = [load_golden(project, reference, case, provenance) for case in cases_for(project, model)]
    noise = measure_noise(stack, reference, goldens, progress)
    save_noise(project, model, stack.stages.component(Stage.INFERENCE), noise)
    return noise
