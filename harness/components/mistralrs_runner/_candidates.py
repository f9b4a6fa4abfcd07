"""The child's side: what mistral.rs may have rendered. It shows no prompt, so texts are guessed here and proved later.

Nothing here need be right: a text counts only once the engine's own numbers show that it was fed exactly that.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]


def candidates(
    template: str,
    special_texts: Mapping[str, str],
    messages: Sequence[Message],
    tools: Sequence[Any] | None,
    variables: Mapping[str, Any],
) -> list[str]:
    """Return the texts that plain Jinja2 renders, of the messages as they are and as a server may reduce them."""
    found: dict[str, None] = {}
    environment = _environment()
    for view in _views(messages):
        given = {**special_texts, **variables, "messages": view, "tools": tools, "add_generation_prompt": True}
        try:
            found[environment.from_string(template).render(**given)] = None
        except Exception:  # noqa: BLE001, S112 - a text that cannot be rendered is no candidate
            continue
    return list(found)


def _views(messages: Sequence[Message]) -> Iterator[list[Message]]:
    yield list(messages)
    for join in ("", " ", "\n"):
        yield [_flat(message, join) for message in messages]
    yield [{"role": message.get("role"), "content": _flat(message, "")["content"]} for message in messages]


def _flat(message: Message, join: str) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return {**message, "content": content or ""}
    return {**message, "content": join.join(str(part.get("text", "")) for part in content)}


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return made


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
