"""Drawing the faults of a campaign before any of them is injected: stratified, and the same from the same seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Final

import numpy as np

from harness.errors import UserError
from harness.inject.fault import Fault, Phase, generator

_FLOAT_BITS: Final = 32
_LAYER = re.compile(r"(?:blk\.|-|_l)(\d+)(?=[./]|$)")
_LAYERED: Final = ("operator-rms-eps", "operator-rope-base", "operator-rope-dims", "operator-rope-style",
                   "operator-softmax-scale", "operator-soft-cap", "operator-window", "operator-mask-leak")  # fmt: skip
_VALUES: Final[Mapping[str, tuple[float, ...]]] = {
    "activation-scale": (0.5, 0.9, 1.01, 1.1, 2.0, 10.0),
    "operator-rms-eps": (0.0, 1e-6, 1e-3, 1e-2),
    "operator-rope-base": (1e4, 5e5, 1e6),
    "operator-rope-dims": (16, 32),
    "operator-rope-style": (2,),
    "operator-softmax-scale": (0.5, 0.9, 1.1, 2.0),
    "operator-soft-cap": (5.0, 20.0, 50.0),
    "operator-window": (4, 8, 16),
    "cache-position": (1, 2, 8),
    "logits-scale": (0.03, 0.5, 2.0, 34.0),
}
"""What a fault multiplies by or sets, of which one is drawn. Style 2 is NeoX's pairing of the rotated dimensions."""
KINDS: Final[tuple[str, ...]] = (
    "activation-bit",
    "activation-scale",
    "activation-zero",
    "activation-nan",
    "weight-bit",
    "weight-zero",
    "weight-swap",
    "weight-permute",
    "weight-nan",
    "weight-inf",
    *_LAYERED,
    "cache-bit",
    "cache-stale",
    "cache-dropped",
    "cache-duplicated",
    "cache-position",
    "cache-shared",
    "logits-scale",
    "logits-drop-top",
)
"""Every kind of fault that a campaign knows."""


def kinds_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds that names stand for: a kind, or its first word (`weight`) for all of that channel.

    Raises:
        UserError: there is no such kind.
    """
    found: list[str] = []
    for name in names:
        matching = [kind for kind in KINDS if kind == name or kind.startswith(f"{name}-")]
        if not matching:
            channels = dict.fromkeys(kind.partition("-")[0] for kind in KINDS)
            raise UserError(f"there is no fault of kind {name!r}", f"known are {', '.join((*channels, *KINDS))}")
        found += matching
    return tuple(dict.fromkeys(found))


def draw(
    sites: Mapping[str, Any],
    count: int,
    seed: int,
    kinds: Sequence[str],
    phases: Sequence[Phase],
    steps: int,
) -> tuple[Fault, ...]:
    """Draw faults, no two the same.

    Kinds take turns, and within a kind its sites do, in a drawn order: a narrow tensor is struck as often as a wide
    one.

    Args:
        sites: What there is to hurt; see `Subject.sites`.
        count: How many; fewer come where a kind has no more.
        seed: What they depend on, beside the sites.
        kinds: The kinds.
        phases: When faults in activations and operators are there: `prefill`, `first`, `decode`.
        steps: How many ids are generated after the first.

    Raises:
        UserError: nothing that these kinds could hurt is there.
    """
    strata = [(kind, _strata(kind, sites)) for kind in kinds]
    turns = []
    for kind, own in strata:
        order = generator(seed, "order", kind).permutation(len(own))
        if len(own):
            turns.append((kind, cycle([own[at] for at in order])))
    if not turns:
        raise UserError(f"the engine has nothing that faults of kind {', '.join(kinds)} could hurt")
    found: dict[str, Fault] = {}
    for at in range(8 * count):
        kind, in_turn = turns[at % len(turns)]
        site = next(in_turn)
        fault = _drawn(kind, site, sites, phases, steps, generator(seed, at, kind, *site))
        found.setdefault(fault.id, fault)
        if len(found) == count:
            break
    return tuple(found.values())


def _strata(kind: str, sites: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what is drawn from in turn: sites, and of packed tensors their fields."""
    channel = kind.partition("-")[0]
    if channel == "activation":
        return [(site,) for site in sites["activations"]]
    if channel == "weight":
        weights = sites["weights"]
        if kind == "weight-bit":
            return [(name, field) for name, one in weights.items() for field in one["bits"]]
        if kind in ("weight-nan", "weight-inf"):
            return [
                (name, field) for name, one in weights.items() for field in ("scale", "value") if field in one["bits"]
            ]
        if kind == "weight-zero":
            return [(name,) for name in weights]
        return [(name,) for name, one in weights.items() if one["rows"] > 1 and _layer(name) is not None]
    if kind == "cache-bit":
        return [(name,) for name in sites["caches"]]
    if kind in _LAYERED:
        return [(str(layer),) for layer in range(sites["n_layer"])]
    return [("",)]


def _drawn(
    kind: str,
    site: tuple[str, ...],
    sites: Mapping[str, Any],
    phases: Sequence[Phase],
    steps: int,
    random: np.random.Generator,
) -> Fault:
    length = int(sites["prompt"])
    spec: dict[str, Any] = {"kind": kind, "module": module_of(site[0]), "layer": _layer(site[0])}
    if kind in _VALUES:
        spec["value"] = float(random.choice(_VALUES[kind]))
    channel = kind.partition("-")[0]
    if kind in _LAYERED:
        spec |= {"layer": int(site[0]), "module": kind.removeprefix("operator-")}
        spec |= {"phase": "prefill", "position": int(random.integers(length - 1))} if kind.endswith("leak") else {}
    elif channel == "activation":
        phase = str(random.choice(phases))
        spec |= {"site": site[0], "phase": phase, "element": int(random.integers(sites["activations"][site[0]]))}
        if phase == "prefill":
            spec["position"] = int(random.integers(length))
        elif phase == "decode":
            spec["step"] = int(random.integers(1, steps)) if steps > 1 else 0
        if kind == "activation-bit":
            spec["bit"] = int(random.integers(_FLOAT_BITS))
    elif channel == "weight":
        spec["site"] = site[0]
        if len(site) > 1:
            weight = sites["weights"][site[0]]
            spec |= {"field": site[1], "element": int(random.integers(weight["blocks"]))}
            if kind == "weight-bit":
                spec["bit"] = int(random.integers(weight["bits"][site[1]]))
    elif kind == "cache-bit":
        cache = sites["caches"][site[0]]
        spec |= {"site": site[0], "position": int(random.integers(length))}
        spec |= {"element": int(random.integers(cache["elements"])), "bit": int(random.integers(cache["bits"]))}
    elif channel == "cache":
        spec |= {"position": int(random.integers(1, length - 1)), "module": "sequence"}
    else:
        spec |= {"step": int(random.integers(steps + 1)), "module": "logits", "phase": "decode"}
    return Fault(**spec)


def module_of(site: str) -> str:
    """Return which part of a layer a site is: `ffn_down` of `blk.3.ffn_down.weight`, `l_out` of `l_out-3/ADD`."""
    if site.startswith("cache_"):
        return site.rpartition("_")[0]
    name, _, operator = site.removesuffix(".weight").removesuffix(".bias").partition("/")
    name = name.rpartition(".")[2] if name.startswith("blk.") else re.sub(r"-\d+$", "", name)
    return f"{name} ({operator})" if name in ("Qcur", "Kcur") else name


def _layer(site: str) -> int | None:
    found = _LAYER.search(site)
    return None if found is None else int(found[1])
