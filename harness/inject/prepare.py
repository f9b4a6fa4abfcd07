"""From a stack's name to a manifest: the prompt is that of a golden case, the limit that of the measured noise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from harness.errors import UserError
from harness.inject.campaign import Manifest, Setup, sites_of
from harness.inject.draw import draw, kinds_named
from harness.inject.fault import Phase
from harness.llama.laboratory.noise import floor_of_one
from harness.models.gguf import sha256_of
from harness.project.cases import cases_for
from harness.project.golden import load_golden, load_provenance
from harness.project.project import Project
from harness.project.stack import load_stack, resolve_model
from harness.stage import Stage
from harness.values import Generation

_COMPONENT: Final = "llama-cpp-python"
PHASES: Final[tuple[Phase, ...]] = ("prefill", "first", "decode")
_ROOM: Final = 1.2
"""Memory that an engine takes over its file's size, at least."""


def prepare(
    project: Project,
    stack: str,
    model: str | None,
    case: str,
    *,
    count: int,
    seed: int,
    kinds: Sequence[str],
    phases: Sequence[Phase],
    steps: int,
    threads: int,
    context: Mapping[str, float] | None = None,
) -> Manifest:
    """Draw a campaign.

    Args:
        project: Where stacks and goldens are.
        stack: A stack whose inference is llama-cpp-python's.
        model: One of its models; the first if None.
        case: The case whose prompt is fed.
        count: How many faults.
        seed: What they are drawn from.
        kinds: Kinds or channels of faults.
        phases: When those in activations are there.
        steps: How many ids are generated after the first.
        threads: How many threads compute.
        context: Further fields of `llama_context_params`.

    Raises:
        UserError: one of these does not exist or does not go with the others, or the model is too big for this machine.
    """
    found = load_stack(project, stack)
    if found.stages.component(Stage.INFERENCE) != _COMPONENT:
        raise UserError(f"no fault can be planted in the engine of stack {stack!r}", f"harness inject {_COMPONENT}")
    reference = resolve_model(project, model or found.models[0])
    wanted = kinds_named(kinds)
    for phase in phases:
        if phase not in PHASES:
            raise UserError(f"there is no phase {phase!r}", f"known are {', '.join(PHASES)}")
    _check_memory(reference.path.stat().st_size)
    (asked,) = cases_for(project, reference.name, (case,))
    golden = load_golden(project, reference, asked, load_provenance(project, reference))
    if golden.tokens is None or not isinstance(golden.generation, Generation) or len(golden.tokens.ids) < 3:
        raise UserError(f"case {case!r} has no prompt that an engine can go on from", "choose another: --case")
    floor = floor_of_one(project, reference.name)
    if floor is None:
        raise UserError(
            f"no noise was measured of {reference.name!r}, so nothing can tell a small effect from none",
            f"harness record {reference.name} --noise {stack}",
        )
    setup = Setup(
        path=str(reference.path.resolve()),
        sha256=sha256_of(reference.path),
        prompt=golden.tokens.ids,
        steps=steps,
        limit=floor.limit,
        threads=threads,
        context=dict(context or {}),
    )
    sites = sites_of(setup)
    faults = draw(sites, count, seed, wanted, phases, steps)
    hurt = sorted({fault.site for fault in faults} & sites["weights"].keys())
    return Manifest(
        model=reference.name,
        engine=sites.pop("engine"),
        setup=setup,
        seed=seed,
        kinds=wanted,
        population=population(sites, wanted, phases, steps),
        types={name: sites["weights"][name]["type"] for name in hurt},
        faults=faults,
    )


def population(sites: Mapping[str, Any], kinds: Sequence[str], phases: Sequence[Phase], steps: int) -> int | None:
    """Return how many single-bit faults these kinds have in all; None where a kind is no flip of a bit.

    Args:
        sites: What there is to hurt; see `Subject.sites`.
        kinds: The kinds.
        phases: When faults in activations are there.
        steps: How many ids are generated after the first.
    """
    moments = {"prefill": int(sites["prompt"]), "first": 1, "decode": max(steps - 1, 1)}
    counted = {
        "activation-bit": 32 * sum(sites["activations"].values()) * sum(moments[phase] for phase in phases),
        "weight-bit": sum(one["blocks"] * sum(one["bits"].values()) for one in sites["weights"].values()),
        "cache-bit": sum(sites["prompt"] * one["elements"] * one["bits"] for one in sites["caches"].values()),
    }
    return sum(counted[kind] for kind in kinds) if set(kinds) <= counted.keys() else None


def _check_memory(size: int) -> None:
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size * _ROOM > have:
        raise UserError(
            f"the model has {size / 2**30:.1f} GB and this machine {have / 2**30:.1f} GB of memory",
            "faults edit weights in memory; use a smaller model, or one quantized further",
        )
