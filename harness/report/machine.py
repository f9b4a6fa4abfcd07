"""Reports for machines: one JSON object on standard output, its form named and numbered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

ATTRIBUTE = "harness.attribute/1"
CHECK = "harness.check/1"
DEFECTS = "harness.defects/1"
DIFF = "harness.diff/1"
DEMO = "harness.demo/1"
DOCTOR = "harness.doctor/1"
INJECT = "harness.inject/1"
FINDINGS = "harness.findings/1"
FUZZ = "harness.fuzz/1"
RECORD = "harness.record/1"
STACKS = "harness.stacks/1"
TRACE = "harness.trace/1"


def to_json(schema: str, **content: Any) -> str:
    """Return a report as JSON.

    Args:
        schema: Its form and version.
        content: Models, or lists of models, or plain data, by key.
    """
    plain = {key: _plain(value) for key, value in content.items()}
    return json.dumps({"schema": schema, **plain}, ensure_ascii=True, indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
