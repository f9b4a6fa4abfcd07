"""Recording: what is new, changed, stale or the same is told apart, and only what is approved is written."""

from __future__ import annotations

import errno
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.project.cases import load_case
from harness.project.golden import Golden, load_golden, load_provenance
from harness.project.project import Project
from harness.values import (
    Case,
    Distributions,
    Generation,
    ModelRef,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
)

pytest.importorskip("tokenizers", reason="recording needs the extra `reference`: tokenizers is not installed")
record = importlib.import_module("harness.reference.record")
whole = importlib.import_module("harness.reference.reference")
Change, Recorded, Recording = record.Change, record.Recorded, record.Recording

MODEL = ModelRef(name="m", path=Path("m.gguf"), sha256="5" * 64)
EVERYTHING = frozenset(Change)


class Reference:
    """A reference that echoes the case; its answer can be changed, and it can break off at a case."""

    def __init__(self, versions="1", answer="", nudge=0.0, refuse=(), break_at=None, error=None):
        self.number = versions
        self.answer = answer
        self.nudge = nudge
        self.refuse = refuse
        self.break_at = break_at
        self.error = error
        self.asked = []
        self.open = None

    def __call__(self, model):
        assert model is MODEL
        return self

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *_):
        self.open = False

    def versions(self):
        return {"client": f"version {self.number}"}

    def golden(self, case):
        assert self.open
        self.asked.append(case.name)
        if case.name == self.break_at:
            raise self.error
        request = Request(messages=tuple(case.body["messages"]))
        if case.name in self.refuse:
            return Golden(case=case, model="m", request=request, prompt=Refusal(error="E", message="no"))
        logits = np.linspace(0, 3, 20, dtype=np.float32).reshape(1, 20)
        logits[0, 0] += self.nudge
        return Golden(
            case=case,
            model="m",
            request=request,
            prompt=Prompt(text=f"{case.name}\r\n"),
            tokens=Tokens(ids=(1, 2)),
            generation=Generation(
                ids=(19,), chosen=(19,), finish="length", distributions=Distributions.from_logits(logits)
            ),
            reply=Reply(content=self.answer),
        )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "golden" / "cases").mkdir(parents=True)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "models.toml").touch()
    made = Project(tmp_path)
    for name in ("a", "b", "c"):
        put_case(made, name)
    return made


def put_case(project, name, content="hi", **keys):
    case = {"description": "d", "covers": [], "body": {"messages": [{"role": "user", "content": content}]}, **keys}
    (project.golden / "cases" / f"{name}.json").write_text(json.dumps(case))


def run(project, reference, *approve):
    """Record everything and return what was found, by case."""
    recording = Recording(project, MODEL, frozenset(approve))
    found = list(recording.run(reference))
    assert found == recording.results
    assert reference.open is False
    return {recorded.case: recorded for recorded in found}


def changes(project, reference, *approve):
    return {name: recorded.change for name, recorded in run(project, reference, *approve).items()}


def content(project):
    """Return every golden file, hidden ones included."""
    files = (path for path in project.golden.rglob("*") if path.is_file() and path.parent.name != "cases")
    return {str(path.relative_to(project.golden)): path.read_bytes() for path in files}


def loadable(project):
    """Return the cases whose golden loads."""
    provenance = load_provenance(project, MODEL)
    names = []
    for name in provenance.cases:
        load_golden(project, MODEL, load_case(project, name), provenance)
        names.append(name)
    return sorted(names)


@pytest.fixture
def recorded(project):
    """A project whose three cases are recorded."""
    assert changes(project, Reference(), Change.NEW) == dict.fromkeys("abc", Change.NEW)
    return project


# Told apart, and written when approved


@pytest.mark.parametrize("approve", [(), (Change.CHANGED, Change.STALE, Change.UNCHANGED)])
def test_new_cases_are_told_and_not_written_unless_approved(project, approve):
    assert run(project, Reference(), *approve) == {name: Recorded(name, Change.NEW) for name in "abc"}
    assert content(project) == {}


