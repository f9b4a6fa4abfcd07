"""A llama-server that runs already must have the model of the goldens, as far as it shows which one it has."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from harness.components.llama_server import _same_model
from harness.components.llama_server._same_model import check_model
from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.stage import StageRefusedError
from harness.values import ModelRef, Refusal


@pytest.fixture(scope="module", autouse=True)
def read_once():
    """Read the model file once for all tests: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_same_model, "read_model_file", functools.cache(read_model_file))
        yield


@pytest.fixture(scope="module")
def shown(smollm: ModelRef):
    found = read_model_file(smollm.path)
    meta = {
        "n_vocab": 49152,
        "n_params": 134515008,
        "size": sum(int(tensor.n_bytes) for tensor in found.tensors),
    }
    return meta, str(found.metadata["tokenizer.chat_template"])


def answers(meta, template):
    return {"/v1/models": {"data": [{"id": "m", "meta": meta}]}, "/props": {"chat_template": template}}.__getitem__


def test_the_same_model_passes(smollm, shown):
    check_model(smollm, "http://s", answers(*shown))


@pytest.mark.parametrize(
    ("name", "what"),
    [("n_vocab", "vocabulary: 7, not 49,152"), ("n_params", "number of weights: 7"), ("size", "size: 7")],
)
def test_another_one_is_the_users_matter(smollm, shown, name, what):
    meta, template = shown
    with pytest.raises(UserError, match="the llama-server at http://s has not the model") as wrong:
        check_model(smollm, "http://s", answers({**meta, name: 7}, template))
    assert what in str(wrong.value)
    with pytest.raises(UserError, match="another template; start it with the very file"):
        check_model(smollm, "http://s", answers(meta, template + " "))


@pytest.mark.parametrize("answer", [None, [], {}, {"data": 5}, {"data": [5]}, {"data": [{"meta": {"n_vocab": "x"}}]}])
def test_what_it_does_not_show_is_not_held_against_it(smollm, answer):
    check_model(smollm, "http://s", lambda _: answer)


def test_a_server_that_refuses_to_show_itself_passes(smollm):
    def refuse(path):
        raise StageRefusedError(Refusal(error="HTTP 404", message="no"))

    check_model(smollm, "http://s", refuse)
