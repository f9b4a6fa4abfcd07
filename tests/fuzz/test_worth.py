"""What mutants tell: which differ, which the goldens and the properties kill; and what of a template was reached."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.fuzz import fixed_conversations
from harness.fuzz.measures import Covered, Tried, Unreached
from harness.fuzz.template.counting import counting_of
from harness.fuzz.template.golden_cases import GoldenCase, golden_cases
from harness.fuzz.template.mutate import try_mutants
from harness.fuzz.template.properties import properties_named
from harness.fuzz.template.run import Plan, fuzz_templates
from harness.fuzz.template.subjects import subjects
from harness.fuzz.template.trial import Conversation, Subject
from harness.fuzz.template.worth import Bar, Original, sampled, summed
from harness.parts import PartError, Rendering, make

TRANSFORMERS = {
    "transformers-template": "harness.components.template_engines._transformers:TransformersEngine",
}
JINJA2 = "harness.components.template_engines._jinja2:Jinja2Engine"
NAMES = ("user", "system", "two turns", "prefill")
CONVERSATIONS = [{"messages": one["messages"]} for one in fixed_conversations() if one["name"] in NAMES]
SOURCE = """\
{%- for message in messages %}
{{- '<|' ~ message.role ~ '|>' ~ message.content ~ '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
USER = [{"role": "user", "content": "Hi."}]
CASE = GoldenCase(name="user", messages=USER, prompt="<|user|>Hi.<|end|>\n<|assistant|>")


@pytest.fixture(scope="module")
def engine():
    return make(TRANSFORMERS["transformers-template"])


def original(engine, source=SOURCE, cases=(CASE,), properties=(), engines=()):
    bar = Bar([engine, *engines], properties_named(properties), [Conversation(one) for one in CONVERSATIONS])
    return Original(Subject(name="t", source=source), cases, bar)


def judged(made, kind, old=None):
    """Return whether the mutants of a kind differ, the case that kills them and the property that does."""
    found = [one for one in made.mutants if one.kind == kind and old in (None, one.old)]
    return [(one.told, one.case, one.broken) for one in map(made.judged, found)]


def test_what_kills_a_mutant(engine):
    made = original(engine)
    assert judged(made, "content-dropped") == [(True, "user", "text-verbatim")]
    assert judged(made, "messages-reversed") == [(True, None, "text-verbatim")]
    assert judged(made, "generation-prompt-always") == [(True, None, "opens-as-asked")]
    # That a newline stands twice behind every turn is what a template may have.
    assert judged(made, "newline-doubled") == [(True, "user", None)]
    assert judged(original(engine, cases=()), "newline-doubled") == [(True, None, None)]


def test_a_mutant_in_what_no_input_reaches_does_not_differ(engine):
    source = SOURCE + "{% if nobody_gives_this %}a\n{% endif %}"
    assert judged(original(engine, source), "text-dropped", "a\n") == [(False, None, None)]


def test_what_the_original_breaks_itself_kills_nothing(engine):
    source = SOURCE.replace("message.content ~", "(message.content | replace('i', '1') | replace('e', '3')) ~")
    made = original(engine, source, cases=(), properties=["text-verbatim"])
    assert judged(made, "content-cut") == [(True, None, None)]
    assert judged(made, "content-dropped") == [(True, None, "text-verbatim")]


def test_a_golden_case_that_the_original_does_not_give_is_left_out(engine):
    other, refused = (
        CASE.model_copy(update={"name": name, "prompt": text}) for name, text in (("b", "b"), ("c", None))
    )
    made = original(engine, cases=(CASE, other, refused))
    assert [case.name for case in made.cases] == ["user"]


def test_a_golden_case_has_its_clock_and_variables(engine):
    source = "{{ strftime_now('%Y') }}{{ mood }}{% if add_generation_prompt %}a{% endif %}"
    given = {"clock": "2031-02-03T00:00:00", "variables": {"mood": "!"}, "opens": False, "prompt": "2031!"}
    case = GoldenCase.model_validate({"name": "b", "messages": USER, **given})
    made = original(engine, source, cases=(case,))
    assert made.cases == [case]
    assert judged(made, "generation-prompt-always") == [(True, "b", None)]
    assert judged(made, "generation-prompt-never") == [(True, None, None)]


def test_engines_that_disagree_over_the_mutant_alone_kill_it(engine):
    class Deaf:
        """An engine that knows no `lower`."""

        name = "deaf"

        def compile(self, source):
            if "| lower" in source:
                raise PartError("syntax", "no such filter")
            return engine.compile(source)

    made = original(engine, cases=(), properties=["engines-agree"], engines=[Deaf()])
    assert judged(made, "content-lowered") == [(True, None, "engines-agree")]
    assert judged(made, "content-dropped") == [(True, None, None)]
    # Where they disagree over the original, too, it is not the mutant.
    lowered = original(engine, SOURCE + "{{ 'A' | lower }}", cases=(), properties=["engines-agree"], engines=[Deaf()])
    assert judged(lowered, "content-lowered") == [(True, None, None)]


def test_a_template_that_does_not_compile_has_no_mutants(engine):
    with pytest.raises(PartError):
        original(engine, "{% for a in b %}")


def test_a_sample_has_some_of_every_kind():
    kinds = ["a"] * 6 + ["b"] * 2 + ["c"]
    numbers = sampled(kinds, 5, 3)
    assert [kinds[number] for number in numbers] == ["a", "b", "c", "a", "b"]
    assert len(set(numbers)) == 5
    assert sampled(kinds, 5, 3) == numbers
    assert len({tuple(sampled(kinds, 5, seed)) for seed in range(20)}) > 1
    assert sorted(sampled(kinds, None, 0)) == list(range(9))


def test_the_sum():
    def tried(kind, **what):
        return Tried(subject="t", kind=kind, line=1, column=1, old="a", new="b", **what)

    survivor = tried("content-cut", told=True)
    every = [
        tried("newline-dropped", told=True, case="c", broken="renders"),
        tried("content-cut", told=False),
        survivor,
        tried("content-cut", told=True, broken="renders"),
    ]
    result = summed(every, made=9, cases=1, unjudged={})
    numbers = [(one.kind, one.tried, one.told, one.by_goldens, one.by_properties, one.survive) for one in result.kinds]
    assert numbers == [("content-cut", 3, 2, 0, 1, 1), ("newline-dropped", 1, 1, 1, 1, 0)]
    assert result.survivors == (survivor,)
    assert result.properties == {"renders": 2}
    assert result.line == (
        "4 of 9 mutants tried, 3 differ from their original: the properties kill 66.7%, the goldens 33.3%, 1 survive"
    )


def test_mutants_in_child_processes():
    plan = Plan(engines=TRANSFORMERS, workers=1, number=1)
    wrong = Subject(name="wrong", source="{% for a in b %}")
    heard = []
    result, engines, ended = try_mutants(
        plan,
        [Subject(name="t", source=SOURCE), wrong],
        CONVERSATIONS,
        {"t": [CASE]},
        most=12,
        progress=lambda done, wanted: heard.append((done, wanted)),
    )
    assert (result.total.tried, result.cases, ended, list(engines)) == (12, 1, False, list(TRANSFORMERS))
    assert result.made > 30
    assert list(result.unjudged) == ["wrong"]
    assert 0 < result.total.by_goldens < result.total.by_properties == result.total.told < 12
    assert heard == [(12, 12)]


def test_the_search_counts_what_it_reached():
    source = "{% for m in messages %}{{ m.content }}{% endfor %}\n{% if rare %}{{ rare }}{% endif %}"
    case = GoldenCase(name="b", messages=USER, variables={"rare": "x"}, prompt="")
    plan = Plan(engines=TRANSFORMERS, workers=1, properties=("same-clock-same-text",), counts=True)
    _, statistics = fuzz_templates(plan, [Subject(name="t", source=source)], CONVERSATIONS, {}, cases={"t": [case]})
    # A conversation has a message or two; a golden case has one.
    assert statistics.coverage == (
        Covered(
            subject="t",
            by="conversations",
            points=7,
            missed=(
                Unreached(line=1, kind="loop zero", text="{% for m in messages %}"),
                Unreached(line=2, kind="if", text="{% if rare %}"),
                Unreached(line=2, kind="output", text="{{ rare }}"),
            ),
        ),
        Covered(
            subject="t",
            by="goldens",
            points=7,
            missed=(
                Unreached(line=1, kind="loop zero", text="{% for m in messages %}"),
                Unreached(line=1, kind="loop many", text="{% for m in messages %}"),
                Unreached(line=2, kind="else", text="{% if rare %}"),
            ),
        ),
    )
    assert [one.share for one in statistics.coverage] == pytest.approx([4 / 7, 4 / 7])


def test_what_is_counted_is_given_as_the_engine_gives_it(engine):
    counting = counting_of(engine, "{% for m in messages %}{% if m.thinking %}a{% endif %}{% endfor %}")
    counting.count(Rendering([{"role": "assistant", "content": "", "reasoning_content": "b"}]))
    assert "if" not in [one.kind for one in counting.coverage.missed()]
    assert counting_of(make(JINJA2), SOURCE) is None
    assert counting_of(engine, "{% if %}") is None


def test_golden_cases_give_their_prompts(project, smollm_tools, engine):
    name = smollm_tools.name
    cases = golden_cases(project, name)[name]
    (subject,) = subjects(project, name)
    bar = Bar([engine], [], [])
    assert Original(subject, cases, bar).cases == cases
    assert {case.opens for case in cases} == {True, False}
    assert None in [case.prompt for case in cases] or len(cases) > 30
    assert golden_cases(project, "no such name") == {}


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "a.jinja"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def run(*words):
    result = CliRunner().invoke(app, ["fuzz", "template", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_mutants_at_the_command_line(template):
    words = (
        "--mutants",
        6,
        "--engine",
        "transformers-template",
        "--workers",
        1,
        "--format",
        "json",
        "--only",
        "renders",
    )
    status, out, _ = run(template, *words)
    report = json.loads(out)["report"]
    assert (status, report["findings"], report["held"]) == (0, [], {})
    assert sum(one["tried"] for one in report["mutation"]["kinds"]) == 6
    assert report["mutation"]["cases"] == 0
    template.write_text("{% for a in b %}", encoding="utf-8")
    status, out, _ = run(template, *words)
    assert status == 3
    assert list(json.loads(out)["report"]["mutation"]["unjudged"]) == ["a.jinja"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mutants", "0"), "--mutants '0' is no number of mutants"),
        (("--mutants", "many"), "--mutants 'many' is no number of mutants"),
        (("--mutants", "all", "--coverage"), "--coverage does not go with --mutants"),
    ],
)
def test_what_cannot_be_asked_of_mutants_is_one_line(template, words, said):
    status, _, err = run(template, *words)
    assert status == 2
    assert said in err


def test_coverage_at_the_command_line(template, tmp_path):
    words = ("--coverage", "--examples", 0, "--workers", 1, "--database", tmp_path, "--only", "renders")
    _, out, _ = run(template, *words, "--engine", "transformers-template")
    # `renders` asks for an opened turn only.
    assert "the conversations reached 71.4%: 5 of 7 branches, loops and outputs" in out
    assert "line 1  loop zero  {%- for message in messages %}" in out
    assert "line 4  else  {%- if add_generation_prompt %}" in out
    _, out, _ = run(template, *words, "--engine", "jinja2")
    assert "nothing was counted: for coverage the first engine has to be" in " ".join(out.split())