def test_new_cases_are_written_when_approved(project):
    found = run(project, Reference(), Change.NEW)
    assert found == {name: Recorded(name, Change.NEW, written=True) for name in "abc"}
    assert loadable(project) == ["a", "b", "c"]
    assert load_provenance(project, MODEL).references == {"client": "version 1"}


def test_the_same_again_is_unchanged_and_not_written(recorded):
    before = content(recorded)
    assert run(recorded, Reference(versions="2")) == {name: Recorded(name, Change.UNCHANGED) for name in "abc"}
    assert content(recorded) == before


def test_a_new_case_beside_recorded_ones(recorded):
    put_case(recorded, "ab")
    before = content(recorded)
    assert changes(recorded, Reference(), Change.NEW) == {
        "a": Change.UNCHANGED,
        "ab": Change.NEW,
        "b": Change.UNCHANGED,
        "c": Change.UNCHANGED,
    }
    after = content(recorded)
    assert {path: data for path, data in after.items() if path in before and "provenance" not in path} == {
        path: data for path, data in before.items() if "provenance" not in path
    }
    assert loadable(recorded) == ["a", "ab", "b", "c"]


def test_another_answer_names_the_stage_that_changed(recorded):
    before = content(recorded)
    assert run(recorded, Reference(answer="other"), Change.NEW, Change.STALE) == {
        name: Recorded(name, Change.CHANGED, ("reply",)) for name in "abc"
    }
    assert content(recorded) == before
    found = run(recorded, Reference(answer="other"), Change.CHANGED)
    assert found == {name: Recorded(name, Change.CHANGED, ("reply",), written=True) for name in "abc"}
    assert loadable(recorded) == ["a", "b", "c"]
    assert changes(recorded, Reference(answer="other")) == dict.fromkeys("abc", Change.UNCHANGED)


def test_a_value_that_becomes_a_refusal_is_a_change(recorded):
    found = run(recorded, Reference(refuse=("b",)), Change.CHANGED)
    assert found["b"] == Recorded("b", Change.CHANGED, ("prompt", "tokens", "generation", "reply"), written=True)
    assert sorted(path for path in content(recorded) if path.startswith("m/b/")) == [
        "m/b/refusal.json",
        "m/b/request.json",
    ]
    assert changes(recorded, Reference(refuse=("b",)), Change.CHANGED)["b"] is Change.UNCHANGED
    assert changes(recorded, Reference(), Change.CHANGED)["b"] is Change.CHANGED


def test_numbers_within_the_noise_of_float32_are_the_same(recorded):
    assert changes(recorded, Reference(nudge=1e-4)) == dict.fromkeys("abc", Change.UNCHANGED)
    assert run(recorded, Reference(nudge=0.5))["a"] == Recorded("a", Change.CHANGED, ("generation",))


def test_a_case_that_asks_something_else_is_changed(recorded):
    put_case(recorded, "b", "another question")
    found = run(recorded, Reference(), Change.CHANGED)
    assert found["b"] == Recorded(
        "b", Change.CHANGED, ("case 'b' was changed after its golden was recorded",), written=True
    )
    assert found["a"].change is found["c"].change is Change.UNCHANGED
    assert loadable(recorded) == ["a", "b", "c"]


def test_a_golden_that_was_changed_by_hand_is_changed(recorded):
    path = recorded.golden / "m" / "b" / "prompt.txt"
    path.write_bytes(b"b\n")
    found = run(recorded, Reference())["b"]
    assert (found.change, found.written) == (Change.CHANGED, False)
    assert found.what == (
        "the golden m/b is not what was recorded: its files were changed, or their line endings were",
    )
    assert path.read_bytes() == b"b\n"
    run(recorded, Reference(), Change.CHANGED)
    assert path.read_bytes() == b"b\r\n"


