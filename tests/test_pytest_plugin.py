"""The plugin, driven as a user drives pytest, on the real engine."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from harness.defects.model_copy import ModelCopy
from harness.models.gguf import sha256_of
from tests.conftest import ROOT

ONE_MODEL = ("--stack", "llama-cpp-python", "--stack-model", "smollm2-135m-instruct", "--stack-project", str(ROOT))


@pytest.fixture
def quick(without_nodes) -> tuple[str, ...]:
    """The same stack where nobody holds its nodes."""
    return *ONE_MODEL[:-1], str(without_nodes)


@pytest.fixture(autouse=True)
def _a_plain_run(pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    pytester.makeini("[pytest]\nfilterwarnings = error")


def test_one_item_a_case_and_stage(pytester, engine):
    seen = pytester.runpytest_subprocess(*ONE_MODEL, "--collect-only", "-q", "-k", "no-system or null-content")
    names = [line.split("::")[-1] for line in seen.outlines if line.startswith("stack::")]
    stages = ("client", "template", "tokenization", "inference", "postprocess")
    # The reference refuses null content with this template: nothing after it has a golden.
    assert names == [f"no-system-{stage}" for stage in stages] + ["null-content-client", "null-content-template"]


def test_they_pass_and_reach_junit(pytester, engine, quick):
    seen = pytester.runpytest_subprocess(*quick, "-k", "no-system", "--junit-xml", "report.xml")
    seen.assert_outcomes(passed=5)
    cases = list(ET.parse(pytester.path / "report.xml").iter("testcase"))
    assert next((case.get("classname"), case.get("name")) for case in cases) == (
        "stack.llama-cpp-python.smollm2-135m-instruct",
        "no-system-client",
    )
    outcomes = {prop.get("value") for case in cases for prop in case.iter("property") if prop.get("name") == "outcome"}
    assert outcomes == {"equal", "equivalent"}


def test_unobserved_is_skipped_with_its_reason_never_passed(pytester, engine, quick):
    seen = pytester.runpytest_subprocess(*quick, "-k", "prefilled and template", "-rs")
    seen.assert_outcomes(skipped=1)
    seen.stdout.fnmatch_lines(["*unobserved: llama-cpp-python cannot be asked to continue the last message*"])


def test_works_beside_tests_and_under_xdist(pytester, engine):
    pytest.importorskip("xdist")
    pytester.makepyfile("def test_own(): pass")
    seen = pytester.runpytest_subprocess(*ONE_MODEL, "-n", "2", "-k", "own or null-content")
    seen.assert_outcomes(passed=3)


def test_a_failure_shows_the_finding_and_not_our_code(pytester, engine):
    # A stack whose template loses the generation prompt, made by the defect that the demonstration plants.
    pytester.makeconftest(
        """
        import harness.checking.opened as session
        from harness.stage import Stage
        real = session.open_session
        def plant(running):
            running.part(Stage.TEMPLATE).plant("harness.defects.catalogue.template:generation_prompt_lost")
        def planted(project, stack, model, cases=(), **more):
            return real(project, stack, model, cases, prepare=plant, **more)
        session.open_session = planted
        """
    )
    seen = pytester.runpytest_subprocess(*ONE_MODEL, "-k", "no-system")
    seen.assert_outcomes(passed=4, failed=1)
    seen.stdout.fnmatch_lines(
        [
            "template (integration): the end that opens the assistant's turn is missing",
            "*case no-system:*",
            "*- *|>\u240a\u27e6<|im_start|>assistant\u240a\u27e7*",
            "*+ *|>\u240a\u27e6\u27e7*",
        ]
    )
    assert "pytest_plugin.py" not in seen.stdout.str()


def test_another_model_s_goldens_and_the_file_that_is_served_are_said(pytester, engine, smollm):
    """A copy whose end token is another, held against the original's goldens on purpose: every stage is right."""
    copy = ModelCopy(smollm.path)
    copy.set("tokenizer.ggml.eos_token_id", 0)
    (pytester.path / "stacks").mkdir()
    (pytester.path / "golden").symlink_to(ROOT / "golden")
    path = copy.save(pytester.path / "stacks" / "ended.gguf")
    entries = (
        (ROOT / "stacks" / "models.toml")
        .read_text(encoding="utf-8")
        .replace('"templates/', f'"{ROOT}/stacks/templates/')
    )
    entry = f'[ended]\npath = "ended.gguf"\nsha256 = "{sha256_of(path)}"\n'
    (pytester.path / "stacks" / "models.toml").write_text(f"{entries}\n{entry}", encoding="utf-8")
    stack = (ROOT / "stacks" / "llama-cpp-python.toml").read_text(encoding="utf-8")
    (pytester.path / "stacks" / "mine.toml").write_text(stack.replace("models = [", 'models = ["ended", '))
    asked = ("--stack", "mine", "--stack-model", "ended", "--stack-project", str(pytester.path))
    seen = pytester.runpytest_subprocess(*asked, "--stack-golden", smollm.name, "-k", "no-system and tokenization")
    seen.assert_outcomes(passed=1)
    seen.stdout.fnmatch_lines(
        [
            "served file: llama-cpp-python serves ended.gguf, which is not the golden's file (SHA-256 *): it differs "
            "in the key tokenizer.ggml.eos_token_id; it is held against the goldens of smollm2-135m-instruct on purpose"
        ]
    )
    none = pytester.runpytest_subprocess(*asked, "-k", "no-system")
    assert none.ret == pytest.ExitCode.USAGE_ERROR
    none.stderr.fnmatch_lines(["ERROR: no goldens for model 'ended'*"])


