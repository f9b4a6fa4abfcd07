"""Hints: a known defect is named where it gives exactly what was observed, and nowhere else."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from harness.checking.compare.outcome import Comparison, Outcome
from harness.checking.judge import Chained
from harness.checking.opened import open_session
from harness.checking.trace import Run
from harness.checking.verdict import convict
from harness.defects.catalogue import catalogue
from harness.defects.defect import Defect, Place
from harness.defects.planting import plant
from harness.explain import hints as explained
from harness.explain.hints import with_hints
from harness.stage import Stage
from harness.values import Prompt, Reply, Request, Tokens, Usage
from tests.made import Whole, answers, difference, golden, result, running

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


# The rules, on made-up defects

WRONG = "<user>Say hi.\n"


def made_up(name):
    """Return a template's defect."""
    return Defect(id=name, stage=Stage.TEMPLATE, kind="integration", sentence="S.", place=Place.PROMPT, hook="made:up")


def named(monkeypatch, made, cases, *, evidence="isolated", observed=WRONG):
    """Return the hints of one finding at the template, where the reference makes `made` and the part `observed`."""

    class Reference:
        def __init__(self, *_args, **_more):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def made(self, defect, one):
            text = dict(made)[defect.id]
            return Prompt(text=text(one.case.name) if callable(text) else text)

    monkeypatch.setattr(explained, "HurtReference", Reference)
    monkeypatch.setattr(explained, "_is_at_hand", lambda _: True)
    monkeypatch.setattr(explained, "catalogue", lambda: {name: made_up(name) for name, _ in made})
    goldens = {case: golden(case) for case in cases}
    part = Whole({**answers(goldens[cases[0]]), Stage.TEMPLATE: Prompt(text=observed)})
    places = difference("it differs")
    shown = {
        "isolated": {"isolated": Comparison(outcome=Outcome.DIVERGED, difference=places)},
        "state": {"chained": Chained.UNEXPLAINED, "unexplained": (Run.CHAINED, places)},
    }[evidence]
    results = [result(Stage.TEMPLATE, case, **shown) for case in cases]
    verdict = with_hints(convict("made", "tiny", results, lambda _: "state"), running(part), goldens)
    (finding,) = verdict.findings
    assert finding.evidence == evidence
    return [hint.split(":")[0].removeprefix("this looks like ") for hint in finding.hints]


def test_a_defect_that_gives_exactly_what_was_observed_is_named(monkeypatch):
    assert named(monkeypatch, [("right", WRONG), ("other", "else")], ["a"]) == ["right"]


def test_a_defect_that_changes_nothing_explains_nothing(monkeypatch):
    """What is observed again is right: a defect without an effect would give just that."""
    healthy = golden().prompt.text
    assert named(monkeypatch, [("idle", healthy), ("right", WRONG)], ["a"], observed=healthy) == []


def test_a_defect_must_give_all_of_four_cases(monkeypatch):
    made = [("all", WRONG), ("not-the-fourth", lambda case: "else" if case == "d" else WRONG)]
    assert named(monkeypatch, made, ["a", "b", "c"]) == ["all", "not-the-fourth"]
    assert named(monkeypatch, made, ["a", "b", "c", "d"]) == ["all"]


def test_what_shows_only_in_the_chain_has_no_hints(monkeypatch):
    assert named(monkeypatch, [("right", WRONG)], ["a"], evidence="state") == []


SENT = Request(messages=({"role": "user", "content": "Hi"},), settings={"temperature": 0})
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


@pytest.mark.parametrize(
    "other",
    [
        {"messages": ({"role": "user", "content": "Ho"},)},
        {"tools": ({"type": "function"},)},
        {"tool_choice": "none"},
        {"settings": {"temperature": 1}},
        {"settings": {"temperature": 0, "top_p": 0.5}},
    ],
)
def test_requests_are_the_same_where_what_was_asked_is(other):
    """What the part sets by itself nobody asked for."""
    by_itself = SENT.model_copy(update={"settings": {"temperature": 0, "top_k": 40}, "defaults": ("top_k",)})
    assert explained._essence(by_itself) == explained._essence(SENT)
    assert explained._essence(SENT.model_copy(update=other)) != explained._essence(SENT)


@pytest.mark.parametrize(
    "other", [{"content": "Ho"}, {"reasoning": "so"}, {"tool_calls": (CALL,)}, {"finish_reason": "length"}]
)
def test_replies_are_the_same_where_what_they_say_is(other):
    """Whatever was counted."""
    reply = Reply(content="Hi", finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=1))
    assert explained._essence(reply.model_copy(update={"usage": None})) == explained._essence(reply)
    assert explained._essence(reply.model_copy(update=other)) != explained._essence(reply)


def test_prompts_are_their_text_and_tokens_their_ids():
    assert explained._essence(Prompt(text="Hi", suffix="i")) == "Hi"
    assert explained._essence(Tokens(ids=(1,), pieces=("Hi",))) == (1,)