def test_a_case_that_is_gone_is_stale(recorded):
    (recorded.golden / "cases" / "b.json").unlink()
    before = content(recorded)
    stale = Recorded("b", Change.STALE, ("the case is gone",))
    assert run(recorded, Reference(), Change.NEW, Change.CHANGED)["b"] == stale
    assert content(recorded) == before
    assert run(recorded, Reference(), Change.STALE)["b"].written is True
    assert [path for path in content(recorded) if path.startswith("m/b/")] == []
    assert loadable(recorded) == ["a", "c"]
    assert changes(recorded, Reference()) == {"a": Change.UNCHANGED, "c": Change.UNCHANGED}


def test_a_case_that_is_no_longer_asked_of_the_model_is_stale(recorded):
    put_case(recorded, "b", models=["another"])
    reference = Reference()
    assert run(recorded, reference)["b"] == Recorded("b", Change.STALE, ("the case is not asked of this model",))
    assert reference.asked == ["a", "c"]


def test_goldens_of_another_model_file_are_all_new(recorded):
    path = recorded.golden / "m" / "provenance.toml"
    path.write_text(path.read_text().replace("5" * 64, "6" * 64))
    before = content(recorded)
    assert changes(recorded, Reference(answer="x")) == dict.fromkeys("abc", Change.NEW)
    assert content(recorded) == before
    assert changes(recorded, Reference(answer="x"), Change.NEW) == dict.fromkeys("abc", Change.NEW)
    assert loadable(recorded) == ["a", "b", "c"]


# Broken off


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no"), RuntimeError("defect"), MemoryError()])
def test_what_was_recorded_before_a_break_is_loadable_and_nothing_else_is_there(project, error):
    reference = Reference(break_at="b", error=error)
    recording = Recording(project, MODEL, frozenset({Change.NEW}))
    with pytest.raises(type(error)):
        list(recording.run(reference))
    assert reference.open is False
    assert recording.results == [Recorded("a", Change.NEW, written=True)]
    assert loadable(project) == ["a"]
    assert {path.split("/")[1] for path in content(project)} == {"a", "provenance.toml"}
    assert changes(project, Reference(), Change.NEW) == {
        "a": Change.UNCHANGED,
        "b": Change.NEW,
        "c": Change.NEW,
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no")])
def test_a_break_leaves_the_old_goldens_of_the_rest_untouched(recorded, error):
    before = content(recorded)
    with pytest.raises(type(error)):
        list(Recording(recorded, MODEL, EVERYTHING).run(Reference(answer="new", break_at="b", error=error)))
    after = content(recorded)
    assert loadable(recorded) == ["a", "b", "c"]
    assert {path for path in before if before[path] != after[path]} == {"m/a/reply.json", "m/provenance.toml"}
    assert set(after) == set(before)


def test_who_stops_listening_stops_the_recording(project):
    reference = Reference()
    recording = Recording(project, MODEL, frozenset({Change.NEW})).run(reference)
    assert next(recording) == Recorded("a", Change.NEW, written=True)
    recording.close()
    assert reference.asked == ["a"]
    assert reference.open is False
    assert loadable(project) == ["a"]


def test_a_full_disk_while_a_golden_is_written(recorded, monkeypatch):
    before = content(recorded)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        run(recorded, Reference(answer="new"), Change.CHANGED)
    assert str(caught.value) == "the golden m/a cannot be written: No space left on device; the old one is intact"
    assert content(recorded) == before
    assert loadable(recorded) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_break_between_a_golden_and_its_provenance(recorded, monkeypatch, error):
    def full(path, data):
        raise error

    monkeypatch.setattr("harness.project.golden_writing.replace_file", full)
    with pytest.raises((UserError, KeyboardInterrupt)):
        run(recorded, Reference(answer="new"), Change.CHANGED)
    assert loadable(recorded) == ["a", "b", "c"]


# Settings


def make_case(**body):
    return Case(name="warm", description="d", covers=(), body={"messages": [{"role": "user"}], **body})


def check(**settings):
    whole._check_settings(make_case(), {"max_tokens": 4, **settings})


def test_settings_that_the_reference_computes_are_taken():
    check(temperature=0.7, top_p=0.9, stop=["x"], seed=3)
    check(presence_penalty=0, frequency_penalty=0.0, logit_bias={}, n=1, logprobs=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 40),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("n", 2),
        ("logprobs", True),
        ("temprature", 0),
        ("repeat_penalty", None),
        ("presence_penalty", None),
    ],
)
def test_a_setting_that_the_reference_does_not_compute_is_refused_with_the_case(name, value):
    with pytest.raises(UserError) as caught:
        check(**{name: value})
    assert str(caught.value) == f"case 'warm': the reference does not know the setting {name} = {value!r}"


