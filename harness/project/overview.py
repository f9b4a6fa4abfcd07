"""What there is: stacks, components, models and cases, and what of it is missing."""

from __future__ import annotations

import importlib.metadata

from harness.errors import UserError
from harness.project.cases import case_names
from harness.project.project import Project
from harness.project.stack import (
    component_entry_points,
    load_component,
    load_models,
    load_stack,
    missing_distribution,
    resolve_model,
    stack_names,
)
from harness.stage import Stage
from harness.values import Value


class Line(Value):
    """One thing of a listing.

    Attributes:
        name: Its name.
        ready: Whether it can be used.
        says: What it is; or what is missing, and what to do.
    """

    name: str
    ready: bool
    says: str


class Overview(Value):
    """Everything that a project has."""

    stacks: tuple[Line, ...]
    components: tuple[Line, ...]
    models: tuple[Line, ...]
    cases: tuple[str, ...]


def overview(project: Project) -> Overview:
    """Look at a project. What is broken is listed with its error, not left out.

    Raises:
        UserError: `models.toml` is missing or wrong.
    """
    return Overview(
        stacks=tuple(_stack(project, name) for name in stack_names(project)),
        components=tuple(_component(name) for name in sorted(component_entry_points())),
        models=tuple(_model(project, name) for name in load_models(project)),
        cases=case_names(project),
    )


def _stack(project: Project, name: str) -> Line:
    try:
        stack = load_stack(project, name)
        for component in stack.components:
            load_component(component)
    except UserError as error:
        return Line(name=name, ready=False, says=str(error))
    return Line(name=name, ready=True, says=stack.description)


def _component(name: str) -> Line:
    try:
        component = load_component(name)
    except UserError as error:
        return Line(name=name, ready=False, says=str(error))
    distribution, _ = component.requires
    stages = ", ".join(stage for stage in Stage if stage in component.stages)
    if not distribution:
        return Line(name=name, ready=True, says=stages)
    version = "" if missing_distribution(distribution) else f" {importlib.metadata.version(distribution)}"
    return Line(name=name, ready=True, says=f"{distribution}{version}: {stages}")


def _model(project: Project, name: str) -> Line:
    try:
        model = resolve_model(project, name)
    except UserError as error:
        return Line(name=name, ready=False, says=str(error))
    entry = load_models(project)[name]
    return Line(name=name, ready=True, says=entry.description or model.path.name)
