"""The swap: one stage of a stack run inside another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from harness.checking.running import RunningStack
from harness.project.stack import Stages
from harness.stage import Stage


def swapped(into: RunningStack, other: RunningStack, stages: Collection[Stage]) -> RunningStack:
    """Return a stack with some stages taken from another one; both stay open and in use.

    Args:
        into: The stack whose other stages stay.
        other: The stack that gives the stages.
        stages: Which.
    """
    sources = {stage: ("theirs", other) if stage in stages else ("ours", into) for stage in Stage}
    names = {stage.value: f"{side} {one.stack.stages.component(stage)}" for stage, (side, one) in sources.items()}
    parts = {names[stage.value]: one.part(stage) for stage, (_, one) in sources.items()}
    stack = into.stack.model_copy(update={"stages": Stages(**names)})
    # Stage after stage: the path that one part takes in one call cannot be taken by two.
    return replace(into, stack=stack, parts=parts, chat_route=None)
