"""Every command that README and documentation show: it parses, what it names exists, and some test runs its form.

A form is a command with the options that it is shown with. Its test may run it on another stack, model or case than the
documents show: that those exist is held here.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import app
from harness.defects.catalogue import catalogue
from harness.fuzz.parser.known import KNOWN
from harness.fuzz.parser.properties import PROPERTIES as PARSER
from harness.fuzz.template.properties import PROPERTIES as TEMPLATE
from harness.fuzz.tokenizer.properties import PROPERTIES as TOKENIZER
from harness.inject.draw import KINDS
from harness.project.cases import case_names
from harness.project.stack import component_entry_points, load_models, stack_names
from tests.conftest import ROOT

DOCUMENTS = (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md")))
PROGRAMS = ("harness", "pip", "pytest", "python", "python3", "tox")
ROOM = typer.main.get_command(app)
# Typer has brought Click by other names; of its errors, those of a wrong call.
USAGE = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]+(\.(py|gguf))?|\.\.\.")


class Shown(NamedTuple):
    """A command of a document: whole, or only mentioned (a name, an option) in its prose."""

    where: str
    line: str
    whole: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)

    @property
    def program(self) -> str:
        return PurePath(self.words[0]).name


def shown_in(name: str, text: str) -> Iterator[Shown]:
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        if opened := re.match(r"\s*```(\w*)", line):
            fence = opened[1] if fence is None else None
            continue
        if fence in ("console", "sh", "bash", "shell"):
            found, whole = line.strip().removeprefix("$ ").split(" && "), True
        elif fence is None:
            # In prose, what is in brackets may be left out: the document shows that it may be given.
            found, whole = [re.sub(r"[\[\]]", "", one) for one in re.findall(r"`([^`]+)`", line)], False
        else:
            continue
        for one in found:
            if re.match(rf"(\S*/)?({'|'.join(PROGRAMS)})( |$)", one):
                yield Shown(f"{name}:{number}", one, whole)


SHOWN = [one for path in DOCUMENTS for one in shown_in(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))]
OURS = [one for one in SHOWN if one.program == "harness" and one.words[1:] != ["--help"]]


def of(command: Shown) -> tuple[tuple[str, ...], Any, list[str]]:
    """Return the names, the parser and the arguments of a command of ours."""
    rest, here, names = command.words[1:], ROOM, ()
    while rest and hasattr(here, "commands"):
        assert rest[0] in here.commands, f"{command.where}: there is no command {rest[0]!r}"
        here, names, rest = here.commands[rest[0]], (*names, rest[0]), rest[1:]
    return names, here, rest


def parsed(command: Shown) -> dict[str, Any]:
    """Return the parameters of a command of ours, by name; of one that is only mentioned those that are given."""
    names, parser, rest = of(command)
    given = [word for word in rest if word != "..."]
    if not command.whole and not given:
        return {}
    assert not hasattr(parser, "commands"), f"{command.where}: a command is missing"
    if not command.whole and given[0].startswith("-"):
        known = {option for parameter in parser.params for option in parameter.opts}
        unknown = [word for word in given if word.startswith("-") and word not in known]
        assert not unknown, f"{command.where}: {' '.join(names)} has no {unknown}"
        return {}
    return dict(parser.make_context(" ".join(names), given).params)


@pytest.fixture(scope="module")
def known(project) -> dict[str, set[str]]:
    stacks, models, cases = set(stack_names(project)), set(load_models(project)), set(case_names(project))
    return {
        "stack": stacks,
        "names": stacks,
        "a": stacks,
        "b": stacks,
        "model": models,
        "case": cases,
        "golden": models,
        "checksums": stacks,
        "noise": stacks,
        "kind": {*KINDS, *(kind.partition("-")[0] for kind in KINDS)},
        "engine": set(component_entry_points()),
    }


def unknown(names: tuple[str, ...], values: dict[str, Any], known: dict[str, set[str]]) -> list[str]:
    """Return the values that name nothing that there is."""
    wrong = []
    for parameter, value in values.items():
        some = [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, str)]
        there = {
            ("attribute", "only"): set(catalogue()),
            ("fuzz", "only"): {*TEMPLATE, *TOKENIZER, *PARSER, *KNOWN},
            ("fuzz", "names"): None,  # a package's tokenizer or a file: of those that are named tests have their own
        }.get((names[0], parameter), known.get(parameter))
        if there is not None:
            wrong += [
                one
                for one in some
                if not PLACEHOLDER.fullmatch(one)
                and "://" not in one
                and not any(fnmatchcase(name, one) for name in there)
            ]
    return wrong


@pytest.mark.parametrize("command", OURS, ids=[f"{one.where} {one.line[:60]}" for one in OURS])
def test_a_command_of_ours_parses_and_names_what_there_is(command, known):
    names, _, _ = of(command)
    assert unknown(names, parsed(command), known) == [], command


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```console\n$ harness chekc llama-cpp-python\n```", "no command 'chekc'"),
        ("```console\n$ harness check --modle m\n```", "No such option"),
        ("```console\n$ harness fuzz engine\n```", "model"),
        ("`harness record --chekcsums`", "chekcsums"),
        ("`harness check llama-cpp-pyhton`", "llama-cpp-pyhton"),
        ("`harness check STACK --case no-sistem`", "no-sistem"),
        ("`harness inject STACK --out FOLDER --kind bit`", "bit"),
        ("`harness fuzz template t.jinja --engine none`", "none"),
        ("`harness attribute STACK --out FOLDER --only nothing-*`", "nothing-*"),
    ],
)
def test_what_a_document_gets_wrong_is_noticed(text, says, known):
    (command,) = shown_in("a.md", text)
    try:
        wrong = str(unknown(of(command)[0], parsed(command), known))
    except (AssertionError, *USAGE) as error:
        wrong = f"{error}"
    assert says in wrong


def test_the_table_of_commands_has_every_command_and_only_options_that_there_are():
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("\n## ")[0]
    seen = set()
    for line in text.splitlines():
        if not (row := re.match(r"\| `(harness [^`]+)` \| (.*) \|$", line)):
            continue
        (command,) = (one for one in shown_in("README.md", f"`{row[1]}`"))
        names, parser, _ = of(command)
        seen.add(" ".join(names))
        options = {option for parameter in parser.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", row[2])) <= options, line
    all_of_them = {name for name, one in ROOM.commands.items() if not hasattr(one, "commands")}
    assert seen == all_of_them | {f"fuzz {name}" for name in ROOM.commands["fuzz"].commands}


def test_extras_and_files_of_other_commands_exist():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    tox = (ROOT / "tox.ini").read_text()
    environments = {name for one in re.findall(r"^\[testenv:(.+)\]", tox, re.M) for name in one.strip("{}").split(",")}
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = {
        extra for some in re.findall(r"(?:llm-stack-harness|'\.)\[([a-z,-]+)\]", text) for extra in some.split(",")
    }
    assert {"all", "families"} <= named <= extras
    for command in SHOWN:
        words = command.words
        if command.program == "tox":
            assert set(words[2:] if "-e" in words else []) <= environments, command
        if command.program.startswith("python") and words[1] == "-m" and words[2] != "venv":
            spec = importlib.util.find_spec(words[2])
            assert spec is not None, command
            assert "__main__" in Path(str(spec.origin)).read_text(encoding="utf-8"), command
        paths = [word for word in words[1:] if word.startswith(("tests/", "benchmarks/", "docs/"))]
        assert all((ROOT / path).exists() for path in paths if not path.endswith(".json")), command


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


# Where each form is run: what is quick here, campaigns by tests of their own on small inputs. Of `demo`, `record`,
# `record --noise` and `attribute --suite`, which take minutes, the function behind the command is run.
_BENCH = "tests/attribution/test_command.py::test_reports_and_results_are_written"
_CHECK = "tests/test_cli.py::test_a_clean_stack_is_status_0_with_a_table_and_a_line"
_DRAWN = "tests/inject/test_prepare.py::test_the_command_draws_runs_resumes_and_reports"
_RECORD = "tests/reference/test_record.py::test_new_cases_are_told_and_not_written_unless_approved"
_SWEEP = "tests/fuzz/test_template_properties.py::test_the_command_finds_replays_and_knows_its_baseline"
_HERE = "tests/test_documented_commands.py::"
RUN_BY = {
    "attribute --count --deep --out --publish": _BENCH,
    "attribute --count --out --pairs --publish": "tests/attribution/test_command.py::test_pairs_are_planted_together",
    "attribute --defects --out": (
        "tests/attribution/test_command.py::test_a_users_file_is_planted_alone_unless_ours_are_asked_for"
    ),
    "attribute --out": "tests/attribution/test_command.py::test_all_right_is_status_0",
    "attribute --out --suite": "tests/attribution/test_worth.py::test_what_a_suite_is_worth",
    "check": "tests/checking/test_opened.py::test_the_healthy_stack_is_clean_over_all_cases_and_models",
    "check --case": _CHECK,
    "check --case --model": _CHECK,
    "check --model": _CHECK,
    "check --model-file": "tests/test_check_address.py::test_a_healthy_server_and_its_file_are_cleared_in_all_stages",
    "diff": _HERE + "test_a_diff_writes_its_files",
    "diff --case": _HERE + "test_a_diff_writes_its_files",
    "diff --case --model": _HERE + "test_a_diff_writes_its_files",
    "diff --html --markdown": _HERE + "test_a_diff_writes_its_files",
    "diff --model": _HERE + "test_a_diff_writes_its_files",
    "doctor": _HERE + "test_what_is_quick_is_run",
    "fuzz engine": "tests/fuzz/test_engine.py::test_the_command_on_the_real_engine",
    "fuzz parser": _HERE + "test_what_is_quick_is_run",
    "fuzz parser --only": "tests/fuzz/test_commands.py::test_a_known_defect_of_a_real_parser_is_reproduced",
    "fuzz parser --parser": "tests/fuzz/test_commands.py::test_the_reference_parser_gives_back_what_is_rendered",
    "fuzz template": _SWEEP,
    "fuzz template --coverage --html": "tests/fuzz/test_worth.py::test_coverage_at_the_command_line",
    "fuzz template --engine": _SWEEP,
    "fuzz template --engine --mutants": "tests/fuzz/test_worth.py::test_mutants_at_the_command_line",
    "fuzz template --engine --only": _SWEEP,
    "fuzz tokenizer": "tests/fuzz/test_commands.py::test_two_libraries_over_one_vocabulary_agree",
    "fuzz tokenizer --example --only": (
        "tests/fuzz/test_commands.py::test_a_disagreement_is_found_told_and_reproduced"
    ),
    "inject --count --html --kind --out": _DRAWN,
    "inject --count --kind --out --phase --seed --threads": _DRAWN,
    "inject --count --kind --out --seed --threads": _DRAWN,
    "inject --out": _DRAWN,
    "probes": _HERE + "test_what_is_quick_is_run",
    "record": _RECORD,
    "record --approve": "tests/reference/test_record.py::test_new_cases_are_written_when_approved",
    "record --checksums": "tests/explain/test_checksums.py::test_the_command_records_compares_and_tells",
    "record --noise": (
        "tests/checking/test_noise.py::test_every_healthy_variation_runs_every_case_that_has_a_generation"
    ),
    "trace": "tests/checking/test_adhoc.py::test_without_a_dry_run_the_call_is_made",
    "trace --dry-run": "tests/checking/test_adhoc.py::test_a_real_llama_server_shows_what_it_would_send",
}
# Commands that are whole as they are, without an argument.
BARE = {
    "attribute --list": "tests/attribution/test_command.py::test_the_catalogue_is_listed_with_a_line_each",
    "demo": "tests/checking/test_opened.py::test_each_planted_fault_is_convicted_at_its_stage_and_kind",
    "stacks": "tests/test_cli.py::test_stacks_lists_what_there_is",
}


def form_of(command: Shown) -> str:
    names, _, rest = of(command)
    return " ".join([*names, *sorted({word for word in rest if word.startswith("--")})])


def test_every_form_that_is_shown_is_run_by_a_test():
    whole = [one for one in OURS if one.whole or (of(one)[2] and not of(one)[2][0].startswith("-"))]
    assert {form_of(one) for one in whole} - set(BARE) == set(RUN_BY)
    for name in {*RUN_BY.values(), *BARE.values()}:
        path, _, test = name.partition("::")
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), f"there is no {name}"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.usefixtures("engine")
def test_what_is_quick_is_run(smollm, tmp_path):
    pytest.importorskip("xllamacpp", reason="llama-server needs the package xllamacpp")
    assert run("doctor", smollm.name).exit_code == 0
    assert run("probes", smollm.name, tmp_path / "probes").exit_code == 0
    assert {path.name for path in (tmp_path / "probes").iterdir()} == {"fingerprint.gguf", "replay.gguf"}
    (parser,) = (
        one.words[1:] for one in OURS if one.whole and one.where.startswith("README") and of(one)[0][-1] == "parser"
    )
    done = run(*parser, "--examples", 1, "--database", tmp_path)
    assert done.exit_code in (0, 1), done.output


@pytest.mark.usefixtures("engine", "smollm")
def test_a_diff_writes_its_files(tmp_path, monkeypatch):
    pytest.importorskip("xllamacpp", reason="llama-server needs the package xllamacpp")
    (words,) = (one.words[1:] for one in OURS if one.whole and form_of(one) == "diff --html --markdown")
    monkeypatch.setenv("COLUMNS", "80")
    words = [str(tmp_path / word) if word.endswith((".html", ".md")) else word for word in words]
    done = run(*words, "--case", "text-parts", "--model", "smollm2-135m-instruct")
    assert done.exit_code == 1, done.output
    assert (tmp_path / "diff.html").read_text().startswith("<!doctype html>")
    assert "text-parts" in (tmp_path / "diff.md").read_text()
