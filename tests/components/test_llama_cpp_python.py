"""The component against the real engine: what it shows is what llama-cpp-python does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from gguf import GGUFWriter
from pydantic import ValidationError

from harness.checking.compare.outcome import Outcome
from harness.checking.load import declared_by, rows_of
from harness.checking.opened import open_session
from harness.checking.rows import Row
from harness.checking.trace import Run
from harness.components.llama_cpp_python import LlamaCppPython
from harness.components.llama_cpp_python._child import LlamaChild, Options
from harness.defects.model_copy import ModelCopy
from harness.project.stack import load_stack
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, CaseOptions, Generation, ModelRef, Prompt, Refusal, Reply, Request, Tokens

QUESTION = "What is the capital of France?"
# The ids of this prompt, as llama-cpp-python, transformers and vLLM agree on them.
IDS = (1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2)
IDS += (198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198)
ANSWER = (504, 3575, 282, 4649, 314, 7042, 30, 2)  # "The capital of France is Paris.", end of turn


def ask(content: object = QUESTION, options: CaseOptions | None = None, **body: object) -> Case:
    settings = {"temperature": 0, "max_tokens": 8, **body}
    messages = [{"role": "user", "content": content}]
    return Case(
        name="asked",
        description="",
        covers=(),
        body={"messages": messages, **settings},
        options=options or CaseOptions(),
    )


@pytest.fixture(scope="module")
def part(engine: str, smollm: ModelRef) -> Iterator[LlamaCppPython]:
    with LlamaCppPython(smollm, {"n_ctx": 512}) as opened:
        yield opened


def test_client_shows_what_reaches_the_completion_call(part):
    seen = part.request(ask(stop="END", seed=7, top_p=0.5))
    assert seen.messages == ({"role": "user", "content": QUESTION},)
    assert seen.tools is None
    asked = {"temperature": 0, "max_tokens": 8, "stop": ["END"], "seed": 7, "top_p": 0.5}
    assert {name: seen.settings[name] for name in asked} == asked
    # What the caller leaves out, it sets itself.
    assert (seen.settings["top_k"], seen.settings["min_p"], seen.settings["repeat_penalty"]) == (40, 0.05, 1.0)


def test_client_refuses_what_it_has_no_argument_for(part):
    with pytest.raises(StageRefusedError) as refused:
        part.request(ask(max_completion_tokens=5))
    assert refused.value.refusal.error == "TypeError"
    assert "max_completion_tokens" in refused.value.refusal.message


def test_template_tokens_and_generation_of_a_known_prompt(part):
    case = ask()
    prompt = part.render(part.request(case), case.options)
    assert prompt.text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.stop == ("<|im_end|>",)
    tokens = part.tokenize(prompt)
    assert tokens.ids == IDS
    assert tokens.pieces[1:4] == ("system", "\n", "You")
    generation = part.generate(tokens, part.request(case), ANSWER)
    assert generation.ids == ANSWER
    assert generation.finish == "end_token"
    assert generation.chosen[1:] == ANSWER[1:]  # the first token is a near-tie between The and L
    assert generation.distributions.argmax() == generation.chosen
    assert len(generation.digests) == len(ANSWER)
    assert generation.settings["temperature"] == 0


def test_template_error_is_a_refusal(part):
    case = ask(content=None)
    with pytest.raises(StageRefusedError) as refused:
        part.render(part.request(case), case.options)
    assert refused.value.refusal.error == "TypeError"


def test_what_it_cannot_be_asked_is_unobserved(part):
    for options in (CaseOptions(continue_final_message=True), CaseOptions(template_kwargs={"x": 1})):
        with pytest.raises(StageUnobservedError):
            part.render(part.request(ask()), options)


@pytest.mark.parametrize("stream", [False, True])
def test_reply_comes_from_the_ids_given(part, stream):
    case = ask(max_tokens=20)
    made = Generation(ids=ANSWER, chosen=ANSWER, finish="end_token")
    reply = part.reply(made, Tokens(ids=IDS), part.request(case), stream=stream)
    assert reply.content == "The capital of France is Paris."
    assert reply.finish_reason == "stop"
    assert (reply.deltas is not None) == stream
    if not stream:
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (37, 7)


def test_reply_does_not_disturb_the_context(part):
    case = ask()
    request = part.request(case)
    before = part.generate(Tokens(ids=IDS), request, ANSWER).digests
    chat = part.chat(case, stream=False)
    part.reply(Generation(ids=(30, 2), chosen=(30, 2), finish="end_token"), Tokens(ids=IDS), request, stream=True)
    assert part.chat(case, stream=False).generation.digests == chat.generation.digests
    assert part.generate(Tokens(ids=IDS), request, ANSWER).digests == before


@pytest.mark.parametrize("stream", [False, True])
def test_chat_is_the_real_call_with_every_stage_seen(part, stream):
    case = ask()
    seen = part.chat(case, stream=stream)
    assert seen.request == part.request(case)
    assert seen.prompt == part.render(part.request(case), case.options)
    assert seen.tokens.ids == IDS
    assert seen.generation.ids == seen.generation.chosen
    assert isinstance(seen.reply, Reply)
    again = part.reply(seen.generation, seen.tokens, part.request(case), stream=stream)
    assert again.model_copy(update={"usage": None}) == seen.reply.model_copy(update={"usage": None})


def test_a_template_error_in_chat_still_shows_the_request(part):
    seen = part.chat(ask(content=None), stream=False)
    assert seen.request.settings["temperature"] == 0
    assert isinstance(seen.prompt, Refusal)
    assert seen.tokens is None
    assert seen.reply is None


def test_a_prompt_longer_than_the_context_is_refused_with_the_reason(part):
    request = part.request(ask())
    with pytest.raises(StageRefusedError) as refused:
        part.generate(Tokens(ids=IDS * 20), request, (30,))
    assert refused.value.refusal.context
    # Its ids are seen all the same.
    assert len(part.tokenize(Prompt(text="word " * 600)).ids) > 512
    seen = part.chat(ask(content="word " * 600), stream=False)
    assert len(seen.tokens.ids) > 512
    assert seen.generation.context


def test_the_clock_is_pinned(engine, smollm_tools):
    case = ask(options=CaseOptions(clock="2031-05-06T23:59:59"))
    with LlamaCppPython(smollm_tools, {}) as part:
        assert "Today is 2031-05-06." in part.render(part.request(case), case.options).text
        assert "Today is 2031-05-06." in part.chat(case, stream=False).prompt.text


def test_death_is_a_failure_with_its_signal_and_the_next_call_works(engine, smollm):
    with LlamaCppPython(smollm, {"n_ctx": 256}) as part:
        part.identity()
        os.kill(part._child._child.worker.pid, signal.SIGSEGV)
        with pytest.raises(StageFailedError) as failed:
            part.identity()
        assert failed.value.failure.signal == "SIGSEGV"
        assert part.identity()["n_ctx"] == "256"


def test_a_template_that_never_ends_is_a_hang_at_the_template_stage_only(engine, smollm):
    nested = "".join(f"{{% for i{n} in range(99999) %}}" for n in range(4)) + "x" + "{% endfor %}" * 4
    model = smollm.model_copy(update={"chat_template": nested})
    case = ask()
    with LlamaCppPython(model, {"seconds": 4.0}) as part:
        request = part.request(case)
        with pytest.raises(StageFailedError) as failed:
            part.render(request, case.options)
        assert failed.value.failure.reason == "hang"
        assert part.tokenize(Prompt(text="a")).ids == (81,)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "OverflowError"),
        ("{{ raise_exception('not like this') }}", "ValueError"),
        ("{{ messages[0].content.nothing() }}", "UndefinedError"),
    ],
)
def test_a_template_that_raises_is_refused_at_the_template_stage(engine, smollm, template, error):
    with LlamaCppPython(smollm.model_copy(update={"chat_template": template}), {}) as part:
        case = ask()
        request = part.request(case)
        with pytest.raises(StageRefusedError) as refused:
            part.render(request, case.options)
        assert refused.value.refusal.error == error
        assert part.tokenize(Prompt(text="a")).ids == (81,)


def test_a_template_that_does_not_parse_is_a_failed_start(engine, smollm):
    with LlamaCppPython(smollm.model_copy(update={"chat_template": "{% if %}"}), {}) as part:
        case = ask()
        request = Request(messages=tuple(case.body["messages"]))
        with pytest.raises(StageFailedError) as failed:
            part.render(request, case.options)
        assert failed.value.failure.reason == "start"
        assert failed.value.failure.message.startswith("TemplateSyntaxError")
        with pytest.raises(StageUnobservedError):
            part.request(case)
        with pytest.raises(StageUnobservedError):
            part.chat(case, stream=False)


def test_metadata_that_makes_the_engine_abort_is_a_failure_with_its_last_words(engine, tmp_path):
    path = tmp_path / "aborts.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(8)  # without expert_used_count: llama.cpp asserts
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_merges([])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with LlamaCppPython(ModelRef(name="aborts", path=path, sha256=""), {}) as part:
        with pytest.raises(StageFailedError) as failed:
            part.identity()
        assert failed.value.failure.signal == "SIGABRT"
        assert any("GGML_ASSERT" in line for line in failed.value.failure.log)


def test_a_file_that_the_engine_cannot_load_is_a_failed_start(engine, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    with LlamaCppPython(ModelRef(name="short", path=path, sha256=""), {}) as part:
        with pytest.raises(StageFailedError) as failed:
            part.identity()
        assert failed.value.failure.reason == "start"
        assert "Failed to load model" in failed.value.failure.message


# What a stack's file may set


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rope_freq_bas": 1.0}, "llama_cpp.Llama takes no 'rope_freq_bas' from a stack's file; did you mean "),
        ({"rope_freq_base": "much"}, "rope_freq_base: Input should be a valid number"),
        ({"use_mmap": 1}, "use_mmap: Input should be a valid boolean"),
        ({"draft_model": "x"}, "llama_cpp.Llama takes no 'draft_model' from a stack's file"),
        ({"logits_all": True}, "logits_all cannot be set: the taps read the last row of the logits"),
        ({"chat_format": "llama-2"}, "chat_format cannot be set: "),
        ({"model_path": "other.gguf"}, "model_path cannot be set: "),
    ],
)
def test_what_the_engine_does_not_take_is_one_line(smollm, options, says):
    with pytest.raises(ValidationError) as caught:
        LlamaCppPython(smollm, options)
    (problem,) = caught.value.errors(include_url=False)
    assert problem["msg"].removeprefix("Value error, ").startswith(says)


@pytest.mark.parametrize("name", ["llama-cpp-python", "llama-cpp-python-server"])
def test_a_wrong_rope_base_in_a_stack_s_file_is_convicted_at_inference(project, smollm, name):
    pytest.importorskip("llama_cpp.server.settings" if name.endswith("server") else "llama_cpp")
    stack = load_stack(project, name).with_options(name, {"rope_freq_base": 10_000.0})
    with open_session(project, stack, smollm, ("system-and-user",)) as session:
        golden = session.goldens["system-and-user"]
        stages = (Stage.TOKENIZATION, Stage.INFERENCE)
        trace = session.trace("system-and-user", (Run.ISOLATED,), stages)
        found = {stage: session.judge.isolated(stage, golden, trace) for stage in stages}
    assert found[Stage.TOKENIZATION].outcome is Outcome.EQUAL
    assert (found[Stage.INFERENCE].outcome, found[Stage.INFERENCE].difference.kind) == (Outcome.DIVERGED, "engine")


def test_a_larger_model_file_is_waited_for_longer(tmp_path):
    file = tmp_path / "large.gguf"
    with file.open("wb") as opened:
        opened.truncate(4 << 30)
    model = ModelRef(name="large", path=file, sha256="")
    assert LlamaChild("_child:Tapped", model, Options(seconds=120))._child.worker._limit.seconds == 1920.0


def loaded_rows(part: LlamaCppPython, model: ModelRef) -> dict[str, Row]:
    return {row.name: row for row in rows_of(part.loaded(), model, declared_by(model.path), declared_by(model.path))}


def test_what_is_in_force_is_as_declared(part, smollm, smollm_tools, engine):
    rows = loaded_rows(part, smollm)
    assert [row.name for row in rows.values() if row.outcome is not Outcome.EQUAL] == ["layers on a GPU"]
    assert (rows["context of a slot"].found, rows["RoPE base"].found) == ("512", "100000")
    with LlamaCppPython(smollm_tools, {"vocab_only": True}) as given:
        template = loaded_rows(given, smollm_tools)["template"]
    assert (template.outcome, template.source) == (
        Outcome.EQUAL,
        "the template of the model smollm2-135m-instruct-tools",
    )


def test_what_was_asked_for_is_in_force(smollm, engine):
    asked = {"n_ctx": 256, "type_k": "q8_0", "flash_attn": True, "rope_freq_base": 500000.0, "n_gpu_layers": 9}
    with LlamaCppPython(smollm, asked) as changed:
        rows = loaded_rows(changed, smollm)
    names = ("cache type of keys", "flash attention", "RoPE base", "context of a slot")
    assert [(rows[name].found, rows[name].outcome) for name in names] == [
        (found, Outcome.EQUAL) for found in ("q8_0", "on", "500000", "256")
    ]
    assert rows["cache type of keys"].source == "type_k in the options"
    # This build is one for the processor.
    assert rows["layers on a GPU"].kind == "environment"


def test_a_file_without_a_template_is_rendered_with_the_bindings_own(smollm, engine, tmp_path):
    bare = ModelCopy(smollm.path)
    bare.remove("tokenizer.chat_template")
    model = smollm.model_copy(update={"path": bare.save(tmp_path / "bare.gguf")})
    with LlamaCppPython(model, {"vocab_only": True}) as part:
        row = loaded_rows(part, model)["template"]
    assert (row.found, row.kind) == ("llama-2", "artifact")
    assert row.why == "the file has no chat template, and llama-cpp-python renders with one of its own"
