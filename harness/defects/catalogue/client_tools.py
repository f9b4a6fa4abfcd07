"""Defects of a client's program: what it does to the tools that it declares and to calls in the history."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from harness.defects.catalogue._messages import each, each_call, of_roles, text_of, with_text
from harness.defects.defect import defect
from harness.values import Json

_TOOLS = ("smollm2-135m-instruct-tools",)


@defect(
    "cli-tools-not-forwarded",
    place="body",
    sentence="The tools are not sent.",
    cause="API usage",
    models=_TOOLS,
    references=("oumi-ai/oumi#2599",),
    way="none",
)
@defect(
    "cli-tools-first-only",
    place="body",
    sentence="Of several tools only the first is sent.",
    cause="API usage",
    models=_TOOLS,
    way="first",
)
@defect(
    "cli-tools-reordered",
    place="body",
    sentence="The tools are sent in the order of their names.",
    cause="data and computation",
    models=_TOOLS,
    way="sorted",
)
@defect(
    "cli-tools-unwrapped",
    place="body",
    sentence="The functions are sent without the object that says that they are functions.",
    cause="API usage",
    models=_TOOLS,
    way="unwrapped",
)
@defect(
    "cli-tools-as-functions",
    place="body",
    sentence="The tools are sent in the field `functions` of the old API.",
    cause="API usage",
    models=_TOOLS,
    way="functions",
)
@defect(
    "cli-tools-in-system-text",
    place="body",
    sentence="The tools are written into the system message and not sent as tools.",
    cause="API usage",
    models=_TOOLS,
    way="system",
)
@defect(
    "cli-tool-choice-forced",
    place="body",
    sentence="Wherever tools are declared the first of them is forced.",
    cause="API usage",
    models=_TOOLS,
    way="forced",
)
def tools_changed(body: Json, way: str) -> Json:
    """Send the tools otherwise."""
    tools = body.get("tools")
    if not tools:
        return body
    functions = [tool["function"] for tool in tools]
    without = {name: value for name, value in body.items() if name != "tools"}
    if way == "none":
        return without
    if way == "functions":
        return {**without, "functions": functions}
    if way == "forced":
        return {**body, "tool_choice": {"type": "function", "function": {"name": functions[0]["name"]}}}
    if way == "system":
        said = "\n".join(json.dumps(one, ensure_ascii=False) for one in functions)
        system = of_roles(body["messages"][:1], "system")
        text = "\n\n".join([*map(text_of, system), f"You have these functions:\n{said}"])
        return {**without, "messages": [{"role": "system", "content": text}, *body["messages"][len(system) :]]}
    ways = {
        "first": tools[:1],
        "sorted": sorted(tools, key=lambda tool: str(tool["function"]["name"])),
        "unwrapped": functions,
    }
    return {**body, "tools": ways[way]}


@defect(
    "cli-tool-descriptions-truncated",
    place="body",
    sentence="The descriptions of functions are cut after 20 characters.",
    cause="data and computation",
    models=_TOOLS,
    way="truncated",
)
@defect(
    "cli-tool-enum-dropped",
    place="body",
    sentence="The values that a parameter may have are not sent.",
    cause="data and computation",
    models=_TOOLS,
    way="enum",
)
@defect(
    "cli-tool-schema-sorted",
    place="body",
    sentence="The keys of the tools' schemas are sent in alphabetical order.",
    cause="data and computation",
    models=_TOOLS,
    way="keys",
)
@defect(
    "cli-tool-names-sanitised",
    place="body",
    sentence="What is no ASCII letter, digit, hyphen or underscore in a function's name is sent as an underscore.",
    cause="tokenizer and text",
    models=_TOOLS,
    way="names",
)
def schemas_changed(body: Json, way: str) -> Json:
    """Send other declarations of the same tools."""
    if not body.get("tools"):
        return body
    tools = copy.deepcopy(body["tools"])
    if way == "keys":
        return {**body, "tools": json.loads(json.dumps(tools, sort_keys=True))}
    for function in (tool["function"] for tool in tools):
        if way == "truncated" and "description" in function:
            function["description"] = function["description"][:20]
        elif way == "names":
            function["name"] = re.sub(r"[^A-Za-z0-9_-]", "_", function["name"])
        elif way == "enum":
            function["parameters"] = _without(function.get("parameters"), "enum")
    return {**body, "tools": tools}


@defect(
    "cli-tool-args-double-encoded",
    place="body",
    sentence="The arguments of calls in the history are the JSON of their JSON.",
    cause="data and computation",
    models=_TOOLS,
    references=("QwenLM/Qwen3-Coder#444",),
    way="encoded",
)
@defect(
    "cli-tool-args-decoded",
    place="body",
    sentence="The arguments of calls in the history are sent as objects, not as texts.",
    cause="API usage",
    models=_TOOLS,
    way="decoded",
)
@defect(
    "cli-tool-ids-lost",
    place="body",
    sentence="Calls in the history, and their results, have no ids.",
    cause="API usage",
    models=_TOOLS,
    way="ids",
)
def calls_changed(body: Json, way: str) -> Json:
    """Send other calls of tools in the history."""

    def change(call: Json) -> None:
        function = call["function"]
        if way == "ids":
            call.pop("id", None)
        elif way == "encoded":
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        elif isinstance(function["arguments"], str):
            function["arguments"] = json.loads(function["arguments"])

    changed = each_call(body, change)
    if way != "ids":
        return changed
    return each(changed, lambda message: {name: value for name, value in message.items() if name != "tool_call_id"})


@defect(
    "cli-tool-calls-dropped",
    place="body",
    sentence="Calls of tools are left out of the history.",
    cause="API usage",
    models=_TOOLS,
    way="dropped",
)
@defect(
    "cli-tool-calls-first-only",
    place="body",
    sentence="Of several calls in one turn of the history only the first is sent.",
    cause="API usage",
    models=_TOOLS,
    way="first",
)
@defect(
    "cli-tool-results-as-user",
    place="body",
    sentence="The results of tools are sent as the user's messages.",
    cause="API usage",
    models=_TOOLS,
    way="user",
)
def turns_with_tools_changed(body: Json, way: str) -> Json:
    """Send other turns with tools in them."""

    def change(message: Json) -> Json:
        if message["role"] == "tool":
            return with_text({"role": "user"}, text_of(message)) if way == "user" else message
        calls = message.get("tool_calls")
        if calls and way == "first":
            message["tool_calls"] = calls[:1]
        elif calls and way == "dropped":
            del message["tool_calls"]
        return message

    return each(body, change)


def _without(schema: Any, keyword: str) -> Any:
    """Return a JSON schema without a keyword at any depth; a property of that name is kept."""
    if not isinstance(schema, dict):
        return schema
    left = {name: value for name, value in schema.items() if name != keyword}
    if isinstance(left.get("properties"), dict):
        left["properties"] = {name: _without(value, keyword) for name, value in left["properties"].items()}
    if "items" in left:
        left["items"] = _without(left["items"], keyword)
    return left
