"""From a stack's name to a manifest, and the command around it."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.inject.campaign import MANIFEST, RESULTS, load
from harness.inject.prepare import population, prepare

ASKED = {"count": 4, "seed": 1, "kinds": ["activation-bit"], "phases": ("first",), "steps": 1, "threads": 1}


def test_a_population_is_every_bit_at_every_moment():
    sites = {
        "activations": {"l_out-0/ADD": 10, "Kcur-0/ROPE": 4},
        "weights": {"w": {"blocks": 3, "bits": {"scale": 16, "quant": 128}}},
        "caches": {"cache_k_l0": {"elements": 4, "bits": 16}},
        "prompt": 5,
    }
    assert population(sites, ["activation-bit"], ("first",), 3) == 32 * 14
    assert population(sites, ["activation-bit"], ("prefill", "first", "decode"), 3) == 32 * 14 * (5 + 1 + 2)
    assert population(sites, ["weight-bit", "cache-bit"], (), 3) == 3 * 144 + 5 * 4 * 16
    assert population(sites, ["weight-bit", "weight-zero"], (), 3) is None


@pytest.mark.parametrize(
    ("stack", "case", "changed", "says"),
    [
        ("transformers", "several-turns", {}, "no fault can be planted in the engine of stack 'transformers'"),
        ("llama-cpp-python", "several-turns", {"kinds": ["wight"]}, "no fault of kind 'wight'"),
        ("llama-cpp-python", "several-turns", {"phases": ("later",)}, "no phase 'later'"),
        ("llama-cpp-python", "nowhere", {}, "no case named 'nowhere'"),
        ("llama-cpp-python", "longer-than-context", {}, "no prompt that an engine can go on from"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_loaded(project, smollm, stack, case, changed, says):
    with pytest.raises(UserError, match=says):
        prepare(project, stack, None, case, **{**ASKED, **changed})


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(project, smollm, monkeypatch):
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 1000 if name == "SC_PHYS_PAGES" else real(name))
    with pytest.raises(UserError, match=r"the model has .* and this machine .* of memory"):
        prepare(project, "llama-cpp-python", None, "several-turns", **ASKED)


def test_the_command_draws_runs_resumes_and_reports(engine, tmp_path):
    folder = tmp_path / "campaign"
    call = ["inject", "llama-cpp-python", "--out", str(folder), "--threads", "1", "--format", "json"]
    drawn = CliRunner().invoke(
        app, [*call, "--count", "6", "--steps", "1", "--kind", "activation-zero", "--phase", "first"]
    )
    assert drawn.exit_code == 0, drawn.output
    said = json.loads(drawn.stdout)
    assert said["schema"] == "harness.inject/1"
    assert (said["summary"]["drawn"], said["summary"]["run"]) == (6, 6)
    manifest = load(folder)
    assert {fault.kind for fault in manifest.faults} == {"activation-zero"}
    assert len(manifest.setup.prompt) == 64
    assert CliRunner().invoke(app, [*call, "--count", "6"]).exit_code == 2
    (folder / RESULTS).write_text("".join((folder / RESULTS).read_text().splitlines(keepends=True)[:4]))
    files = ["--html", str(tmp_path / "r.html"), "--markdown", str(tmp_path / "r.md"), "--plots", str(tmp_path / "png")]
    again = CliRunner().invoke(app, [*call, "--resume", *files])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["summary"] == said["summary"]
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert "| " in (tmp_path / "r.md").read_text()
    assert any(path.suffix == ".png" for path in (tmp_path / "png").iterdir())
    assert (folder / MANIFEST).exists()


def test_two_arms_over_the_same_faults_are_compared_one_by_one(engine, tmp_path):
    call = ["inject", "llama-cpp-python", "--threads", "1", "--format", "json"]
    asked = ["--count", "4", "--steps", "2", "--kind", "activation-scale", "--phase", "first"]
    drawn = [*call, "--out", str(tmp_path / "one"), *asked]
    assert CliRunner().invoke(app, drawn).exit_code == 0
    other = [*call, "--out", str(tmp_path / "two"), "--faults-of", str(tmp_path / "one")]
    found = CliRunner().invoke(app, [*other, "--setting", "flash_attn_type=1"])
    assert found.exit_code == 0, found.output
    assert load(tmp_path / "two").faults == load(tmp_path / "one").faults
    assert load(tmp_path / "two").setup.context == {"flash_attn_type": 1}
    pairs = json.loads(found.stdout)["paired"]
    assert pairs["compared"] + pairs["void"] == 4
    assert pairs["unpaired"] == 0
    wrong = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "three"), "--setting", "flash"])
    assert wrong.exit_code == 2
