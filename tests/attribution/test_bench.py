"""A small bench of real defects in a real stack, what a user's own come to, and a bench that is gone on with."""

import os
import pickle
from dataclasses import replace

import pytest

from harness.attribution import bench as benches
from harness.attribution.bench import Job, bench_of, jobs_of, known_defects, run_bench, setup_of
from harness.attribution.published import load_published, publish
from harness.attribution.results import TRIALS, append, trials_in
from harness.attribution.summary import summarise
from harness.attribution.trial import Plan
from harness.defects.catalogue import catalogue, defects_in
from harness.errors import MissingPackageError, UserError
from harness.report.attribution.readme import figures, tables
from harness.stage import Stage
from tests.attribution.made import trial

MODEL = "smollm2-135m-instruct"
OURS = (
    "cli-temperature-dropped",
    "tpl-generation-prompt-lost",
    "eng-rms-eps-1e-6",
    "smp-top-k-one",
    "art-merges-first-half",
    "pp-content-lost",
)
OWN = """
from harness.faults import defect


@defect("own-body", place="body", sentence="The last message is lost.")
def body(body):
    return {**body, "messages": body["messages"][:-1] or body["messages"]}


@defect("own-answer", place="answer", sentence="The answer is in capitals.")
def answer(answer, seen):
    for choice in [one for each in (answer if isinstance(answer, list) else [answer]) for one in each["choices"]]:
        said = choice.get("message") or choice.get("delta")
        if said.get("content"):
            said["content"] = said["content"].upper()
    return answer


@defect("own-raises", place="ids", sentence="It raises.")
def raises(seen):
    raise ValueError("of its own")


@defect("own-nothing", place="prompt", sentence="It changes nothing.")
def nothing(text):
    return text


@defect("own-leak", place="body", sentence="It leaves a patched class behind.")
def leak(body):
    from harness.components.llama_cpp_python import LlamaCppPython

    real = LlamaCppPython.render
    LlamaCppPython.render = lambda part, request, options: real(part, request, options).model_copy(update={"text": "x"})
    return body
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A user's file of defects."""
    path = tmp_path_factory.mktemp("own") / "my_defects.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bench(project, engine, smollm, own):
    """A bench of one case in full, whose answer is drawn, and three up to the ids."""
    made = bench_of(project, engine, [MODEL], 2, 2, own)
    plan = made.plans[MODEL]
    assert "sampled" in plan.deep
    return replace(made, plans={MODEL: Plan(shallow=plan.shallow[:3], deep=("sampled",))})


@pytest.fixture(scope="module")
def done(bench, tmp_path_factory):
    """What came of it, its folder and its trials."""
    known = known_defects(bench.file)
    chosen = [one for one in known.values() if one.id in OURS or one.id.startswith("own-")]
    # That the plain stack does the same again is seen after each defect of the user's.
    jobs = [job for job in jobs_of(bench, chosen) if job.defects or job.setting == "1 thread"]
    folder = tmp_path_factory.mktemp("bench")
    trials = run_bench(bench, jobs, folder, 2)
    return summarise(setup_of(bench, jobs), trials, known), folder, jobs


def test_defects_of_every_stage_are_told_for_what_they_are(done):
    summary, _, _ = done
    told = {one.id: one for one in summary.defects}
    assert {name: told[name].result for name in (*OURS, "own-body", "own-answer")} == dict.fromkeys(
        (*OURS, "own-body", "own-answer"), "exact"
    )
    assert {told[name].named_stage for name in (*OURS, "own-body", "own-answer")} == set(Stage)
    assert summary.controls.alarms == ()
    assert summary.controls.unjudged == ()
    assert summary.controls.comparisons > 0
    assert summary.swapped == ()


def test_a_defect_that_raises_does_nothing_or_leaks_is_named_as_such(done):
    summary, _, _ = done
    told = {one.id: (one.result, one.line) for one in summary.defects if one.own}
    assert told.pop("own-raises") == ("raised", "ValueError: of its own")
    assert told.pop("own-nothing")[0] == "without effect"
    assert told.pop("own-leak") == ("leaks", "the clean stack after it is another: template")
    assert set(told) == {"own-body", "own-answer"}
    assert summary.status == "wrong"


def test_what_is_published_of_it_is_read_again_as_it_was(done, tmp_path):
    summary, _, _ = done
    publish(tmp_path / "results.json", summary)
    stacks = load_published(tmp_path / "results.json").stacks
    assert stacks == {"llama-cpp-python": summary}
    effective = len(OURS) + 2
    assert f"| {effective + 3} | {effective} | {effective} (100 %, " in figures(stacks)
    assert "| tokenization | · | · | 1 | · | · | · |" in tables(stacks)


def test_a_bench_that_was_interrupted_repeats_nothing(bench, done, tmp_path, monkeypatch):
    _, folder, jobs = done
    lines = (folder / TRIALS).read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    (tmp_path / "bench.json").write_bytes((folder / "bench.json").read_bytes())
    # The line that was being written is cut.
    (tmp_path / TRIALS).write_bytes(b"".join(lines[:half]) + lines[half][:20])
    there = {one.name for one in trials_in(tmp_path)}
    asked = []

    def instead(bench, jobs, parallel):
        asked.extend(job.name for job in jobs)
        return iter([trial(name) for name in asked])

    monkeypatch.setattr(benches, "_trials", instead)
    seen = []
    trials = run_bench(bench, jobs, tmp_path, 2, lambda name, done, total: seen.append((name, done, total)))
    assert len(there) == half
    assert asked == [job.name for job in jobs if job.name not in there]
    assert [one.name for one in trials] == [job.name for job in jobs]
    assert seen[0] == (asked[0], half + 1, len(jobs))
    assert sorted(one.name for one in trials_in(tmp_path)) == sorted(job.name for job in jobs)

    asked.clear()
    run_bench(bench, jobs, tmp_path, 2)
    assert asked == []


