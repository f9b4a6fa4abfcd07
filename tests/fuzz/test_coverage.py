"""Coverage of templates: what was not reached is named with its line, and what is rendered is the same text."""

from __future__ import annotations

import json
from datetime import datetime

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.fuzz import fixed_conversations
from harness.fuzz.template.coverage import Coverage
from harness.parts import CLOCK, PartError, Rendering
from tests.fuzz.test_mutation import Generation, templates


def refuse(message):
    raise jinja2.TemplateError(message)


def environment() -> jinja2.Environment:
    """Return one with the options that transformers sets."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    made.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = CLOCK.strftime
    return made


def rendered(source: str, **variables) -> tuple[Coverage, str]:
    """Return the coverage after one render, and the text."""
    coverage = Coverage(environment(), source)
    return coverage, coverage.render(Rendering([], variables=variables))


def missed(coverage: Coverage) -> list[tuple[int, str, str]]:
    return [(one.line, one.kind, one.text) for one in coverage.missed()]


ARMS = "{% if a == 1 %}\none\n{% elif a == 2 %}\ntwo\n{% else %}\nmore\n{% endif %}"


def test_arms():
    coverage, text = rendered(ARMS, a=2)
    assert text == "two\n"
    assert missed(coverage) == [(1, "if", "{% if a == 1 %}"), (1, "else", "{% if a == 1 %}")]
    assert coverage.share == pytest.approx(1 / 3)
    coverage.render(Rendering([], variables={"a": 3}))
    assert missed(coverage) == [(1, "if", "{% if a == 1 %}")]
    coverage.render(Rendering([], variables={"a": 1}))
    assert missed(coverage) == []
    assert coverage.share == 1


def test_an_arm_that_is_not_written_is_one():
    coverage, _ = rendered("\n{% if a %}b{% endif %}", a=True)
    assert missed(coverage) == [(2, "else", "{% if a %}")]


def test_loops():
    source = "{% for a in b %}\n{{ a }}\n{% endfor %}"
    every = ["loop zero", "loop one", "loop many"]
    for items, reached in (([], 0), ([1], 1), ([1, 2], 2), ([1, 2, 3], 2)):
        coverage, _ = rendered(source, b=items)
        kinds = [one.kind for one in coverage.missed() if one.kind != "output"]
        assert kinds == [kind for kind in every if kind != every[reached]]
    coverage, _ = rendered(source, b=[])
    assert missed(coverage)[-1] == (2, "output", "{{ a }}")


def test_a_loop_in_a_loop_that_is_left_is_counted_on_its_own():
    source = "{% for a in b %}{% for c in a %}{% if c %}{% break %}{% endif %}{{ c }}{% endfor %};{% endfor %}"
    coverage, text = rendered(source, b=[[], [0], [1, 2]])
    assert text == ";0;;"
    assert missed(coverage) == [
        (1, "loop zero", "{% for a in b %}"),
        (1, "loop one", "{% for a in b %}"),
        (1, "loop many", "{% for c in a %}"),
    ]


def test_macros_calls_and_set_blocks():
    source = (
        "{% macro a(x=1 if y else 2) %}{{ x }}{% endmacro %}\n{% macro b() %}{{ caller() }}{% endmacro %}\n"
        "{% set z %}{{ y }}{% endset %}{% call b() %}{{ z }}!{% endcall %}"
    )
    coverage, text = rendered(source, y=3)
    assert text == "3!"
    assert missed(coverage) == [
        (1, "macro", "{% macro a(x=1 if y else 2) %}"),
        (1, "conditional true", "{% macro a(x=1 if y else 2) %}"),
        (1, "conditional false", "{% macro a(x=1 if y else 2) %}"),
        (1, "output", "{{ x }}"),
    ]


def test_conditions_in_expressions():
    coverage, text = rendered("{{ 'a' if b else 'c' }}{{ 'd' if e }}", b=1)
    assert text == "a"
    assert missed(coverage) == [
        (1, "conditional false", "{{ 'a' if b else 'c' }}"),
        (1, "conditional true", "{{ 'd' if e }}"),
    ]


def test_what_was_reached_before_an_error_counts():
    coverage = Coverage(environment(), "{% for a in b %}{{ a }}{{ raise_exception('no') }}{{ a }}{% endfor %}")
    for _ in range(2):
        with pytest.raises(jinja2.TemplateError, match="no"):
            coverage.render(Rendering([], variables={"b": [1, 2]}))
    assert [one.text for one in coverage.missed() if one.kind == "output"] == ["{{ a }}"]
    assert coverage.share == pytest.approx(2 / 6)


def test_a_loop_that_calls_itself():
    source = "{% for a in b recursive %}{{ a.n }}{{ loop(a.c) if a.c }}{% endfor %}"
    _, text = rendered(source, b=[{"n": 1, "c": [{"n": 2}]}])
    assert text == "12"


def test_a_long_tag_is_cut_and_a_template_of_text_is_covered():
    coverage, _ = rendered("{% if b %}{{ '" + "a" * 300 + "' }}{% endif %}", b=0)
    assert [len(one.text) for one in coverage.missed() if one.kind == "output"] == [161]
    assert rendered("a")[0].share == 1


def test_a_template_that_calls_the_counting_spoils_its_own_count_only():
    coverage, text = rendered("{{ _covered_point(99) }}{{ 1 if a }}", a=0)
    assert text == "None"
    assert missed(coverage) == [(1, "conditional true", "{{ 1 if a }}")]
    assert coverage.share == 3 / 4


def test_the_clock_is_the_one_that_is_asked_for():
    coverage = Coverage(environment(), "{{ strftime_now('%Y') }}")
    assert coverage.render(Rendering([], clock=datetime(1999, 1, 1))) == "1999"
    assert coverage.render(Rendering([])) == f"{CLOCK:%Y}"


def test_lines_and_texts_are_those_of_the_source_with_whitespace_control():
    source = "a  \n{%- if b -%}\n\n  {{- c -}}  \n{%- endif %}\n{# d #}\n{% raw %}{{ e }}{% endraw %}\n{{ f }}"
    coverage, _ = rendered(source, b=0)
    assert missed(coverage) == [(2, "if", "{%- if b -%}"), (4, "output", "{{- c -}}")]


def test_what_is_no_template_is_refused():
    with pytest.raises(PartError) as error:
        Coverage(environment(), "a\n{% if %}")
    assert (error.value.kind, error.value.line) == ("syntax", 2)


def outcome(render) -> str:
    try:
        return render()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def test_the_text_of_real_templates_is_the_same():
    conversations = fixed_conversations()
    reached, texts = 0, set()
    for source in templates().values():
        coverage, plain = Coverage(environment(), source), environment().from_string(source)
        for one in conversations:
            asked = Rendering(one["messages"], one.get("tools"), variables={"bos_token": "<s>", "eos_token": "</s>"})
            variables = {
                "messages": asked.messages,
                "tools": asked.tools,
                "documents": None,
                "add_generation_prompt": True,
                **asked.variables,
            }
            expected = outcome(lambda plain=plain, variables=variables: plain.render(variables))
            assert outcome(lambda coverage=coverage, asked=asked: coverage.render(asked)) == expected
            texts.add(expected)
        reached += coverage.share > 0.5
    assert len(texts) > 200
    assert reached > len(templates()) // 2
