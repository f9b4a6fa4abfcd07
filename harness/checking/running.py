"""A stack that runs: its components, open around one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.project.stack import Stack, load_component
from harness.stage import Caller, ChatRoute, Component, Served, Stage
from harness.values import ModelRef

FILE = "file"
"""The option by which a component gets another file than the model's."""


@dataclass(frozen=True)
class RunningStack:
    """A stack whose components are open, around one model.

    Attributes:
        stack: The stack.
        model: The model.
        parts: The components, by name.
        chat_route: The stack's own path from end to end in one call, if it has one: that of a component of all five
            stages, or that of a client and a server.
        held_against: The model whose goldens and noise it is held against, where that is another.
        purpose: Why it is around another file than that model's, where this is meant.
    """

    stack: Stack
    model: ModelRef
    parts: Mapping[str, Component]
    chat_route: ChatRoute | None = None
    held_against: ModelRef | None = None
    purpose: str = ""

    @property
    def golden_model(self) -> ModelRef:
        """The model whose goldens and noise it is held against."""
        return self.held_against or self.model

    def part(self, stage: Stage) -> Any:
        """Return the component that performs the stage."""
        return self.parts[self.stack.stages.component(stage)]


@contextmanager
def open_stack(
    stack: Stack,
    model: ModelRef,
    wrap: Callable[[str, Component], Component] = lambda _, part: part,
    held_against: ModelRef | None = None,
    purpose: str = "",
) -> Iterator[RunningStack]:
    """Open a stack's components around a model, each once, and close them whatever happens.

    Args:
        stack: The stack.
        model: The model.
        wrap: Given each component's name and the component, returns what is to be called in its stead.
        held_against: The model whose goldens and noise it is held against, where that is another.
        purpose: Why it is around another file than that model's, where this is meant.

    Raises:
        UserError: a component's options are wrong.
        MissingPackageError: a component's package is not installed.
    """
    with ExitStack() as opened:
        parts = {}
        for name in stack.components:
            component = load_component(name)
            performed = {stage for stage in Stage if stack.stages.component(stage) == name}
            if not performed <= component.stages:
                wrong = ", ".join(sorted(performed - component.stages))
                raise UserError(f"stack {stack.name!r}: the component {name!r} does not perform {wrong}")
            try:
                part = component(model, stack.options.get(name, {}))
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in ("options", name, *problem["loc"]))
                message = problem["msg"].removeprefix("Value error, ")
                raise UserError(f"stack {stack.name!r}: {where}: {message}") from None
            parts[name] = wrap(name, opened.enter_context(part))
        yield RunningStack(stack, model, parts, _chat_route(stack, parts, opened), held_against, purpose)


def around_its_model(stack: Stack) -> Stack:
    """Return a stack without the options by which a component gets another file than the model's."""
    for name, options in stack.options.items():
        without = getattr(load_component(name), "around_its_model", _without_file)
        stack = stack.model_copy(update={"options": {**stack.options, name: dict(without(options))}})
    return stack


def _without_file(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in options.items() if name != FILE}


def _chat_route(stack: Stack, parts: Mapping[str, Component], opened: ExitStack) -> ChatRoute | None:
    first, *others = stack.components
    client: object = parts[first]
    if not others:
        return client if isinstance(client, ChatRoute) else None
    server: object = parts[others[0]]
    alone = len(others) == 1 and stack.stages.components_after_client == {others[0]}
    if alone and isinstance(client, Caller) and isinstance(server, Served):
        from harness.checking.route import ServedRoute  # speaking HTTP is an extra

        return opened.enter_context(ServedRoute(client, server))
    return None
