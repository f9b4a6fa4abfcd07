"""`harness attribute` as a user meets it; what it plants is made up here, but for one interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from harness.attribution import bench as benches
from harness.attribution.published import load_published
from harness.attribution.results import SETUP
from harness.attribution.summary import Summary
from harness.cli import app
from harness.defects.catalogue import catalogue
from tests.attribution.made import convicted, trial
from tests.conftest import ROOT

CATALOGUE = catalogue()


def told(job):
    """Return the trial of a job in which all is right."""
    if not job.defects:
        return trial(job.name, setting=job.setting, defects=())
    planted = [CATALOGUE[name] for name in job.defects]
    return trial(
        job.name,
        *(convicted(one.stage, one.kind) for one in planted),
        changed=tuple(one.stage for one in planted),
        defects=job.defects,
    )


@pytest.fixture
def asked(monkeypatch):
    """The jobs that were asked for, each of which is told right at once."""
    jobs = []

    def instead(bench, some, parallel):
        jobs.extend(some)
        return iter([told(job) for job in some])

    monkeypatch.setattr(benches, "_trials", instead)
    return jobs


@pytest.fixture(autouse=True)
def narrow(monkeypatch, engine, smollm):
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments):
    return CliRunner().invoke(app, ["attribute", *map(str, arguments)])


def refused(*arguments):
    """Return the one line of an error that the user can mend."""
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def planted(jobs):
    return [job.name for job in jobs if job.defects]


def test_all_right_is_status_0(asked, tmp_path):
    done = run("--only", "tok-*", "--out", tmp_path / "b", "--deep", 1)
    assert done.exit_code == 0, done.output
    names = [name for name in CATALOGUE if name.startswith("tok-")]
    assert planted(asked) == names
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "llama-cpp-python around smollm2-135m-instruct"
    said = " ".join(lines[-2:]).replace("  ", " ")
    assert f"of {len(names)} defects that took effect {len(names)} (100 %) noticed" in said


def test_something_missed_is_status_1_and_nothing_effective_status_3(monkeypatch, tmp_path):
    def made(**more):
        def instead(bench, some, parallel):
            return iter([trial(job.name, defects=job.defects, **(more if job.defects else {})) for job in some])

        monkeypatch.setattr(benches, "_trials", instead)

    made(changed=("tokenization",))
    assert run("--only", "tok-double-bos", "--out", tmp_path / "missed", "--deep", 1).exit_code == 1
    made()
    assert run("--only", "tok-double-bos", "--out", tmp_path / "silent", "--deep", 1).exit_code == 3
    made(ended="raised", why="ValueError: no", status="none")
    assert run("--only", "tok-double-bos", "--out", tmp_path / "raised", "--deep", 1).exit_code == 1


def test_reports_and_results_are_written(asked, tmp_path):
    page, text, results = (tmp_path / name for name in ("b.html", "b.md", "b.json"))
    options = ("--only", "tok-*", "--deep", 1, "--html", page, "--markdown", text, "--publish", results)
    done = run(*options, "--out", tmp_path / "b", "--format", "json")
    report = json.loads(done.stdout)
    assert (report["schema"], report["exit_status"], done.exit_code) == ("harness.attribute/1", 0, 0)
    summary = Summary.model_validate(report["summary"])
    assert load_published(results).stacks == {"llama-cpp-python": summary}
    assert page.read_text().startswith("<!doctype html>")
    assert text.read_text().startswith("### ")
    results.write_text("[")
    asked.clear()
    assert "not valid JSON" in refused(*options, "--out", tmp_path / "other")
    assert asked == []
    assert "no file can be written" in refused("--out", tmp_path / "c", "--html", tmp_path / "none" / "b.html")


def test_pairs_are_planted_together(asked, tmp_path):
    done = run("--only", "tok-*", "--only", "engine", "--pairs", 3, "--out", tmp_path / "b", "--deep", 1)
    pairs = [job for job in asked if len(job.defects) == 2]
    assert len(pairs) == 3
    assert all(job.trusted for job in pairs)
    rows = [line.split() for line in done.stdout.splitlines() if " + " in line]
    assert [row[:3] for row in rows] == [
        ["tokenization", "+", "inference"],
        ["tokenization", "+", "postprocess"],
        ["inference", "+", "postprocess"],
    ]
    assert {tuple(row[3:]) for row in rows} == {("1", *"·····")}


def test_a_bench_is_gone_on_with_only_where_that_is_asked(asked, tmp_path):
    options = ("--only", "tok-*", "--deep", 1, "--out", tmp_path)
    assert refused(*options, "--resume").endswith("holds no bench to go on with; leave --resume out to begin one")
    assert run(*options).exit_code == 0
    assert "add --resume to go on with it" in refused(*options)
    asked.clear()
    assert run(*options, "--resume").exit_code == 0
    assert asked == []
    assert "holds the trials of another bench" in refused("--only", "eng-*", "--deep", 1, "--out", tmp_path, "--resume")
    assert "holds the trials of another bench" in refused(*options, "--deep", 2, "--resume")


def test_what_the_user_can_mend_is_one_line(asked, tmp_path):
    assert refused() == "harness: --out names no folder; the bench is kept in one, as in --out bench"
    assert refused("--only", "tokenisation", "--list").startswith(
        "harness: no defect, stage, kind or place named 'tokenisation'; did you mean 'tokenization'? known: "
    )
    assert "no stack named" in refused("llama", "--out", tmp_path / "b")
    assert "no model named" in refused("--model", "none", "--out", tmp_path / "b")
    (tmp_path / "file").write_text("")
    assert "no bench can be kept in" in refused("--out", tmp_path / "file" / "b")
    assert "is no Python file" in refused("--defects", tmp_path / "none.py", "--out", tmp_path / "b")
    assert asked == []


def test_a_users_file_is_planted_alone_unless_ours_are_asked_for(asked, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from harness.faults import defect\n"
        '@defect("mine-alone", place="prompt", sentence="It trims.")\n'
        "def trims(text):\n    return text.strip()\n"
    )

    def listed(*arguments):
        report = json.loads(run("--list", "--format", "json", "--defects", file, *arguments).stdout)
        assert report["schema"] == "harness.defects/1"
        return {one["id"]: one for one in report["defects"]}

    assert list(listed()) == ["mine-alone"]
    assert listed()["mine-alone"]["stage"] == "template"
    assert set(listed("--only", "*")) == {"mine-alone", *CATALOGUE}
    assert {one["place"] for one in listed("--only", "ids").values()} == {"ids"}
    assert {one["kind"] for one in listed("--only", "engine").values()} == {"engine"}


def test_the_catalogue_is_listed_with_a_line_each():
    done = run("--list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(CATALOGUE)
    for line, one in zip(done.stdout.splitlines(), CATALOGUE.values(), strict=True):
        assert line.split()[1:4] == [one.stage, one.kind, one.place]
        assert line.endswith(one.sentence)


def test_ctrl_c_ends_the_bench_with_one_line_and_no_process_left(tmp_path):
    psutil = pytest.importorskip("psutil")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "attribute", "--only", "tok-*", "--deep", "1", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test process that was told to ignore the signal would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not (tmp_path / SETUP).exists():
        time.sleep(0.05)
    children: list[psutil.Process] = []
    while process.poll() is None and len(children) < 3:  # two that do trials, and what multiprocessing starts
        children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (130, "", "harness: interrupted\n")
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children)
