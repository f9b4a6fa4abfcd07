"""Which file a part really has: asked of the part, proven by its hash, and said where it is not the golden's."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from harness.checking.judge import Judge
from harness.checking.noise import EngineNoise, NoiseClass, save_noise
from harness.checking.opened import open_session
from harness.checking.running import around_its_model
from harness.checking.trace import Run, Tracer
from harness.checking.verdict import convict
from harness.explain.artifact import Inspector, reopening
from harness.explain.hints import with_hints
from harness.explain.served import given_file, other_files, served_file
from harness.models.gguf import sha256_of
from harness.project.golden import PROVENANCE, Provenance
from harness.project.golden_writing import provenance_bytes
from harness.project.project import Project
from harness.project.stack import load_stack
from harness.stage import Stage, StageFailedError
from harness.values import Failure, ModelRef, Prompt, Tokens, Unobserved
from tests.made import FLOOR, LOGITS, Whole, answers, distributions, generation, golden, row, running
from tests.model_files import written

GREETING = golden()
WRONG = Tokens(ids=(4, 4, 1, 3))
END = "tokenizer.ggml.eos_token_id"


@pytest.fixture
def place(tmp_path):
    """A project whose one model is a file that is at hand."""
    original = written(tmp_path / "golden.gguf")
    digest = sha256_of(original)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "models.toml").write_text(f'[tiny]\npath = "../golden.gguf"\nsha256 = "{digest}"\n')
    made = Project(tmp_path)
    (made.golden / "tiny").mkdir(parents=True)
    provenance = Provenance(format=1, model_sha256=digest, references={})
    (made.golden / "tiny" / PROVENANCE).write_bytes(provenance_bytes(provenance))
    return made


@pytest.fixture
def model(place):
    path = place.golden.parent / "golden.gguf"
    return ModelRef(name="tiny", path=path, sha256=sha256_of(path))


class Told(Whole):
    """A part that tells which file it has."""

    def __init__(self, file, **changes):
        super().__init__({**answers(GREETING), **changes})
        self.file = file

    def model_file(self):
        if isinstance(self.file, Exception):
            raise self.file
        return self.file


def opened(part, model, **changes):
    return replace(running(part), model=model, **changes)


def judged(stack):
    """Return the verdict on a stack's isolated runs."""
    results = Judge({}, FLOOR).case(GREETING, Tracer(stack).trace(GREETING, (Run.ISOLATED,)))
    return convict("made", "tiny", results, None)


def inspected(place, stack, reopen=None, **how):
    with contextlib.closing(Inspector(place, **how)) as inspector:
        return inspector.verdict(judged(stack), stack, {"greeting": GREETING}, reopen)


# Which file it is


def test_a_part_s_own_word_counts_before_what_it_was_given(model):
    other = Path("/other.gguf")
    assert served_file(opened(Told(other), model), Stage.INFERENCE) == other
    for silent in (Whole(answers(GREETING)), Told(None), Told(StageFailedError(Failure(reason="crash")))):
        stack = opened(silent, model)
        assert served_file(stack, Stage.INFERENCE) == given_file(stack, Stage.INFERENCE) == model.path
        named = stack.stack.with_options("part-0", {"file": "/named.gguf"})
        assert served_file(replace(stack, stack=named), Stage.INFERENCE) == Path("/named.gguf")


def test_a_stack_around_its_model_has_no_file_of_its_own(place, model):
    pytest.importorskip("httpx", reason="llama-server needs the extra `servers`: httpx is not installed")
    own = {
        "file": "/bad.gguf",
        "n_ctx": 64,
        "parameters": {"model.path": "/bad.gguf", "n_batch": 32},
        "arguments": ["-m", "/bad.gguf", "--threads", "1", "--model=/bad.gguf", "--model", "/bad.gguf"],
    }
    stack = load_stack(Project(Path(__file__).parents[2]), "llama-server").with_options("llama-server", own)
    left = around_its_model(stack).options["llama-server"]
    assert left == {"n_ctx": 64, "parameters": {"n_batch": 32}, "arguments": ["--threads", "1"]}


# The swap


def swapped(place, model, file, **changes):
    """Return the location and kind of a finding at a part that is opened again with another file and other answers."""
    bad = written(place.golden.parent / "bad.gguf", tokenizer__ggml__eos_token_id=0)
    stack = opened(Told(bad, **{Stage.TOKENIZATION: WRONG}), model)
    asked = []

    @contextlib.contextmanager
    def reopen(around):
        asked.append(around.path.resolve())
        yield opened(Told(file, **changes) if file else Whole({**answers(GREETING), **changes}), around)

    (finding,) = inspected(place, stack, reopen).findings
    assert asked == [model.path.resolve()]
    return finding


