"""What defects cost: sizes and places on numbers that are made up, a quantizer that is llama.cpp's, one real defect."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.published_stages import published
from harness.attribution import effects
from harness.attribution.effects import Subject, goldens_of, measure
from harness.attribution.held import Engine, Held, held
from harness.attribution.held import engine as opening
from harness.attribution.scale import FLOAT, Setting, Step, quantizing
from harness.attribution.size import place_of, size_of, sizes_of
from harness.attribution.study import Effect, Study, load, save
from harness.checking.noise import Noise
from harness.defects.catalogue import catalogue
from harness.defects.defect import Defect, Place
from harness.defects.reference import HurtReference
from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.project.stack import resolve_model
from harness.report.attribution.stages import filled, tables_of
from harness.stage import Stage, StageRefusedError
from harness.statistics import bootstrap
from harness.values import Distributions, Generation, Prompt, Refusal
from tests.conftest import ROOT
from tests.doctor.models import write

STUDIES = ROOT / "docs" / "studies"
SCALE = {"Q4_0": 0.1, "Q8_0": 0.001, "Q2_K": 1.0}


def generation(*rows, ids=None):
    """A generation over a vocabulary of as many tokens as a row has entries, with its rows' digests."""
    logits = np.log(np.array(rows, dtype=np.float32))
    best = tuple(int(row.argmax()) for row in logits)
    return Generation(
        ids=best if ids is None else ids,
        chosen=best,
        finish="forced",
        distributions=Distributions.from_logits(logits),
        digests=tuple(row.tobytes().hex() for row in logits),
    )


CLEAN = generation((0.5, 0.25, 0.25), (0.1, 0.8, 0.1))


def test_the_divergence_of_two_known_distributions():
    other = generation((0.25, 0.5, 0.25), (0.1, 0.8, 0.1))
    found = held("one", CLEAN, CLEAN, other)
    assert found.kl[0] == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), rel=1e-5)
    assert found.kl[1] == 0.0
    assert (found.turned, found.text, found.answer) == (1, True, None)


def test_the_same_bits_are_no_divergence():
    assert held("one", CLEAN, CLEAN, CLEAN) == Held(case="one", kl=(0.0, 0.0), turned=0, text=False)


def test_a_text_is_known_up_to_where_the_clean_engine_leaves_the_golden():
    golden = generation((0.9, 0.1), (0.9, 0.1), (0.9, 0.1))
    clean = generation((0.9, 0.1), (0.4, 0.6), (0.9, 0.1))
    after = generation((0.9, 0.1), (0.4, 0.6), (0.1, 0.9))
    before = generation((0.9, 0.1), (0.9, 0.1), (0.9, 0.1))
    assert (held("one", golden, clean, after).turned, held("one", golden, clean, after).text) == (1, False)
    assert (held("one", golden, clean, before).turned, held("one", golden, clean, before).text) == (1, True)


def test_places_on_the_scale():
    assert place_of(0.0005, SCALE) == "below Q8_0"
    assert place_of(0.001, SCALE) == "Q8_0 to Q4_0"
    assert place_of(0.5, SCALE) == "Q4_0 to Q2_K"
    assert place_of(2.0, SCALE) == "above Q2_K"


def test_a_bootstrap_draws_whole_groups():
    assert bootstrap([[1.0], [2.0], [3.0]], np.nanmean) is None
    assert bootstrap([[1.0, 3.0]] * 4, np.nanmean) == (2.0, 2.0)
    assert bootstrap([[1.0, 1.0, 1.0], [1.0]] * 2, np.nanmedian) == (1.0, 1.0)
    low, high = bootstrap([[0.0]] * 5 + [[1.0]] * 5, np.nanmean)
    assert 0.1 <= low <= 0.3
    assert 0.7 <= high <= 0.9


def case(name, kl, text=False, answer=None):
    return Held(case=name, kl=kl, turned=int(text), text=text, answer=answer)


def effect(name, *cases, stage=Stage.TEMPLATE, lost=()):
    struck = len(cases) + len(lost)
    return Effect(id=name, stage=stage, place="prompt", model="m", cases=cases, struck=struck, of=2, lost=lost)


def step(name, mean):
    return Step(name=name, size=1_000_000, types={"F32": 1, name: 2}, cases=(case("one", (mean,)),))


STUDY = Study(
    engine={"version": "1"},
    cases={"m": ("one", "two")},
    effects=(
        effect("loud", case("one", (3.0, 1.0), text=True, answer="ends"), case("two", (2.0,), answer="runs on")),
        effect("quiet", case("one", (0.1, 0.3), answer="ends")),
        effect("small", case("one", (1e-5,), text=True, answer="ends")),
        effect("idle"),
        effect("dead", lost=("one",), stage=Stage.CLIENT),
    ),
    scale=(step("Q2_K", 1.0), step("Q8_0", 0.001)),
    settings=(
        Setting(
            component="c",
            name="again",
            noise_class="n",
            identical=1,
            cases=(case("one", (0.0,)),),
            golden=(case("one", (0.5,)),),
        ),
    ),
)


