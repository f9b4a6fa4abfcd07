"""Hints: a known defect is named where it gives exactly what was observed, and nowhere else."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from harness.check.checking import open_session
from harness.check.trace import Run
from harness.defects.catalogue import catalogue
from harness.defects.planting import plant
from harness.explain.hints import with_hints
from harness.stage import Stage

pytest.importorskip("transformers", reason="the reference needs the extra `reference`: transformers is not installed")

CASES = ("two-user-turns", "whitespace-before-digits")
ONE_THREAD = {"n_threads": 1, "n_threads_batch": 1}


@pytest.fixture(scope="module")
def opened(project, real_stack, smollm):
    """A function that opens a session with a defect in it."""

    @contextmanager
    def made(name):
        stack = real_stack.with_options("llama-cpp-python", ONE_THREAD)
        with (
            plant(stack, smollm, [catalogue()[name]] if name else []) as hurt,
            open_session(project, hurt.stack, smollm, CASES, hurt.wrap, hurt.prepare, around=hurt.model) as session,
        ):
            yield session

    return made


def hints(session, stages):
    """Return the hints by stage, of the stages that were run isolated."""
    results = [
        result
        for case, golden in session.goldens.items()
        for result in session.judge.case(golden, session.trace(case, (Run.ISOLATED,), stages))
    ]
    verdict = with_hints(session.verdict(results), session.running, session.goldens)
    return {finding.stage: [hint.split(":")[0].split()[-1] for hint in finding.hints] for finding in verdict.findings}


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("cli-temperature-dropped", Stage.CLIENT),
        ("tpl-trailing-space", Stage.TEMPLATE),
        ("tok-double-bos", Stage.TOKENIZATION),
        ("pp-content-lost", Stage.POSTPROCESS),
    ],
)
def test_a_planted_defect_is_named(opened, name, stage):
    with opened(name) as session:
        found = hints(session, (stage,))
    assert name in found[stage]


def test_a_healthy_stack_has_none(opened):
    with opened(None) as session:
        assert hints(session, (Stage.TOKENIZATION,)) == {}
