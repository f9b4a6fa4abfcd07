"""What the defects of llama.cpp's graph share: how a node's operator or its result is edited, run after run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from harness.llama.ggml import Watcher, data_of, float_parameters
from harness.llama.layout import Tensor

COMPONENT: Final = "llama-cpp-python"
Array = np.ndarray[Any, Any]


def before(engine: Any, operator: str, edit: Callable[[Tensor], None], layer: int | None = None) -> None:
    """Edit every node of an operator, or those of one layer, right before each of their runs; put it back after it.

    llama.cpp reuses graphs, so what stays would be edited twice.
    """
    kept: list[bytes] = []

    def plant(tensor: Tensor) -> None:
        kept.append(bytes(tensor.op_params))
        edit(tensor)

    def undo(tensor: Tensor) -> None:
        tensor.op_params[:] = np.frombuffer(kept.pop(), dtype=np.int32).tolist()

    def wants(name: str, its: str) -> bool:
        return its == operator and (layer is None or name.split(" ")[0].endswith(f"-{layer}"))

    engine.nodes.watchers.append(Watcher(wants, before=plant, after=undo))


def after(engine: Any, name: str, edit: Callable[[Array], None]) -> None:
    """Edit what a node computes, `(1, 1, tokens, features)` or as it lies in memory, right after each of its runs."""

    def hurt(tensor: Tensor) -> None:
        edit(data_of(tensor))

    engine.nodes.watchers.append(Watcher(lambda other, operator: _is(name, other, operator), after=hurt))


def float_parameter(place: int, change: Callable[[float], float]) -> Callable[[Tensor], None]:
    """Return what changes one of an operator's parameters."""

    def edit(tensor: Tensor) -> None:
        parameters = float_parameters(tensor)
        parameters[place] = change(parameters[place])

    return edit


def _is(wanted: str, name: str, operator: str) -> bool:
    """Return whether a node is the one meant by `name` or `name/OPERATOR`; `*` at its end means any layer."""
    asked, _, kind = wanted.partition("/")
    if kind and kind != operator:
        return False
    return name.startswith(asked[:-1]) and name[len(asked) - 1 :].isdigit() if asked.endswith("*") else name == asked
