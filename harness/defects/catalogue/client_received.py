"""Defects of a client on the way back: the server's answer is right, and the program that called gets another one."""

from __future__ import annotations

from harness.defects.defect import defect
from harness.values import Json

_TOOLS = ("smollm2-135m-instruct-tools",)
_THINKING = ("smollm2-135m-instruct-thinking",)


@defect(
    "cli-reasoning-dropped-from-response",
    place="received",
    sentence="The client's type of a message has no reasoning_content: the reasoning is dropped.",
    models=_THINKING,
    cause="API usage",
    references=("langchain-ai/langchain#35059",),
)
def reasoning_dropped(reply: Json) -> Json:
    """Drop the reasoning, from the deltas too."""
    return {**reply, "reasoning": None, "deltas": _without(reply, "reasoning_content")}


@defect(
    "cli-reasoning-joined-to-content",
    place="received",
    sentence="The client puts the reasoning in front of the content, as if the model had answered both.",
    models=_THINKING,
    cause="API usage",
)
def reasoning_joined(reply: Json) -> Json:
    """Answer with reasoning and content as one text."""
    if reply["reasoning"] is None:
        return reply
    return {**reply, "reasoning": None, "content": reply["reasoning"] + (reply["content"] or "")}


@defect(
    "cli-content-stripped-from-response",
    place="received",
    sentence="The client strips the answer of the white space around it.",
)
def content_stripped(reply: Json) -> Json:
    """Strip the content."""
    return {**reply, "content": None if reply["content"] is None else reply["content"].strip()}


@defect(
    "cli-content-as-ascii-in-response",
    place="received",
    sentence="The client writes the answer as ASCII: every other character becomes a question mark.",
    cause="tokenizer and text",
)
def content_as_ascii(reply: Json) -> Json:
    """Replace what is not ASCII."""
    content = reply["content"]
    return {**reply, "content": content and content.encode("ascii", errors="replace").decode("ascii")}


@defect(
    "cli-finish-reason-always-stop",
    place="received",
    sentence="The client says stop of every answer, also of one that the length limit has cut.",
)
def finish_reason_always_stop(reply: Json) -> Json:
    """Finish with `stop`."""
    return {**reply, "finish_reason": "stop"}


@defect(
    "cli-calls-dropped-from-response",
    place="received",
    sentence="The client's type of a message has no tool_calls: the calls are dropped.",
    models=_TOOLS,
    cause="API usage",
)
def calls_dropped(reply: Json) -> Json:
    """Drop the calls, from the deltas too."""
    return {**reply, "tool_calls": None, "deltas": _without(reply, "tool_calls")}


def _without(reply: Json, name: str) -> list[Json] | None:
    deltas = reply["deltas"]
    return deltas and [{key: value for key, value in delta.items() if key != name} for delta in deltas]