def test_who_would_notice():
    found = sizes_of(STUDY)
    assert [step.name for step, _ in found.scale] == ["Q8_0", "Q2_K"]
    assert [(one.effect.id, one.place, one.above, one.fluent) for one in found.effects] == [
        ("small", "below Q8_0", False, True),
        ("quiet", "Q8_0 to Q2_K", True, True),
        ("loud", "above Q2_K", True, False),
        ("idle", "no case", False, None),
        ("dead", "no answer", False, None),
    ]
    client, template = found.stages
    assert (client.stage, client.measured, client.lost, client.struck, client.means) == (Stage.CLIENT, 1, 1, 0, None)
    assert (template.measured, template.idle, template.struck, template.above) == (4, 1, 3, 2)
    assert template.means == (1e-5, pytest.approx(0.2), 2.0)
    assert (template.silent.count, template.silent.of) == (1, 2)
    assert (template.fluent.count, template.fluent.of) == (1, 2)
    assert (template.kept.count, template.kept.of) == (2, 3)


def test_sizes_are_over_positions():
    size = size_of(STUDY.effects[0].cases)
    assert (size.mean, size.median, size.largest, size.mean_within) == (2.0, 2.0, 3.0, None)
    assert (size.texts.count, size.texts.of, size.turned.count, size.turned.of) == (1, 2, 1, 3)


def test_the_tables():
    seen = {"variations": ["again"], "positions": 1792, "mean": 0.004, "p99": 0.02, "max": 0.035, "case_mean": 0.008}
    noise = Noise.model_validate({"c": {"engine": {}, "classes": {"f16": seen}}})
    tables = tables_of(sizes_of(STUDY), noise)
    assert tables["engines"].splitlines()[-1] == "| c: f16 | 1,792 | 0.004 | 0.02 | 0.035 |"
    assert tables["defects"].splitlines()[2:4] == [
        "| `small` | template | 1 of 2 | 1e-05 | 1e-05 | 1e-05 | 1 of 1 (21 to 100 %) | 1 of 1 | 0 | below Q8_0 |",
        "| `quiet` | template | 1 of 2 | 0.2 | 0.2 | 0.3 | 0 of 2 (0 to 66 %) | 0 of 1 | 0 | Q8_0 to Q2_K |",
    ]
    assert tables["defects"].splitlines()[-3:] == [
        "| `dead` | client | 1 of 2 | - | - | - | - | - | 1 | no answer |",
        "",
        "Other ids in no case: `idle`.",
    ]
    assert tables["scale"].splitlines()[2].startswith("| Q8_0 | 2 Q8_0 | 1 | 0.001 |")


def test_a_document_without_the_place_of_a_table():
    page = "a\n<!-- stages: begin x -->\nold\n<!-- stages: end x -->\nb\n"
    assert filled(page, {"x": "new"}) == "a\n<!-- stages: begin x -->\n\nnew\n\n<!-- stages: end x -->\nb\n"
    with pytest.raises(UserError, match="no one table 'y'"):
        filled(page, {"y": "new"})
    with pytest.raises(UserError, match="no one table 'x'"):
        filled(page + page, {"x": "new"})


def test_the_published_tables_are_up_to_date():
    document, _ = published()
    assert document == (STUDIES / "stages.md").read_text(encoding="utf-8"), "python -m benchmarks.published_stages"


def test_a_study_is_kept_a_line_a_thing(tmp_path):
    save(STUDY, tmp_path / "study.json")
    assert load(tmp_path / "study.json") == STUDY
    lines = (tmp_path / "study.json").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line.rstrip(","))["id"] for line in lines if line.startswith('{"id"')] == [
        one.id for one in STUDY.effects
    ]


# With the model


class Scripted:
    """A component that says the same after the golden's ids and another thing after others; it refuses no ids."""

    def __init__(self, golden):
        self.golden = golden
        self.asked = []

    def generate(self, tokens, request, forced):
        self.asked.append((tokens.ids, forced))
        if not tokens.ids:
            raise StageRefusedError(Refusal(error="ValueError", message="no ids"))
        right = self.golden.generation
        if forced is None:
            return Generation(ids=(5, 6), chosen=(5, 6), finish="end_token")
        rows = right.distributions
        if tokens.ids != self.golden.tokens.ids:
            ids = np.flip(rows.ids, axis=1)
            rows = Distributions(rows.logprobs, ids, rows.rest)
        return Generation(ids=forced, chosen=rows.argmax(), finish="forced", distributions=rows)


def planted(place, function, **arguments):
    return Defect("x", Stage.TEMPLATE, "integration", "It is.", place, f"{__name__}:{function}", arguments)


def same_text(text):
    return text


def no_ids(seen):
    return ()


def other_text(text, mark):
    return text + mark


def other_body(body):
    return {**body, "messages": [{"role": "user", "content": "Hello"}]}


def no_body(body):
    return {"messages": 3}


@pytest.fixture(scope="module")
def golden(project, smollm):
    return goldens_of(project, smollm)["system-and-user"]


@pytest.fixture(scope="module")
def reference(smollm):
    with HurtReference(smollm) as opened:
        yield opened


