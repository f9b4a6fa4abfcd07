"""Labelled defects that can be planted in real parts, to measure the harness itself.

A defect is a function of a few lines that is called in the part's own process with the part in its hands:

    @defect("tpl-no-opening", stage=Stage.TEMPLATE, kind="integration", component="llama-cpp-python",
            sentence="The end of the prompt that opens the assistant's turn is lost.")
    def no_opening(engine):
        engine.formatter.add_generation_prompt = False

Nothing in compare, verdict or golden knows of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.compare.outcome import Kind
from harness.errors import UserError
from harness.stage import Stage

Plant = Callable[[Any], None]


@dataclass(frozen=True)
class Defect:
    """A fault that is planted on purpose.

    Attributes:
        id: Its name.
        stage: The stage that is then at fault.
        kind: What sort of defect it is.
        component: The component it is planted in.
        sentence: What it does, for a human.
        hook: Where the planting function is, as `module:function`.
    """

    id: str
    stage: Stage
    kind: Kind
    component: str
    sentence: str
    hook: str


_CATALOGUE: dict[str, Defect] = {}


def defect(
    id: str,  # noqa: A002
    *,
    stage: Stage,
    kind: Kind,
    component: str,
    sentence: str,
    watches_nodes: bool = False,
) -> Callable[[Plant], Plant]:
    """Register the decorated function as a defect.

    Args:
        id: Its name.
        stage: The stage that is then at fault.
        kind: What sort of defect it is.
        component: The component it is planted in.
        sentence: What it does, for a human.
        watches_nodes: It needs to see the nodes of llama.cpp's graph, which slows every evaluation.

    Raises:
        UserError: the id is taken.
    """

    def register(plant: Plant) -> Plant:
        if id in _CATALOGUE:
            raise UserError(f"two defects have the id {id!r}")
        plant.watches_nodes = watches_nodes  # type: ignore[attr-defined]
        hook = f"{plant.__module__}:{plant.__qualname__}"
        _CATALOGUE[id] = Defect(id, stage, kind, component, sentence, hook)
        return plant

    return register


def defects(component: str) -> tuple[Defect, ...]:
    """Return the registered defects of a component, in order of registration."""
    return tuple(one for one in _CATALOGUE.values() if one.component == component)
