"""With which settings a llama-server has loaded its model: by its endpoints, its log, and what it was asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness import settings as names
from harness.checking.compare.outcome import Outcome
from harness.checking.load import Declared, declared_by, rows_of
from harness.checking.rows import Row
from harness.components.llama_endpoints import Endpoints
from harness.components.llama_server import LlamaServer
from harness.components.llama_server._loaded import _asked
from harness.components.llama_server._log import read_log
from harness.components.llama_server._options import Options
from harness.defects.model_copy import ModelCopy
from harness.settings import Setting
from harness.stage import SETTINGS_ELSEWHERE, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, ModelRef, Refusal

PARAMS = {"temperature": 0.800000011920929, "top_k": 40, "min_p": 0.05000000074505806, "n_predict": -1}
ANSWERS: dict[str, Any] = {
    "/props": {
        "default_generation_settings": {"n_ctx": 2048, "params": PARAMS},
        "total_slots": 2,
        "chat_template": "{{ messages }}",
        "bos_token": "<s>",
        "eos_token": "</s>",
    },
    "/slots": [{"n_ctx": 1024, "speculative": True}, {"n_ctx": 2048}],
    "/v1/models": {"data": [{"meta": {"n_ctx_train": 8192, "n_vocab": 3, "n_params": 9, "size": 18}}]},
}
POSTED: dict[str, Any] = {
    "/apply-template": {"prompt": ""},
    "/completion": {"generation_settings": {"reasoning_format": "none"}},
}


def shown(answers: dict[str, Any] = ANSWERS, posted: dict[str, Any] = POSTED) -> dict[str, Setting]:
    def reply(found: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    endpoints = Endpoints(lambda path: reply(answers[path]), lambda path, _: reply(posted[path]))
    return {one.name: one for one in endpoints.settings()}


@pytest.mark.parametrize("wrong", [10**400, float("nan"), float("inf"), True, "0.8", None])
def test_a_number_beyond_every_float_is_not_shown(wrong):
    answers = copy.deepcopy(ANSWERS)
    answers["/props"]["default_generation_settings"]["params"]["temperature"] = wrong
    found = shown(answers)["default temperature"]
    assert found.found is None
    assert f"in the answer of /props is {type(wrong).__name__}, not float" in found.hidden


def test_a_count_beyond_every_count_is_not_shown():
    answers = copy.deepcopy(ANSWERS)
    answers["/props"]["total_slots"] = 10**400
    assert shown(answers)[names.SLOTS].found is None


def test_what_the_endpoints_show():
    found = {name: one.found for name, one in shown().items() if one.found is not None}
    assert found == {
        names.SLOT: 1024,  # of the smallest
        names.SLOTS: 2,
        names.TRAINED: 8192,
        names.VOCABULARY: 3,
        names.WEIGHTS: 9,
        names.SIZE: 18,
        names.TEMPLATE: "{{ messages }}",
        names.BOS: "<s>",
        names.EOS: "</s>",
        names.JINJA: True,
        names.REASONING: "none",
        names.SPECULATIVE: True,
        "default temperature": 0.800000011920929,
        "default top_k": 40,
        "default min_p": 0.05000000074505806,
        "default n_predict": -1,
    }
    assert shown()["default top_p"].hidden == "the answer of /props has no 'top_p'"
    assert shown()[names.CACHE_K].hidden == "no endpoint of llama-server shows it"


REFUSED = StageRefusedError(Refusal(error="HTTP 501", message="start it with --slots"))
BROKEN = StageFailedError(Failure(reason="broken", message="a page of HTML"))


@pytest.mark.parametrize(
    ("path", "answer", "name", "hidden"),
    [
        ("/props", REFUSED, names.TEMPLATE, "/props is refused (start it with --slots)"),
        ("/props", StageUnobservedError("not JSON"), names.BOS, "/props shows nothing (not JSON)"),
        ("/v1/models", BROKEN, names.WEIGHTS, "/v1/models does not answer (broke the protocol: a page of HTML)"),
        ("/v1/models", None, names.WEIGHTS, "the answer of /v1/models is empty"),
        ("/v1/models", {"data": []}, names.WEIGHTS, "the answer of /v1/models has no 'n_params'"),
        ("/v1/models", {"data": [{"meta": None}]}, names.SIZE, "the answer of /v1/models has no 'size'"),
        ("/v1/models", [], names.SIZE, "the answer of /v1/models has no 'size'"),
        (
            "/v1/models",
            {"data": [{"meta": {"size": "18"}}]},
            names.SIZE,
            "'size' in the answer of /v1/models is str, not int",
        ),
        (
            "/v1/models",
            {"data": [{"meta": {"size": True}}]},
            names.SIZE,
            "'size' in the answer of /v1/models is bool, not int",
        ),
        (
            "/props",
            {"chat_template": ["a"]},
            names.TEMPLATE,
            "'chat_template' in the answer of /props is list, not str",
        ),
        (
            "/props",
            {"default_generation_settings": {"params": {"temperature": float("nan")}}},
            "default temperature",
            "'temperature' in the answer of /props is float, not float",
        ),
        ("/slots", {}, names.SPECULATIVE, "the answer of /slots has no 'speculative'"),
    ],
)
def test_what_is_missing_or_of_another_type_is_not_shown(path, answer, name, hidden):
    one = shown({**ANSWERS, path: answer})[name]
    assert one.found is None
    assert one.hidden.replace("is float, not float", "is no number") == hidden.replace(
        "is float, not float", "is no number"
    )


def test_without_slots_the_properties_tell_the_context():
    assert shown({**ANSWERS, "/slots": REFUSED})[names.SLOT].found == 2048
    assert shown({**ANSWERS, "/slots": [5, {"n_ctx": "9"}]})[names.SLOT].found == 2048


@pytest.mark.parametrize(
    ("answer", "found", "hidden"),
    [
        (StageRefusedError(Refusal(error="HTTP 500", message="tools param requires --jinja flag")), False, ""),
        (REFUSED, None, "a request with a tool is refused (start it with --slots)"),
        (BROKEN, None, "/apply-template does not answer (broke the protocol: a page of HTML)"),
    ],
)
def test_whether_the_template_is_run_is_told_by_a_tool(answer, found, hidden):
    one = shown(posted={**POSTED, "/apply-template": answer})[names.JINJA]
    assert (one.found, one.hidden) == (found, hidden)


@pytest.mark.parametrize("answer", [None, [], {}, {"generation_settings": 5}, REFUSED, BROKEN])
def test_a_reasoning_format_that_is_not_shown(answer):
    one = shown(posted={**POSTED, "/completion": answer})[names.REASONING]
    assert one.found is None
    assert one.hidden


def test_broken_answers_never_raise():
    values: tuple[Any, ...] = (None, True, -1, "x", [], {}, [None], {"": None}, float("inf"))
    for path in ANSWERS:
        for value in values:
            shown({**ANSWERS, path: value})
        for key in ANSWERS[path] if isinstance(ANSWERS[path], dict) else ():
            for value in values:
                answer = copy.deepcopy(ANSWERS[path])
                answer[key] = value
                shown({**ANSWERS, path: answer})


LOG = """
0.00.1 I print_info: n_swa                 = 1024
0.00.1 D load_tensors: layer   0 assigned to device CUDA0, is_swa = 0
0.00.1 I llama_context: n_ctx                 = 512
0.00.1 D load_tensors: layer   0 assigned to device CPU, is_swa = 0
0.00.1 D load_tensors: layer   1 assigned to device CUDA0, is_swa = 0
0.00.1 I llama_context: n_ctx                 = 20480
0.00.1 I llama_context: n_ctx_seq             = 10240
0.00.1 I llama_context: flash_attn            = enabled
0.00.1 I llama_context: freq_base             = 500000.0
0.00.1 I llama_context: freq_scale            = 0.25
0.00.1 W llama_context: n_ctx_seq (10240) > n_ctx_train (8192) -- possible training context overflow
0.00.1 I llama_kv_cache: size =  239.06 MiB ( 10240 cells,  30 layers,  2/2 seqs), K (q8_0):  119.53 MiB, V (f16):  1
"""


def test_what_the_log_says_of_a_load_and_the_later_holds():
    assert read_log(LOG) == {
        names.WINDOW: 1024,
        names.LAYERS: 1,
        names.CONTEXT: 20480,
        names.FLASH: "enabled",
        names.ROPE_BASE: 500000.0,
        names.ROPE_SCALE: 0.25,
        names.CACHE_K: "q8_0",
        names.CACHE_V: "f16",
    }
    assert read_log("") == {}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"n_ctx": 512}, {names.CONTEXT: 512, names.SLOTS: 1, names.JINJA: True}),
        (
            {"parameters": {"n_parallel": 2, "cache_type_k": 8, "flash_attn_type": 1, "use_jinja": False, "n_ctx": 9}},
            {names.SLOTS: 2, names.CACHE_K: "q8_0", names.FLASH: "enabled", names.JINJA: False, names.CONTEXT: 9},
        ),
        (
            {"parameters": {"sampling.temp": 1.7, "reasoning_format": 0, "rope_freq_base": 0.0, "n_gpu_layers": -1}},
            {"default temperature": 1.7, names.REASONING: "none"},
        ),
        (
            {
                "binary": "llama-server",
                "arguments": ["-np", "2", "-ctk", "q4_0", "-fa", "on", "--temp", "0.6", "--no-jinja", "-c", "8192"],
            },
            {
                names.SLOTS: 2,
                names.CACHE_K: "q4_0",
                names.FLASH: "enabled",
                "default temperature": 0.6,
                names.JINJA: False,
                names.CONTEXT: 8192,
            },
        ),
        (
            {"binary": "llama-server", "arguments": ["--reasoning-format", "auto", "-ngl"]},
            {names.REASONING: "deepseek"},
        ),
        ({"url": "http://s", "n_ctx": 4096}, {names.CONTEXT: 4096}),
    ],
)
def test_what_it_was_asked_for(options, asked):
    found = dict(_asked(Options.model_validate(options)))
    by_us = {} if "url" in options else {names.CONTEXT: 2048, names.SLOTS: 1, names.JINJA: True}
    assert {name: value for name, (value, _) in found.items()} == {**by_us, **asked}


def test_of_a_server_elsewhere_nothing_is_known_that_the_stack_does_not_say():
    assert not dict(_asked(Options.model_validate({"url": "http://s"})))


# Real servers


@pytest.fixture(scope="module")
def file(smollm: ModelRef) -> Declared:
    pytest.importorskip("xllamacpp", reason="the server itself: pip install -e '.[servers]'")
    return declared_by(smollm.path)


@pytest.fixture
def held(smollm: ModelRef, file: Declared) -> Callable[[LlamaServer], dict[str, Row]]:
    def rows(part: LlamaServer) -> dict[str, Row]:
        path = part.model_file()
        return {row.name: row for row in rows_of(part.loaded(), smollm, file, path and declared_by(path))}

    return rows


def wrong(rows: dict[str, Row]) -> dict[str, str]:
    return {name: row.why for name, row in rows.items() if row.outcome.bad}


def test_mistakes_of_a_start_by_hand(smollm, held):
    mistakes = {"chat_template": "llama2", "use_jinja": False, "sampling.temp": 1.7, "sampling.penalty_repeat": 1.5}
    with (
        LlamaServer(smollm, {"n_ctx": 256, "parameters": mistakes}) as own,
        LlamaServer(smollm, {"url": own.url()}) as elsewhere,
    ):
        by_hand, asked = held(elsewhere), held(own)
    assert wrong(by_hand) == {
        "context of a slot": "a slot has a context of 256, of the 8,192 that the model was trained with, and nothing "
        "declares that",
        "template": "llama-server renders with its built-in template 'llama2', not with the file's own",
        "Jinja": "Jinja is off, and by default on, and nothing declares it",
        "default temperature": "default temperature is 1.7, far from its default of 0.8, and nothing declares it",
        "default repeat_penalty": "default repeat_penalty is 1.5, far from its default of 1, and nothing declares it",
    }
    assert by_hand["default temperature"].remedy == "start llama-server with --temp 0.8"
    # Of a stack that asks for all that, only the template is not the model's.
    assert list(wrong(asked)) == ["template"]
    assert asked["template"].remedy == "leave chat_template out of the parameters in options.llama-server"


def test_two_slots_and_a_quantized_cache(smollm, held):
    parameters = {"n_parallel": 2, "cache_type_k": 8, "rope_freq_scale": 0.5}
    with (
        LlamaServer(smollm, {"n_ctx": 2048, "parameters": parameters}) as own,
        LlamaServer(smollm, {"url": own.url()}) as elsewhere,
    ):
        asked, by_hand = held(own), held(elsewhere)
    divided = "the context of 2,048 is divided among 2 slots: each has 1,024"
    assert wrong(asked) == {"context of a slot": divided}
    assert asked["context of a slot"].remedy == (
        "set n_ctx = 8192 in options.llama-server, or parameters kv_unified = true, or parameters n_parallel = 1"
    )
    seen = {name: (asked[name].found, asked[name].source) for name in (names.CACHE_K, names.CACHE_V, names.ROPE_SCALE)}
    assert seen == {
        names.CACHE_K: ("q8_0", "cache_type_k in the parameters"),
        names.CACHE_V: ("f16", "llama.cpp, tools/server/README.md"),
        names.ROPE_SCALE: ("0.5", "rope_freq_scale in the parameters"),
    }
    assert list(wrong(by_hand)) == ["context of a slot"]
    assert by_hand[names.CACHE_K].outcome is Outcome.UNOBSERVED


def test_sampling_of_the_file_that_is_in_force(smollm, held, tmp_path):
    made = ModelCopy(smollm.path)
    for key, value, kind in (("temp", 0.0, "FLOAT32"), ("top_k", 1, "INT32"), ("top_p", 0.5, "FLOAT32")):
        made.set(f"general.sampling.{key}", value, kind)
    path = made.save(tmp_path / "sampling.gguf")
    with LlamaServer(smollm, {"file": str(path), "parameters": {"sampling.top_p": 0.9}}) as part:
        rows = held(part)
    assert wrong(rows) == {
        **{
            f"default {name}": f"default {name} is {value}: general.sampling.{key} of the file that is served is in "
            "force though nobody asked, and the golden's file does not say so"
            for name, key, value in (("temperature", "temp", 0), ("top_k", "top_k", 1))
        },
        # The package cannot say that somebody has asked.
        "default top_p": "default top_p is 0.5, not 0.9 as sampling.top_p in the parameters says: "
        "general.sampling.top_p of the file that is served goes before it",
    }
    assert [row.kind for row in rows.values() if row.outcome.bad] == ["artifact", "artifact", "integration"]


@pytest.mark.parametrize("options", [{"n_ctx": 2048}, {"n_ctx": 4096}])
def test_a_healthy_server_is_as_declared(smollm, held, options):
    with LlamaServer(smollm, options) as own, LlamaServer(smollm, {"url": own.url()}) as elsewhere:
        asked, by_hand = held(own), held(elsewhere)
    assert not wrong(asked)
    assert not wrong(by_hand)
    assert sum(row.outcome is Outcome.EQUAL for row in asked.values()) >= 30
    assert {row.outcome for row in by_hand.values()} == {Outcome.EQUAL, Outcome.UNOBSERVED}


def test_a_server_that_runs_already_shows_no_class_of_noise():
    model = ModelRef(name="m", path=Path("m.gguf"), sha256="0" * 64)
    with LlamaServer(model, {"url": "http://127.0.0.1:1"}) as elsewhere, LlamaServer(model, {}) as own:
        assert elsewhere.noise_class() == SETTINGS_ELSEWHERE
        assert own.noise_class() == "cache f16/f16, flash attention auto"