@pytest.mark.parametrize(
    "limit",
    [
        None,
        0,
        -1,
        "4",
        4.0,
        pytest.param(True),
    ],
)
def test_a_limit_that_does_not_end_the_golden_is_refused_with_the_case(limit):
    with pytest.raises(UserError) as caught:
        check(max_tokens=limit)
    assert str(caught.value) == "case 'warm': max_tokens must be a positive number, or left out"


def test_an_answer_may_end_by_itself():
    whole._check_settings(make_case(), {})


# What a declared policy would give instead


CHATML = (
    "{% for m in messages %}{{ '<' + m.role + '>' + (m.content if m.content is string else m.content | tojson) + '|' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)
TEXTS = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '|' }}{% endfor %}"
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]


class Tokenizer:
    """A token a character; `$` is the end token, whose text is `$$`."""

    special_texts = {"eos": "$$"}  # noqa: RUF012 - a stand-in
    end_of_generation_ids = frozenset({ord("$")})

    def piece(self, token):
        return chr(token).encode("utf-8") if token < 256 else bytes([token - 256])

    def is_control(self, token):
        return token == ord("$")


@pytest.fixture(scope="module")
def reference():
    """Return a maker of references of a template, without a model file; a template's renderer is shared."""
    pytest.importorskip("transformers", reason="the reference renderer needs transformers")
    renderers = {}

    def make(template=CHATML, **model):
        if template not in renderers:
            renderers[template] = whole.ReferenceTemplate(template, {}, ())
        made = object.__new__(whole.Reference)
        made.model = MODEL.model_copy(update=model)
        made.tokenizer = Tokenizer()
        made._template = renderers[template]
        return made

    yield make
    for renderer in renderers.values():
        renderer.__exit__(None, None, None)


def other_prompts(made, *messages, **options):
    body = {"messages": [{"role": role, "content": content} for role, content in messages]}
    case = Case(name="c", description="d", covers=(), body=body, options=options)
    request = Request(messages=tuple(body["messages"]))
    try:
        text = made._template.render(request, case.options).text
    except whole.StageRefusedError:
        text = None
    return text, made._other_prompts(case, request, text)


def test_a_plain_question_has_no_other_prompt(reference):
    assert other_prompts(reference(), ("system", ""), ("user", "hi")) == ("<system>|<user>hi|<bot>", {})


def test_nothing_for_a_content_is_an_empty_text_by_the_policy(reference):
    assert other_prompts(reference(TEXTS), ("user", "a"), ("user", None)) == (
        None,
        {
            "null-as-empty": "<user>a|<user>|",
            "parts-joined": "<user>a|<user>|",
            "parts-joined-by-space": "<user>a|<user>|",
            "parts-joined-by-newline": "<user>a|<user>|",
        },
    )


def test_text_parts_are_one_text_by_the_policies(reference):
    joined = {
        "parts-joined": "<user>onetwo|<bot>",
        "parts-joined-by-space": "<user>one two|<bot>",
        "parts-joined-by-newline": "<user>one\ntwo|<bot>",
    }
    text, others = other_prompts(reference(), ("user", PARTS))
    assert text.startswith('<user>[{"type": "text"')
    assert others == joined
    text, others = other_prompts(reference(TEXTS), ("user", PARTS))
    assert (text, others) == (None, {name: other.removesuffix("<bot>") for name, other in joined.items()})


def test_other_parts_than_texts_are_joined_by_no_policy(reference):
    image = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert other_prompts(reference(TEXTS), ("user", image)) == (None, {})
    assert other_prompts(reference(), ("user", [*PARTS, {"type": "text"}]))[1] == {}