def test_a_part_that_is_right_with_the_golden_s_file_was_given_a_wrong_one(place, model):
    finding = swapped(place, model, model.path)
    assert finding.kind == "artifact"
    assert finding.location.endswith(f": it differs in the key {END}, and with the golden's the same part is right")


def test_a_part_that_is_wrong_with_the_golden_s_file_stays_wrong(place, model):
    finding = swapped(place, model, model.path, **{Stage.TOKENIZATION: WRONG})
    assert finding.kind == "integration"
    assert finding.location.endswith("but with the golden's the same part is wrong too")


@pytest.mark.parametrize("right", [True, False])
def test_nothing_follows_from_a_swap_that_did_not_happen(place, model, right):
    """Whatever the part then answers: it has the bad file still."""
    bad = place.golden.parent / "bad.gguf"
    finding = swapped(place, model, bad, **({} if right else {Stage.TOKENIZATION: WRONG}))
    assert finding.kind == "integration"
    assert "the golden's own file could not be swapped in: what is then served has SHA-256" in finding.location
    assert "with the golden's the same part" not in finding.location


def test_nothing_follows_where_the_part_does_not_say_what_it_has(place, model):
    finding = swapped(place, model, None)
    assert finding.kind == "integration"
    assert "could not be swapped in: the part does not say which file it then serves" in finding.location


def test_nothing_follows_where_the_part_then_shows_nothing(place, model):
    finding = swapped(place, model, model.path, **{Stage.TOKENIZATION: Unobserved(reason="it is hidden")})
    assert finding.kind == "integration"
    assert "with the golden's own file the part shows nothing: it is hidden" in finding.location


def test_a_model_that_is_held_against_another_s_goldens_has_that_one_s_noise_in_the_swap_too(place, model):
    seen = NoiseClass(variations=("v",), positions=1, mean=0.001, p99=0.001, max=0.001, case_mean=0.0005)
    save_noise(place, "tiny", "part-0", EngineNoise(engine={}, classes={"fine": seen}))
    bad = written(place.golden.parent / "bad.gguf", tensor=2.0)
    other = model.model_copy(update={"name": "quantized", "path": bad, "sha256": sha256_of(bad)})
    wrong = generation(distributions=distributions(row(4), *LOGITS[1:]))
    stack = opened(Told(bad, **{Stage.INFERENCE: wrong}), other, held_against=model, purpose="it is meant")

    def reopen(around):
        return contextlib.nullcontext(opened(Told(model.path), around))

    (finding,) = inspected(place, stack, reopen).findings
    assert (finding.stage, finding.kind) == (Stage.INFERENCE, "artifact")
    assert finding.location.endswith(" and with the golden's the same part is right")


# A file that is not the golden's


@pytest.mark.parametrize(
    ("keys", "stage", "what"),
    [
        ({"tokenizer__ggml__eos_token_id": 0}, Stage.TOKENIZATION, f"the key {END}"),
        ({"tokenizer__chat_template": "{{ 1 }}"}, Stage.TEMPLATE, "the key tokenizer.chat_template"),
        ({"general__name": "another"}, Stage.INFERENCE, "the key general.name"),
    ],
)
def test_a_file_that_is_not_the_golden_s_is_said_and_convicted_where_that_is_asked_for(place, model, keys, stage, what):
    other = written(place.golden.parent / "other.gguf", **keys)
    stack = opened(Told(other), model)
    clean = inspected(place, stack)
    assert (clean.status, clean.findings) == ("clean", ())
    assert clean.notes[0] == (
        f"served file: part-0 serves other.gguf, which is not the golden's file (SHA-256 {sha256_of(other)[:12]}... "
        f"instead of {model.sha256[:12]}...): it differs in {what}"
    )
    strict = inspected(place, stack, strict=True)
    (finding,) = strict.findings
    assert (finding.stage, finding.kind, finding.evidence) == (stage, "artifact", "file")
    assert finding.summary == f"the file that is served is not the golden's: it differs in {what}"
    assert strict.line.startswith(f"convicted: {stage} (artifact): ")
    assert strict.notes == clean.notes


