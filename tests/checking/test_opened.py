"""The whole check, on the real engine and the real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.attribution.demo import CASES, Scene, demo
from harness.checking.opened import observe, open_session
from harness.checking.trace import Run, load_trace, save_trace
from harness.defects.catalogue import catalogue
from harness.explain.pipeline import Pipeline, check
from harness.models.families.registry import FAMILIES
from harness.project.cases import case_names, cases_for, load_case
from harness.stage import Stage
from harness.values import Generation, Prompt

HEALTHY = {
    "one thread": {"n_threads": 1, "n_threads_batch": 1},
    "tiny micro-batches": {"n_ubatch": 4},
    "flash attention": {"flash_attn": True},
    "quantized cache": {"type_k": "q8_0"},
}
SHORT = ("system-and-user", "two-user-turns", "stop-across-tokens")


def test_the_healthy_stack_is_clean_over_all_cases_and_models(project, real_stack):
    verdicts = list(check(project, real_stack))
    assert [verdict.model for verdict in verdicts] == list(real_stack.models)
    for verdict in verdicts:
        assert verdict.status == "clean", verdict.line
        assert {stage: said.status for stage, said in verdict.stages.items()} == dict.fromkeys(Stage, "cleared")
        # The one case it cannot be asked is named, not hidden.
        hidden = "reasoning-off" if verdict.model.endswith("thinking") else "prefilled"
        assert [note for note in verdict.notes if note.startswith("unobserved") and hidden in note]
    seen = {result.case for verdict in verdicts for result in verdict.results}
    asked = {case.name for model in real_stack.models for case in cases_for(project, model)}
    assert seen == asked
    # All but those that only a family pack is asked.
    families = {name for name in case_names(project) if set(load_case(project, name).models) & set(FAMILIES)}
    assert asked >= set(case_names(project)) - families


@pytest.fixture(scope="module")
def pipeline(project) -> Iterator[Pipeline]:
    """One for all settings: the oracle that it loads is the same."""
    with Pipeline(project) as opened:
        yield opened


@pytest.mark.parametrize("label", HEALTHY)
def test_healthy_settings_convict_nothing(project, real_stack, smollm, pipeline, label):
    stack = real_stack.with_options("llama-cpp-python", HEALTHY[label])
    with open_session(project, stack, smollm, SHORT) as session:
        verdict = pipeline.verdict(session, [one for case in SHORT for one in session.results(case)])
    assert verdict.status == "clean", verdict.line


def test_each_planted_fault_is_convicted_at_its_stage_and_kind(project, engine):
    scenes: list[Scene] = list(demo(project))
    assert [scene.defect.id if scene.defect else None for scene in scenes] == [
        None,
        "tpl-generation-prompt-lost",
        "tok-parse-special-ignored",
        "eng-rope-base",
    ]
    assert all(scene.right for scene in scenes), [scene.verdict.line for scene in scenes]
    for scene in scenes[1:]:
        (finding,) = scene.verdict.findings
        if scene.defect.stage is not Stage.INFERENCE:
            assert finding.cases == tuple(sorted(CASES))
        after = list(Stage)[list(Stage).index(scene.defect.stage) + 1 :]
        assert [scene.verdict.stages[stage].status for stage in after] == ["inherits"] * len(after)


def test_defects_name_their_stage_and_kind():
    assert {(d.id, d.stage.value, d.kind) for d in catalogue().values()} >= {
        ("tpl-generation-prompt-lost", "template", "integration"),
        ("tok-parse-special-ignored", "tokenization", "integration"),
        ("eng-rope-base", "inference", "engine"),
    }


def test_the_engine_repeats_itself_bit_for_bit(project, real_stack, smollm):
    with open_session(project, real_stack, smollm, ["several-turns"]) as session:
        first, second = (session.trace("several-turns", (Run.ISOLATED,)) for _ in range(2))
        streamed = session.trace("several-turns", (Run.CHAINED, Run.CHAINED_STREAM))
    one, other = (trace.output(Run.ISOLATED, Stage.INFERENCE) for trace in (first, second))
    assert one.digests == other.digests
    chained = [streamed.output(run, Stage.INFERENCE).ids for run in (Run.CHAINED, Run.CHAINED_STREAM)]
    assert chained[0] == chained[1]


def test_a_trace_of_the_real_stack_survives_saving(project, real_stack, smollm, tmp_path):
    with open_session(project, real_stack, smollm, ["no-system"]) as session:
        trace = session.trace("no-system")
        save_trace(trace, tmp_path)
        loaded = load_trace(tmp_path, "no-system")
        golden = session.goldens["no-system"]
        live, again = (session.judge.case(golden, one) for one in (trace, loaded))
    assert [(r.stage, r.isolated.outcome, r.chained) for r in live] == [
        (r.stage, r.isolated.outcome, r.chained) for r in again
    ]


def test_a_dry_run_needs_no_weights_and_no_golden(project, real_stack):
    (case,) = cases_for(project, real_stack.models[0], ["several-turns"])
    dry = observe(project, real_stack, case, dry_run=True)
    assert isinstance(dry.prompt, Prompt)
    assert len(dry.tokens.ids) == 64
    assert dry.generation is None
    whole = observe(project, real_stack, case, stream=True)
    assert (whole.prompt, whole.tokens) == (dry.prompt, dry.tokens)
    assert isinstance(whole.generation, Generation)
    assert whole.reply.deltas