def test_a_last_turn_of_the_assistant_s_is_continued_by_the_policy(reference):
    turns = ("user", "a"), ("assistant", "b")
    template = CHATML.replace("+ '|'", "").replace("m.content | tojson", "''")
    assert other_prompts(reference(template), *turns) == (
        "<user>a<assistant>b<bot>",
        {"last-turn-continued": "<user>a<assistant>b"},
    )
    asked = other_prompts(reference(template), *turns, continue_final_message=True)
    assert asked == ("<user>a<assistant>b", {}), "the case asks for it"
    assert other_prompts(reference(template), *turns, ("user", "c"))[1] == {}


def reply(made, text, messages=({"role": "user", "content": "q"},), tools=None, finish="end_token", **generation):
    request = Request(messages=messages, tools=tools, settings={"stop": ["STOP"]})
    ids = tuple(map(ord, text))
    made_of = Generation(ids=ids, chosen=ids, finish=finish, **generation)
    return made._reply(made_of, request, Prompt(text="<bot>"), 3)


def test_a_plain_reply_has_no_other(reference):
    found = reply(reference(), "Yes.$")
    assert (found.content, found.finish_reason, found.policies) == ("Yes.", "stop", {})


def test_the_end_token_s_text_ends_the_reply_by_the_policy(reference):
    found = reply(reference(), "a b$")
    assert found.policies == {}
    tokenizer = Tokenizer()
    tokenizer.special_texts = {"eos": "##"}
    made = reference()
    made.tokenizer = tokenizer
    found = reply(made, "a##b$")
    assert (found.content, found.usage.completion_tokens) == ("a##b", 4)
    assert {name: (other.content, other.usage.completion_tokens) for name, other in found.policies.items()} == {
        "end-text-stops": ("a", 3)
    }


def test_a_character_beyond_the_limit_is_completed_by_the_policy(reference):
    ids = (ord("a"), 256 + 0xC3)
    made_of = Generation(ids=ids, chosen=ids, finish="length", beyond=(256 + 0xA9,))
    request = Request(messages=({"role": "user", "content": "q"},))
    found = reference()._reply(made_of, request, Prompt(text=""), 3)
    assert (found.content, found.withheld, found.finish_reason) == ("a", 1, "length")
    (name, other), *more = found.policies.items()
    assert (name, other.content, other.withheld, other.usage.completion_tokens) == (
        "length-completes-character",
        "a\u00e9",
        0,
        3,
    )
    assert more == []


def test_the_words_that_it_goes_on_with_are_repeated_by_the_policy(reference):
    messages = {"role": "user", "content": "q"}, {"role": "assistant", "content": "Well, "}
    found = reply(reference(), "no.$", messages)
    assert found.content == "no."
    assert found.policies == {"prefill-in-content": found.model_copy(update={"content": "Well, no.", "policies": {}})}
    assert reply(reference(), "no.$", (messages[0], {"role": "assistant", "content": None})).policies == {}


def test_calls_and_reasoning_stay_in_the_content_by_the_policy(reference):
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    found = reply(reference(calls="hermes"), f"{text}$", tools=({"type": "function"},))
    assert (found.content, found.finish_reason) == ("", "tool_calls")
    assert found.tool_calls == ({"type": "function", "function": {"name": "f", "arguments": "{}"}},)
    (unparsed,) = found.policies.values()
    assert set(found.policies) == {"unparsed"}
    assert (unparsed.content, unparsed.tool_calls, unparsed.finish_reason) == (text, None, "stop")
    assert reply(reference(calls="hermes"), f"{text}$").content == text, "no tools are declared"
    assert reply(reference(), f"{text}$", tools=({"type": "function"},)).policies == {}, "the model has no form"
    thought = reply(reference(reasoning="think"), "<think>a</think>b$")
    assert (thought.content, thought.reasoning) == ("b", "a")
    assert thought.policies["unparsed"].content == "<think>a</think>b"
    assert thought.policies["unparsed"].reasoning is None
