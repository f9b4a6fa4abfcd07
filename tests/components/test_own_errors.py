"""Errors of ours in the taps of real parts convict nobody; where a part has changed inside, a stage is not seen."""

from __future__ import annotations

import pytest

from harness.components.llama_cpp_python import LlamaCppPython
from harness.process.worker import RemoteError
from harness.stage import StageUnobservedError
from harness.values import Case, Generation, Prompt, Refusal, Request, Tokens

QUESTION = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 4}
CASE = Case(name="asked", description="", covers=(), body=QUESTION)
IDS = (1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198)
GENERATED = (19556, 17, 2)


def opened(kind, model, target):
    part = kind(model, {"n_ctx": 256})
    part._child._child.worker._target = f"tests.planted:{target}"
    return part


def given(part):
    """Return how each stage is run alone."""
    request = Request(messages=tuple(QUESTION["messages"]), settings={"temperature": 0, "max_tokens": 4})
    generation = Generation(ids=GENERATED, chosen=GENERATED, finish="end_token")
    tokens = Tokens(ids=IDS)
    stages = {
        "template": lambda: part.render(request, CASE.options),
        "tokenization": lambda: part.tokenize(Prompt(text="<|im_start|>user\nHi<|im_end|>\n")),
        "inference": lambda: part.generate(tokens, request, GENERATED),
        "postprocess": lambda: part.reply(generation, tokens, request, stream=False),
        "stream": lambda: part.reply(generation, tokens, request, stream=True),
    }
    if hasattr(part, "request"):
        stages |= {"client": lambda: part.request(CASE), "chain": lambda: part.chat(CASE, stream=False)}
    return stages


@pytest.fixture(scope="module")
def engine_part(engine, smollm):
    with opened(LlamaCppPython, smollm, "BreakableEngine") as part:
        yield part


@pytest.fixture(scope="module")
def served_part(engine, smollm):
    server = pytest.importorskip("harness.components.llama_cpp_python.server")
    pytest.importorskip("starlette_context")
    with opened(server.LlamaCppPythonServer, smollm, "BreakableServer") as part:
        yield part


TAPS = [
    ("format", "client"),
    ("format", "template"),
    ("format", "chain"),
    ("_tokenize", "tokenization"),
    ("_complete", "inference"),
    ("_generate_tapped", "postprocess"),
    ("_sample_tapped", "inference"),
    ("_sample_tapped", "chain"),
    ("_noting", "stream"),
    # What reads the taps, and what sends the call on its way.
    ("_request_seen", "client"),
    ("_prompt_seen", "template"),
    ("_fed", "tokenization"),
    ("_generation_seen", "inference"),
    ("_finish", "inference"),
    ("_run", "postprocess"),
]


@pytest.mark.parametrize(("tap", "stage"), TAPS)
def test_an_error_of_ours_in_a_tap_of_the_engine_is_no_refusal_of_the_engines(engine_part, tap, stage):
    engine_part._child.call(None, "break_at", place=tap)
    try:
        with pytest.raises(RemoteError) as caught:
            given(engine_part)[stage]()
        assert (caught.value.error, caught.value.whose) == ("KeyError", "ours")
        assert f"planted in {tap}" in caught.value.message
    finally:
        engine_part._child.call(None, "break_at", place="")


def test_healed_the_engine_is_asked_as_before(engine_part):
    assert given(engine_part)["tokenization"]().ids[:3] == (1, 4093, 198)


@pytest.mark.parametrize(
    ("tap", "stage"),
    [
        ("format", "template"),
        ("_tokenize", "tokenization"),
        ("_complete", "inference"),
        ("_generate_tapped", "postprocess"),
        ("_sample_tapped", "inference"),
        ("_noting", "stream"),
        ("_prompt_seen", "template"),
    ],
)
def test_an_error_of_ours_in_a_tap_within_the_server_is_no_answer_of_the_servers(served_part, tap, stage):
    served_part._child.call(None, "break_at", place=tap)
    try:
        with pytest.raises(RemoteError) as caught:
            given(served_part)[stage]()
        assert (caught.value.error, caught.value.whose) == ("KeyError", "ours")
        assert f"planted in {tap}" in caught.value.message
    finally:
        served_part._child.call(None, "break_at", place="")


def test_with_one_renamed_variable_of_the_handler_the_template_is_unobserved_and_the_rest_goes_on(engine, smollm):
    with opened(LlamaCppPython, smollm, "without_formatter") as part:
        stages = given(part)
        with pytest.raises(StageUnobservedError) as caught:
            stages["template"]()
        said = caught.value.unobserved.reason
        assert said.startswith("llama-cpp-python 0.3.")
        assert "has changed inside: no variable 'chat_formatter' in chat_completion_handler" in said
        assert said.endswith("known to work: 0.3.36")
        assert stages["client"]().settings["max_tokens"] == 4
        assert stages["tokenization"]().ids[:3] == (1, 4093, 198)
        assert stages["inference"]().ids == GENERATED
        assert stages["postprocess"]().content == stages["stream"]().content != ""
        whole = stages["chain"]()
        assert (whole.request, whole.prompt) == (None, None)
        # The real path: its own template puts its own system message before.
        assert whole.tokens.ids[:3] == (1, 9690, 198)
        assert isinstance(whole.generation, Generation)
        assert not isinstance(whole.reply, Refusal)


def test_with_other_handlers_the_template_is_unobserved_and_the_rest_goes_on(engine, smollm_tools):
    with opened(LlamaCppPython, smollm_tools, "without_handlers") as part:
        with pytest.raises(StageUnobservedError, match="no '_chat_handlers' in Renamed"):
            given(part)["template"]()
        assert given(part)["inference"]().ids == GENERATED


def test_without_texts_for_the_reader_the_ids_are_seen_all_the_same(engine, smollm):
    with opened(LlamaCppPython, smollm, "without_pieces") as part:
        tokens = given(part)["tokenization"]()
        assert (tokens.ids[:3], tokens.pieces) == ((1, 4093, 198), None)
