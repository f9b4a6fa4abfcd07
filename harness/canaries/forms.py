"""Answers in a form that the caller asks for: JSON, and JSON of a schema."""

from __future__ import annotations

import importlib.util
import json
from typing import Any, Final

from harness.canaries.asking import Asking, content, finish
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.stage import Stage
from harness.values import Json

_SCHEMA: Final[Json] = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["zq-violet", "zq-amber"]}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
_ASKED: Final = 'Answer with this JSON and nothing else: {"colour": "blue", "count": 2}'
"""OpenAI refuses JSON mode where no message speaks of JSON."""


def _parsed(ask: Asking, given: Json) -> tuple[Any, Said | None]:
    answer = ask.chat(_ASKED, response_format=given, max_tokens=96)
    text = content(answer)
    try:
        return json.loads(text), None
    except ValueError:
        if finish(answer) == "length" and text.lstrip()[:1] in ("{", ""):
            return None, unseen("its model did not end within 96 tokens")
        return None, wrong(text, f"asked for JSON, it answers {text[:60]!r}")


@canary("JSON", Stage.INFERENCE, "the content is a JSON object", "response_format json_object")
def _json(ask: Asking) -> Said:
    value, said = _parsed(ask, {"type": "json_object"})
    if said is not None:
        return said
    return right(value) if isinstance(value, dict) else wrong(value, f"asked for an object, it answers {value!r}")


@canary("JSON of a schema", Stage.INFERENCE, "the content is of the schema", "response_format json_schema")
def _schema(ask: Asking) -> Said:
    given = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA}}
    value, said = _parsed(ask, given)
    if said is not None:
        return said
    if importlib.util.find_spec("jsonschema") is None:
        return unseen("jsonschema, which would validate it, is not installed")
    import jsonschema

    try:
        jsonschema.validate(value, _SCHEMA)
    except jsonschema.ValidationError as error:
        return wrong(value, f"its answer is not of the schema that was given: {error.message}")
    return right(value)
