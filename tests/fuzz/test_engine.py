"""Made-up prompts: the same seed makes the same ones, a counterexample is small, and its command finds it again."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, seed, settings
from typer.testing import CliRunner

from harness.checking.compare.inference import Floor
from harness.cli import app
from harness.cli import fuzz as commands
from harness.errors import MissingPackageError, UserError
from harness.fuzz import engine as fuzzing
from harness.fuzz.engine import Tried, fuzz, prompts, try_input
from harness.llama.laboratory.invariants import invariants_named
from harness.llama.laboratory.noise import floor_of_one, floor_of_two
from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import StageFailedError
from harness.values import Failure
from tests.conftest import ROOT
from tests.test_cli import refused, run

FLOOR = Floor(limit=0.2, mean=0.05, source="measured")
CALL = ("harness", "fuzz", "engine", "some")


class FakeChild:
    """Answers for an engine. What it is asked is noted."""

    def __init__(self, wrong=lambda ids, choice: "", fails=lambda ids: None) -> None:
        self.asked: list[tuple] = []
        self.wrong = wrong
        self.fails = fails

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def call(self, method, /, **arguments):
        if method == "facts":
            return {"n_vocab": 1000, "control": [0, 1, 2]}
        ids, choice = tuple(arguments["ids"]), arguments["choice"]
        self.asked.append((ids, choice))
        failure = self.fails(ids)
        if failure is not None:
            raise StageFailedError(failure)
        compared = {"positions": len(ids), "kl": 0.1, "median": 0.025}
        return [
            {"what": "two runs", "rule": "exact", "wrong": self.wrong(ids, choice), **compared},
            {"what": "two others", "rule": "order", **compared},
        ]


def searched(child, names=("n_ubatch",), examples: int = 30, number: int = 0) -> list[Tried]:
    return list(
        fuzz(
            child, invariants_named(names), FLOOR, examples=examples, number=number, call=CALL, progress=lambda *_: None
        )
    )


def test_what_holds_says_how_much_was_compared():
    child = FakeChild()
    (tried,) = searched(child)
    assert (tried.status, tried.broken) == ("holds", None)
    # Hypothesis may make the same input in two ways; the engine is asked once.
    assert 25 <= tried.inputs == len(child.asked) <= 30
    assert tried.exact == sum(len(ids) for ids, _ in child.asked)
    assert tried.share == 0.5
    assert len(set(child.asked)) == len(child.asked)


def test_the_same_seed_makes_the_same_inputs_and_another_others():
    children = [FakeChild() for _ in range(3)]
    for child, number in zip(children, (5, 5, 6), strict=True):
        searched(child, number=number)
    assert children[0].asked == children[1].asked
    assert children[0].asked != children[2].asked


@pytest.mark.parametrize(
    ("breaks", "smallest"),
    [
        (lambda ids, choice: len(ids) >= 9, (0,) * 9),
        (lambda ids, choice: 2 in ids and len(ids) > 1, (0, 2)),
        (lambda ids, choice: choice % 4 == 3, (0,)),
    ],
)
def test_a_counterexample_is_small_and_its_command_finds_it_again(breaks, smallest):
    child = FakeChild(wrong=lambda ids, choice: "rows differ" if breaks(ids, choice) else "")
    (tried,) = searched(child, examples=200)
    assert tried.status == "broken"
    assert sorted(tried.ids) == sorted(smallest)
    assert tried.broken.message == "rows differ"
    words = shlex.split(tried.command)
    assert words[:4] == list(CALL)
    assert words[4:] == ["--only", "n_ubatch", "--ids", " ".join(map(str, tried.ids)), "--choice", str(tried.choice)]
    (again,) = try_input(child, invariants_named(["n_ubatch"]), FLOOR, (tried.ids, tried.choice), CALL)
    assert (again.broken, again.command) == (tried.broken, tried.command)


def test_making_it_small_has_an_end_and_a_hang_ends_it_at_once(monkeypatch):
    monkeypatch.setattr(fuzzing, "_SHRINKS", 5)
    child = FakeChild(wrong=lambda ids, choice: "rows differ" if len(ids) > 3 else "")
    (tried,) = searched(child)
    first = next(at for at, (ids, _) in enumerate(child.asked) if len(ids) > 3)
    assert tried.status == "broken"
    assert len(child.asked) - first <= 5
    hung = FakeChild(fails=lambda ids: Failure(reason="hang", seconds=9.0) if len(ids) > 3 else None)
    (tried,) = searched(hung)
    assert tried.broken.failure.reason == "hang"
    assert len(tried.ids) > 3
    assert sum(len(ids) > 3 for ids, _ in hung.asked) == 1


def test_without_a_limit_what_needs_one_is_unjudged():
    child = FakeChild()
    child.call = lambda method, /, **_: (
        {"n_vocab": 10, "control": []}
        if method == "facts"
        else [{"what": "two", "rule": "order", "positions": 1, "kl": 9.0, "median": 9.0}]
    )
    (tried,) = fuzz(child, invariants_named(["offset"]), None, examples=3, number=0, call=CALL)
    assert (tried.status, tried.inputs) == ("unjudged", 0)


def test_a_slow_invariant_is_tried_once():
    child = FakeChild()
    searched(child, names=("long_prompt",))
    assert len(child.asked) == 1


def test_prompts_are_of_every_kind():
    made = []

    @seed(0)
    @settings(max_examples=1000, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(prompts(1000, [0, 1], shortest=2))
    def collect(ids):
        made.append(ids)

    collect()
    assert all(2 <= len(ids) <= 65 and max(ids) < 1000 for ids in made)
    for kind in (
        lambda ids: len(ids) == 65,
        lambda ids: len(ids) > 8 and len(set(ids)) == 1,
        lambda ids: len(ids) > 15 and len(set(ids)) > 10,
        lambda ids: {0, 1} <= set(ids),
    ):
        assert any(map(kind, made))


def test_an_input_that_the_model_cannot_be_asked():
    for ids in ((1000,), (1,) * 257):
        with pytest.raises(UserError, match="at most 256 ids, each below 1000"):
            list(try_input(FakeChild(), invariants_named(()), FLOOR, (ids, 0), CALL))


def test_the_limit_is_that_of_two_runs(project):
    floor = floor_of_two(floor_of_one(project, "smollm2-135m-instruct"))
    assert floor.limit == pytest.approx(2 * 3 * 0.0357582)
    assert floor.mean == pytest.approx(2 * 3 * 0.00826446)
    assert "cache f16/f16, no flash attention" in floor.source
    assert floor_of_two(floor_of_one(project, "never-measured")) is None


def test_a_hurt_engine_is_found_and_the_prompt_made_small(engine, smollm, project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    child = Child(Worker("tests.llama.laboratory.hurt:served", {"path": str(smollm.path), "what": "negate"}))
    # The whole way down takes seconds more; it is seen above.
    monkeypatch.setattr(fuzzing, "_SHRINKS", 30)
    floor = floor_of_two(floor_of_one(project, "smollm2-135m-instruct"))
    try:
        (tried,) = fuzz(child, invariants_named(["n_ubatch"]), floor, examples=15, number=0, call=CALL)
        assert tried.status == "broken"
        assert len(tried.ids) <= 16
        assert "not bit-identical" in tried.broken.message
    finally:
        child.close()


def invoke(child, monkeypatch, *arguments: str):
    monkeypatch.setattr("harness.llama.laboratory.invariants.open_engine", lambda *_: child)
    return CliRunner().invoke(app, ["fuzz", "engine", *arguments])


def test_the_command_shows_a_finding_and_what_tries_it_again(engine, smollm, monkeypatch):
    child = FakeChild(wrong=lambda ids, choice: "3 of 3 rows differ" if len(ids) > 2 else "")
    done = invoke(child, monkeypatch, "smollm2-135m-instruct", "--only", "n_ubatch", "--only", "split")
    assert done.exit_code == 1
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[-1] == "broken: n_ubatch, split [2 of 2]"
    assert "n_ubatch: not true that the size of a micro-batch does not change the logits" in lines
    assert "  two runs: 3 of 3 rows differ" in lines
    assert "  the smallest prompt found: 0 0 0" in lines
    assert "  again: harness fuzz engine smollm2-135m-instruct --only n_ubatch --ids '0 0 0' --choice 0" in lines
    found = invoke(child, monkeypatch, "smollm2-135m-instruct", "--only", "n_ubatch", "--ids", "0 0 0")
    assert (found.exit_code, "broken: n_ubatch [1 of 1]" in found.stdout) == (1, True)


def test_the_command_on_the_real_engine(engine, smollm, tmp_path):
    asked = ("--only", "n_ubatch", "--only", "greedy", "--examples", "3", "--format", "json", "--project", str(ROOT))
    done = run("fuzz", "engine", "smollm2-135m-instruct", *asked, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["schema"], report["exit_status"], report["seed"]) == ("harness.fuzz/1", 0, 0)
    assert [(one["invariant"], one["status"]) for one in report["tried"]] == [
        ("n_ubatch", "holds"),
        ("greedy", "holds"),
    ]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_measured_noise_is_judged_by_the_limit_that_is_given(engine, smollm):
    ids = ("--only", "one_by_one", "--ids", "1 9690 198 2683 359 253 5356 5646")
    done = run("fuzz", "engine", str(smollm.path), *ids)
    assert done.returncode == 3
    assert "no noise floor was measured for it; --limit sets one" in " ".join(done.stdout.split())
    assert run("fuzz", "engine", str(smollm.path), *ids, "--limit", "0.05").returncode == 0


def test_what_the_caller_can_mend():
    name = "smollm2-135m-instruct"
    assert "did you mean 'n_ubatch'?" in refused(run("fuzz", "engine", name, "--only", "n_ubach"))
    assert "is no prompt; name at least one id" in refused(run("fuzz", "engine", name, "--ids", "one two"))
    assert "no model named 'smollm3'" in refused(run("fuzz", "engine", "smollm3"))
    assert "no-such.gguf" in refused(run("fuzz", "engine", "no-such.gguf"))


def test_an_engine_that_does_not_start_could_not_be_judged(engine, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    done = run("fuzz", "engine", str(path), "--only", "greedy")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"harness: the engine does not start around {path}:")
    assert "llama.cpp does not load" in line


def test_without_hypothesis_there_is_a_pip_line(engine, monkeypatch):
    monkeypatch.delitem(sys.modules, "harness.fuzz.engine", raising=False)
    monkeypatch.delattr("harness.fuzz.engine", raising=False)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(MissingPackageError, match=r"llm-stack-harness\[fuzz\]"):
        commands._fuzzing()


def test_the_list_is_read_without_the_engine_and_without_hypothesis():
    script = (
        "import sys\nfrom harness.llama.laboratory.invariants import invariants_named\ninvariants_named(())\n"
        "print([name for name in ('llama_cpp', 'hypothesis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
