"""The bench: every defect in turn, clean controls between them, in processes side by side; it can be resumed."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.attribution.plan import plan_of
from harness.attribution.results import Conviction, Setup, Trial, append, load_setup, save_setup, trials_in
from harness.attribution.trial import Checked, Plan, convictions_of, differing, run
from harness.checking.trace import save_trace
from harness.defects.catalogue import catalogue, defects_in
from harness.defects.defect import Defect
from harness.errors import UserError
from harness.explain.pipeline import Pipeline
from harness.project.cases import cases_for
from harness.project.golden import load_golden, load_provenance
from harness.project.project import Project
from harness.project.stack import Stack, load_component, load_stack, resolve_model
from harness.stage import Stage

BETWEEN = 10
"""Trials between two clean controls."""
_ONE_THREAD = "1 thread"

Clean = tuple[Checked, Plan, tuple[Conviction, ...]]
"""What the clean stack makes, the plan without the cases that convict it, and of what."""


@dataclass(frozen=True)
class Job:
    """A trial that is to be done, as a process of its own can be told of it.

    Attributes:
        name: The trial's name.
        model: The model's name.
        defects: What is planted.
        setting: Of a control, the healthy setting that it is in.
        trusted: Whether the defects are ours; what another's leave behind is looked for right after them.
    """

    name: str
    model: str
    defects: tuple[str, ...] = ()
    setting: str = ""
    trusted: bool = True


@dataclass(frozen=True)
class Bench:
    """Everything that a process needs for a job.

    Attributes:
        root: The project's folder.
        stack: The stack's name.
        plans: What is asked of each model.
        file: A user's defects.
        parallel: Whether several run side by side, each with one thread.
        traces: Where the traces are kept of defects that are missed or named wrong.
    """

    root: Path
    stack: str
    plans: Mapping[str, Plan]
    file: Path | None = None
    parallel: bool = True
    traces: Path | None = None


def bench_of(
    project: Project,
    stack: str,
    models: Sequence[str],
    deep: int,
    jobs: int,
    file: Path | None,
    traces: Path | None = None,
) -> Bench:
    """Return a bench around models of a stack.

    Args:
        project: Where stacks and goldens are.
        stack: The stack's name.
        models: The models' names; empty means all that the stack names.
        deep: How many cases of each model are asked in full.
        jobs: How many trials run side by side.
        file: A user's defects.
        traces: Where the traces are kept of defects that are missed or named wrong.

    Raises:
        UserError: something named does not exist.
    """
    loaded = load_stack(project, stack)
    plans = {name: plan_for(project, name, deep) for name in models or loaded.models}
    return Bench(project.root, stack, plans, None if file is None else file.resolve(), jobs > 1, traces)


def plan_for(project: Project, name: str, deep: int) -> Plan:
    """Return what is asked of a model; see `plan_of`."""
    model = resolve_model(project, name)
    provenance = load_provenance(project, model)
    cases = cases_for(project, name)
    return plan_of({one.name: load_golden(project, model, one, provenance) for one in cases}, deep)


def known_defects(file: Path | None) -> Mapping[str, Defect]:
    """Return the catalogue, and a user's own defects."""
    return {**catalogue(), **({} if file is None else defects_in(file))}


