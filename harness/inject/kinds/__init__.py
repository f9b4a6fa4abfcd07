"""How each kind of fault is done to a running engine, and undone. In the engine's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.inject.kinds.activations import activation
from harness.inject.kinds.cache import cache_bit
from harness.inject.kinds.operators import OPERATORS, operator
from harness.inject.kinds.strike import Planting
from harness.inject.kinds.weights import weight

PLANTINGS: Final[Mapping[str, Planting]] = {
    **dict.fromkeys(("activation-bit", "activation-scale", "activation-zero", "activation-nan"), activation),
    **dict.fromkeys(("weight-bit", "weight-zero", "weight-swap", "weight-permute", "weight-nan", "weight-inf"), weight),
    **dict.fromkeys(OPERATORS, operator),
    "cache-bit": cache_bit,
}
"""The kinds that are done to memory or to a node. The others are done by feeding: see `harness.inject.feeding`."""
