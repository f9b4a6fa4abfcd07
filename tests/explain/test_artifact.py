"""A wrong file is told from a wrong part by what the reference makes of the very file that is served."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.checking.compare.inference import Floor
from harness.checking.judge import Judge
from harness.checking.opened import Session, open_session
from harness.checking.trace import Run, Trace
from harness.checking.verdict import Verdict
from harness.defects.catalogue.artifact import pre_tokenizer, template_edited
from harness.defects.catalogue.weights import blocks_swapped
from harness.defects.model_copy import ModelCopy
from harness.explain.artifact import Inspector, _agree
from harness.models.gguf import sha256_of
from harness.process.owner import as_the_parts
from harness.project.golden import Golden
from harness.stage import Stage
from harness.values import Case, Distributions, Generation, ModelRef, Observation, Request

pytest.importorskip("tokenizers", reason="the reference needs the extra `reference`: tokenizers is not installed")

OWN_THREAD = {"n_threads": 1, "n_threads_batch": 1}
SHORT, DIGITS = "empty-answer", "whitespace-before-digits"


@pytest.fixture(scope="module")
def copied(smollm: ModelRef, tmp_path_factory) -> Callable[[Callable[[ModelCopy], object]], ModelRef]:
    """A function that returns the model with an edited file."""

    def made(edit: Callable[[ModelCopy], object]) -> ModelRef:
        copy = ModelCopy(smollm.path)
        edit(copy)
        path = copy.save(tmp_path_factory.mktemp("copy") / "model.gguf")
        return smollm.model_copy(update={"path": path})

    return made


@pytest.fixture(scope="module")
def swapped(copied) -> ModelRef:
    """The model with two blocks swapped."""
    return copied(lambda copy: blocks_swapped(copy, 10, 20))


@pytest.fixture(scope="module")
def same(copied) -> ModelRef:
    """The model in another file that says the same."""
    return copied(lambda copy: copy.set("general.name", "another"))


@pytest.fixture(scope="module")
def inspector(project) -> Iterator[Inspector]:
    with contextlib.closing(Inspector(project)) as opened:
        yield opened


@pytest.fixture
def opened(project, real_stack):
    """A function that opens a session around a model, with a defect in it."""

    def made(model: ModelRef, case: str, hook: str | None = None) -> contextlib.AbstractContextManager[Session]:
        def prepare(running):
            if hook is not None:
                running.part(Stage.INFERENCE).plant(hook, watches_nodes=True)

        stack = real_stack.with_options("llama-cpp-python", OWN_THREAD)
        return open_session(project, stack, model, [case], prepare=prepare)

    return made


def verdicts(session: Session, inspector: Inspector, stage: Stage) -> tuple[Verdict, Verdict]:
    """Return the verdict on one stage of the session's case before and after the file was looked at."""
    (case,) = session.goldens
    trace = session.trace(case, (Run.ISOLATED,), (stage,))
    verdict = session.verdict(session.judge.case(session.goldens[case], trace))
    return verdict, inspector.verdict(verdict, session.running, session.goldens)


def only_the_kind(before: Verdict, after: Verdict) -> bool:
    """Whether two verdicts are the same but for kinds, locations, the line, and a first note on the file."""
    assert after.notes[0].startswith("served file: ")
    after = after.model_copy(update={"notes": after.notes[1:]})
    cut = {"kind": "engine", "location": None}
    findings = [tuple(one.model_copy(update=cut) for one in verdict.findings) for verdict in (before, after)]
    return findings[0] == findings[1] and before.model_copy(update={"findings": (), "line": ""}) == after.model_copy(
        update={"findings": (), "line": ""}
    )


