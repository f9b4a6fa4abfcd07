"""The component for any OpenAI-compatible server: against a made Ollama and LM Studio, and llama.cpp's real server."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")
pytest.importorskip("tokenizers", reason="the made server tokenizes with the reference: pip install -e '.[reference]'")

from harness.checking.compare.outcome import Outcome
from harness.checking.load import declared_by, rows_of
from harness.checking.load.verdict import with_load
from harness.checking.rows import Row
from harness.components.openai_compatible import OpenAiCompatible, _model, _probed
from harness.components.openai_compatible._model import Vocabulary
from harness.components.openai_compatible._read import rows_of as positions_of
from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.probes import replay
from harness.probes.fingerprint import Fingerprint
from harness.probes.replay import ReplayModel
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, CaseOptions, Generation, ModelRef, Prompt, Request, Tokens, Unobserved
from harness.wire.chat import request_of
from tests.components.fake_ollama import CONTEXT, Engine, Ollama, ollama
from tests.made import verdict
from tests.wire import servers
from tests.wire.servers import Fake, completion, healthy, serving

CASE = Case(
    name="asked",
    description="",
    covers=(),
    body={"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 3, "temperature": 0},
)
REQUEST = request_of(CASE.body)
PROMPT = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"


read_model = functools.cache(read_model_file)


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Read each model file once for all tests: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_model, replay):
            patch.setattr(module, "read_model_file", read_model)
        patch.setattr(_probed, "Fingerprint", functools.cache(Fingerprint))
        yield


@pytest.fixture(scope="module")
def replay_file(smollm: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probes") / "replay.gguf"
    kept = ReplayModel(smollm, path, CONTEXT)
    kept.script([30, 31], 5)  # of some earlier run
    return path


@pytest.fixture(scope="module")
def engine(smollm: ModelRef, replay_file: Path) -> Engine:
    return Engine(smollm, read_model(smollm.path), replay_file)


@pytest.fixture
def server(engine: Engine) -> Iterator[tuple[Fake, Ollama]]:
    with ollama(engine) as running:
        yield running


@pytest.fixture
def part(smollm: ModelRef, server: tuple[Fake, Ollama], replay_file: Path) -> Iterator[OpenAiCompatible]:
    options = {"replay_model": "replay", "replay_file": str(replay_file), "fingerprint_model": "fingerprint"}
    with opened(smollm, server[0].url, profile="ollama", **options) as made:
        yield made


def opened(given: ModelRef, url: str, **options: object) -> OpenAiCompatible:
    return OpenAiCompatible(given, {"url": url, "model": "main", "seconds": 20, **options})


def test_what_ollama_is_and_can_is_found_out(part):
    found = part.identity()
    assert (found["ollama"], found["quantization"], found["parameters"]) == ("0.99.0", "Q4_1", 'stop "<|im_end|>"')
    seen = {name: found[name] for name in ("completions", "raw", "takes_ids", "chat_usage")}
    assert seen == {"completions": "true", "raw": "false", "takes_ids": "false", "chat_usage": "true"}
    assert 15 <= int(found["chat_top"]) <= 20


def test_ollama_shows_the_prompt_that_it_renders(part):
    found = part.render(REQUEST, CaseOptions())
    assert found.text == PROMPT
    assert found.clock is not None
    with pytest.raises(StageUnobservedError, match="no variables"):
        part.render(REQUEST, CaseOptions(template_kwargs={"x": 1}))


def test_an_ollama_that_does_not_render_is_unobserved(part, server):
    server[1].renders = False
    with pytest.raises(StageUnobservedError, match="does not know _debug_render_only"):
        part.render(REQUEST, CaseOptions())


def test_ids_are_never_guessed_but_counted(part, engine):
    count = len(engine.tokenize(PROMPT))
    with pytest.raises(StageUnobservedError, match=rf"does not show ids; of the prompt's text it makes {count}$"):
        part.tokenize(Prompt(text=PROMPT))


def test_ollama_computes_on_a_text_that_is_proven_to_be_the_ids(part, engine):
    ids = engine.tokenize(PROMPT)
    forced = engine.generate("main", ids, 3)[0]
    found = part.generate(Tokens(ids=tuple(ids)), REQUEST, forced)
    assert (found.ids, found.chosen, found.finish) == (tuple(forced), tuple(forced), "forced")
    expected = engine.numbers("main", [*ids, forced[0]])
    row = dict(zip(found.distributions.ids[1].tolist(), found.distributions.logprobs[1].tolist(), strict=True))
    assert len(row) >= 10
    assert all(abs(expected[token] - number) < 1e-5 for token, number in row.items())
    assert np.all(np.diff(found.distributions.logprobs, axis=1) <= 0)


def test_ids_that_no_text_gives_are_unobserved(part, engine):
    # "W" and "ho" apart: its tokenizer makes one token of them.
    apart = (*engine.tokenize("W"), *engine.tokenize("ho"))
    assert len(engine.tokenize("Who")) == 1
    with pytest.raises(StageUnobservedError, match="makes others of their text"):
        part.generate(Tokens(ids=apart), REQUEST, (30,))
    byte = engine.tokenize("\N{GRINNING FACE}")[:1]
    with pytest.raises(StageUnobservedError, match="these have no text"):
        part.generate(Tokens(ids=tuple(byte)), REQUEST, (30,))


def test_without_a_fingerprint_a_server_that_takes_no_ids_is_unobserved(smollm, server):
    with opened(smollm, server[0].url, profile="ollama") as bare:
        with pytest.raises(StageUnobservedError, match="a fingerprint model would prove"):
            bare.generate(Tokens(ids=(1,)), REQUEST, (30,))
        with pytest.raises(StageUnobservedError, match="no replay model"):
            bare.reply(Generation(ids=(30,), chosen=(30,), finish="length"), Tokens(ids=(1,)), REQUEST, stream=False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_replay_shows_what_the_server_makes_of_known_ids(part, engine, stream):
    ids = (*engine.tokenize("Paris, of course."), engine.tokenizer.eos_id)
    made = Generation(ids=ids, chosen=ids, finish="end_token")
    request = REQUEST.model_copy(update={"settings": {"max_tokens": 20}})
    # The golden's prompt may have another length than the server's.
    found = part.reply(made, Tokens(ids=(1, 2, 3)), request, stream=stream)
    assert (found.content, found.finish_reason) == ("Paris, of course.", "stop")
    assert (found.deltas is not None) == stream
    assert stream or found.usage.prompt_tokens == 3


def test_a_replay_file_that_the_server_does_not_have_is_unobserved(smollm, server, tmp_path):
    other = tmp_path / "other.gguf"
    ReplayModel(smollm, other, CONTEXT)
    with opened(smollm, server[0].url, profile="ollama", replay_model="replay", replay_file=str(other)) as made:
        generation = Generation(ids=(30,), chosen=(30,), finish="length")
        with pytest.raises(StageUnobservedError, match=r"does not generate what is written into other\.gguf"):
            made.reply(generation, Tokens(ids=(1,)), REQUEST, stream=False)


def test_a_file_that_is_no_replay_model_is_the_users_matter(smollm, tmp_path):
    with pytest.raises(UserError, match="is no replay model"):
        ReplayModel.existing(smollm.path)
    with pytest.raises(UserError, match="no model file"):
        ReplayModel.existing(tmp_path / "none.gguf")


@pytest.mark.parametrize("stream", [False, True])
def test_the_chained_call_proves_the_ids_that_the_isolated_runs_had(part, server, engine, stream):
    ids = tuple(engine.tokenize(PROMPT))
    assert part.additions(CASE, stream=stream)["model"] == "main"
    part.reply(Generation(ids=(30,), chosen=(30,), finish="length"), Tokens(ids=ids), REQUEST, stream=stream)
    body = {**CASE.body, "model": "asked", "stream": stream}
    answer = server[1]._chat({**body, **part.additions(CASE, stream=stream)})
    chunks = [json.loads(line[6:]) for line in server[1]._streamed(answer).split(b"\n\n")[:2]]
    seen = part.seen(CASE, body, chunks if stream else answer)
    assert seen.prompt.text == PROMPT
    assert seen.tokens == Tokens(ids=ids)
    assert seen.generation.ids == tuple(engine.generate("main", list(ids), 3)[0])
    assert seen.generation.finish == "length"
    assert (seen.generation.distributions is None) == stream


def test_ids_that_the_chat_route_is_not_fed_are_not_shown(part, server, engine):
    ids = engine.tokenize(PROMPT)
    swapped = (ids[1], ids[0], *ids[2:])  # as many, and only two in other places
    part.reply(Generation(ids=(30,), chosen=(30,), finish="length"), Tokens(ids=swapped), REQUEST, stream=False)
    answer = server[1]._chat({**CASE.body, "model": "main"})
    seen = part.seen(CASE, CASE.body, answer)
    assert isinstance(seen.tokens, Unobserved)
    assert seen.tokens.reason.endswith(
        f"its prompt has {len(ids)}, which are not the {len(ids)} ids that the isolated runs were given"
    )
    # It was not asked for log-probabilities.
    assert isinstance(seen.generation, Unobserved)


def changed(answers: Ollama, name: str, value: object) -> None:
    answers.show = {**answers.show, "model_info": {**answers.show["model_info"], name: value}}


def loaded_rows(part: OpenAiCompatible, model: ModelRef) -> dict[str, Row]:
    file = declared_by(model.path)
    return {row.name: row for row in rows_of(part.loaded(), model, file, None)}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("general.architecture", "qwen2", "architecture is qwen2, not llama"),
        ("tokenizer.ggml.tokens", ["a", "b"], "vocabulary size is 2, not 49,152"),
        ("general.parameter_count", 7, "number of weights is 7, not 134,515,008"),
    ],
)
def test_another_model_is_found_out(part, server, smollm, name, value, told):
    changed(server[1], name, value)
    wrong = [row for row in loaded_rows(part, smollm).values() if row.outcome.bad]
    assert [row.why for row in wrong] == [f"another model is loaded than {smollm.name}: {told}"]
    assert "ollama create" in wrong[0].remedy


def test_another_template_is_found_out_where_it_can_be_compared(part, server, smollm):
    assert loaded_rows(part, smollm)["template"].why.startswith("it is a Go template")
    server[1].show |= {"template": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    row = loaded_rows(part, smollm)["template"]
    assert row.why == "another template is in force than the file's own: it differs from character 8 on"


def test_what_a_modelfile_sets_is_what_it_declares(part, server, smollm):
    server[1].show |= {
        "parameters": 'num_ctx                        2048\nstop   "<|im_end|>"\ntemperature   1.7\nnum_predict',
        "system": "Be brief.",
    }
    server[1].running = [{"name": "main", "context_length": 2048}]
    found = loaded_rows(part, smollm)
    assert not [row for row in found.values() if row.outcome.bad]
    said = {name: (found[name].found, found[name].source) for name in ("context of a slot", "default temperature")}
    assert said == {
        "context of a slot": ("2,048", "PARAMETER num_ctx of the Modelfile"),
        "default temperature": ("1.7", "PARAMETER temperature of the Modelfile"),
    }
    assert found["default top_p"].why == "the Modelfile does not set it, and what is in force then is not shown"
    assert with_load(verdict(), tuple(found.values())).notes[-1] == (
        "in force though nobody asks: system message Be brief. (SYSTEM of the Modelfile)"
    )


@pytest.mark.parametrize(
    ("parameters", "running", "why"),
    [
        ("num_ctx 4096", 2048, "a slot has a context of 2,048, not 4,096 as PARAMETER num_ctx of the Modelfile says"),
        (
            "num_ctx 20000",
            8192,
            "a slot has a context of 8,192, not 20,000: it is capped at what the model was trained with",
        ),
        (
            "",
            512,
            "a slot has a context of 512, of the 8,192 that the model was trained with, and nothing declares that",
        ),
    ],
)
def test_ollamas_context_is_told_by_what_runs(part, server, smollm, parameters, running, why):
    server[1].show |= {"parameters": parameters}
    server[1].running = [{"name": "another", "context_length": 1}, {"model": "main", "context_length": running}]
    row = loaded_rows(part, smollm)["context of a slot"]
    assert row.why == why
    assert row.remedy.startswith("set PARAMETER num_ctx ")


@pytest.mark.parametrize(
    "running", [None, [], 5, [5], [{"name": "main"}], [{"name": "main", "context_length": "4096"}]]
)
@pytest.mark.parametrize("show", [{}, {"parameters": 5, "system": 5, "model_info": [], "template": None}])
def test_what_ollama_does_not_tell_is_unobserved(part, server, smollm, running, show):
    server[1].show = {**server[1].show, **show}
    server[1].running = running
    row = loaded_rows(part, smollm)["context of a slot"]
    assert (row.outcome, row.why) == (Outcome.UNOBSERVED, "/api/ps does not show the model as loaded")


def test_a_model_that_is_not_there_is_the_users_matter(smollm, server):
    remedy = pytest.raises(UserError, match=r"has no model 'absent'.*ollama create absent")
    with opened(smollm, server[0].url, profile="ollama", model="absent") as made, remedy:
        made.identity()


def lm_studio(models: list[dict[str, object]]):
    def answer(handler, asked):
        if asked.path == "/api/v0/models":
            handler.json({"object": "list", "data": models})
        elif asked.path.endswith("/chat/completions"):
            healthy(handler, asked)
        else:
            # As LM Studio answers a route that it has not.
            handler.json({"error": f"Unexpected endpoint or method. ({asked.method} {asked.path})"})

    return answer


LOADED = {"id": "main", "arch": "llama", "compatibility_type": "gguf", "quantization": "Q4_1", "state": "loaded"}


def test_lm_studio_shows_little_and_that_is_said(smollm):
    with serving(lm_studio([LOADED])) as fake, opened(smollm, fake.url, profile="lm-studio") as made:
        found = made.identity()
        assert (found["quantization"], found["state"], found["completions"]) == ("Q4_1", "loaded", "false")
        assert made.additions(CASE, stream=False) == {"model": "main"}
        for call in (
            lambda: made.render(REQUEST, CaseOptions()),
            lambda: made.tokenize(Prompt(text="a")),
            lambda: made.generate(Tokens(ids=(1,)), REQUEST, (30,)),
        ):
            with pytest.raises(StageUnobservedError):
                call()
        seen = made.seen(CASE, CASE.body, completion())
        assert seen.tokens.reason.startswith("OpenAI's API does not show ids; its prompt has 3")
        assert seen.generation.reason == "it generated 2 ids and shows 0 of them"


def test_lm_studio_without_the_model_is_the_users_matter(smollm):
    says = r"no model of LM Studio at .* named 'main'; did you mean 'mein'"
    other = lm_studio([{**LOADED, "id": "mein"}])
    with serving(other) as fake, opened(smollm, fake.url, profile="lm-studio") as part:
        with pytest.raises(UserError, match=says) as wrong:
            part.url()
        assert wrong.value.remedy


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({"max_context_length": 8192, "loaded_context_length": 4096}, []),
        ({"arch": "qwen2"}, ["another model is loaded than smollm2-135m-instruct: architecture is qwen2, not llama"]),
        ({"arch": "Llama", "compatibility_type": "mlx"}, []),
        (
            {"max_context_length": 4096},
            ["another model is loaded than smollm2-135m-instruct: training context is 4,096, not 8,192"],
        ),
        (
            {"loaded_context_length": 512},
            ["a slot has a context of 512, of the 8,192 that the model was trained with, and nothing declares that"],
        ),
        ({"loaded_context_length": "512", "max_context_length": None, "arch": 5}, []),
    ],
)
def test_what_lm_studio_has_loaded(smollm, entry, wrong):
    with (
        serving(lm_studio([{**LOADED, **entry}])) as fake,
        opened(smollm, fake.url, profile="lm-studio") as part,
    ):
        found = loaded_rows(part, smollm)
    assert [row.why for row in found.values() if row.outcome.bad] == wrong
    assert found["template"].outcome is Outcome.UNOBSERVED


@pytest.mark.parametrize(
    ("listed", "found", "outcome"),
    [
        ([{"id": "main", "max_model_len": 8192}], "8,192", Outcome.EQUAL),
        ([{"id": "main", "max_model_len": 512}], "512", Outcome.DIVERGED),
        ([{"id": "other", "max_model_len": 512}], "", Outcome.UNOBSERVED),
        ([{"id": "main", "max_model_len": "512"}, 5], "", Outcome.UNOBSERVED),
        (None, "", Outcome.UNOBSERVED),
    ],
)
def test_what_any_other_server_tells(smollm, listed, found, outcome):
    def answer(handler, asked):
        if asked.path == "/v1/models":
            handler.json({"data": listed})
        elif asked.method == "GET":
            handler.json({"detail": "Not Found"}, 404)
        else:
            healthy(handler, asked)

    with serving(answer) as fake, opened(smollm, fake.url) as part:
        row = loaded_rows(part, smollm)["context of a slot"]
    assert (row.found, row.outcome) == (found, outcome)


def test_a_server_that_does_not_answer_is_asked_once(smollm):
    with serving(servers.slow) as fake, opened(smollm, fake.url, seconds=0.3) as made:
        for _ in range(3):
            with pytest.raises(StageFailedError) as failed:
                made.tokenize(Prompt(text="a"))
            assert failed.value.failure.reason == "hang"
        assert len(fake.asked) == 1


def test_a_server_that_refuses_everything_refuses(smollm):
    with serving(servers.traceback) as fake, opened(smollm, fake.url) as made:
        with pytest.raises(StageRefusedError) as refused:
            made.tokenize(Prompt(text="a"))
        assert refused.value.refusal.error == "HTTP 500"


TINY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<end>", "Hi", "Ġthere", "Ã", "ÃĦ", "<end>"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 4],
}


def test_bytes_and_ids_of_a_byte_level_vocabulary():
    known = Vocabulary(TINY)
    assert [known.id_of(text) for text in (b"Hi", b" there", b"\xc3", "Ä".encode(), b"no")] == [1, 2, 3, 4, None]
    # Two tokens of one text cannot be told apart by it.
    assert known.id_of(b"<end>") is None
    assert (known.text_of([1, 2, 4]), known.text_of([3]), known.text_of([9])) == ("Hi thereÄ", None, None)
    other = Vocabulary({**TINY, "tokenizer.ggml.model": "llama"})
    assert (other.id_of(b"Hi"), other.text_of([1]), other.size) == (None, None, 6)


@pytest.mark.parametrize(
    "shown",
    [
        {"content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": " there", "logprob": -1.0}]}]},
        {
            "content": [
                {"id": 1, "token": "?", "logprob": -0.5, "top_logprobs": [{"id": 2, "token": "", "logprob": -1}]}
            ]
        },
        {"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": [{"Hi": -0.5, " there": -1.0, "unknown": -2}]},
        {"tokens": ["token_id:1"], "token_logprobs": [-0.5], "top_logprobs": [{"token_id:2": -1.0}]},
        [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": [{"token": " there", "logprob": -1.0}]}],
    ],
)
def test_log_probabilities_in_every_form(shown):
    (row,) = positions_of(shown, Vocabulary(TINY))
    assert (row.chosen, dict(row.top)) == (1, {1: -0.5, 2: -1.0})


@pytest.mark.parametrize("shown", [{"content": [5]}, {"content": 5}, {"tokens": ["a"]}, "text", {"content": [{}]}])
def test_log_probabilities_of_no_known_form_are_broken(shown):
    with pytest.raises(StageFailedError, match="no known form"):
        positions_of(shown, Vocabulary(TINY))


def test_a_token_that_ends_inside_a_character_is_not_taken_for_another():
    (row,) = positions_of({"content": [{"token": "\ufffd", "logprob": -0.1, "top_logprobs": []}]}, Vocabulary(TINY))
    assert (row.chosen, dict(row.top)) == (None, {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "localhost"}, "url"),
        ({"replay_model": "x"}, "go together"),
        ({"replay_url": "http://a"}, "without 'replay_model'"),
        ({"fingerprint_url": "http://a"}, "without 'fingerprint_model'"),
        ({"profile": "other"}, "profile"),
    ],
)
def test_wrong_options_are_named(smollm, options, says):
    with pytest.raises(ValueError, match=says):
        OpenAiCompatible(smollm, {"url": "http://127.0.0.1:1", "model": "m", **options})


def test_the_request_is_not_changed_by_what_it_is_asked_with(part, server):
    part.render(Request(messages=REQUEST.messages, settings={"max_tokens": 99}), CaseOptions())
    sent = [one.body for one in server[0].asked if one.body and one.body.get("_debug_render_only")]
    assert [(one["max_tokens"], one["model"], one["stream"]) for one in sent] == [(1, "main", False)]