def test_cases_are_answered_by_the_model_itself(project, smollm):
    goldens = goldens_of(project, smollm)
    assert {"system-and-user", "several-turns"} <= goldens.keys()
    assert not {"control-text", "stop-never", "longer-than-context"} & goldens.keys()


def test_a_model_whose_answers_are_all_scripted_is_held_at_the_scripts(project, smollm):
    goldens = goldens_of(project, resolve_model(project, "smollm2-135m-instruct-thinking"))
    assert all(one.case.options.script is not None for one in goldens.values())
    assert "reasoning-in-history" in goldens


def test_what_a_defect_feeds_to_the_engine(golden, reference):
    right = golden.tokens.ids
    assert reference.prompt_ids(planted(Place.PROMPT, "same_text"), golden) == right
    assert reference.prompt_ids(planted(Place.REQUEST, "same_text"), golden) == right
    assert reference.prompt_ids(planted(Place.BODY, "same_text"), golden) == right
    assert reference.prompt_ids(planted(Place.PROMPT, "other_text", mark="<|im_end|>"), golden) == (*right, 2)
    assert reference.prompt_ids(planted(Place.PROMPT, "other_text", mark="\ud800"), golden) is None
    assert reference.prompt_ids(planted(Place.BODY, "no_body"), golden) is None
    hello = reference.prompt_ids(planted(Place.BODY, "other_body"), golden)
    assert isinstance(reference.made(planted(Place.PROMPT, "same_text"), golden), Prompt)
    assert len(hello) != len(right)


def test_the_effect_of_a_defect(golden, reference, smollm):
    part = Scripted(golden)
    subject = Subject(smollm, {"one": golden}, Engine(part), reference)
    nothing = subject.effect_of(planted(Place.PROMPT, "same_text"))
    assert (nothing.cases, nothing.struck, nothing.of, nothing.lost) == ((), 0, 1, ())
    refused = subject.effect_of(planted(Place.IDS, "no_ids"))
    assert (refused.cases, refused.struck, refused.lost) == ((), 1, ("one",))
    (hurt,) = subject.effect_of(planted(Place.PROMPT, "other_text", mark="\n")).cases
    asked = len(part.asked)
    assert subject.effect_of(planted(Place.PROMPT, "other_text", mark="\n")).cases == (hurt,)
    assert len(part.asked) == asked
    assert hurt.text
    assert min(hurt.kl) > 1
    assert hurt.turned == len(hurt.kl) == len(golden.generation.ids)
    assert hurt.answer == "ends"


def test_a_double_bos_in_the_real_engine(project, engine, smollm, tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "STRUCK", 2)
    monkeypatch.setattr(effects, "scale_of", lambda *given: STUDY.scale)
    monkeypatch.setattr(effects, "settings_of", lambda *given: STUDY.settings)
    out = tmp_path / "study.json"
    study = measure(project, out, "tok-double-bos")
    (found,) = study.effects
    assert (found.id, found.stage, found.struck) == ("tok-double-bos", Stage.TOKENIZATION, found.of)
    assert len(found.cases) == 2
    assert all(max(one.kl) > 1e-3 for one in found.cases)
    assert load(out) == study
    monkeypatch.setattr(Subject, "effect_of", None)
    left = study.model_copy(update={"effects": tuple(found for _ in catalogue())})
    assert measure(project, out, "no-such-defect") == study
    save(left.model_copy(update={"positions": 3}), out)
    with pytest.raises(UserError, match="another engine, or on other cases"):
        measure(project, out)


def test_the_engine_on_the_golden_ids_is_itself(project, engine, smollm, golden, reference):
    with opening(project, smollm) as opened:
        right = Subject(smollm, {"one": golden}, opened, reference).held("one", golden.tokens.ids)
    assert right == Held(case="one", kl=(0.0,) * len(golden.generation.ids), turned=0, text=False, answer="ends")


def test_a_file_is_written_in_float32_and_quantized_by_llama_cpp(engine, smollm, tmp_path):
    tiny = write(tmp_path / "tiny.gguf")
    with quantizing(smollm.model_copy(update={"path": tiny})) as quantized:
        exact = types(quantized("F32", FLOAT))
        first = quantized("Q8_0", 7)
        assert (exact, types(first)) == ({"F32"}, {"F32", "Q8_0"})
        second = quantized("Q4_0", 2)
        assert "Q4_0" in types(second)
        assert not first.exists()
        with pytest.raises(UserError, match="does not quantize"):
            quantized("none", 999)
    assert not second.exists()


def types(path):
    return {one.tensor_type.name for one in read_model_file(path).tensors}


def test_the_published_scale_begins_at_the_exact_weights():
    """Quantized to the shipped file's own type, its float32 weights give what the file itself gives, bit for bit."""
    steps = {one.name: one for one in load(STUDIES / "stages.json").scale}
    assert steps["Q4_1"].types == steps["as shipped"].types
    assert steps["Q4_1"].cases == steps["as shipped"].cases
    assert "Q4_1" not in sizes_of(load(STUDIES / "stages.json")).steps
