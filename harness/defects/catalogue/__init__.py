"""The catalogue: defects that were reported of real stacks, and parametric kinds; a module a stage or a kind."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from harness.defects.defect import Defect, registered
from harness.defects.places import module_at
from harness.errors import UserError


def catalogue() -> Mapping[str, Defect]:
    """Return every defect of ours, by id, in the order of their modules."""
    ours = [importlib.import_module(f"{__name__}.{one.name}").__name__ for one in pkgutil.iter_modules(__path__)]
    # Whichever module was imported first.
    return {name: one for module in ours for name, one in registered().items() if _module(one) == module}


def _module(defect: Defect) -> str:
    return defect.hook.rpartition(":")[0]


def defects_in(path: Path) -> Mapping[str, Defect]:
    """Return the defects that a user's file registers, by id.

    Raises:
        UserError: it cannot be imported, registers nothing, or what it registers is wrong or taken.
    """
    catalogue()
    name = module_at(path).__name__
    found = {key: one for key, one in registered().items() if _module(one) == name}
    if not found:
        raise UserError(f"{path} registers no defect", "decorate a function with harness.defects.defect")
    return found
