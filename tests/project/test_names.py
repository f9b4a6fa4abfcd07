"""Names are names and no paths, wherever they come from; nothing outside a model's goldens is written or removed."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.project.cases import case_names
from harness.project.golden import CaseRecord, Provenance, load_provenance, model_folder
from harness.project.golden_writing import provenance_bytes, writing
from harness.project.names import LONGEST, case_name, model_name, plain_name
from harness.project.project import Project
from harness.project.stack import load_models, load_stack, stack_names
from tests.project.test_golden import MODEL, content, make_golden, record

PATHS = ["", ".", "..", "../victim", "../../../victim", "a/b", "/etc", "a\\b", "a/", ".hidden", "a..b", "\0", "a\0b"]
UNSEEN = ["a\nb", "a\x1b[2Jb", "a\x7f", "\u202eb", "a\u200bb", "a\u2028b", "\ud800", " a", "a ", "\t"]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "p" / "golden" / "cases").mkdir(parents=True)
    (tmp_path / "p" / "stacks").mkdir()
    (tmp_path / "p" / "stacks" / "models.toml").touch()
    return Project(tmp_path / "p")


@pytest.mark.parametrize("name", [*PATHS, *UNSEEN, "x" * (LONGEST + 1), "\u00e9" * (LONGEST // 2 + 1)])
def test_what_is_no_name_is_refused_in_one_line_without_what_cannot_be_seen(name):
    with pytest.raises(ValueError, match="no plain name") as caught:
        plain_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["a", "qwen2.5-tools", "two words", "caf\u00e9", "-x", "a.b.c", "~", "$HOME", "x" * LONGEST]
)
def test_names_are_taken(name):
    assert plain_name(name) == model_name(name) == case_name(name) == name


def test_names_that_lie_beside_others_are_refused():
    for name in ("provenance.toml", "noise.json", "nodes.json", "checksums.json"):
        with pytest.raises(ValueError, match="a file beside the goldens has it"):
            case_name(name)
    with pytest.raises(ValueError, match="the folder of the cases"):
        model_name("cases")
    assert (model_name("noise.json"), case_name("cases")) == ("noise.json", "cases")


@pytest.mark.parametrize("name", [*PATHS, "cases"])
def test_no_model_has_a_folder_elsewhere(project, name):
    with pytest.raises(UserError):
        model_folder(project, name)
    with pytest.raises(UserError), writing(project, name):
        pass


@pytest.mark.parametrize("key", [*PATHS, "provenance.toml", "\x1b[2J"])
def test_a_provenance_that_names_a_path_is_refused_and_nothing_is_removed(project, tmp_path, key):
    golden = make_golden()
    record(project, golden)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("precious")
    path = project.golden / "m" / "provenance.toml"
    entry = json.dumps(key) + ' = { asked = "1", golden = "2" }'
    path.write_text(path.read_text() + entry.replace("\x7f", "\\u007f") + "\n")
    before = content(tmp_path)
    with pytest.raises(UserError) as caught:
        load_provenance(project, MODEL)
    line = len(path.read_text().splitlines())
    assert str(caught.value).startswith(f"{path}:")
    if '"' not in json.dumps(key)[1:-1] and "\\" not in json.dumps(key):
        assert str(caught.value).startswith(f"{path}:{line}: cases.{key}: ")
    assert str(caught.value).isprintable()
    with pytest.raises(UserError), writing(project, "m") as writer:
        writer.remove(key, Provenance(format=1, model_sha256="", references={}))
    after = content(tmp_path)
    assert {name: data for name, data in after.items() if "/.recording/" not in name} == before


def test_a_folder_that_is_a_link_is_taken_away_and_not_what_it_points_to(project, tmp_path):
    provenance = record(project, make_golden())
    victim = tmp_path / "victim"
    shutil.move(project.golden / "m" / "c", victim)
    (project.golden / "m" / "c").symlink_to(victim)
    before = content(victim)
    with writing(project, "m") as writer:
        writer.write(make_golden(seed=1), provenance)
    assert content(victim) == before
    assert not (project.golden / "m" / "c").is_symlink()
    shutil.rmtree(project.golden / "m" / "c")
    (project.golden / "m" / "c").symlink_to(victim)
    with writing(project, "m") as writer:
        writer.remove("c", provenance)
    assert content(victim) == before
    assert [path.name for path in (project.golden / "m").iterdir()] == ["provenance.toml"]


@pytest.mark.parametrize("link", ["golden", "golden/m", "golden/m/.recording"])
def test_goldens_that_lead_out_of_the_project_are_not_written(project, tmp_path, link):
    record(project, make_golden())
    victim = tmp_path / "victim"
    place = project.root / link
    if place.exists():
        shutil.move(place, victim)
    else:
        victim.mkdir()
    place.symlink_to(victim)
    before = content(tmp_path)
    with pytest.raises(UserError, match="leads out of the project") as caught, writing(project, "m"):
        pass
    assert "\n" not in str(caught.value)
    assert content(tmp_path) == before


def test_goldens_behind_a_link_inside_the_project_are_written(project):
    (project.golden / "elsewhere").mkdir()
    (project.golden / "m").symlink_to("elsewhere")
    record(project, make_golden())
    assert (project.golden / "elsewhere" / "provenance.toml").is_file()


# Files of the project


STACK = 'description = "d"\nmodels = ["m"]\n[stages]\n' + "\n".join(
    f'{stage} = "llama-cpp-python"' for stage in ("client", "template", "tokenization", "inference", "postprocess")
)


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_models_with_paths_for_names_are_refused_with_file_and_line(project):
    path = project.stacks / "models.toml"
    path.write_text(f'["../x"]\npath = "m.gguf"\nsha256 = "{"5" * 64}"\n')
    said = refusal(load_models, project)
    assert said == f"{path}:1: ../x: '../x' is no plain name: it begins with a dot, or has two in a row"
    path.write_text(f'[m]\npath = "m.gguf"\ncases = ["a/b"]\nsha256 = "{"5" * 64}"\n')
    assert refusal(load_models, project).startswith(f"{path}:3: m.cases.0: 'a/b' is no plain name")


def test_stacks_with_paths_for_names_are_refused(project):
    path = project.stacks / "s.toml"
    path.write_text(STACK.replace('"m"', '"../m"'))
    assert refusal(load_stack, project, "s").startswith(f"{path}:2: models.0: '../m' is no plain name")
    path.write_text(STACK + '\n[options."../x"]\n')
    assert "performs no stage here" in refusal(load_stack, project, "s")
    path.rename(project.stacks / "s\x1b.toml")
    assert refusal(stack_names, project).endswith("it has a character that cannot be seen; rename the file")


def test_cases_whose_files_have_no_plain_name_are_refused_and_hidden_ones_are_none(project):
    cases = project.golden / "cases"
    (cases / ".c.json").touch()
    (project.stacks / ".s.toml").touch()
    assert case_names(project) == stack_names(project) == ()
    (cases / "noise.json.json").touch()
    assert "cannot be the name of a case" in refusal(case_names, project)
    (cases / "noise.json.json").rename(cases / "a\nb.json")
    assert refusal(case_names, project).startswith(f"a case's file in {cases}: 'a\\nb' is no plain name")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "/etc/passwd", "\x1b[2J"])
def test_names_on_the_command_line_are_looked_up_and_never_opened(project, name):
    for call in (["record", name], ["check", name], ["trace", "s", name], ["inject", name, "--out", "o"]):
        found = CliRunner().invoke(app, [*call, "--project", str(project.root)])
        assert found.exit_code == 2, found.output
        assert "Traceback" not in found.output
    assert content(project.root) == {"stacks/models.toml": b""}


def test_provenance_is_written_as_it_is_read(project):
    odd = 'x"y\\\n'
    made = Provenance(format=1, model_sha256=odd, template_sha256="", references={'a "b"': odd})
    made = made.with_case("c", CaseRecord(asked=odd, golden=odd))
    path = project.golden / "m" / "provenance.toml"
    path.parent.mkdir()
    path.write_bytes(provenance_bytes(made))
    assert load_provenance(project, MODEL.model_copy(update={"sha256": odd})) == made
