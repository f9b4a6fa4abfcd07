"""What the clean stack is convicted of itself: the cases that show it are not asked with a defect, and it is told."""

from __future__ import annotations

import pytest

from harness.attribution import bench
from harness.attribution.results import Trial
from harness.attribution.trial import Checked, Plan
from harness.checking.trace import Trace
from harness.checking.verdict import convict
from harness.stage import Stage
from tests.made import difference, result

STACK, MODEL = "llama-cpp-python", "smollm2-135m-instruct"
PLAN = Plan(shallow=("markup", "whitespace"), deep=("no-system", "empty-answer"))


@pytest.mark.parametrize(
    ("wrong", "left"),
    [((), PLAN), (("whitespace", "no-system"), Plan(shallow=("markup",), deep=("empty-answer",)))],
    ids=["a clean stack", "a stack that is wrong in two cases"],
)
def test_cases_that_convict_the_clean_stack_are_left_out_and_told(project, monkeypatch, wrong, left):
    asked: list[tuple[Plan, tuple[str, ...]]] = []

    def run(project, stack, model, plan, defects, clean, locator, *, name, setting=""):
        cases = (*plan.shallow, *plan.deep)
        asked.append((plan, () if clean is None else tuple(clean.traces)))
        bad = [result(Stage.POSTPROCESS, case, unexplained=("chained", difference("lost"))) for case in wrong]
        verdict = convict(stack.name, model.name, bad, lambda _: "state")
        traces = {case: Trace(stack=stack.name, model=model.name, case=case) for case in cases}
        return Trial(name=name, stack=stack.name, model=model.name), Checked(traces, verdict, dict.fromkeys(cases, ""))

    monkeypatch.setattr(bench, "run", run)
    bench._clean.cache_clear()
    found = bench.do(bench.Bench(project.root, STACK, {MODEL: PLAN}), bench.Job("control", MODEL))
    bench._clean.cache_clear()
    assert asked == [(PLAN, ()), (left, (*left.shallow, *left.deep))]
    assert [one.cases for one in found.left_out] == ([tuple(sorted(wrong))] if wrong else [])
