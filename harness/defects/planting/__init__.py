"""How a defect gets into a real stack: where it is planted in which component, and how it is taken out again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.checking.running import RunningStack
from harness.defects.defect import Defect, Place
from harness.defects.planting.anywhere import planted_in_the_caller
from harness.errors import UserError
from harness.models.gguf import read_metadata
from harness.project.stack import Stack, load_component
from harness.stage import Caller, Component, Stage
from harness.values import ModelRef

_IN_CHILD = {
    "llama-cpp-python": "harness.defects.planting.llama_cpp_python:plant",
    "llama-server": "harness.defects.planting.llama_server:plant",
}
"""Components that are planted in from inside, with what does it there."""
_NOT_THERE = {"llama-server": (Place.ENVIRONMENT, Place.PROMPT, Place.IDS)}
"""Places that cannot be got at from outside: nothing of them crosses HTTP."""


class NoPlaceError(Exception):
    """The stack has no such place."""


@dataclass(frozen=True)
class Planted:
    """A stack with defects in it, not yet open.

    Attributes:
        stack: The stack, with other options where a defect asks for them.
        model: The model, with another file or template where a defect asks for them.
        wrap: Stands between a component that was made and those who call it; see `harness.project.stack.open_stack`.
        prepare: Plants in the components of the open stack.
    """

    stack: Stack
    model: ModelRef
    wrap: Callable[[str, Component], Component]
    prepare: Callable[[RunningStack], None]


@contextmanager
def plant(stack: Stack, model: ModelRef, defects: Sequence[Defect]) -> Iterator[Planted]:
    """Plant defects in a stack; what they changed is gone when the context ends.

    Raises:
        NoPlaceError: the stack has no such place.
        DefectError: a defect's function raised.
        UserError: a defect is planted in another component.
    """
    inside: list[Defect] = []
    outside: list[Defect] = []
    with ExitStack() as opened:
        for one in defects:
            missing = missing_place(stack, one)
            if missing is not None:
                raise NoPlaceError(missing)
            component = one.component or stack.stages.component(one.stage)
            function = one.planting()
            if one.place is Place.SOURCE:
                model = model.model_copy(update={"chat_template": function(template_of(model))})
            elif one.place is Place.OPTIONS:
                options = function(dict(stack.options.get(component, {})))
                stack = stack.model_copy(update={"options": {**stack.options, component: options}})
            elif one.place is Place.MODEL:
                from harness.defects.model_copy import ModelCopy

                folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="harness-"))
                copy = ModelCopy(model.path)
                function(copy)
                model = model.model_copy(update={"path": copy.save(Path(folder) / model.path.name)})
            elif one.place is not Place.BODY and component in _IN_CHILD:
                inside.append(one)
            else:
                outside.append(one)
        yield Planted(
            stack,
            model,
            wrap=lambda name, part: _wrapped(stack, name, part, outside),
            prepare=lambda running: _prepare(running, inside),
        )


def missing_place(stack: Stack, defect: Defect) -> str | None:
    """Return why a stack has no place for a defect; None where it has."""
    component = defect.component or stack.stages.component(defect.stage)
    if component not in stack.components:
        return f"the stack {stack.name!r} has no component {component!r}"
    inside_only = component not in _IN_CHILD and defect.place in (Place.ENVIRONMENT, Place.PART)
    if inside_only or defect.place in _NOT_THERE.get(component, ()):
        return f"{component} shows no place {defect.place.value!r}"
    if defect.place is Place.RECEIVED and not issubclass(load_component(component), Caller):
        return f"{component} is no client of a server"
    return None


def template_of(model: ModelRef) -> str:
    """Return the template in force.

    Raises:
        UserError: the model has none.
    """
    found = model.chat_template or read_metadata(model.path).get("tokenizer.chat_template")
    if not isinstance(found, str):
        raise UserError(f"the model {model.name!r} has no chat template")
    return found


def _prepare(running: RunningStack, defects: Sequence[Defect]) -> None:
    for one in defects:
        component = one.component or running.stack.stages.component(one.stage)
        part = running.parts[component]
        part.plant(  # type: ignore[attr-defined]
            _IN_CHILD[component],
            place=one.place.value,
            function=one.hook,
            arguments=dict(one.arguments),
            **({"watches_nodes": True} if one.watches_nodes else {}),
        )


def _wrapped(stack: Stack, name: str, part: Component, defects: Sequence[Defect]) -> Component:
    for one in defects:
        stage = Stage.CLIENT if one.place is Place.BODY else one.stage
        if stack.stages.component(stage) == name:
            part = planted_in_the_caller(part, one)
    return part
