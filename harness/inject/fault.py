"""What is hurt, where and when: a fault in the engine as a value, and what came of it."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import numpy as np

from harness.values import Value

Phase = Literal["load", "prefill", "first", "decode"]
"""When a fault is there: from loading on; while the prompt is fed; at the first generated token; at a later one."""

Outcome = Literal["void", "masked_identical", "masked_semantic", "sdc", "due_nan", "due_crash", "due_hang"]
"""`void`: it changed nothing where it was to strike. `masked`: the ids are those of the clean run, with the same
numbers bit for bit, or with others. `sdc`: silent data corruption, other ids and no error. `due`: a detected
unrecoverable error. The words are those of the fault-injection literature."""

OUTCOMES: Final[tuple[Outcome, ...]] = (
    "masked_identical",
    "masked_semantic",
    "sdc",
    "due_nan",
    "due_crash",
    "due_hang",
    "void",
)


class Fault(Value):
    """One fault.

    Attributes:
        kind: What is done; see `harness.inject.kinds.KINDS`.
        site: The node (`ffn_out-3/MUL_MAT`), tensor (`blk.3.ffn_down.weight`) or cache (`cache_k_l3`) that it strikes;
            empty for the logits.
        module: The part of a layer that this is: `ffn_down`, `attn_q`, `l_out`, ...
        layer: The layer, from 0 on; None for what is before, after or in all of them.
        phase: When it is there.
        step: The generated token at which it strikes, from 0 on.
        position: The position of the prompt, or of the cache, that it strikes.
        element: The element of the row, tensor or cell; of a packed tensor, the block.
        bit: The bit that flips, 0 the lowest, of the element or of the field.
        field: The field of a packed block: `scale`, `minimum`, `sub_scale`, `quant`, `quant_high`.
        value: What it multiplies by or sets.
    """

    kind: str
    site: str = ""
    module: str = ""
    layer: int | None = None
    phase: Phase = "load"
    step: int = 0
    position: int | None = None
    element: int | None = None
    bit: int | None = None
    field: str | None = None
    value: float | None = None

    @property
    def id(self) -> str:
        """A name that is the same for the same fault."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]


class Injection(Value):
    """What came of a fault.

    Attributes:
        fault: Its id.
        outcome: What came of it.
        detected_by: The checks that noticed: `digest` (the logits differ in a bit), `nan`, `distribution` (their KL
            divergence from the clean run exceeds the limit), `text` (another id was chosen).
        divergence: The largest KL divergence of a position from the clean run, in nats; None where it is no number.
        changed_at: The first generated position with another id; None where all are the same.
        reason: Why it is void, or how the engine ended.
    """

    fault: str
    outcome: Outcome
    detected_by: tuple[str, ...] = ()
    divergence: float | None = None
    changed_at: int | None = None
    reason: str | None = None


class LeakError(Exception):
    """A clean run after faults is not what it was before: something was not undone. The text names their kinds."""


def generator(*spec: object) -> np.random.Generator:
    """Return random numbers that depend on a specification and on nothing else: SHA-256 of it into PCG64."""
    digest = hashlib.sha256("/".join(map(str, spec)).encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
