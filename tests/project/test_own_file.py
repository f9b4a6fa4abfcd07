"""A model file by its path: it becomes a model of its own, and what is kept of it is found again by its hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ModelFileError, UserError
from harness.project.own_file import is_model_file, with_model_file
from harness.project.project import Project
from harness.project.stack import load_models, models_of, resolve_model
from tests.model_files import written

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "project" / "stacks").mkdir(parents=True)
    (tmp_path / "project" / "golden" / "cases").mkdir(parents=True)
    (tmp_path / "project" / "stacks" / "models.toml").write_text("")
    return Project(tmp_path / "project")


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "My Model.gguf", tokenizer__chat_template=TEMPLATE)


def test_a_file_is_told_from_a_name():
    assert is_model_file("a.gguf")
    assert is_model_file("folder/a")
    assert not is_model_file("qwen3")


def test_a_file_becomes_a_model_above_the_project(project, file):
    above, name = with_model_file(project, file)
    assert name == "My Model"
    assert above.below == (project.root,)
    found = resolve_model(above, name)
    assert (found.path, found.chat_template, found.calls, found.reasoning) == (file, None, None, None)
    assert load_models(project) == {}, "the project itself is as it was"


def test_a_file_that_the_project_knows_by_its_hash_is_that_model(project, file):
    sha256 = resolve_model(*with_model_file(project, file)).sha256
    (project.stacks / "models.toml").write_text(f'[known]\nsha256 = "{sha256}"\npath = "elsewhere.gguf"\n')
    assert with_model_file(project, file) == (project, "known")


def test_what_is_kept_of_a_file_is_found_again_under_its_new_name(project, file):
    above, name = with_model_file(project, file)
    kept = above.golden / name / "c"
    kept.mkdir(parents=True)
    moved = file.rename(file.with_name("other.gguf"))
    again, new = with_model_file(project, moved)
    assert (again.root, new) == (above.root, "other")
    assert (again.golden / "other" / "c").is_dir()
    assert set(models_of(Project(again.root))) == {"other"}


def test_a_template_of_one_s_own_makes_another_model(project, file, tmp_path):
    own = tmp_path / "t.jinja"
    own.write_text("<tool_call>{{ '\"arguments\"' }} <think>")
    above, name = with_model_file(project, file, own)
    found = resolve_model(above, name)
    assert found.chat_template == own.read_text()
    assert (found.calls, found.reasoning) == ("hermes", "think")
    assert "call-one" in load_models(above)[name].cases
    assert above.root != with_model_file(project, file)[0].root


def test_a_name_that_another_model_has_gets_the_hash_behind_it(project, file):
    (project.stacks / "models.toml").write_text(f'["My Model"]\nsha256 = "{"0" * 64}"\npath = "m.gguf"\n')
    _, name = with_model_file(project, file)
    assert name.startswith("My Model-")


def test_a_part_of_a_split_file_is_refused_with_the_remedy(project, tmp_path):
    part = written(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(UserError, match=r"one part of a model that is split into 2 files; join them: llama-gguf-split"):
        with_model_file(project, part)


def test_what_is_no_model_file_is_refused(project, tmp_path):
    other = tmp_path / "m.gguf"
    other.write_text("no")
    with pytest.raises(ModelFileError):
        with_model_file(project, other)
    with pytest.raises((ModelFileError, UserError)):
        with_model_file(project, Path("nowhere.gguf"))