def test_another_pre_tokenizer_is_the_files(opened, copied, inspector, smollm):
    model = copied(lambda copy: pre_tokenizer(copy, "gpt-2"))
    with opened(model, DIGITS) as session:
        before, after = verdicts(session, inspector, Stage.TOKENIZATION)
    assert [(one.stage, one.kind) for one in before.findings] == [(Stage.TOKENIZATION, "integration")]
    (finding,) = after.findings
    assert (finding.stage, finding.kind) == (Stage.TOKENIZATION, "artifact")
    assert finding.location == (
        f"the file that is served is not the golden's (SHA-256 {sha256_of(model.path)[:12]}... instead of "
        f"{smollm.sha256[:12]}...), and the reference makes the same of it: the part does what its file says"
    )
    assert after.line == before.line.replace("tokenization (integration)", "tokenization (artifact)")
    assert only_the_kind(before, after)


def test_what_the_reference_has_no_proof_for_keeps_its_kind(opened, copied, inspector):
    with opened(copied(lambda copy: pre_tokenizer(copy, "chameleon")), DIGITS) as session:
        _, after = verdicts(session, inspector, Stage.TOKENIZATION)
    assert {one.kind for one in after.findings} == {"integration"}
    (said,) = {one.location for one in after.findings}
    assert said.endswith(
        ", and what the reference would make of it is not known: the file has the pre-tokenizer 'chameleon', for which "
        "the reference has no proof"
    )


def test_swapped_blocks_are_the_files(opened, swapped, inspector):
    with opened(swapped, SHORT) as session:
        before, after = verdicts(session, inspector, Stage.INFERENCE)
    assert [(one.stage, one.kind) for one in before.findings] == [(Stage.INFERENCE, "engine")]
    assert [(one.stage, one.kind) for one in after.findings] == [(Stage.INFERENCE, "artifact")]
    assert only_the_kind(before, after)


@pytest.mark.parametrize(
    "hook", ["harness.defects.catalogue.sampling:logits_scaled", "tests.explain.test_artifact:lost"]
)
def test_an_engine_that_is_wrong_around_a_wrong_file_stays_wrong(opened, swapped, inspector, hook):
    with opened(swapped, SHORT, hook) as session:
        _, after = verdicts(session, inspector, Stage.INFERENCE)
    (finding,) = after.findings
    assert finding.kind == "engine"
    assert finding.location.endswith(
        ", but the reference makes something else of it: the part does not do what its file says"
    )


def lost(engine):
    """Lose every number that the engine computes."""
    real = engine.llm.sample

    def sample(*arguments, idx=None, **keywords):
        from llama_cpp import llama_cpp as low_level

        row = idx - engine.llm.n_tokens if idx is not None else -1
        pointer = low_level.llama_get_logits_ith(engine.llm.ctx, row)
        np.ctypeslib.as_array(pointer, shape=(engine.llm.n_vocab(),))[:] = np.nan
        return real(*arguments, idx=idx, **keywords)

    engine.llm.sample = sample


def test_a_wrong_engine_around_the_right_file_stays_the_engines_and_costs_nothing(opened, smollm, project):
    with opened(smollm, SHORT, "tests.explain.test_artifact:lost") as session:
        fresh = Inspector(project)
        before, after = verdicts(session, fresh, Stage.INFERENCE)
    assert [one.kind for one in before.findings] == ["engine"]
    assert after is before
    assert fresh._references == {}


def generation(*rows: float) -> Generation:
    """A generation of an id a row, all of them as likely as the first number of the row says."""
    numbers = np.array([[row, np.log1p(-np.exp(row))] for row in rows], dtype=np.float32)
    ids = np.tile(np.array([0, 1], dtype=np.int32), (len(rows), 1))
    distributions = Distributions(numbers, ids, np.full(len(rows), -np.inf, np.float32))
    zeros = (0,) * len(rows)
    return Generation(ids=zeros, chosen=zeros, finish="length", distributions=distributions)


