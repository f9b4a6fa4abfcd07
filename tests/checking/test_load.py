"""A setting should be what its nearest declaration says; one that nobody declares, not far from the usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import settings as names
from harness.checking.compare.outcome import Difference, Outcome
from harness.checking.load import Declared, rows_of
from harness.checking.load.verdict import findings_of, with_load
from harness.checking.rows import Row
from harness.checking.verdict import Finding
from harness.settings import Loaded, Scalar, Setting
from harness.stage import Stage
from harness.values import ModelRef, OwnError
from tests import made

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
MODEL = ModelRef(name="m", path=Path("/models/m.gguf"), sha256="0" * 64)
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 8192,
    "llama.rope.freq_base": 100000.0,
    "tokenizer.chat_template": TEMPLATE,
    "tokenizer.ggml.tokens": ["<s>", "</s>", "a"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
}
FILE = Declared(METADATA, vocabulary=3, weights=1000, size=4000)


def file(**more: Any) -> Declared:
    return Declared({**METADATA, **{key.replace("__", "."): value for key, value in more.items()}}, 3, 1000, 4000)


def setting(name: str, found: Scalar | None, stage: Stage = Stage.INFERENCE, **more: Any) -> Setting:
    return Setting(name=name, stage=stage, found=found, **more)


def rows(
    *settings: Setting, golden: Declared | None = FILE, served: Declared | None = None, model: ModelRef = MODEL
) -> dict[str, Row]:
    loaded = Loaded(by="serve", settings=settings, least_context=4096, least_by="its manual", own_cache="--shared")
    return {row.name: row for row in rows_of(loaded, model, golden, served)}


def row(*settings: Setting, **more: Any) -> Row:
    return rows(*settings, **more)[settings[0].name]


def context(slot: int, asked: int | None = None, slots: int = 1) -> tuple[Setting, ...]:
    by = {} if asked is None else {"asked": asked, "asked_by": "-c"}
    return (
        setting(names.SLOT, slot, remedy="-c {}"),
        setting(names.SLOTS, slots, remedy="-np {}"),
        setting(names.CONTEXT, None, **by),
    )


@pytest.mark.parametrize(
    ("slot", "asked", "slots"),
    [
        (2048, 2048, 1),
        (256, 256, 1),  # as short as it was asked for
        (2304, 2300, 1),  # rounded up
        (8192, None, 1),
        (4096, None, 1),  # what it takes by itself
        (2048, 2048, 4),  # four that share one cache
        (8192, 16384, 2),  # each has what the model was trained with
        (4096, 8192, 2),
    ],
)
def test_a_context_as_it_was_asked_for_is_right(slot, asked, slots):
    assert row(*context(slot, asked, slots)).outcome is Outcome.EQUAL


@pytest.mark.parametrize(
    ("slot", "asked", "slots", "why", "remedy"),
    [
        (
            1024,
            2048,
            2,
            "the context of 2,048 is divided among 2 slots: each has 1,024",
            "-c 8192, or --shared, or -np 1",
        ),
        (
            8192,
            20000,
            1,
            "a slot has a context of 8,192, not 20,000: it is capped at what the model was trained with",
            "-c 8192",
        ),
        (
            8192,
            40000,
            2,
            "a slot has a context of 8,192, not 20,000: it is capped at what the model was trained with",
            "-c 16384",
        ),
        (2048, 4096, 1, "a slot has a context of 2,048, not 4,096 as -c says", "-c 4096"),
        (
            256,
            None,
            1,
            "a slot has a context of 256, of the 8,192 that the model was trained with, and nothing declares that",
            "-c 8192",
        ),
        (
            2048,
            None,
            2,
            "each of 2 slots has a context of 2,048, of the 8,192 that the model was trained with",
            "-c 16384, or --shared, or -np 1",
        ),
    ],
)
def test_a_context_that_is_short_divided_or_capped_is_not(slot, asked, slots, why, remedy):
    found = row(*context(slot, asked, slots))
    assert (found.outcome, found.why, found.remedy) == (Outcome.DIVERGED, why, remedy)


@pytest.mark.parametrize(("slot", "slots"), [(2048, 1), (2048, 4)])
def test_a_shorter_context_that_nobody_declares_may_be_meant(slot, slots):
    found = row(*context(slot, None, slots))
    assert found.outcome is Outcome.UNOBSERVED
    assert (
        found.why == "it is 2,048 of the 8,192 that the model was trained with, and nothing declares what it should be"
    )


def test_without_a_file_the_server_says_what_its_model_was_trained_with():
    trained = setting(names.TRAINED, 8192)
    assert row(*context(256), trained, golden=None).outcome is Outcome.DIVERGED
    assert row(*context(256), golden=None).outcome is Outcome.UNOBSERVED


TEMPERATURE = {"default": 0.8, "default_by": "its manual", "usual": (0, 1.5), "remedy": "--temp {}"}


def temperature(found: float | None, **more: Any) -> Setting:
    return setting("default temperature", found, **TEMPERATURE, **more)


@pytest.mark.parametrize(
    ("one", "golden", "outcome", "source"),
    [
        (temperature(0.800000011920929), FILE, Outcome.EQUAL, "its manual"),
        (temperature(0.6), FILE, Outcome.UNOBSERVED, "serve"),  # whoever started it may have asked
        (temperature(1.7), FILE, Outcome.DIVERGED, "its manual"),
        (temperature(1.7, asked=1.7, asked_by="the stack"), FILE, Outcome.EQUAL, "the stack"),
        (temperature(0.8, asked=1.7, asked_by="the stack"), FILE, Outcome.DIVERGED, "the stack"),
        (temperature(0.6), file(general__sampling__temp=0.6), Outcome.EQUAL, "general.sampling.temp of the file"),
        (temperature(0.8), file(general__sampling__temp=0.6), Outcome.UNOBSERVED, "serve"),
        (temperature(0.0), file(general__sampling__temp=0.0), Outcome.DIVERGED, "its manual"),
        (temperature(None, hidden="not shown"), FILE, Outcome.UNOBSERVED, "serve"),
    ],
)
def test_a_sampling_default(one, golden, outcome, source):
    found = row(one, golden=golden, served=golden)
    assert (found.outcome, found.source) == (outcome, source)


def test_far_from_the_default_says_what_to_do():
    found = row(temperature(1.7))
    assert found.why == "default temperature is 1.7, far from its default of 0.8, and nothing declares it"
    assert (found.expected, found.found, found.remedy, found.kind) == ("0.8", "1.7", "--temp 0.8", "integration")


def test_what_a_copy_of_the_file_sets_is_the_copys_matter():
    found = row(temperature(0.3), served=file(general__sampling__temp=0.3))
    assert (found.outcome, found.kind, found.expected, found.found) == (Outcome.DIVERGED, "artifact", "0.8", "0.3")
    assert found.why == (
        "default temperature is 0.3: general.sampling.temp of the file that is served is in force though nobody asked, "
        "and the golden's file does not say so"
    )


def template(found: str | None, **more: Any) -> Setting:
    return setting(names.TEMPLATE, found, Stage.TEMPLATE, **more)


@pytest.mark.parametrize("found", [TEMPLATE, f"{TEMPLATE}\n", TEMPLATE.replace("\n", "\r\n")])
def test_the_files_template_is_right(found):
    assert row(template(found)).outcome is Outcome.EQUAL


def test_another_template_is_not():
    built_in = row(template("llama2", remedy="--jinja"))
    assert built_in.why == "serve renders with its built-in template 'llama2', not with the file's own"
    assert (built_in.remedy, built_in.kind, built_in.stage) == ("--jinja", "integration", Stage.TEMPLATE)
    other = row(template(TEMPLATE.replace("content", "role")))
    assert other.why == "another template is in force than the file's own: it differs from character 28 on"
    assert (other.expected, other.found) == (
        "...or m in messages %}{{ m.content }}{% endfor %}",
        "...or m in messages %}{{ m.role }}{% endfor %}",
    )


def test_the_template_that_a_model_is_given_goes_before_the_files():
    given = MODEL.model_copy(update={"chat_template": "{{ given }}"})
    assert row(template("{{ given }}"), model=given).outcome is Outcome.EQUAL
    assert row(template(TEMPLATE), model=given).why.startswith(
        "another template is in force than the one that the model is given"
    )


def test_a_template_out_of_another_file_is_the_files_matter():
    other = "{{ other }}"
    assert row(template(other), served=file(tokenizer__chat_template=other)).kind == "artifact"


def test_a_file_without_a_template_is_rendered_with_one_of_the_servers_own():
    bare = Declared({name: one for name, one in METADATA.items() if "template" not in name}, 3, 1000, 4000)
    found = row(template("{{ chatml }}"), golden=bare)
    assert (found.outcome, found.kind, found.expected) == (Outcome.DIVERGED, "artifact", "none")
    assert found.why == "the file has no chat template, and serve renders with one of its own"
    assert row(template("{{ chatml }}"), golden=None).outcome is Outcome.UNOBSERVED


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        (names.VOCABULARY, 3, 4),
        (names.WEIGHTS, 1000, 999),
        (names.SIZE, 4000, 2000),
        (names.TRAINED, 8192, 4096),
        (names.ARCHITECTURE, "llama", "qwen2"),
    ],
)
def test_what_tells_one_model_from_another(name, right, wrong):
    assert row(setting(name, right)).outcome is Outcome.EQUAL
    found = row(setting(name, wrong))
    assert (found.outcome, found.kind) == (Outcome.DIVERGED, "artifact")
    assert found.why.startswith(f"another model is loaded than m: {name} is ")
    assert found.remedy == "start serve with the very file: m.gguf"
    # Of a part of a split file neither is known.
    assert row(setting(name, wrong), golden=Declared({}, None, None, None)).outcome is Outcome.UNOBSERVED


@pytest.mark.parametrize(
    ("name", "right", "wrong", "key"),
    [
        (names.BOS, "<s>", "a", "tokenizer.ggml.bos_token_id"),
        (names.EOS, "</s>", "<s>", "tokenizer.ggml.eos_token_id"),
        (names.ROPE_BASE, 100000.0, 10000.0, "llama.rope.freq_base"),
    ],
)
def test_what_the_file_that_is_served_says(name, right, wrong, key):
    assert row(setting(name, right)).outcome is Outcome.EQUAL
    assert row(setting(name, right), served=Declared({}, None, None, None)).outcome is Outcome.UNOBSERVED
    found = row(setting(name, wrong))
    assert found.why == f"{name} is {found.found}, not {found.expected} as {key} of the file says"


def test_a_value_of_another_type_is_another_value():
    assert row(setting("x", True, asked=1, asked_by="-x")).outcome is Outcome.DIVERGED
    assert row(setting("x", "1", asked=1, asked_by="-x")).outcome is Outcome.DIVERGED
    assert row(setting("x", 1, asked=1.0, asked_by="-x")).outcome is Outcome.EQUAL


@pytest.mark.parametrize("value", [None, "8192", [8192], {}, True, float("nan"), -1])
def test_a_file_that_says_nonsense_declares_nothing(value):
    odd = dict.fromkeys(METADATA, value)
    found = rows(
        *context(256),
        template(TEMPLATE),
        setting(names.BOS, "<s>"),
        setting(names.ROPE_BASE, 1.0),
        temperature(0.8),
        golden=Declared({**odd, "general.sampling.temp": "hot"}, None, None, None),
    )
    assert found["default temperature"].outcome is Outcome.EQUAL
    assert not any(one.error for one in found.values())


# In the verdict


def test_a_row_that_diverged_is_a_finding_with_its_remedy():
    diverged = row(temperature(1.7))
    verdict = with_load(made.verdict(), [diverged, row(temperature(0.8))])
    (finding,) = verdict.findings
    assert (finding.evidence, finding.remedy, finding.cases) == ("load", "--temp 0.8", ())
    assert finding.location == "declared by its manual"
    assert (verdict.status, verdict.stages[Stage.INFERENCE].status) == ("convicted", "convicted")
    assert [one.outcome for one in verdict.rows] == [Outcome.DIVERGED, Outcome.EQUAL]


def found_in(stage: Stage, *cases: str, cause: str = "x") -> Finding:
    difference = Difference(summary="they differ", causes=(cause,))
    return Finding(
        stage=stage, kind="engine", summary="they differ", cases=cases, example=cases[0], difference=difference
    )


def test_another_template_is_the_cause_of_other_prompts():
    shown = found_in(Stage.TEMPLATE, "a", "b"), found_in(Stage.TEMPLATE, "c"), found_in(Stage.INFERENCE, "a")
    verdict = made.verdict().model_copy(update={"findings": shown})
    joined, left = with_load(verdict, [row(template("llama2", remedy="--jinja"))]).findings
    assert left == shown[2]
    assert (joined.cases, joined.example, joined.evidence) == (("a", "b", "c"), "a", "isolated")
    assert joined.summary == "serve renders with its built-in template 'llama2', not with the file's own"
    assert (joined.kind, joined.remedy) == ("integration", "--jinja")


def test_another_model_is_one_finding_a_stage_whatever_tells_it():
    wrong = rows(
        setting(names.VOCABULARY, 4, Stage.TOKENIZATION), setting(names.WEIGHTS, 999), setting(names.SIZE, 2000)
    )
    verdict = made.verdict().model_copy(update={"findings": (found_in(Stage.INFERENCE, "a"),)})
    one, other = with_load(verdict, tuple(wrong.values())).findings
    assert one.summary == "another model is loaded than m: vocabulary size is 4, not 3"
    assert other.summary == (
        "another model is loaded than m: number of weights is 999, not 1,000, size of the weights is 2,000, not 4,000"
    )
    assert [finding.stage for finding in findings_of(tuple(wrong.values()))] == [Stage.TOKENIZATION, Stage.INFERENCE]


def test_another_models_template_and_tokens_follow_from_it():
    wrong = rows(
        template("{{ other }}"),
        setting(names.BOS, "a", Stage.TOKENIZATION),
        setting(names.WEIGHTS, 999),
        temperature(1.7),
    )
    found = findings_of(tuple(wrong.values()))
    assert [one.summary for one in found] == [
        "another template is in force than the file's own: it differs from character 1 on; another model is loaded",
        wrong["default temperature"].why,
        "another model is loaded than m: number of weights is 999, not 1,000",
    ]
    assert found[0].remedy == found[2].remedy == "start serve with the very file: m.gguf"


def test_a_sampling_default_is_the_cause_of_what_it_turns():
    turned = found_in(Stage.INFERENCE, "a", cause="setting\0temperature")
    verdict = made.verdict().model_copy(update={"findings": (turned, found_in(Stage.INFERENCE, "b"))})
    findings = with_load(verdict, [row(temperature(1.7))]).findings
    assert [finding.cases for finding in findings] == [("b",), ("a",)]


def test_what_a_file_sets_is_said_though_it_is_right():
    own = file(general__sampling__temp=0.6)
    verdict = with_load(made.verdict(), [row(temperature(0.6), golden=own)])
    assert not verdict.findings
    assert verdict.notes[-1] == ("in force though nobody asks: temperature 0.6 (general.sampling.temp of the file)")


def test_an_error_of_ours_is_no_verdict():
    error = OwnError(error="ValueError", message="x", place="", traceback="")
    broken = row(temperature(0.8)).model_copy(update={"outcome": Outcome.ERROR, "error": error})
    verdict = with_load(made.verdict(), [broken])
    assert (verdict.status, verdict.findings) == ("error", ())
    assert verdict.errors[0].error == error


def test_without_jinja_a_built_in_template_is_one_finding():
    off = setting(names.JINJA, False, Stage.TEMPLATE, default=True, default_by="its manual", usual=(1, 1))
    both = tuple(rows(template("llama2"), off).values())
    assert both[1].why == "Jinja is off, and by default on, and nothing declares it"
    assert [one.summary for one in findings_of(both)] == [
        "serve renders with its built-in template 'llama2', not with the file's own; Jinja is off"
    ]
    assert [one.summary for one in findings_of(both[1:])] == [both[1].why]


def test_without_a_named_file_the_one_that_is_served_declares():
    held = rows(template(TEMPLATE), setting(names.VOCABULARY, 3), golden=None, served=FILE)
    assert {one.outcome for one in held.values()} == {Outcome.EQUAL}
    meant = row(template("{{ another }}"), golden=None, served=FILE)
    assert (meant.outcome, meant.why) == (
        Outcome.UNOBSERVED,
        "it is another than the file's own; whether that is meant, nothing declares",
    )
    assert (
        row(template("llama2"), golden=None).why
        == "serve renders with its built-in template 'llama2', not with its file's own"
    )


def test_layers_that_were_asked_for_are_on_a_gpu_or_the_machine_is_told():
    def layers(found, asked):
        return row(setting(names.LAYERS, found, asked=asked, asked_by="-ngl"))

    assert layers(31, 99).outcome is Outcome.EQUAL
    assert layers(0, None).outcome is layers(0, 0).outcome is Outcome.UNOBSERVED
    none = layers(0, 99)
    assert (none.outcome, none.kind) == (Outcome.DIVERGED, "environment")
    assert none.why == "no layer is on a GPU, though -ngl asks for 99: the build or the machine has none"


@pytest.mark.parametrize(
    ("declared", "found", "outcome"),
    [
        (None, 0, Outcome.EQUAL),
        (1024, 1024, Outcome.EQUAL),
        (1024, 512, Outcome.DIVERGED),
        (1024, 0, Outcome.UNOBSERVED),  # the architecture has none, whatever its file says
        (None, 512, Outcome.UNOBSERVED),
    ],
)
def test_a_sliding_window(declared, found, outcome):
    own = file() if declared is None else file(llama__attention__sliding_window=declared)
    assert row(setting(names.WINDOW, found), golden=own).outcome is outcome


@pytest.mark.parametrize(
    ("found", "text", "asked", "outcome"),
    [
        ("deepseek", "<think>", None, Outcome.EQUAL),
        ("none", "<think>", None, Outcome.DIVERGED),
        ("none", "<think>", "none", Outcome.EQUAL),
        ("none", "no block", None, Outcome.UNOBSERVED),
    ],
)
def test_reasoning_is_kept_apart_where_the_template_has_it(found, text, asked, outcome):
    by = {} if asked is None else {"asked": asked, "asked_by": "the stack"}
    form = setting(names.REASONING, found, Stage.POSTPROCESS, default="deepseek", default_by="its manual", **by)
    assert row(form, template(text)).outcome is outcome


@pytest.mark.parametrize(
    ("more", "found", "outcome"),
    [
        ({"factor": 4.0, "type": "yarn"}, 0.25, Outcome.EQUAL),
        ({"factor": 4.0, "type": "yarn"}, 1.0, Outcome.DIVERGED),
        ({"factor": 4.0, "type": "none"}, 1.0, Outcome.EQUAL),
        ({"factor": 0.0}, 1.0, Outcome.EQUAL),
        ({}, 1.0, Outcome.EQUAL),
    ],
)
def test_the_files_stretching_of_rope_is_in_force(more, found, outcome):
    own = Declared({**METADATA, **{f"llama.rope.scaling.{key}": value for key, value in more.items()}}, 3, 1000, 4000)
    scale = setting(names.ROPE_SCALE, found, default=1.0, default_by="its source")
    assert row(scale, golden=own).outcome is outcome


@pytest.mark.parametrize(
    "number", [10**400, -(10**400), float("inf"), 1e308], ids=["huge", "as far below", "infinite", "a float's last"]
)
@pytest.mark.parametrize("name", [names.SLOT, names.CONTEXT, names.VOCABULARY, names.LAYERS, "default temperature"])
def test_a_number_beyond_every_other_is_no_error_of_ours(name, number):
    """A server's answer may hold it."""
    found = row(setting(name, number, asked=4096, asked_by="the stack", default=1.0, default_by="a document"))
    assert found.outcome in (Outcome.DIVERGED, Outcome.EQUAL, Outcome.UNOBSERVED)
