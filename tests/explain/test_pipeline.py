"""One pipeline: the check, the plugin and the bench say the same of the same traces, case by case."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.attribution.trial import Plan
from harness.attribution.trial import check as bench_check
from harness.checking import opened
from harness.checking.compare.inference import Floor
from harness.checking.opened import Session, open_session
from harness.checking.trace import FIELDS, Run, Trace
from harness.components.llama_cpp_python import LlamaCppPython
from harness.explain import hints, locate, pipeline
from harness.explain.pipeline import Pipeline, checked
from harness.project.project import Project
from harness.stage import Stage
from harness.values import Distributions, Failure, Unobserved
from tests.conftest import ROOT

CASES = ("no-system", "system-and-user")
"""The second has the longer prompt, the one whose nodes are held."""
STACK = "llama-cpp-python"
MODEL = "smollm2-135m-instruct"
ISOLATED = (Run.ISOLATED, Run.ISOLATED_STREAM)
PLACE = locate.Location(node="Kcur-0", layer=0, row=2, rows=62, of=64, error=0.064, limit=0.025, elsewhere=59)
UNSEEN = Unobserved(reason="it is not shown")


def hurt(*hurts: tuple[tuple[Run, ...], Stage, Callable[[Any], Any]]) -> Callable[[Trace], Trace]:
    """Return what changes a stage's output in some runs of a trace."""

    def change(trace: Trace) -> Trace:
        runs = dict(trace.runs)
        for where, stage, function in hurts:
            for run in where:
                value = getattr(runs[run], FIELDS[stage])
                if value is not None:
                    runs[run] = runs[run].model_copy(update={FIELDS[stage]: function(value)})
        return trace.model_copy(update={"runs": runs})

    return change


def of_one(change: Callable[[Trace], Trace]) -> Callable[[Trace], Trace]:
    """Return what changes the trace of the first case only."""
    return lambda trace: change(trace) if trace.case == CASES[0] else trace


def lost_end(prompt: Any) -> Any:
    return prompt.model_copy(update={"text": prompt.text.removesuffix("<|im_start|>assistant\n")})


def louder(reply: Any) -> Any:
    return reply.model_copy(update={"content": f"{reply.content}!"})


def uniform(generation: Any) -> Any:
    shape = (len(generation.ids), 49152)
    flat = Distributions.from_logits(np.zeros(shape, dtype=np.float32))
    return generation.model_copy(update={"distributions": flat, "digests": ()})


def unseen(_: Any) -> Unobserved:
    return UNSEEN


def crashed(_: Any) -> Failure:
    return Failure(reason="crash", signal="SIGSEGV")