@pytest.mark.parametrize(
    ("expected", "observed", "agree"),
    [
        ((np.nan, np.nan), (np.nan, np.nan), True),
        ((np.nan, np.nan), (np.nan, -1.0), False),
        ((-1.0, np.nan), (-1.0, np.nan), True),
        ((-1.0, np.nan), (-2.0, np.nan), False),
        ((-1.0, np.nan), (np.nan, np.nan), False),
        ((-1.0, -1.0), (-1.0, np.nan), False),
        ((-1.0, np.nan), (-1.0, -1.0), False),
        ((-1.0, -1.0), (-1.0, -1.0), True),
        ((-1.0, -1.0), (-1.0, -2.0), False),
    ],
)
def test_what_is_no_number_agrees_with_what_is_none_in_the_same_place(expected, observed, agree):
    judge = Judge({}, Floor(limit=0.01, mean=0.01, source="made up"))
    request = Request(messages=(), settings={})
    case = Case(name="c", description="", covers=(), body={"messages": [{"role": "user", "content": "x"}]})
    golden = Golden(case=case, model="m", request=request, prompt=None, generation=generation(*expected))
    trace = Trace(stack="s", model="m", case="c", runs={Run.ISOLATED: Observation(generation=generation(*observed))})
    assert _agree(judge, Stage.INFERENCE, golden, trace) is agree


def test_a_wrong_template_of_the_stack_around_another_file_stays_the_stacks(opened, same, inspector):
    with opened(same, SHORT, "harness.defects.catalogue.template:generation_prompt_lost") as session:
        _, after = verdicts(session, inspector, Stage.TEMPLATE)
    (finding,) = after.findings
    assert (finding.stage, finding.kind) == (Stage.TEMPLATE, "integration")
    assert "but the reference makes something else of it" in finding.location


def test_a_template_that_replaces_the_files_is_never_the_files(opened, same, inspector):
    with opened(same, SHORT) as session:
        session.running = replace(session.running, model=same.model_copy(update={"chat_template": "wrong"}))
        golden = session.goldens[SHORT]
        session.goldens = {SHORT: golden.model_copy(update={"prompt": golden.prompt.model_copy(update={"text": "x"})})}
        before, after = verdicts(session, inspector, Stage.TEMPLATE)
    assert [one.kind for one in before.findings] == ["integration"]
    assert after.findings == before.findings


def test_an_edited_template_is_the_files(opened, copied, inspector):
    with opened(copied(lambda copy: template_edited(copy, "assistant", "helper")), SHORT) as session:
        _, after = verdicts(session, inspector, Stage.TEMPLATE)
    assert {one.kind for one in after.findings} == {"artifact"}


def test_a_template_that_does_not_compile_is_the_files(opened, copied, inspector):
    with opened(copied(lambda copy: template_edited(copy, "{% endfor %}", "")), SHORT) as session:
        before, after = verdicts(session, inspector, Stage.TEMPLATE)
    assert [one.kind for one in before.findings] == ["integration"]
    (finding,) = after.findings
    assert finding.kind == "artifact"
    assert ", and the reference does not take it either: TemplateSyntaxError: " in finding.location


def ended(_engine):
    """Do not start."""
    raise as_the_parts(OSError("no library"))


def test_a_file_that_neither_loads_is_an_artifact_and_one_that_the_reference_loads_is_not(opened, copied, inspector):
    with opened(copied(lambda copy: copy.set("tokenizer.ggml.pre", "no-such-pre")), SHORT) as session:
        before, after = verdicts(session, inspector, Stage.INFERENCE)
    assert [one.kind for one in before.findings] == ["environment"]
    (finding,) = after.findings
    assert finding.kind == "artifact"
    assert finding.location.endswith(
        ", and the reference does not take it either: the file has the pre-tokenizer 'no-such-pre', for which the "
        "reference has no proof"
    )


def test_a_part_that_does_not_start_around_a_file_that_the_reference_takes(opened, swapped, inspector):
    with opened(swapped, SHORT, "tests.explain.test_artifact:ended") as session:
        _, after = verdicts(session, inspector, Stage.INFERENCE)
    (finding,) = after.findings
    assert finding.kind == "environment"
    assert finding.location.endswith(", but the reference takes it: this part cannot, or not here")
