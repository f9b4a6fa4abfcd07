"""One engine for all tests of faults: a short prompt, and room for a few rows beside the control."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.process.child import Child
from harness.process.worker import Worker
from harness.values import ModelRef

PROMPT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
"""user: What is the capital of France? assistant:"""
STEPS = 2


@pytest.fixture(scope="session")
def subject(engine: str, smollm: ModelRef) -> Iterator[Child]:
    init = {"path": str(smollm.path), "prompt": PROMPT, "steps": STEPS, "rows": 8, "limit": 0.05, "threads": 1}
    child = Child(Worker("harness.inject.subject:Subject", init, seconds=120))
    yield child
    child.close()