SCENES: dict[str, Callable[[Trace], Trace]] = {
    "healthy": hurt(),
    "a template that loses an end": hurt((ISOLATED, Stage.TEMPLATE, lost_end)),
    "the same, in one case and in the chain": of_one(hurt((tuple(Run), Stage.TEMPLATE, lost_end))),
    "unobserved isolated, wrong in the chain": hurt(
        (ISOLATED, Stage.POSTPROCESS, unseen), ((Run.CHAINED, Run.CHAINED_STREAM), Stage.POSTPROCESS, louder)
    ),
    "never seen": hurt((tuple(Run), Stage.TOKENIZATION, unseen)),
    "other numbers": hurt((ISOLATED, Stage.INFERENCE, uniform)),
    "a crash": of_one(hurt((ISOLATED, Stage.POSTPROCESS, crashed))),
    "a wrong node": hurt(),
}


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Project:
    """A project of the two cases only, so that nobody reads the others' goldens."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "stacks", root / "stacks")
    (root / "golden" / "cases").mkdir(parents=True)
    for case in CASES:
        shutil.copy(ROOT / "golden" / "cases" / f"{case}.json", root / "golden" / "cases")
        shutil.copytree(ROOT / "golden" / MODEL / case, root / "golden" / MODEL / case)
    for file in ("provenance.toml", "noise.json", "nodes.json"):
        shutil.copy(ROOT / "golden" / MODEL / file, root / "golden" / MODEL)
    return Project(root)


@pytest.fixture(scope="module")
def healthy(project, real_stack, smollm) -> tuple[dict[str, Trace], Floor]:
    """The traces of the healthy stack, and the noise of its engine."""
    with open_session(project, real_stack, smollm, CASES) as session:
        return {case: session.trace(case) for case in CASES}, session.judge.floor


CONVICTED = {
    "a template that loses an end": {(Stage.TEMPLATE, "isolated")},
    "the same, in one case and in the chain": {(Stage.TEMPLATE, "isolated")},
    "unobserved isolated, wrong in the chain": {(Stage.POSTPROCESS, "nondeterminism")},
    "other numbers": {(Stage.INFERENCE, "isolated")},
    "a crash": {(Stage.POSTPROCESS, "isolated")},
    "a wrong node": {(Stage.INFERENCE, "nodes")},
}


@pytest.fixture(params=SCENES)
def scene(request, healthy, smollm, monkeypatch) -> str:
    """A scene that every session shows, whoever opened it."""
    change = SCENES[request.param]
    traces, floor = healthy
    monkeypatch.setattr(Session, "trace", lambda self, case, *_: change(traces[case]))
    place = PLACE if request.param == "a wrong node" else None
    look = locate.NodesLook(answer="right" if place is None else "wrong", case=CASES[1], place=place)
    monkeypatch.setattr(locate, "look", lambda *given: look.model_copy(update={"case": given[4]} if given[4:] else {}))
    monkeypatch.setattr(locate.Locator, "_oracle", lambda *_: None)
    monkeypatch.setattr(locate.Locator, "_anew", lambda *_: None)
    # What a part says of itself, its class of noise and its file too, is asked of its process, which need not run.
    monkeypatch.setattr(pipeline, "identities", lambda _: {})
    monkeypatch.setattr(LlamaCppPython, "model_file", lambda _: smollm.path)
    monkeypatch.setattr(opened, "floor_of", lambda *_: floor)
    monkeypatch.setattr(locate, "load_limits", lambda *_: ({"Kcur-0": 0.025}, set()))
    # A hint is asked by the same call, and takes seconds.
    monkeypatch.setattr(hints, "with_hints", lambda verdict, *_: verdict)
    return request.param


def said_by_check(project, stack, cases) -> Any:
    (found,) = checked(project, stack, cases, [MODEL])
    return found.verdict


def said_by_bench(project, stack, model, cases) -> Any:
    with Pipeline(project) as opened, open_session(project, stack, model, cases) as session:
        return bench_check(session, Plan((), tuple(cases)), opened).verdict


def said_by_plugin(pytester, project) -> dict[tuple[str, str], str]:
    """Return by case and stage the outcome of its item."""
    pytester.makeini("[pytest]\nfilterwarnings = error")
    wanted = ("--stack", STACK, "--stack-model", MODEL, "--stack-project", str(project.root), "-p", "no:xdist", "-v")
    seen = pytester.runpytest_inprocess(*wanted, "-k", " or ".join(f"{case}-" for case in CASES))
    item = re.compile(rf"stack::\S+::({'|'.join(CASES)})-(\w+) (PASSED|FAILED|SKIPPED)")
    lines = [item.search(line) for line in seen.outlines]
    return {(line[1], line[2]): line[3] for line in lines if line is not None}


def test_the_three_runners_say_the_same_of_the_same_traces(scene, project, real_stack, smollm, pytester):
    by_plugin = said_by_plugin(pytester, project)
    assert len(by_plugin) == len(CASES) * len(Stage)
    whole = said_by_check(project, real_stack, CASES)
    assert {(finding.stage, finding.evidence) for finding in whole.findings} == CONVICTED.get(scene, set())
    assert whole.status == {"healthy": "clean", "never seen": "unjudged"}.get(scene, "convicted")
    assert said_by_bench(project, real_stack, smollm, CASES) == whole
    for case in CASES:
        alone = said_by_check(project, real_stack, [case])
        assert said_by_bench(project, real_stack, smollm, [case]) == alone
        convicted = {finding.stage for finding in whole.findings if case in finding.cases}
        for stage in Stage:
            status = alone.stages[stage].status
            expected = "FAILED" if stage in convicted else "SKIPPED" if status == "unobserved" else "PASSED"
            assert by_plugin[case, stage.value] == expected, (case, stage, status)
            # Alone, each case has its own longest prompt.
            if scene != "a wrong node":
                assert (status == "convicted") == (stage in convicted)
