"""Stacks: five components around a model, as `stacks/*.toml` define them, and the models of `stacks/models.toml`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from harness.errors import MissingPackageError, UserError, unknown_name
from harness.models.cache import remembered_sha256
from harness.models.families.files import family_file
from harness.models.families.registry import FAMILIES
from harness.models.gguf import check_header
from harness.project.documents import read_text, read_toml
from harness.project.names import CaseName, ModelName, plain_name
from harness.project.project import Project
from harness.stage import PROTOCOLS, Component, Stage
from harness.values import ModelRef

ENTRY_POINTS = "harness.components"
MODELS_FILE = "models.toml"


class Policy(BaseModel):
    """A difference from the reference that a stack declares to be by design, and why.

    Attributes:
        stage: Where it shows.
        rule: The policy's name, one of those that the goldens know.
        reason: One sentence for the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Stage
    rule: str
    reason: str


class Stages(BaseModel):
    """The component of each stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client: str
    template: str
    tokenization: str
    inference: str
    postprocess: str

    def component(self, stage: Stage) -> str:
        """Return the name of the component that performs the stage."""
        name: str = getattr(self, stage.value)
        return name

    @property
    def components_after_client(self) -> set[str]:
        """The names of the components of the other stages."""
        return {self.component(stage) for stage in Stage if stage is not Stage.CLIENT}


class Stack(BaseModel):
    """A stack definition.

    Attributes:
        name: The file's name without its suffix.
        description: One sentence for a human.
        models: The models it is held with; a run uses one of them.
        stages: The component of each stage.
        options: Options by component.
        policies: Differences by design.
        named_only: Checked only when it is named: its server must be started by hand, or it needs much time or room.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    description: str
    models: tuple[ModelName, ...] = Field(min_length=1)
    stages: Stages
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    named_only: bool = False

    @model_validator(mode="after")
    def _options_have_a_component(self) -> Self:
        for name in self.options:
            if name not in self.components:
                raise ValueError(f"options for {name!r}, which performs no stage here")
        return self

    @property
    def components(self) -> tuple[str, ...]:
        """The names of the components, each once, in stage order."""
        return tuple(dict.fromkeys(self.stages.component(stage) for stage in Stage))

    def with_options(self, component: str, options: Mapping[str, Any]) -> Stack:
        """Return the stack with some options of one component replaced."""
        merged = {**self.options, component: {**self.options.get(component, {}), **options}}
        return self.model_copy(update={"options": merged})


