"""How far off the engine that the laboratory sets up may be: where that is found among what was measured."""

from __future__ import annotations

from typing import Final

from harness.checking.compare.inference import Floor
from harness.checking.noise import load_noise
from harness.project.project import Project

MEASURED: Final = ("llama-cpp-python", "cache f16/f16, no flash attention")
"""The component and the class of settings that `Engine` is one of."""


def floor_of_one(project: Project, model: str) -> Floor | None:
    """Return how far one run may be from the reference; None where it was not measured for this model.

    Raises:
        UserError: the file with the noise is wrong.
    """
    noise = load_noise(project, model)
    return None if noise is None else noise.floor(*MEASURED)


def floor_of_two(one: Floor | None) -> Floor | None:
    """Return how far apart two runs may be, each as far off as one may be."""
    if one is None:
        return None
    return Floor(limit=2 * one.limit, mean=2 * one.mean, source=f"of each of two runs {one.source}")
