"""The golden cases of a model as a template is asked them, with the prompts that they must give."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from harness.parts import CLOCK, Rendering
from harness.project.cases import cases_for
from harness.project.golden import PROVENANCE, Golden, beside_goldens, load_golden, load_provenance
from harness.project.project import Project
from harness.project.stack import load_models, load_stack, resolve_model, stack_names
from harness.values import Json, Prompt, Value


class GoldenCase(Value):
    """A case as the reference renders it.

    Attributes:
        name: The case's.
        messages: As they reach the server.
        tools: The tools, or None.
        opens: Whether the assistant's turn is opened.
        variables: Template variables, without the texts of special tokens.
        clock: The time that the template sees.
        prompt: What it must give; None where it must be refused.
    """

    name: str
    messages: list[Json]
    tools: list[Json] | None = None
    opens: bool = True
    variables: dict[str, Any] = Field(default_factory=dict)
    clock: datetime = CLOCK
    prompt: str | None = None

    def asked(self, special: dict[str, Any]) -> Rendering:
        """Return what an engine is asked, with the texts of special tokens."""
        return Rendering(self.messages, self.tools, self.opens, {**special, **self.variables}, self.clock)


def golden_cases(project: Project, name: str) -> dict[str, list[GoldenCase]]:
    """Return the golden cases by subject, of a model or of a stack's models; empty where there are none.

    Args:
        project: Where models, stacks and goldens are.
        name: What `harness fuzz template` takes.

    Raises:
        UserError: a golden is of another file or template, or was changed.
    """
    if name in load_models(project):
        names: tuple[str, ...] = (name,)
    elif name in stack_names(project):
        names = load_stack(project, name).models
    else:
        return {}
    return {model: _of(project, model) for model in names if beside_goldens(project, model, PROVENANCE).is_file()}


def _of(project: Project, name: str) -> list[GoldenCase]:
    model = resolve_model(project, name)
    provenance = load_provenance(project, model)
    cases = [case for case in cases_for(project, name) if case.name in provenance.cases]
    return [_asked(load_golden(project, model, case, provenance)) for case in cases]


def _asked(golden: Golden) -> GoldenCase:
    request, options = golden.request, golden.case.options
    variables = dict(options.template_kwargs)
    if request.tool_choice is not None:
        variables["tool_choice"] = request.tool_choice
    if options.continue_final_message:
        variables["continue_final_message"] = True
    return GoldenCase(
        name=golden.case.name,
        messages=list(request.messages),
        tools=None if request.tools is None else list(request.tools),
        opens=not options.continue_final_message,
        variables=variables,
        clock=options.clock,
        prompt=golden.prompt.text if isinstance(golden.prompt, Prompt) else None,
    )