class ModelEntry(BaseModel):
    """A model in `models.toml`: a path, a file inside an installed package, or one that packages make a file of.

    Attributes:
        sha256: The hash the file must have.
        path: The file; relative paths start at the folder of `models.toml`.
        package: The import name of the package that carries the file.
        distribution: What to install for it.
        file: The file's name inside the package.
        family: The family pack whose model file it is (`harness.models.families`).
        chat_template: A template file that replaces the GGUF's own, relative to the folder of `models.toml`.
        calls: The form in which the model writes tool calls, if it does.
        reasoning: The form in which it writes reasoning, if it does.
        named_only: Asked only the cases that name it, not those for every model.
        cases: Cases that it is asked besides.
        licence: The weights' licence.
        description: One sentence for a human.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    path: Path | None = None
    package: str | None = None
    distribution: str | None = None
    file: str | None = None
    family: str | None = None
    chat_template: Path | None = None
    calls: Literal["hermes"] | None = None
    reasoning: Literal["think"] | None = None
    named_only: bool = False
    cases: tuple[CaseName, ...] = ()
    licence: str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        in_package = self.package is not None and self.file is not None
        if [in_package, self.path is not None, self.family is not None].count(True) != 1:
            raise ValueError("give either 'path', or 'package' and 'file', or 'family'")
        return self


class _Models(RootModel[dict[ModelName, ModelEntry]]):
    pass


def load_models(project: Project) -> dict[str, ModelEntry]:
    """Return the models of every `models.toml` of the project; of two with one name, the upper one's.

    Raises:
        UserError: a file is wrong, or there is none.
    """
    found: dict[str, ModelEntry] = {}
    for layer in reversed(_layers_with_models(project)):
        found |= models_of(layer)
    return found


def layer_of_model(project: Project, name: str) -> Project:
    """Return the folder of the project that has the entry of a model; the first where none has.

    Raises:
        UserError: a file is wrong, or there is none.
    """
    return next((layer for layer in _layers_with_models(project) if name in models_of(layer)), Project(project.root))


def _layers_with_models(project: Project) -> tuple[Project, ...]:
    """Return the layers that have a file of models; the first, which then fails to be read, where none has."""
    having = tuple(layer for layer in project.layers if (layer.stacks / MODELS_FILE).exists())
    return having or project.layers[:1]


def models_of(layer: Project) -> dict[str, ModelEntry]:
    """Return the models of the first folder's `models.toml`.

    Raises:
        UserError: the file is missing or wrong.
    """
    return read_toml(layer.stacks / MODELS_FILE, _Models).root


def resolve_model(project: Project, name: str) -> ModelRef:
    """Find a model's file and make sure that it is the one meant.

    Raises:
        UserError: no such entry, its package is not installed, or the file's hash is another.
        ModelFileError: the file is missing, truncated, not GGUF or of an unknown version.
    """
    models = load_models(project)
    if name not in models:
        raise unknown_name("model", name, models)
    entry = models[name]
    path = _locate(project, name, entry)
    check_header(path)
    found = remembered_sha256(path)
    if found != entry.sha256:
        raise UserError(
            f"{path} is not the file that models.toml means by {name!r}: its SHA-256 is {found[:12]}..., "
            f"not {entry.sha256[:12]}...",
            "goldens hold for one exact file; enter the new one under a name of its own and record it",
        )
    return _reference(project, name, entry, path)


def declared_model(project: Project, name: str) -> ModelRef:
    """Return a model as `models.toml` declares it, whether or not its file is here: its path may lead nowhere.

    Raises:
        UserError: no such entry, or its template cannot be read.
    """
    models = load_models(project)
    if name not in models:
        raise unknown_name("model", name, models)
    entry = models[name]
    try:
        path = _locate(project, name, entry)
    except UserError:
        path = Path(f"{name}, which is not here")
    return _reference(project, name, entry, path)


def _reference(project: Project, name: str, entry: ModelEntry, path: Path) -> ModelRef:
    template = None
    if entry.chat_template is not None:
        try:
            template = read_text(layer_of_model(project, name).stacks / entry.chat_template)
        except UserError as error:
            raise UserError(f"the template of model {name!r} cannot be read: {error}") from error
    return ModelRef(
        name=name,
        path=path,
        sha256=entry.sha256,
        chat_template=template,
        calls=entry.calls,
        reasoning=entry.reasoning,
    )


def find_model_file(project: Project, model: str) -> Path:
    """Return the file of a model by name, or a file by its path; whatever its hash.

    Raises:
        UserError: it is neither.
    """
    models = load_models(project)
    if model in models:
        return _locate(project, model, models[model])
    path = Path(model)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    raise unknown_name("model", model, models)


def _locate(project: Project, name: str, entry: ModelEntry) -> Path:
    if entry.path is not None:
        return layer_of_model(project, name).stacks / entry.path
    if entry.family is not None:
        return _locate_family(name, entry.family, entry.sha256)
    assert entry.package is not None
    assert entry.file is not None
    spec = _find_package(entry.package)
    if spec is None or spec.origin is None:
        wanted = entry.distribution or entry.package
        raise UserError(
            f"model {name!r} is inside the package {wanted}, which is not installed", f"pip install {wanted}"
        )
    return Path(spec.origin).parent / entry.file


def _locate_family(name: str, family: str, sha256: str) -> Path:
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    missing = next((one for one in FAMILIES[family].requires if missing_distribution(one)), None)
    if missing is not None:
        raise MissingPackageError(f"model {name!r}", missing, "families")
    return family_file(family, sha256)


def _find_package(name: str) -> ModuleSpec | None:
    """Return where a package is; none of its code is run, nor of the packages around it."""
    first, *rest = name.split(".")
    if not all(part.isidentifier() for part in (first, *rest)):
        return None
    spec = importlib.util.find_spec(first)
    for end in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        whole = ".".join((first, *rest[: end + 1]))
        spec = PathFinder.find_spec(whole, list(spec.submodule_search_locations))
    return spec


def stack_names(project: Project) -> tuple[str, ...]:
    """Return the names of the stacks that are defined. Hidden files define none.

    Raises:
        UserError: a file's name is no stack's.
    """
    files = [path for layer in project.layers for path in layer.stacks.glob("*.toml") if path.name != MODELS_FILE]
    files = [path for path in files if not path.name.startswith(".")]
    for path in files:
        try:
            plain_name(path.stem)
        except ValueError as error:
            raise UserError(f"a stack's file in {path.parent}: {error}", "rename the file") from None
    return tuple(sorted({path.stem for path in files}))


def load_stack(project: Project, name: str) -> Stack:
    """Load and validate a stack definition.

    Raises:
        UserError: no such stack, or its file is wrong, or it names an unknown component or one that does not perform
            the stage.
    """
    names = stack_names(project)
    if name not in names:
        raise unknown_name("stack", name, names)
    path = next(path for layer in project.layers if (path := layer.stacks / f"{name}.toml").exists())
    stack = read_toml(path, Stack).model_copy(update={"name": name})
    known = component_entry_points()
    for stage in Stage:
        component = stack.stages.component(stage)
        if component not in known:
            error = unknown_name("component", component, known)
            raise UserError(f"{path}: stages.{stage}: {error.message}", error.remedy)
    return stack


def component_entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Return every registered component, ours and others', by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def load_component(name: str) -> type[Component]:
    """Import a component's class.

    Raises:
        UserError: no such component, or it does not implement the protocol of a stage that it says it performs.
        MissingPackageError: the distribution it needs is not installed.
    """
    known = component_entry_points()
    if name not in known:
        raise unknown_name("component", name, known)
    try:
        component: type[Component] = known[name].load()
    except Exception as error:  # an outsider's module may raise anything
        raise UserError(
            f"the component {name!r} ({known[name].value}) cannot be imported: {type(error).__name__}: {error}",
            "install what it needs, or remove the package that registers it",
        ) from error
    distribution, extra = component.requires
    if distribution and missing_distribution(distribution):
        raise MissingPackageError(f"the component {name!r}", distribution, extra)
    for stage in component.stages:
        methods = [method for method in vars(PROTOCOLS[stage]) if not method.startswith("_")]
        if not all(callable(getattr(component, method, None)) for method in methods):
            raise UserError(f"the component {name!r} says it performs {stage}, but has no {' and '.join(methods)}")
    return component


def missing_distribution(name: str) -> bool:
    """Return whether a distribution is not installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False
