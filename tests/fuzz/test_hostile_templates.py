"""Templates that mean harm: none changes what others are given, ends a sweep, or has an innocent neighbour accused."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from benchmarks.hostile_templates import KINDS, hostile_templates
from harness import parts
from harness.cli import app
from harness.components import template_engines
from harness.components.template_engines._child import Renderer
from harness.errors import UserError
from harness.fuzz import fixed_conversations, try_template
from harness.fuzz.template.agreement import difference
from harness.fuzz.template.counting import counting_of
from harness.fuzz.template.mutate import try_mutants
from harness.fuzz.template.run import Children, Plan, _died, fuzz_templates
from harness.fuzz.template.subjects import subjects
from harness.fuzz.template.trial import Side, Subject, output, rendered
from harness.parts import CLOCK, PartError, Rendering, make
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.reference.transformers_renderer import TransformersRenderer
from harness.stage import StageFailedError
from harness.values import CaseOptions, ModelRef, Request

MINIJINJA = "harness.components.template_engines._minijinja:MiniJinjaEngine"
JINJA2 = "harness.components.template_engines._jinja2:Jinja2Engine"
TRANSFORMERS = "harness.components.template_engines._transformers:TransformersEngine"
CONVERSATIONS = [{key: one[key] for key in ("messages", "tools") if key in one} for one in fixed_conversations()]
INNOCENT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
CHANGES = {
    "append": "{% set _ = messages.append(1) %}",
    "a message": "{% set _ = messages[0].update({'content': 'changed'}) %}",
    "a part": "{% set _ = messages[0].content.append('changed') %}",
    "tools": "{% set _ = tools.clear() %}",
    "a variable": "{% set _ = kept.append(1) %}",
}
STUCK = "{% set n = 9999 %}{% set a, b = [[[0] * n] * n] * n, [[[0] * n] * n] * n %}{{ a == b }}"
ASKED = Rendering(
    ({"role": "user", "content": ["a", {"type": "text", "text": "b"}]},), ({"type": "function"},), True, {"kept": [0]}
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_template_changes_is_its_own_copy(change):
    given = ASKED.own()
    side = Side(make(MINIJINJA), CHANGES[change] + "{{ messages | length }}")
    assert isinstance(rendered(side, given), str | PartError)
    assert dataclasses.astuple(given) == dataclasses.astuple(ASKED)


def test_the_engine_would_have_let_it():
    # Otherwise the test above proves nothing.
    messages = [{"role": "user", "content": "a"}]
    make(MINIJINJA).compile(CHANGES["append"]).render(Rendering(messages))
    assert messages[1:] == [1]


def test_a_components_second_render_gets_what_the_first_got():
    source = CHANGES["append"] + "{{ messages | length }}{% if add_generation_prompt %}>{% endif %}"
    seen = Renderer(MINIJINJA, {}, 5.0).render(source, [{"role": "user"}], None, {}, CLOCK.isoformat(), True)
    assert seen == {"text": "2>", "before": "2"}


def test_the_reference_gives_copies_whatever_its_library_does(monkeypatch):
    renderer = TransformersRenderer()
    monkeypatch.setattr(renderer.library, "render_jinja_template", _changing)
    messages, tools, variables = [{"content": ["a"]}], [{"b": 1}], {"c": [1]}
    assert renderer.render("", messages, tools, variables, opens=True, clock=CLOCK) == "changed"
    assert (messages, tools, variables) == ([{"content": ["a"]}], [{"b": 1}], {"c": [1]})


def _changing(conversations, tools, c, **_):
    conversations[0][0]["content"].append("b")
    tools[0].clear()
    c.append(2)
    return ["changed"], []


@pytest.mark.parametrize("change", ["append", "a message"])
def test_an_innocent_neighbour_is_judged_as_if_it_were_alone(tmp_path, project, change):
    (tmp_path / "b.jinja").write_text(INNOCENT, "utf-8")
    plan = Plan(engines={"transformers-template": TRANSFORMERS, "minijinja": MINIJINJA}, workers=1)
    alone, _ = fuzz_templates(plan, subjects(project, str(tmp_path)), CONVERSATIONS[:3], {})
    (tmp_path / "a.jinja").write_text(CHANGES[change], "utf-8")
    found, statistics = fuzz_templates(plan, subjects(project, str(tmp_path)), CONVERSATIONS[:3], {})
    assert (statistics.subjects, statistics.unjudged) == (2, {})
    assert {one.fingerprint for one in alone} == {one.fingerprint for one in found if "b.jinja" in one.subjects}


class Odd:
    """An engine from outside, that gives whatever its template names."""

    name = "odd"
    GIVES: ClassVar = {"number": 5, "surrogate": "a\ud800", "long": "x" * 300_000, "text": "x"}

    def version(self):
        return "1"

    def compile(self, source):
        if source == "raise":
            raise RuntimeError("\ud800")
        self.source = source
        return self

    def render(self, asked):
        if self.source == "deep":
            return self.render(asked)
        if self.source == "memory":
            raise MemoryError
        return self.GIVES[self.source]


@pytest.mark.parametrize(
    ("source", "ends"),
    [
        ("raise", ("error", "\\ud800", "RuntimeError")),
        ("number", ("error", "it gives no text, but int", "TypeError")),
        ("surrogate", ("error", "the text that it gives holds a lone surrogate", "UnicodeEncodeError")),
        ("long", ("limit", "its text has more than 262,144 characters", "TooLong")),
        ("deep", ("limit", "maximum recursion depth exceeded", "RecursionError")),
        ("memory", ("limit", "out of memory", "MemoryError")),
    ],
)
def test_whatever_an_engine_gives_is_how_it_ended(source, ends):
    seen = rendered(Side(Odd(), source), ASKED)
    assert (seen.kind, seen.message, seen.name) == ends


def test_a_finding_shows_no_more_of_a_text_than_can_be_looked_at():
    shown = output("a", "x" * 200_000)
    assert shown.text.endswith("x… (200,000 characters)")
    assert len(shown.text) < 70_000


def test_a_source_that_cannot_be_counted_is_not_counted(monkeypatch):
    monkeypatch.setattr("harness.fuzz.template.counting.Coverage", _raising)
    assert counting_of(make(TRANSFORMERS), "a") is None


def _raising(*_):
    raise IndexError


@pytest.fixture
def failing(monkeypatch):
    """Every call about the template `a` fails in the child for a reason of ours."""
    call = Children.call

    def fails(self, method, **arguments):
        if arguments["subject"]["name"] == "a":
            raise RemoteError("IndexError", "list index\nout of range \ud800", "", ())
        return call(self, method, **arguments)

    monkeypatch.setattr(Children, "call", fails)


def test_an_error_in_the_child_ends_that_template_and_not_the_sweep(failing):
    plan = Plan(engines={"jinja2": JINJA2}, properties=("renders",), workers=1, examples=2)
    two = [Subject(name="a", source="a"), Subject(name="b", source="{{ none.x.y }}")]
    found, statistics = fuzz_templates(plan, two, CONVERSATIONS[:2], {})
    assert {one.subjects for one in found} == {("b",)}
    assert statistics.unjudged == {"a": "IndexError: list index out of range \\ud800"}
    mutation, _, ended = try_mutants(plan, two, CONVERSATIONS[:1], {}, 2)
    assert mutation.unjudged == {"a": "IndexError: list index out of range \\ud800"}
    assert not ended


def test_one_of_many_that_cannot_be_read_is_said_and_nothing_is_called_clean(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"\xff\xfe")
    (tmp_path / "b.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    words = ("--engine", "jinja2", "--only", "renders", "--examples", "0")
    done = CliRunner().invoke(app, ["fuzz", "template", str(tmp_path), *words])
    assert done.exit_code == 3, done.output
    assert "a.jinja could not be judged: " in done.output
    with pytest.raises(UserError, match="cannot be read"):
        try_template(str(tmp_path), CONVERSATIONS[0], template="a.jinja", engines=["jinja2"])


class Stuck(Renderer):
    """The child of a component, with little patience."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        parts._LEAST_STUCK = 0.2