def test_fixtures(pytester, engine):
    pytester.makepyfile(
        """
        from harness.stage import Stage
        from harness.checking.trace import Run
        def test_prompt(stack, trace, golden):
            seen = trace("no-system").output(Run.CHAINED, Stage.TEMPLATE)
            assert seen.text == golden("no-system").prompt.text
            assert stack.running.stack.name == "llama-cpp-python"
        """
    )
    pytester.runpytest_subprocess(*ONE_MODEL, "-k", "test_prompt").assert_outcomes(passed=1)


def test_fixtures_without_a_stack_say_what_is_missing(pytester):
    pytester.makepyfile("def test_prompt(stack): pass")
    seen = pytester.runpytest_subprocess()
    seen.stdout.fnmatch_lines(["*need --stack NAME*"])


def test_wrong_names_are_usage_errors(pytester):
    seen = pytester.runpytest_subprocess("--stack", "lama-cpp-python", "--stack-project", str(ROOT))
    assert seen.ret == pytest.ExitCode.USAGE_ERROR
    seen.stderr.fnmatch_lines(["ERROR: no stack named 'lama-cpp-python'; did you mean 'llama-cpp-python'?*"])
    assert pytester.runpytest_subprocess("--golden-update", "new").ret == pytest.ExitCode.USAGE_ERROR


def test_costs_nothing_when_not_asked_for(pytester):
    pytester.makepyfile(
        """
        import sys
        def test_nothing_loaded():
            ours = {name for name in sys.modules if name.startswith("harness")}
            assert ours == {"harness", "harness.pytest_plugin"}
            assert not {"pydantic", "numpy", "rich"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_a_stack_whose_server_does_not_run_is_unobserved_and_status_3(pytester, smollm):
    (pytester.path / "stacks").mkdir()
    (pytester.path / "golden").symlink_to(ROOT / "golden")
    for name in ("models.toml", "templates"):
        (pytester.path / "stacks" / name).symlink_to(ROOT / "stacks" / name)
    stages = "".join(
        f'{stage} = "llama-server"\n' for stage in ("template", "tokenization", "inference", "postprocess")
    )
    (pytester.path / "stacks" / "away.toml").write_text(
        f'description = "Not started"\nmodels = ["{smollm.name}"]\n[stages]\nclient = "httpx"\n{stages}'
        '[options.llama-server]\nurl = "http://127.0.0.1:1"\n',
        encoding="utf-8",
    )
    asked = ("--stack", "away", "--stack-project", str(pytester.path), "-k", "no-system", "-rs")
    seen = pytester.runpytest_subprocess(*asked)
    seen.assert_outcomes(skipped=5)
    seen.stdout.fnmatch_lines(["*unobserved: no server answers at http://127.0.0.1:1*start llama-server there*"])
    assert seen.ret == 3


def test_how_a_model_is_loaded_is_an_item_of_its_own(pytester, engine):
    (pytester.path / "stacks").mkdir()
    stack = (ROOT / "stacks" / "llama-cpp-python.toml").read_text(encoding="utf-8")
    options = "[options.llama-cpp-python]\nn_gpu_layers = 9\n"
    stack = stack.partition("[options")[0] + options + "[[policies]]" + stack.partition("[[policies]]")[2]
    (pytester.path / "stacks" / "asking.toml").write_text(stack, encoding="utf-8")
    asked = ("--stack", "asking", "--stack-model", "smollm2-135m-instruct", "--stack-project", str(pytester.path))
    seen = pytester.runpytest_subprocess(*asked, "-k", "load or (no-system and tokenization)")
    seen.assert_outcomes(passed=1, failed=1)
    seen.stdout.fnmatch_lines(
        ["inference (environment): no layer is on a GPU, though n_gpu_layers in the options asks for 9*", "*remedy: *"]
    )
