"""Defects of what a template is given: the messages and tools that reach it are not those that were sent."""

from __future__ import annotations

import json

from harness.defects.catalogue._messages import (
    each,
    each_call,
    parts_of,
    same_role_merged,
    system_folded,
    text_of,
    with_text,
)
from harness.defects.catalogue._texts import edited
from harness.defects.defect import defect
from harness.values import Json

_TOOLS = ("smollm2-135m-instruct-tools",)


@defect(
    "tpl-tools-not-given",
    place="request",
    sentence="The template is rendered without the tools.",
    cause="API usage",
    models=_TOOLS,
    references=("oumi-ai/oumi#2599",),
    way="none",
)
@defect(
    "tpl-tools-unwrapped",
    place="request",
    sentence="The template gets the functions without the objects around them.",
    cause="API usage",
    models=_TOOLS,
    way="unwrapped",
)
def tools_changed(given: Json, way: str) -> Json:
    """Give other tools."""
    tools = given.get("tools")
    if not tools:
        return given
    ways = {
        "none": None,
        "unwrapped": [tool["function"] for tool in tools],
    }
    return {**given, "tools": ways[way]}


@defect(
    "tpl-tool-args-predecoded",
    place="request",
    sentence="The template gets the arguments of calls as Python writes objects, not as JSON.",
    cause="data and computation",
    models=_TOOLS,
    references=("ml-explore/mlx-lm#1371",),
)
def arguments_as_repr(given: Json) -> Json:
    """Decode the JSON, and write the object."""

    def change(call: Json) -> None:
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = str(json.loads(arguments) if isinstance(arguments, str) else arguments)

    return each_call(given, change)


@defect(
    "tpl-tool-history-flattened",
    place="request",
    sentence="Messages reach the template as role and text: calls are the text of their JSON, results have no id.",
    cause="data and computation",
    models=_TOOLS,
    references=("huggingface/text-generation-inference#3198",),
)
def history_flattened(given: Json) -> Json:
    """Write the calls into the content."""

    def change(message: Json) -> Json:
        calls = message.get("tool_calls")
        text = message.get("content") if not calls else json.dumps(calls, ensure_ascii=False)
        return {"role": message["role"], "content": text}

    return each(given, change)


@defect(
    "tpl-typed-vs-string-content-typed",
    place="request",
    sentence="Every content reaches the template as a list of parts, where it takes texts only.",
    cause="API usage",
    symptom="crash",
    references=("containers/ramalama#2422", "vllm-project/vllm#9358"),
)
def content_typed(given: Json) -> Json:
    """Put texts into parts."""

    def change(message: Json) -> Json:
        text = message.get("content")
        return with_text(message, [{"type": "text", "text": text}]) if isinstance(text, str) else message

    return each(given, change)


@defect(
    "tpl-typed-vs-string-content-string",
    place="request",
    sentence="A content of parts reaches the template as the text that Python makes of the list.",
    cause="data and computation",
    references=("containers/ramalama#2422",),
    way="repr",
)
@defect(
    "tpl-content-parts-joined",
    place="request",
    sentence="A content of parts reaches the template as their texts joined by a line break.",
    cause="data and computation",
    references=("vllm-project/vllm#9358",),
    way="newline",
)
def parts_flattened(given: Json, way: str) -> Json:
    """Give one text for the parts."""

    def change(message: Json) -> Json:
        parts = parts_of(message)
        if not parts:
            return message
        return with_text(message, str(parts) if way == "repr" else "\n".join(part["text"] for part in parts))

    return each(given, change)


@defect(
    "tpl-literal-think-split",
    place="request",
    sentence="What stands before a literal </think> in a text is taken for reasoning and removed.",
    cause="data and computation",
    references=("ollama/ollama#17262",),
)
def think_split(given: Json) -> Json:
    """Keep what follows the first such tag, in whatever message."""

    def change(message: Json) -> Json:
        _, tag, after = text_of(message).partition("</think>")
        return with_text(message, after) if tag else message

    return each(given, change)


@defect(
    "tpl-messages-merged",
    place="request",
    sentence="Neighbouring messages of one role reach the template as one.",
    cause="data and computation",
    references=("ollama/ollama#17757",),
)
def merged(given: Json) -> Json:
    """Join them."""
    return same_role_merged(given)


@defect(
    "tpl-system-folded",
    place="request",
    sentence="The system message reaches the template within the user's first one, though the template knows systems.",
    cause="data and computation",
)
def folded(given: Json) -> Json:
    """Give one message of the two."""
    return system_folded(given)


@defect(
    "tpl-messages-trimmed",
    place="request",
    sentence="The texts of messages reach the template without the white space around them.",
    cause="tokenizer and text",
)
def trimmed(given: Json) -> Json:
    """Strip them."""
    return each(
        given,
        lambda one: with_text(one, edited(one["content"], "stripped")) if isinstance(one.get("content"), str) else one,
    )
