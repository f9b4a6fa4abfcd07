"""The probes in a real server: it generates the scripted ids, and its first numbers tell which ids it was fed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.models.gguf import raw_entries, read_model_file
from harness.probes.fingerprint import COMPUTED, SAME_SERVER, Fingerprint, same
from harness.probes.replay import LONGEST, ReplayModel
from harness.values import ModelRef

CONTEXT = 512
PROMPT = (1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198)
ONE_THREAD = {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}


def running(model: ModelRef, file: Path):
    """Return a llama-server around a probe; skips where there is none."""
    for package in ("xllamacpp", "httpx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"THE PROBES ARE NOT TESTED: {package} is not installed: pip install -e '.[servers]'")
    from harness.components.llama_server._options import Options
    from harness.components.llama_server._running import Running

    return Running(model, Options(n_ctx=CONTEXT, parameters=ONE_THREAD), file)


# The replay model


@pytest.fixture(scope="module")
def replay(smollm, tmp_path_factory) -> Iterator[ReplayModel]:
    path = tmp_path_factory.mktemp("replay") / "replay.gguf"
    with ReplayModel(smollm, path, CONTEXT) as model:
        assert path.is_file()
        yield model
    assert not path.exists()


@pytest.fixture(scope="module")
def server(smollm, replay):
    made = running(smollm, replay.path)
    yield made
    made.close()


SCRIPTS = {
    "a sentence": (504, 3575, 282, 4649, 314, 7042, 30, 2),
    "the end alone": (2,),
    "one id over and over": (30,) * 40 + (2,),
    "two ids in turns": (30, 28) * 20 + (2,),
    "control tokens inside": (504, 1, 3575, 3, 1, 30, 2),
    "the lowest and the highest id": (3, 49151, 3, 49151, 2),
    "as long as can be": (*range(100, 100 + LONGEST - 1), 2),
}


def complete(server, **more):
    # Control tokens are generated as any other; only what ends a generation ends it.
    settings = {"n_predict": 300, "temperature": 0, **more}
    return server.complete(PROMPT, settings, 1)


def test_one_server_generates_script_after_script(server, replay):
    for name, ids in [*SCRIPTS.items(), *reversed(SCRIPTS.items())]:
        replay.script(ids, len(PROMPT))
        assert tuple(complete(server)["tokens"]) == ids, name


def test_a_sampler_that_is_not_greedy_generates_the_script_too(server, replay):
    ids = SCRIPTS["a sentence"]
    replay.script(ids, len(PROMPT))
    for seed in range(5):
        answer = complete(server, temperature=1.5, top_k=0, top_p=1.0, seed=seed, repeat_penalty=2.0)
        assert tuple(answer["tokens"]) == ids


def test_a_prompt_of_another_length_gets_its_own_script(server, replay):
    ids = (30, 28, 30, 2)
    for length in (1, 5, len(PROMPT)):
        replay.script(ids, length)
        answer = server.complete(PROMPT[:length], {"n_predict": 10, "temperature": 0}, 1)
        assert tuple(answer["tokens"]) == ids


def test_a_script_without_an_end_is_cut_by_the_limit(server, replay):
    replay.script((30, 28, 30, 28, 30, 28), len(PROMPT))
    answer = complete(server, n_predict=3)
    assert (tuple(answer["tokens"]), answer["stop_type"]) == ((30, 28, 30), "limit")


def test_a_script_that_fills_the_context(server, replay):
    after = CONTEXT - 4
    replay.script((504, 3575, 282, 2), after)
    answer = server.complete((30,) * after, {"n_predict": 4, "temperature": 0}, 1)
    assert tuple(answer["tokens"]) == (504, 3575, 282, 2)


CHAT = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 300, "return_tokens": True}


@pytest.fixture(scope="module")
def chat_length(server, replay):
    replay.script((2,), 1)
    return server.post("/v1/chat/completions", {**CHAT, "max_tokens": 1})["usage"]["prompt_tokens"]


def chat(server, stream, **more):
    """Return the content and the finish reason of the chat route, streamed or not."""
    body = {**CHAT, **more, "stream": stream}
    if not stream:
        choice = server.post("/v1/chat/completions", body)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]
    choices = [chunk["choices"][0] for chunk in server.stream("/v1/chat/completions", body) if chunk["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices), *ends


@pytest.mark.parametrize("stream", [False, True])
def test_the_chat_route_says_what_was_scripted(server, replay, chat_length, stream):
    replay.script(SCRIPTS["a sentence"], chat_length)
    assert chat(server, stream) == ("The capital of France is Paris.", "stop")
    replay.script((2,), chat_length)
    assert chat(server, stream) == ("", "stop")
    replay.script((30,) * 7 + (2,), chat_length)
    assert chat(server, stream) == ("." * 7, "stop")
    assert chat(server, stream, max_tokens=3) == ("...", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_inside_a_character_is_scripted_too(smollm, server, replay, chat_length, stream):
    ids = server.tokenize("a\U0001f98a").ids
    assert len(ids) > 2, "the character is of several ids"
    replay.script(ids, chat_length)
    whole, _ = chat(server, stream, max_tokens=len(ids))
    assert whole == "a\U0001f98a"
    cut, finish = chat(server, stream, max_tokens=len(ids) - 1)
    assert cut.rstrip("\ufffd") == "a"
    assert finish == "length"


@pytest.mark.parametrize(
    ("ids", "after", "why"),
    [
        ((30,) * (LONGEST + 1), 10, "a script has at most 255 ids, not 256"),
        ((30,) * 12, CONTEXT - 11, f"{CONTEXT - 11} prompt and 12 scripted ids do not fit {CONTEXT} positions"),
        ((30,), CONTEXT, f"{CONTEXT} prompt and 1 scripted ids do not fit {CONTEXT} positions"),
        ((30,), 0, f"0 prompt and 1 scripted ids do not fit {CONTEXT} positions"),
    ],
)
def test_a_script_that_cannot_be_written_is_an_error_and_changes_nothing(replay, ids, after, why):
    replay.script((504, 2), 5)
    before = replay.path.read_bytes()
    with pytest.raises(ValueError, match=f"^{why}$"):
        replay.script(ids, after)
    assert replay.path.read_bytes() == before


def test_a_script_leaves_nothing_of_the_one_before(replay):
    replay.script((504, 3575, 2), 5)
    before = replay.path.read_bytes()
    replay.script((30, 30, 28, 2), 9)
    assert replay.path.read_bytes() != before
    replay.script((504, 3575, 2), 5)
    assert replay.path.read_bytes() == before


def test_the_file_is_gone_after_an_exception(smollm, tmp_path):
    path = tmp_path / "replay.gguf"

    def broken():
        with ReplayModel(smollm, path, 64):
            assert path.is_file()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert list(tmp_path.iterdir()) == []


def test_a_probe_has_the_model_s_vocabulary_and_template_byte_for_byte(smollm, tmp_path):
    template = "{{ messages[0].content }}\u00e9"
    path = tmp_path / "fingerprint.gguf"
    Fingerprint(smollm.model_copy(update={"chat_template": template}), 64).write(path)
    own, made = raw_entries(smollm.path), raw_entries(path)
    kept = {key: raw for key, raw in own.items() if key.startswith("tokenizer.") and key != "tokenizer.chat_template"}
    assert {key: made[key] for key in kept} == kept
    assert made["tokenizer.chat_template"].endswith(template.encode("utf-8"))
    read = read_model_file(path)
    assert read.architecture == "gpt2"
    assert {tensor.name: tuple(tensor.shape) for tensor in read.tensors}["position_embd.weight"] == (64, 64)


# The fingerprint


@pytest.fixture(scope="module")
def probe(smollm):
    return Fingerprint(smollm, CONTEXT)


@pytest.fixture(scope="module")
def marked(smollm, probe, tmp_path_factory):
    path = tmp_path_factory.mktemp("fingerprint") / "fingerprint.gguf"
    probe.write(path)
    made = running(smollm, path)
    yield made
    made.close()


def fingerprint(server, ids):
    from harness.components.llama_server._read import logprobs_of

    return logprobs_of(server.complete(ids, {"n_predict": 1, "temperature": 0}, 20))


@pytest.fixture(scope="module")
def chat_ids(marked):
    body = {"messages": CHAT["messages"]}
    return marked.tokenize(marked.post("/apply-template", body)["prompt"]).ids


@pytest.fixture(scope="module")
def chat_marks(marked):
    from harness.components.llama_server._read import logprobs_of, verbose_of

    body = {"messages": CHAT["messages"], "max_tokens": 1, "temperature": 0, "n_probs": 20, "cache_prompt": False}
    return logprobs_of(verbose_of(marked.post("/v1/chat/completions", body)))


def test_the_chat_route_has_the_fingerprint_of_its_ids(marked, chat_ids, chat_marks):
    assert len(chat_marks) == 20
    assert same(chat_marks, fingerprint(marked, chat_ids), SAME_SERVER)
    assert same(fingerprint(marked, chat_ids), fingerprint(marked, chat_ids), SAME_SERVER)


def test_the_numbers_computed_here_are_the_server_s(probe, chat_ids, chat_marks):
    assert same(chat_marks, probe.logprobs(chat_ids, 20), COMPUTED)
    assert not same(chat_marks, probe.logprobs((1, *chat_ids), 20), COMPUTED)


@pytest.mark.parametrize("place", [0, 1, 7, -2, -1])
@pytest.mark.parametrize("change", ["changed", "dropped", "added", "swapped"])
def test_another_id_at_any_place_is_another_fingerprint(marked, chat_ids, chat_marks, place, change):
    at = place % len(chat_ids)
    before, token, after = chat_ids[:at], chat_ids[at], chat_ids[at + 1 :]
    other = {
        "changed": (*before, token + 1, *after),
        "dropped": (*before, *after),
        "added": (*before, token, token, *after),
        "swapped": (*before, *after[:1], token, *after[1:]) if after else (*before[:-1], token, before[-1]),
    }[change]
    assert other != chat_ids
    assert not same(chat_marks, fingerprint(marked, other), SAME_SERVER)


def test_a_second_bos_is_another_fingerprint(marked, chat_ids, chat_marks):
    assert chat_ids[0] == 1
    assert not same(chat_marks, fingerprint(marked, (1, *chat_ids)), SAME_SERVER)


# Whether two lists are the same


def marks(**changes):
    return {**{token: -1.0 - token / 10 for token in range(20)}, **{int(key[1:]): v for key, v in changes.items()}}


def alike(one, other, within=1e-3):
    return same(one, other, within)


def test_lists_are_the_same_within_the_tolerance():
    assert alike(marks(), marks())
    assert alike(marks(), marks(_3=marks()[3] + 9e-4))
    assert not alike(marks(), marks(_3=marks()[3] + 1.1e-3))
    assert alike(marks(), marks(_3=marks()[3] + 1.1e-3), 2e-3)
    assert not alike(marks(), marks(_3=float("nan")))


def test_at_the_end_one_id_may_be_another():
    short = {token: value for token, value in marks().items() if token != 19}
    assert alike(marks(), {**short, 77: marks()[19]})
    assert alike({**short, 77: marks()[19]}, marks())
    shorter = {token: value for token, value in short.items() if token != 18}
    assert not alike(marks(), {**shorter, 77: -2.8, 78: -2.9})


def test_lists_of_other_lengths_are_compared_as_far_as_both_go():
    short = {token: value for token, value in marks().items() if token < 10}
    assert alike(marks(), short)
    assert alike(short, marks())
    assert not alike(marks(), {**short, 3: -9.0})


@pytest.mark.parametrize(("one", "other"), [({}, {}), ({}, marks()), ({1: -1.0}, {1: -1.0}), ({1: -1.0}, {2: -1.0})])
def test_too_few_say_nothing(one, other):
    assert not alike(one, other)
