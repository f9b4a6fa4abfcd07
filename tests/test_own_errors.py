"""Planted errors of ours, in all three runners: status 4, one line and a report, and nobody convicted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.attribution.trial import Plan
from harness.attribution.trial import run as run_trial
from harness.cli import app
from harness.explain.pipeline import Pipeline
from harness.project.stack import load_stack
from tests.conftest import ROOT

CASE, MODEL = "no-system", "smollm2-135m-instruct"
ONE_CASE = ("--case", CASE, "--model", MODEL)

# Holding nodes takes an oracle, and has nothing to do with where these are.
WITHOUT_NODES = """
import harness.explain.locate as locate
setattr(locate.Locator, "verdict", lambda self, verdict, *_, **__: verdict)
"""
# What is done to the house before a runner starts: in the child's tap, in the component's reader, in the comparison,
# and in what explains a verdict.
PLANTED = {
    "tap": f"""{WITHOUT_NODES}
import harness.checking.opened as checking
import harness.explain.pipeline as pipeline
import harness.attribution.trial as trial
from harness.stage import Stage
real = checking.open_session
def plant(running):
    running.part(Stage.TOKENIZATION).plant("tests.planted:break_tap", place="_tokenize")
def planted(*given, **more):
    return real(*given[:5], **dict(more, prepare=plant))
for module in (checking, pipeline, trial):
    setattr(module, "open_session", planted)
""",
    "reader": f"""{WITHOUT_NODES}
import harness.components.llama_cpp_python as part
def tokenize(self, prompt):
    raise AttributeError("'NoneType' object has no attribute 'ids'")
setattr(part.LlamaCppPython, "tokenize", tokenize)
""",
    "comparison": f"""{WITHOUT_NODES}
import harness.checking.compare.tokenization as comparison
def compare(*_):
    raise KeyError("planted")
setattr(comparison, "compare", compare)
""",
    "explaining": """
import harness.explain.locate as locate
def verdict(*_, **__):
    raise KeyError("planted")
setattr(locate.Locator, "verdict", verdict)
""",
}


@pytest.fixture
def planted(request, monkeypatch, tmp_path, engine, smollm):
    """Plant one of them in this process, and take it out again."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    exec(PLANTED[request.param], {"setattr": monkeypatch.setattr})
    return request.param


everywhere = pytest.mark.parametrize("planted", PLANTED, indirect=True)


def ended(*arguments):
    """Run a command in this process and return its status."""
    with pytest.raises(SystemExit) as caught:
        app(list(arguments))
    return caught.value.code


def line_and_report(err):
    """Return the one line on the terminal, and the report that it names."""
    (line,) = err.splitlines()
    assert line.startswith("harness: an error of its own, not of the stack: ")
    assert line.endswith("; nobody is convicted for it")
    path = re.search(r"the full report is in (\S+);", line)[1]
    return line, Path(path).read_text("utf-8")


@everywhere
def test_the_check_ends_with_status_4_and_convicts_nobody(planted, capsys):
    assert ended("check", "llama-cpp-python", *ONE_CASE) == 4
    seen = capsys.readouterr()
    line, report = line_and_report(seen.err)
    assert "AttributeError" in line if planted == "reader" else "KeyError" in line
    assert "Traceback (most recent call last)" in report
    assert "\ncommand: harness" in report
    assert "convicted:" not in seen.out


@everywhere
def test_the_bench_counts_a_trial_as_ended_with_it(planted, project, smollm):
    with Pipeline(project) as pipeline:
        trial, _ = run_trial(
            project,
            load_stack(project, "llama-cpp-python"),
            smollm,
            Plan((), (CASE,)),
            (),
            None,
            pipeline,
            name="planted",
        )
    assert (trial.ended, trial.status, trial.convictions) == ("error", "none", ())
    assert trial.error.traceback
    assert not trial.noticed


@pytest.mark.parametrize("where", PLANTED)
def test_the_plugin_counts_errors_and_no_failures_and_ends_with_status_4(where, pytester, monkeypatch, engine, smollm):
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(PLANTED[where])
    seen = pytester.runpytest_subprocess(
        *("--stack", "llama-cpp-python", "--stack-model", MODEL, "--stack-project", str(ROOT), "-k", CASE)
    )
    outcomes = seen.parseoutcomes()
    assert (seen.ret, "failed" in outcomes) == (4, False)
    # The client and the stages behind it make their call with a greeting, whose text is made ids of too.
    count = {"tap": 4, "explaining": 5}.get(where, 1)
    assert outcomes["errors" if "errors" in outcomes else "error"] == count
    seen.stdout.fnmatch_lines(["*harness: an error of its own, not of the stack: *"])
    text = " ".join(seen.outlines)
    assert "convicted:" not in text
    assert "Traceback" not in text


COMMANDS = {
    "stacks": (),
    "check": ("llama-cpp-python",),
    "diff": ("llama-cpp-python", "llama-server"),
    "trace": ("llama-cpp-python", CASE),
    "record": (MODEL,),
    "doctor": (MODEL,),
    "inject": ("llama-cpp-python", "--out", "campaign"),
    "attribute": ("llama-cpp-python", "--out", "bench"),
    "fuzz": ("engine", MODEL),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_exception_that_nobody_caught_ends_any_command_with_status_4(command, capsys, monkeypatch, tmp_path):
    def project(_):
        raise KeyError("planted")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("harness.project.project.find_project", project)
    assert ended(command, *COMMANDS[command]) == 4
    seen = capsys.readouterr()
    line, report = line_and_report(seen.err)
    assert "KeyError: 'planted'" in line
    assert report.count("KeyError: 'planted'") >= 1
    assert seen.out == ""


def test_a_report_that_raises_is_an_error_of_ours_too(capsys, monkeypatch, tmp_path, engine, smollm):
    def render(_):
        raise KeyError("planted")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("harness.report.console.render_verdict", render)
    exec(WITHOUT_NODES, {"setattr": monkeypatch.setattr})
    assert ended("check", "llama-cpp-python", *ONE_CASE) == 4
    assert "KeyError: 'planted'" in line_and_report(capsys.readouterr().err)[0]


def test_a_trace_shows_it_and_ends_with_status_4(capsys, monkeypatch, tmp_path, engine, smollm):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    exec(PLANTED["reader"], {"setattr": monkeypatch.setattr})
    assert ended("trace", "llama-cpp-python", CASE, "--dry-run", "--model", MODEL) == 4
    seen = capsys.readouterr()
    assert "an error of our own: AttributeError" in seen.out
    line_and_report(seen.err)


def test_a_wrong_call_is_still_status_2(capsys):
    assert ended("check", "--no-such-option") == 2
    assert ended("check", "lama-cpp-python") == 2
    assert "an error of its own" not in capsys.readouterr().err
