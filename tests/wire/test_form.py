"""Answers of a wrong form are the server's failure, whichever reader meets them."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.components.llama_server import _read as llama_server
from harness.components.openai_compatible import _read as openai_compatible
from harness.components.openai_compatible._model import Vocabulary
from harness.components.vllm_server import _read as vllm
from harness.stage import StageFailedError
from harness.wire.chat import reply_of, request_of
from harness.wire.form import bytes_of, field

HUGE = 10**400
ROW = {"id": 3, "top_logprobs": [{"id": 3, "logprob": -0.5}]}
COMPLETION = {"tokens": [3], "completion_probabilities": [ROW], "stop_type": "eos", "generation_settings": {}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": [float("inf")]},
        {"tokens": None},
        {"completion_probabilities": [{"id": 3, "top_logprobs": [{"id": 2**40, "logprob": -1.0}]}]},
        {"completion_probabilities": [{"id": 3, "top_logprobs": [{"id": 3, "logprob": HUGE}]}]},
        {"completion_probabilities": [7]},
        {"completion_probabilities": [{}]},
        {"stop_type": ["eos"]},
        {"generation_settings": [*llama_server._SETTINGS]},
    ],
)
def test_a_completion_of_a_wrong_form_is_broken(wrong):
    llama_server.generation_of(COMPLETION)
    with pytest.raises(StageFailedError) as raised:
        llama_server.generation_of({**COMPLETION, **wrong})
    assert raised.value.failure.reason == "broken"


@pytest.mark.parametrize(
    ("read", "answer", "says"),
    [
        (llama_server.verbose_of, {"__verbose": 7}, "the field __verbose of the answer is int, not dict"),
        (llama_server.prompt_tokens_of, {"__verbose": {}}, "the field tokens_evaluated of the answer is missing"),
        (llama_server.prompt_tokens_of, {"usage": {}}, "no usage (KeyError: 'prompt_tokens')"),
        (llama_server.prompt_tokens_of, {"usage": "many"}, "no usage"),
        (llama_server.streamed_ids, [{"choices": 7}], "no log-probabilities in the stream"),
        (llama_server.streamed_ids, [{"choices": [{"logprobs": {"other": 1}}]}], "KeyError: 'content'"),
        (llama_server.logprobs_of, {"completion_probabilities": []}, "no log-probabilities (IndexError"),
        (reply_of, {"choices": {}}, "no chat completion (KeyError: 0)"),
        (reply_of, [{"choices": [{"delta": "text"}]}], "no chat completion (AttributeError"),
    ],
)
def test_an_answer_without_what_is_read_of_it_is_broken(read, answer, says):
    with pytest.raises(StageFailedError) as raised:
        read(answer)
    assert raised.value.failure.reason == "broken"
    assert says in str(raised.value.failure.message)


def test_numbers_beyond_every_type_are_broken():
    with pytest.raises(StageFailedError):
        openai_compatible.rows_of([{"id": 1, "token": "a", "logprob": HUGE}], None)
    with pytest.raises(StageFailedError):
        openai_compatible.distributions_of([openai_compatible.Row(2**40, {2**40: -1.0})])


@pytest.mark.parametrize("wrong", [10**6, True, {"65": 1}, "A", [256], [[]]])
def test_a_number_is_no_list_of_bytes(wrong):
    """`bytes(2**31)` is two gigabytes of zeros."""
    assert bytes_of([65]) == b"A"
    with pytest.raises((TypeError, ValueError)):
        bytes_of(wrong)
    with pytest.raises(StageFailedError):
        openai_compatible.rows_of([{"token": "A", "bytes": wrong, "logprob": -1.0}], Vocabulary({}))


def test_a_truth_value_is_no_count():
    assert field({"count": 1}, "count", int) == 1
    with pytest.raises(StageFailedError, match="bool"):
        field({"count": True}, "count", int)


VLLM_CHAT = {
    "choices": [{"token_ids": [3], "finish_reason": "stop"}],
    "usage": {"completion_tokens": 1},
    "prompt_text": "Hi",
    "prompt_token_ids": [3],
}


@pytest.mark.parametrize(
    ("read", "sound", "wrong"),
    [
        (vllm.settings_of, {"sampling_params": {}}, {"sampling_params": 7}),
        (vllm.prompt_of, VLLM_CHAT, {"prompt_text": 7}),
        (vllm.prompt_of, VLLM_CHAT, {"prompt_token_ids": None}),
        (vllm.tokens_of, {"tokens": [3], "token_strs": ["a"]}, {"tokens": ["x"]}),
        (vllm.tokens_of, {"tokens": [3], "token_strs": ["a"]}, {"token_strs": [7]}),
        (vllm.tokens_of, {"tokens": [3], "token_strs": ["a"]}, {"token_strs": []}),
        (vllm.shown_ids, [VLLM_CHAT], [7]),
        (lambda answer: vllm.chat_generation(answer, {}), VLLM_CHAT, {"choices": [7]}),
        (lambda answer: vllm.chat_generation(answer, {}), VLLM_CHAT, {"usage": 7}),
        (
            lambda answer: vllm.chat_generation(answer, {}),
            VLLM_CHAT,
            {"choices": [{"token_ids": [3], "logprobs": {"content": [{"top_logprobs": []}]}}]},
        ),
        (
            lambda answer: vllm.steps_generation(answer, (3,), {}),
            {"choices": [{"index": 0, "token_ids": [3], "logprobs": {"top_logprobs": [{"token_id:3": -1}]}}]},
            {"choices": []},
        ),
        (llama_server.verbose_of, {}, 7),
        (llama_server.verbose_of, [{}], [7]),
        (llama_server.prompt_tokens_of, {}, None),
        (llama_server.generation_of, COMPLETION, {"completion_probabilities": [{"id": 3, "top_logprobs": []}]}),
        (request_of, {"messages": []}, {"messages": None}),
    ],
)
def test_what_has_another_form_than_a_sound_answer_is_broken(read, sound, wrong):
    read(sound)
    with pytest.raises(StageFailedError) as raised:
        read({**sound, **wrong} if isinstance(wrong, dict) else wrong)
    assert raised.value.failure.reason == "broken"
