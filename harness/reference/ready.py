"""What a check of a model needs, made when it is missing: goldens of the cases wanted, and the noise of an engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from harness.checking.noise import load_noise, measure_noise, save_noise
from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.project.cases import cases_for
from harness.project.golden import GoldenError, Provenance, load_golden, load_provenance
from harness.project.golden_writing import writing
from harness.project.project import Project
from harness.project.stack import Stack, load_component, load_stack, resolve_model
from harness.reference.model_config import ModelConfig
from harness.reference.record import Change, Recording
from harness.reference.reference import Reference
from harness.stage import Stage
from harness.values import Case, ModelRef

QUICK: Final = (
    "system-and-user",
    "several-turns",
    "whitespace-before-digits",
    "digits-and-contractions",
    "emoji-and-accents",
    "control-text",
    "cut-by-length",
    "sampled",
    "stop-across-tokens",
    "tools-no-system",
    "call-one",
    "reasoning-in-history",
)
"""The cases of a first look: those that notice most defects (`docs/studies/attribution.md`), of each form of answer."""
_BYTES_A_WEIGHT: Final = 5.4
"""Of the reference: float32 and what it computes with; 722 MB for a model of 135 million weights."""
_SECONDS_A_WEIGHT: Final = 2e-8
"""A golden's with its noise, on two cores: some 2.7 s for 135 million weights."""
_LOCAL: Final = ("llama-server", "llama-cpp-python")
"""Stacks of this machine whose engine's noise is measured where that of the stack under test cannot be."""

Progress = Callable[[str, int, int], None]


def quick_cases(project: Project, model: str) -> tuple[str, ...]:
    """Return the names of the cases of a first look that are asked of a model."""
    asked = {case.name for case in cases_for(project, model)}
    return tuple(name for name in QUICK if name in asked)


def missing_goldens(project: Project, model: ModelRef, cases: Sequence[str]) -> tuple[Case, ...]:
    """Return the cases that have no golden that holds."""
    asked = cases_for(project, model.name, cases)
    computes = not why_not_computed(model)
    try:
        provenance = load_provenance(project, model)
    except GoldenError:
        return asked
    return tuple(case for case in asked if not _holds(project, model, case, provenance, computes))


def cost(project: Project, model: str, cases: Sequence[str]) -> str:
    """Return what will be made for a model, and what that costs, in one line; empty where nothing is missing.

    Raises:
        ModelFileError: the file cannot be read.
    """
    found = resolve_model(project, model)
    cases = _with_those_of_noise(project, model, cases, not why_not_computed(found))
    lacking = missing_goldens(project, found, cases)
    if not lacking and load_noise(project, model) is not None:
        return ""
    if not lacking and why_not_computed(found):
        return ""
    weights = _weights(found)
    head = f"{found.path.name} has no goldens yet: {len(lacking)} are made now, once,"
    if not lacking:
        head = f"{found.path.name} was not measured yet: the noise of a healthy engine is, now, once,"
    kept = f"and kept in {project.root}"
    if why := why_not_computed(found):
        return f"{head} up to the ids of the prompt, {kept}; of what it answers there are none: {why}"
    seconds = weights * _SECONDS_A_WEIGHT * max(len(lacking), 1)
    return f"{head} in about {max(seconds, 1):.0f} s and {weights * _BYTES_A_WEIGHT / 1e9:.1f} GB of memory, {kept}"


def _with_those_of_noise(project: Project, model: str, cases: Sequence[str], computes: bool) -> tuple[str, ...]:
    """Return the cases with those of a first look, where noise is to be measured: two cases show too little of it."""
    if not computes or load_noise(project, model) is not None:
        return tuple(cases)
    return tuple(dict.fromkeys((*cases, *quick_cases(project, model))))


def why_not_computed(model: ModelRef) -> str:
    """Return why the reference does not compute a model here, in a few words; empty where it does.

    Raises:
        ModelFileError: the file cannot be read.
    """
    needed, free = _weights(model) * _BYTES_A_WEIGHT, available_memory()
    if free is not None and needed > free:
        return f"the reference needs {needed / 1e9:.0f} GB of memory, of which {free / 1e9:.0f} GB are free"
    try:
        ModelConfig.from_model_file(read_model_file(model.path))
    except UserError as error:
        return error.message
    return ""


def available_memory() -> int | None:
    """Return how many bytes of memory can be had; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _weights(model: ModelRef) -> int:
    return sum(int(tensor.n_elements) for tensor in read_model_file(model.path).tensors)


def make_ready(project: Project, model: str, stack: Stack, cases: Sequence[str], progress: Progress) -> None:
    """Record the goldens of the cases that have none, and measure the noise where none was measured.

    Args:
        project: Where they are kept.
        model: The model's name.
        stack: The stack that is going to be checked.
        cases: The names of the cases.
        progress: Told of every case.

    Raises:
        UserError: the reference does not know the file, or nothing can be written.
    """
    found = resolve_model(project, model)
    computes = not why_not_computed(found)
    cases = _with_those_of_noise(project, model, cases, computes)
    lacking = missing_goldens(project, found, cases)
    if lacking:
        recording = Recording(
            project, found, frozenset({Change.NEW, Change.CHANGED}), only=frozenset(c.name for c in lacking)
        )
        for done, recorded in enumerate(recording.run(partial(Reference, computes=computes))):
            progress(f"golden of {recorded.case}", done, len(lacking))
    if computes and load_noise(project, model) is None:
        _measure(project, found, stack, cases, progress)


def _measure(project: Project, model: ModelRef, stack: Stack, cases: Sequence[str], progress: Progress) -> None:
    provenance = load_provenance(project, model)
    goldens = [load_golden(project, model, case, provenance) for case in cases_for(project, model.name, cases)]
    own = stack.stages.component(Stage.INFERENCE)
    for name in sorted(_LOCAL, key=lambda one: one != own):
        try:
            local = load_stack(project, name)
            component = local.stages.component(Stage.INFERENCE)
            load_component(component)
        except UserError:
            # Its package is not installed.
            continue

        def say(what: str, done: int, of: int) -> None:
            progress(f"noise, {what}", done, of)

        noise = measure_noise(local, model, goldens, say, brief=True)
        with writing(project, model.name):
            save_noise(project, model.name, component, noise)
        return


def _holds(project: Project, model: ModelRef, case: Case, provenance: Provenance, computes: bool) -> bool:
    try:
        golden = load_golden(project, model, case, provenance)
    except GoldenError:
        return False
    # One that was made where there was not the memory to compute it is made whole where there is.
    return not (computes and golden.tokens is not None and golden.generation is None)