def test_every_stage_that_a_file_differs_for_is_convicted_by_a_strict_check(place, model):
    keys = {"tokenizer__ggml__eos_token_id": 0, "tokenizer__chat_template": "x"}
    other = written(place.golden.parent / "other.gguf", tensor=2.0, **keys)
    found = inspected(place, opened(Told(other), model), strict=True)
    assert [(one.stage, one.summary.partition("differs in ")[2]) for one in found.findings] == [
        (Stage.TEMPLATE, "the key tokenizer.chat_template"),
        (Stage.TOKENIZATION, f"the key {END}"),
        (Stage.INFERENCE, "the tensor output.weight"),
    ]


def test_other_weights_are_convicted_without_that_but_not_where_they_are_meant(place, model):
    other = written(place.golden.parent / "other.gguf", tensor=2.0)
    (finding,) = inspected(place, opened(Told(other), model)).findings
    assert (finding.stage, finding.kind) == (Stage.INFERENCE, "artifact")
    meant = model.model_copy(update={"name": "quantized", "path": other, "sha256": sha256_of(other)})
    stack = opened(Told(other), meant, held_against=model, purpose="it is meant")
    for strict in (False, True):
        found = inspected(place, stack, strict=strict)
        assert (found.status, found.findings) == ("clean", ())
        assert found.notes[0].endswith("it differs in the tensor output.weight; it is meant")


def test_where_the_golden_s_file_is_not_at_hand_that_is_said(place, model):
    other = written(place.golden.parent / "other.gguf", tensor=2.0)
    model.path.unlink()
    found = inspected(place, opened(Told(other), model))
    assert found.findings == ()
    assert found.notes[0].endswith("what it differs in cannot be said, as one of them is not at hand")


def test_the_golden_s_own_file_is_no_matter(place, model):
    stack = opened(Told(model.path), model)
    assert list(other_files(stack)) == []
    with contextlib.closing(Inspector(place, strict=True)) as inspector:
        verdict = judged(stack)
        assert inspector.verdict(verdict, stack, {"greeting": GREETING}) is verdict


# Hints


def test_without_the_golden_s_file_there_are_no_hints_and_that_is_said(place, model):
    bad = written(place.golden.parent / "bad.gguf", tensor=2.0)
    wrong = Told(bad, **{Stage.TEMPLATE: Prompt(text="else")})
    for held in (model.model_copy(update={"path": bad}), model.model_copy(update={"path": Path("nowhere.gguf")})):
        stack = opened(wrong, model.model_copy(update={"path": bad}), held_against=held)
        found = with_hints(judged(stack), stack, {"greeting": GREETING})
        assert [finding.hints for finding in found.findings] == [()]
        assert found.notes[-1].endswith("the file that the goldens were made of is not at hand")


def test_hints_are_made_over_the_golden_s_file_and_never_over_the_one_that_is_served(place, model, monkeypatch):
    asked = []

    class Reference:
        def __init__(self, of):
            asked.append(of)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def made(self, *_):
            return None

    monkeypatch.setattr("harness.explain.hints.HurtReference", Reference)
    bad = model.model_copy(update={"path": written(place.golden.parent / "bad.gguf", tensor=2.0)})
    stack = opened(Told(bad.path, **{Stage.TEMPLATE: Prompt(text="else")}), bad, held_against=model)
    found = with_hints(judged(stack), stack, {"greeting": GREETING})
    assert asked == [model]
    assert found.notes == ()


# A real one


def test_a_server_s_own_file_is_taken_out_for_the_swap(smollm, tmp_path):
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("A REAL SERVER'S FILE IS NOT TESTED: xllamacpp is not installed: pip install -e '.[servers]'")
    from harness.defects.catalogue.artifact import pre_tokenizer
    from harness.defects.model_copy import ModelCopy

    copy = ModelCopy(smollm.path)
    pre_tokenizer(copy, "gpt-2")
    bad = copy.save(tmp_path / "bad.gguf")
    project = Project(Path(__file__).parents[2])
    stack = load_stack(project, "llama-server").with_options("llama-server", {"file": str(bad)})
    case = "whitespace-before-digits"
    with (
        open_session(project, stack, smollm, [case]) as session,
        contextlib.closing(Inspector(project)) as inspector,
    ):
        assert session.running.part(Stage.TOKENIZATION).model_file() == bad
        results = session.judge.case(session.goldens[case], session.trace(case, (Run.ISOLATED,), (Stage.TOKENIZATION,)))
        found = inspector.verdict(session.verdict(results), session.running, session.goldens, reopening(stack))
    (finding,) = found.findings
    assert (finding.stage, finding.kind) == (Stage.TOKENIZATION, "artifact")
    assert finding.location.endswith(
        ": it differs in the key tokenizer.ggml.pre, and with the golden's the same part is right"
    )