def test_a_folder_of_another_bench_is_refused(bench, done):
    _, folder, jobs = done
    before = (folder / TRIALS).read_bytes()
    with pytest.raises(UserError, match="holds the trials of another bench"):
        run_bench(bench, jobs[:-1], folder, 2)
    other = replace(bench, plans={MODEL: Plan(shallow=(), deep=bench.plans[MODEL].deep)})
    with pytest.raises(UserError, match="holds the trials of another bench"):
        run_bench(other, jobs, folder, 2)
    assert (folder / TRIALS).read_bytes() == before


def test_a_damaged_line_is_named(tmp_path):
    append(tmp_path, trial("one"))
    with (tmp_path / TRIALS).open("a") as file:
        file.write('{"name": "two"}\n')
    append(tmp_path, trial("three"))
    with pytest.raises(UserError, match=r"trials\.jsonl:2 is no trial; begin the bench anew in another folder"):
        list(trials_in(tmp_path))


def test_a_line_that_was_cut_is_dropped_before_another_is_written(tmp_path):
    append(tmp_path, trial("one"))
    with (tmp_path / TRIALS).open("a") as file:
        file.write('{"name": "tw')
    assert [one.name for one in trials_in(tmp_path)] == ["one"]
    append(tmp_path, trial("two"))
    assert [one.name for one in trials_in(tmp_path)] == ["one", "two"]


def test_controls_stand_between_the_trials_and_each_setting_is_tried_once(bench):
    jobs = jobs_of(bench, list(catalogue().values()) * 3)
    settings = [job.setting for job in jobs if job.setting]
    assert len(settings) == len(set(settings)) > 5
    runs = "".join("d" if job.defects else "c" for job in jobs)
    assert "d" * 11 not in runs
    assert [job.trusted for job in jobs_of(bench, list(known_defects(bench.file).values()))].count(False) == 5


def test_a_defect_of_a_model_that_the_bench_does_not_have_is_no_trial(bench):
    (one, *_) = catalogue().values()
    assert [job for job in jobs_of(bench, [replace(one, models=("another",))]) if job.defects] == []
    assert Job(one.id, MODEL, (one.id,)) in jobs_of(bench, [replace(one, models=("another", MODEL))])


def ends():
    """Stand for a trial that takes its process with it."""
    os._exit(3)


def test_a_process_that_ends_by_itself_is_told_and_what_was_done_is_kept(bench, monkeypatch, tmp_path):
    jobs = jobs_of(bench, list(defects_in(bench.file).values()))[:1]
    monkeypatch.setattr(benches, "_end_when_told", ends)
    with pytest.raises(UserError, match="a process that did trials ended by itself"):
        run_bench(bench, jobs, tmp_path, 1)
    assert list(trials_in(tmp_path)) == []


def test_errors_of_a_process_reach_the_caller_whole():
    for error in (UserError("message", "remedy"), MissingPackageError("feature", "package", "extra")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.remedy) == (type(error), str(error), error.remedy)


BROKEN = {
    "two defects have the id 'tok-double-bos'; harness.defects.catalogue.tokenization:double_bos has it already": (
        '@defect("tok-double-bos", place="ids", sentence="s")'
    ),
    "the defect 'bad' names no stage; planted at 'options' it must: stage=...": (
        '@defect("bad", place="options", component="llama-cpp-python", kind="engine", sentence="s")'
    ),
    "the defect 'bad' names no kind; one of integration, engine, artifact, environment": (
        '@defect("bad", place="options", component="llama-cpp-python", stage="inference", sentence="s")'
    ),
    "the defect 'bad': no place named 'promt'; did you mean 'prompt'? known: ": (
        '@defect("bad", place="promt", sentence="s")'
    ),
    "the defect 'bad': no cause named 'hardwear'; did you mean 'hardware'? known: ": (
        '@defect("bad", place="prompt", sentence="s", cause="hardwear")'
    ),
    "the defect 'bad': no stage named 'templat'; did you mean 'template'? known: ": (
        '@defect("bad", place="prompt", sentence="s", stage="templat")'
    ),
    "registers no defect; decorate a function with harness.defects.defect": "",
    "cannot be imported: SyntaxError: ": "@defect(",
    "cannot be imported: TypeError: ": '@defect("bad")',
}


@pytest.mark.parametrize("said", BROKEN, ids=lambda said: said[:40])
def test_a_file_with_a_wrong_label_is_refused_with_one_line(tmp_path, said):
    path = tmp_path / "bad.py"
    path.write_text(f"from harness.faults import defect\n{BROKEN[said]}\ndef function(given):\n    return given\n")
    with pytest.raises(UserError) as refused:
        defects_in(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no Python file"):
        defects_in(tmp_path / "none.py")