def jobs_of(bench: Bench, defects: Sequence[Defect], pairs: Sequence[tuple[Defect, Defect]] = ()) -> list[Job]:
    """Return the trials of a bench: each defect, each pair, and clean controls between them.

    Every control but the first of each model is in another of the settings under which the engine is healthy, in turn.
    """
    first, *_ = bench.plans
    ours = catalogue()
    wanted = [((one,), one.id in ours) for one in defects] + [(pair, True) for pair in pairs]
    jobs: list[Job] = []
    for ones, trusted in wanted:
        named = [name for one in ones for name in one.models]
        model = next((name for name in named if name in bench.plans), first)
        if named and model not in named:
            continue
        jobs.append(Job("+".join(one.id for one in ones), model, tuple(one.id for one in ones), trusted=trusted))
    settings = _settings(bench)
    controls = [Job(f"control {name} {setting}", name, setting=setting) for name in bench.plans for setting in settings]
    done: list[Job] = []
    for number, job in enumerate(jobs):
        done.append(job)
        if number % BETWEEN == BETWEEN - 1:
            repeat = number // BETWEEN
            done.append(Job(f"control {first} {repeat}", first))
            if repeat < len(controls):
                done.append(controls[repeat])
    return done + controls[len(jobs) // BETWEEN :]


def setup_of(bench: Bench, jobs: Sequence[Job]) -> Setup:
    """Return what is written down of a bench."""
    return Setup(
        stack=bench.stack,
        models=tuple(bench.plans),
        shallow={name: plan.shallow for name, plan in bench.plans.items()},
        deep={name: plan.deep for name, plan in bench.plans.items()},
        names=tuple(job.name for job in jobs),
        versions=_versions(load_stack(Project(bench.root), bench.stack)),
    )


def _versions(stack: Stack) -> dict[str, str]:
    found = {}
    for name in stack.components:
        distribution, _ = load_component(name).requires
        if distribution:
            found[name] = f"{distribution} {importlib.metadata.version(distribution)}"
    return found


def run_bench(
    bench: Bench,
    jobs: Sequence[Job],
    folder: Path,
    parallel: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Trial]:
    """Do the trials that a folder does not hold yet, and return all of them in order.

    Args:
        bench: The bench.
        jobs: Its trials.
        folder: Where setup and trials are kept.
        parallel: How many run side by side.
        progress: Told of every trial.

    Raises:
        UserError: the folder holds trials of another setup, or cannot be written.
    """
    setup = setup_of(bench, jobs)
    if (folder / "bench.json").exists():
        if load_setup(folder) != setup:
            raise UserError(f"{folder} holds the trials of another bench", "name another folder, or the same bench")
    else:
        save_setup(folder, setup)
    found = {trial.name: trial for trial in trials_in(folder)}
    left = [job for job in jobs if job.name not in found]
    for trial in _trials(bench, left, parallel):
        append(folder, trial)
        found[trial.name] = trial
        progress(trial.name, len(found), len(jobs))
    return [found[job.name] for job in jobs]


def _trials(bench: Bench, jobs: Sequence[Job], parallel: int) -> Iterator[Trial]:
    context = multiprocessing.get_context("spawn")
    ours = [job for job in jobs if job.trusted]
    others = [job for job in jobs if not job.trusted]
    for some, each in ((ours, None), (others, 1)):
        if not some:
            continue
        with ProcessPoolExecutor(parallel, context, _end_when_told, max_tasks_per_child=each) as pool:
            waiting: set[Future[Trial]] = set()
            try:
                clean = {} if each is None else _known_clean(pool, bench, {job.model for job in some})
                with _no_interruption():
                    waiting |= {pool.submit(_do, bench, job, clean.get(job.model)) for job in some}
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (one.result() for one in done)
            except BrokenProcessPool as broken:
                said = "a process that did trials ended by itself"
                raise UserError(said, "a defect may have ended it; --resume goes on with the others") from broken
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _known_clean(pool: ProcessPoolExecutor, bench: Bench, models: Iterable[str]) -> dict[str, Clean]:
    """Return what the clean stack makes around each model: of processes that do one trial each none need make it."""
    with _no_interruption():
        asked = {name: pool.submit(_do_clean, bench, name) for name in models}
    return {name: one.result() for name, one in asked.items()}


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Keep Ctrl-C from the processes that are started meanwhile: it is for the one that the terminal speaks to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_told: list[int] = []
"""In a process of a pool: the signal that told it to end."""


def _end_when_told() -> None:
    """Let SIGTERM end what a process of a pool is doing, so that nothing of it stays: no engine, no copy of a model."""

    def told(number: int, _: Any) -> None:
        _told.append(number)
        raise SystemExit

    signal.signal(signal.SIGTERM, told)


def _do(bench: Bench, job: Job, clean: Clean | None) -> Trial:
    """Do a trial in a process of a pool; what still waits there for one that was told to end is not begun."""
    if _told:
        raise SystemExit
    return do(bench, job, clean)


def _do_clean(bench: Bench, model: str) -> Clean:
    """Make what the clean stack makes, in a process of a pool."""
    if _told:
        raise SystemExit
    return _clean_of(bench, model)


def do(bench: Bench, job: Job, clean: Clean | None = None) -> Trial:
    """Do one trial, in the process that this is called in.

    Args:
        bench: The bench.
        job: The trial.
        clean: What the clean stack makes; None makes it here, once a process.
    """
    project = Project(bench.root)
    stack, model = _stack(bench, job.setting), resolve_model(project, job.model)
    known = known_defects(bench.file)
    defects = [known[one] for one in job.defects]
    pipeline = _pipeline(bench.root)
    right, plan, left_out = clean or _clean_of(bench, job.model)
    # In another healthy setting other bits are no effect of anything.
    held = None if job.setting else right
    trial, checked = run(project, stack, model, plan, defects, held, pipeline, name=job.name, setting=job.setting)
    trial = trial.model_copy(update={"left_out": left_out})
    if bench.traces is not None and checked is not None and _is_wrong(trial, defects):
        for case in plan.deep:
            save_trace(checked.traces[case], bench.traces / job.name)
    if job.trusted:
        return trial
    _, after = run(project, _stack(bench, ""), model, plan, (), None, pipeline, name=job.name)
    if after is None:
        return trial
    left = [stage for stages in differing(right, after) for stage in stages]
    if not left:
        return trial
    stages = ", ".join(stage for stage in Stage if stage in left)
    return trial.model_copy(update={"ended": "leaks", "why": f"the clean stack after it is another: {stages}"})


def _is_wrong(trial: Trial, defects: Sequence[Defect]) -> bool:
    """Return whether a defect that took effect was missed or named wrong."""
    if len(defects) != 1 or not trial.effective:
        return False
    named = trial.named
    return named is None or (named.stage, named.kind) != (defects[0].stage, defects[0].kind)


def _clean_of(bench: Bench, model: str) -> Clean:
    return _clean(bench.root, bench.stack, bench.parallel, model, bench.plans[model])


@lru_cache(maxsize=8)
def _clean(root: Path, stack: str, parallel: bool, name: str, plan: Plan) -> Clean:
    """Return what the clean stack makes, the plan without the cases that convict it, and of what; once a process."""
    project = Project(root)
    bench = Bench(root, stack, {name: plan}, parallel=parallel)
    _, checked = run(
        project, _stack(bench, ""), resolve_model(project, name), plan, (), None, _pipeline(root), name="clean"
    )
    assert checked is not None
    left_out = convictions_of(checked.verdict)
    if not left_out:
        return checked, plan, ()
    wrong = {case for one in left_out for case in one.cases}
    shallow, deep = (tuple(case for case in cases if case not in wrong) for cases in (plan.shallow, plan.deep))
    traces = {case: trace for case, trace in checked.traces.items() if case not in wrong}
    texts = {case: text for case, text in checked.texts.items() if case not in wrong}
    return Checked(traces, checked.verdict, texts, checked.place), Plan(shallow, deep), left_out


@lru_cache(maxsize=1)
def _pipeline(root: Path) -> Pipeline:
    """Return what gives verdicts; the oracle that it loads stays."""
    return Pipeline(Project(root))


def _stack(bench: Bench, setting: str) -> Stack:
    """Return the stack in a healthy setting; in one thread where several run side by side."""
    stack = load_stack(Project(bench.root), bench.stack)
    name = stack.stages.component(Stage.INFERENCE)
    known = _variations(name)
    for one in (_ONE_THREAD if bench.parallel else "", setting):
        if one in known:
            stack = stack.with_options(name, merged(stack.options.get(name, {}), known[one]))
    return stack


def merged(options: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with others over them; nested ones are added up."""
    both = {key: {**options[key], **value} for key, value in more.items() if isinstance(value, dict) and key in options}
    return {**options, **more, **both}


def _settings(bench: Bench) -> list[str]:
    name = load_stack(Project(bench.root), bench.stack).stages.component(Stage.INFERENCE)
    return list(_variations(name))


def _variations(name: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = getattr(load_component(name), "variations", {})
    return found
