"""The reference of the client stage: what OpenAI's chat-completions format says must reach the server.

Messages, tools and tool choice pass unchanged, whatever their order and characters, and every setting that the caller
gives is in force; one that is left out is the server's to choose. `stop` may be one string or a list of them.
Template variables travel as `chat_template_kwargs`, the name that vLLM gave them and llama.cpp took over.
Source: the chat-completions reference of OpenAI's OpenAPI description, `CreateChatCompletionRequest`.
"""

from __future__ import annotations

from harness.errors import UserError
from harness.values import Case, Request

VERSION = "chat-completions format, rules of harness.reference.client 1"

_NOT_SETTINGS = frozenset({"messages", "tools", "tool_choice", "model", "user", "metadata"})


def expected_request(case: Case) -> Request:
    """Return what must reach the server.

    Raises:
        UserError: the body asks for something whose effect on the server is not specified here.
    """
    body = case.body
    for unspecified in ("functions", "function_call", "response_format"):
        if unspecified in body:
            raise UserError(f"case {case.name!r}: the reference does not know {unspecified!r} yet")
    settings = {name: value for name, value in body.items() if name not in _NOT_SETTINGS}
    if case.options.template_kwargs:
        settings["chat_template_kwargs"] = case.options.template_kwargs
    if isinstance(settings.get("stop"), str):
        settings["stop"] = [settings["stop"]]
    tools = body.get("tools")
    return Request(
        messages=tuple(body["messages"]),
        tools=None if tools is None else tuple(tools),
        tool_choice=body.get("tool_choice"),
        settings=settings,
    )
