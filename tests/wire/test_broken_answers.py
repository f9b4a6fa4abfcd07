"""Broken answers end as the server's failure, whichever component reads them; a thousand more: `benchmarks.hostile`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from benchmarks.broken_answers import Answer, Broken, broken_answers, send, sound
from benchmarks.reading_answers import READERS, read_all
from harness.checking.trace import Run
from harness.project.cases import cases_for
from harness.project.golden import load_golden, load_provenance
from harness.values import Generation, Prompt, Reply, Tokens, Unobserved


@pytest.fixture(scope="module")
def golden(project, smollm):
    (case,) = cases_for(project, smollm.name, ["system-and-user"])
    return load_golden(project, smollm, case, load_provenance(project, smollm))


def sound_but(**other: Mapping[str, Any]) -> Answer:
    """Answer soundly, but for these fields of the routes whose address ends so."""

    def answer(handler: Broken) -> None:
        data = sound(handler.route, handler.stream)
        if data is None:
            send(handler, b"{}", 404)
            return
        changed = other.get(handler.route.rpartition("/")[2].replace("-", "_"))
        if changed is not None and not handler.stream:
            data = json.dumps({**json.loads(data), **changed}).encode()
        send(handler, data)

    return answer


def test_no_answer_is_an_error_of_ours(golden, smollm):
    # Of each kind that takes no time, and of each form a few; read by those who ask the servers of others.
    wanted = [one for one in broken_answers(42, 7) if not one[0].endswith(("endless", "many", "deep"))][-12:]
    readers = [one for one in READERS if one.name in ("openai-compatible", "llama-server elsewhere")]
    assert {read.name: read.errors for read in read_all(wanted, golden, smollm, readers) if read.errors} == {}


def test_sound_answers_are_read_to_their_end(golden, smollm):
    """Else the broken ones are refused at the door, and what stands behind it is never tried."""
    (read,) = read_all([("sound", sound_but())], golden, smollm)
    assert read.errors == ()
    seen = {name: trace.runs for name, trace in read.traces.items()}
    assert seen.keys() == {one.name for one in READERS}
    for name in ("llama-server elsewhere", "llama-server", "vllm"):
        whole = seen[name][Run.CHAINED]
        kinds = [type(one) for one in (whole.prompt, whole.tokens, whole.generation, whole.reply)]
        assert kinds == [Prompt, Tokens, Generation, Reply], name
    for name in ("openai-compatible", "ollama", "lm-studio"):
        assert isinstance(seen[name][Run.CHAINED].generation, Generation), name
    assert isinstance(seen["ollama"][Run.ISOLATED].prompt, Prompt)


LLAMA = ("llama-server elsewhere", "llama-server")
WRONG: Mapping[str, tuple[tuple[str, ...], Mapping[str, Mapping[str, Any]]]] = {
    "no settings": (LLAMA, {"props": {"default_generation_settings": None}}),
    "tokens that are no texts": (LLAMA[1:], {"props": {"bos_token": [7], "eos_token": {"a": 1}}}),
    "no ids": (LLAMA[1:], {"tokenize": {"tokens": []}}),
    "a huge piece": (LLAMA, {"tokenize": {"tokens": [{"id": 1, "piece": 10**400}]}}),
    "a position without numbers": (
        LLAMA,
        {"completion": {"completion_probabilities": [{"id": 28, "top_logprobs": []}]}},
    ),
    "ids of no vocabulary": (
        LLAMA[1:],
        {"completions": {"__verbose": {**json.loads(sound("/completion", False) or b""), "tokens": [2**40, -1]}}},
    ),
    "a prompt of no length": (
        LLAMA[1:],
        {"completions": {"__verbose": {**json.loads(sound("/completion", False) or b""), "tokens_evaluated": 2**70}}},
    ),
    "a piece that is a number": (LLAMA, {"tokenize": {"tokens": [{"id": 1, "piece": 2**31}]}}),
    "models that are none": (("lm-studio",), {"models": {"data": 7}}),
    "a vocabulary that is none": (("ollama",), {"show": {"model_info": {"tokenizer.ggml.tokens": 7}}}),
    "no settings in force": (("vllm",), {"render": {"sampling_params": None}}),
    "no prompt": (("vllm",), {"completions": {"prompt_text": None, "prompt_token_ids": 7}}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_another_form_is_no_error_of_ours(golden, smollm, name):
    readers, other = WRONG[name]
    wanted = [one for one in READERS if one.name in readers]
    (read,) = read_all([(name, sound_but(**other))], golden, smollm, wanted)
    assert read.errors == ()


def test_no_ids_of_a_text_leave_unseen_what_is_asked_with_them(golden, smollm):
    """llama-server drops the numbers of an id that ends inside a character: they are asked for with that of a point."""
    other = {"completion": {"completion_probabilities": []}, "tokenize": {"tokens": []}}
    wanted = [one for one in READERS if one.name == "llama-server elsewhere"]
    (read,) = read_all([("no ids", sound_but(**other))], golden, smollm, wanted)
    assert read.errors == ()
    seen = read.traces["llama-server elsewhere"].runs[Run.ISOLATED].generation
    assert seen == Unobserved(reason="/tokenize makes no id of '.'")
