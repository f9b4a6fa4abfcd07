"""What the words of `harness check` mean: stacks, addresses, models by name and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checking.compare.outcome import Outcome
from harness.errors import UserError
from harness.explain.subjects import Asked, judged, subjects
from harness.project.stack import stack_names
from harness.stage import Stage
from tests.canaries.server import server
from tests.model_files import written
from tests.wire.servers import healthy, serving


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "mine.gguf", tokenizer__chat_template="{{ messages }}")


def found(project, **asked):
    return list(subjects(project, Asked(**asked)))


def test_names_are_stacks_and_models_are_kept(project):
    (one,) = found(project, names=["llama-server"], models=["smollm2-135m-instruct"], cases=["no-system"])
    assert (one.stack.name, one.models, one.cases) == ("llama-server", ("smollm2-135m-instruct",), ("no-system",))
    assert (one.url, one.is_own_file, one.has_model) == (None, False, True)


def test_without_a_name_the_stacks_that_can_run_are_taken_and_the_others_told(project):
    told = []
    names = [one.stack.name for one in subjects(project, Asked(), told.append)]
    left = {line.split("'")[1] for line in told}
    assert set(names) | left == set(stack_names(project))
    assert {"ollama", "lm-studio"} <= left, "which must be named"


def test_a_file_is_a_model_above_the_project_in_the_first_stack_that_can_run(project, file):
    (one,) = found(project, models=[str(file)])
    assert one.stack.name in ("llama-cpp-python", "llama-server")
    assert (one.models, one.is_own_file, one.project.below) == (("mine",), True, (project.root,))
    (named,) = found(project, names=["llama-server"], models=[str(file)])
    assert named.stack.name == "llama-server"


def test_an_address_is_a_stack_of_its_own(project, file):
    with serving(healthy) as fake:
        bare = fake.url.removeprefix("http://").removesuffix("/v1")
        (alone,) = found(project, names=[bare])
        (held,) = found(project, names=[fake.url], model_file=file, models=["m"])
    assert (alone.url, alone.has_model, alone.models) == (f"http://{bare}", False, ())
    assert (held.has_model, held.models, held.is_own_file) == (True, ("mine",), True)
    assert held.stack.options["openai-compatible"]["model"] == "m", "the name to ask for"


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"models": ["a.gguf", "b"]}, "one model file at a time"),
        ({"template": Path("t.jinja")}, "--template is of a model file"),
        ({"names": ["llama-server"], "model_file": Path("a.gguf")}, "--model-file, --api-key-variable and --profile"),
        ({"names": ["http://127.0.0.1:1"], "models": ["a.gguf"]}, "of an address --model is the name to ask for"),
    ],
)
def test_what_does_not_go_together_is_one_line(project, asked, line):
    with pytest.raises(UserError, match=line):
        found(project, **asked)


def test_a_file_without_a_template_is_a_finding_with_its_remedy_and_nothing_is_made(project, tmp_path):
    (one,) = found(project, models=[str(written(tmp_path / "base.gguf"))])
    (done,) = judged(one, Asked())
    finding = next(one for one in done.verdict.findings if one.difference.hunks[0].at == "chat template")
    assert (finding.stage, finding.kind, finding.evidence) == (Stage.TEMPLATE, "artifact", "load")
    assert "tokenizer.chat_template is missing" in finding.summary
    assert "--template FILE" in finding.remedy
    assert done.verdict.status == "convicted"
    assert not (one.project.root / "golden").exists()


def test_an_address_without_a_file_says_what_would_open_it(project):
    with serving(server()) as fake:
        (one,) = found(project, names=[fake.url])
        (done,) = judged(one, Asked())
    assert {said.status for said in done.verdict.stages.values()} == {"unobserved"}
    assert all("give --model-file FILE.gguf" in said.why for said in done.verdict.stages.values())
    assert len(done.verdict.rows) >= 30
    right = [row for row in done.verdict.rows if row.outcome is Outcome.EQUAL]
    assert done.verdict.line.startswith(f"nothing wrong in {len(right)} rows; ")