def test_what_no_handler_interrupts_ends_the_process_as_a_hang(monkeypatch):
    init = {"engine": JINJA2, "keywords": {}, "seconds": 0.1}
    asked = {"messages": [], "tools": None, "variables": {}, "clock": CLOCK.isoformat(), "opens": True}
    with Worker("tests.fuzz.test_hostile_templates:Stuck", init, seconds=60.0) as worker:
        with pytest.raises(WorkerDiedError) as died:
            worker.call("render", source=STUCK, **asked)
        assert worker.call("render", source="a", **asked)["text"] == "a"
    assert died.value.failure.signal == "SIGPROF"
    found = _died(Subject(name="a", source=STUCK), "jinja2", died.value)
    assert (found.broken.cause, found.broken.message) == (
        "ends the process: hang",
        "the process that renders it did not end, and could not be interrupted",
    )
    component = template_engines.Jinja2(ModelRef(name="m", path="m.gguf", sha256="", chat_template="a"), {})
    component._template = ("a", {})
    monkeypatch.setattr(component._child, "call", _ending(died.value.failure))
    with pytest.raises(StageFailedError) as failed:
        component.render(Request(messages=(), tools=None, settings={}, defaults=()), CaseOptions(clock=CLOCK))
    assert (failed.value.failure.reason, failed.value.failure.seconds) == ("hang", 10.0)


def _ending(failure):
    def call(*_, **__):
        raise StageFailedError(failure)

    return call


def test_a_text_of_brackets_is_compared_at_once():
    assert difference("[1," * 80_000, "[1, " * 60_000) == "other text"


def test_every_kind_of_hostile_template_is_made_and_the_same_again():
    made = list(hostile_templates(60, 3))
    assert made == list(hostile_templates(60, 3))
    assert {name.partition("-")[2] for name, _ in made} == {f"{kind}.jinja" for kind in KINDS}


def test_hostile_templates_end_nothing_and_hurt_no_neighbour(tmp_path, project):
    # Those that only take their time are left to `benchmarks.hostile`.
    quick = ("escapes", "changes", "undefined", "files", "cut", "ranges")
    for name, source in hostile_templates(90, 1):
        if name.partition("-")[2].removesuffix(".jinja") in quick:
            (tmp_path / name).write_text(source, "utf-8", newline="")
    for name in ("0.jinja", "z.jinja"):
        (tmp_path / name).write_text(INNOCENT, "utf-8")
    plan = Plan(engines={"transformers-template": TRANSFORMERS, "minijinja": MINIJINJA}, workers=1)
    every = subjects(project, str(tmp_path))
    found, statistics = fuzz_templates(plan, every, CONVERSATIONS[:1], {})
    assert (statistics.subjects, statistics.unjudged) == (len(every), {})
    first, last = ({one.fingerprint for one in found if name in one.subjects} for name in ("0.jinja", "z.jinja"))
    assert first == last
