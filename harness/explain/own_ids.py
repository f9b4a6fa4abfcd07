"""What the reply to a stack's own generated ids must be, where the stack cannot be given ids to make a reply of.

A server that runs already shows what it generated, and not what it would make of other ids. So the reference makes the
reply that is due to those very ids, and the server's is held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.project.golden import Golden
from harness.project.stack import missing_distribution
from harness.stage import Stage
from harness.values import Generation, ModelRef

if TYPE_CHECKING:
    from harness.reference.reference import Reference


class OwnIds:
    """Makes the replies. The reference of a model is read when it is first needed."""

    def __init__(self) -> None:
        self._references: dict[str, Reference] = {}

    def close(self) -> None:
        """End what the references have started."""
        for reference in self._references.values():
            reference.close()
        self._references.clear()

    def replying(self, model: ModelRef) -> Callable[[Golden, Generation], Golden | None]:
        """Return what gives a golden of a model with the reply to other ids; None where its file is not here."""

        def due(golden: Golden, generation: Generation) -> Golden | None:
            if isinstance(golden.generation, Generation) and generation.ids == golden.generation.ids:
                return golden
            if missing_distribution("tokenizers") or not model.path.is_file():
                return None
            # It stands on the reference, which is an extra.
            from harness.reference.reference import Reference

            reference = self._references.setdefault(model.name, Reference(model))
            try:
                return reference.again(Stage.POSTPROCESS, golden.model_copy(update={"generation": generation}))
            except UserError:
                # The reference does not know the file's vocabulary, or what reads it is not installed.
                return None

        return due
