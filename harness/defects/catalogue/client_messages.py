"""Defects of a client's program: what it does to the conversation before it is sent."""

from __future__ import annotations

import copy

from harness.defects.catalogue._messages import (
    each,
    of_roles,
    same_role_merged,
    system_folded,
    text_of,
)
from harness.defects.defect import defect
from harness.values import Json

_BUDGET = 60
"""Characters of a conversation that a client with a small context keeps."""


@defect(
    "cli-system-dropped",
    place="body",
    sentence="System messages are not sent.",
    cause="API usage",
    way="system",
)
@defect(
    "cli-empty-messages-dropped",
    place="body",
    sentence="Messages without a text are not sent.",
    cause="data and computation",
    way="empty",
)
@defect(
    "cli-first-message-dropped",
    place="body",
    sentence="The first message of a longer conversation is cut off, as by a window that counts it as the oldest.",
    cause="algorithm",
    way="first",
)
@defect(
    "cli-history-dropped",
    place="body",
    sentence="Only the last message is sent.",
    cause="API usage",
    way="history",
)
@defect(
    "cli-assistant-last-dropped",
    place="body",
    sentence="An assistant's message at the end of the conversation is not sent.",
    cause="API usage",
    way="assistant last",
)
def messages_left_out(body: Json, way: str) -> Json:
    """Send fewer messages."""
    messages: list[Json] = body["messages"]
    ways = {
        "system": [one for one in messages if one["role"] != "system"],
        "empty": [one for one in messages if text_of(one) or one.get("tool_calls")],
        "first": messages[1:] if len(messages) > 1 else messages,
        "history": messages[-1:],
        "assistant last": messages[:-1] if len(messages) > 1 and messages[-1]["role"] == "assistant" else messages,
    }
    return {**body, "messages": copy.deepcopy(ways[way])}


@defect(
    "cli-num-ctx-dropped",
    place="body",
    sentence="The context is too small: the oldest messages but the system's are left out until the rest fits.",
    cause="configuration",
    references=("ollama/ollama#5902", "ollama/ollama#18107"),
)
def oldest_dropped(body: Json) -> Json:
    """Drop the oldest message that is no system message, and never the last, until the rest is short enough."""
    messages = copy.deepcopy(body["messages"])
    while sum(len(text_of(one)) for one in messages) > _BUDGET:
        oldest = next((at for at, one in enumerate(messages[:-1]) if one["role"] != "system"), None)
        if oldest is None:
            break
        del messages[oldest]
    return {**body, "messages": messages}


@defect(
    "cli-system-as-user",
    place="body",
    sentence="System messages are sent as the user's.",
    cause="API usage",
    role="system",
    sent="user",
)
@defect(
    "cli-system-as-developer",
    place="body",
    sentence="System messages are sent in the role `developer`.",
    cause="API usage",
    role="system",
    sent="developer",
)
def role_renamed(body: Json, role: str, sent: str) -> Json:
    """Send messages in another role."""
    return each(body, lambda message: {**message, "role": sent} if message["role"] == role else message)


@defect(
    "cli-system-moved-first",
    place="body",
    sentence="A system message in the middle of the conversation is sent as its first message.",
    cause="algorithm",
)
def system_moved_first(body: Json) -> Json:
    """Put the system messages before the others."""
    return {**body, "messages": copy.deepcopy(sorted(body["messages"], key=lambda one: one["role"] != "system"))}


@defect(
    "cli-default-system-added",
    place="body",
    sentence="A system message of the program's own is sent where the caller gave none.",
    cause="configuration",
)
def default_system_added(body: Json) -> Json:
    """Put it first."""
    if of_roles(body["messages"], "system"):
        return body
    return {**body, "messages": [{"role": "system", "content": "Answer the question."}, *body["messages"]]}


@defect(
    "cli-system-folded-into-user",
    place="body",
    sentence="The system message is put before the user's first text.",
    cause="API usage",
)
def folded(body: Json) -> Json:
    """Send one message of the two."""
    return system_folded(body)


@defect(
    "cli-same-role-merged",
    place="body",
    sentence="Neighbouring messages of one role are sent as one.",
    cause="data and computation",
)
def merged(body: Json) -> Json:
    """Join them."""
    return same_role_merged(body)


@defect(
    "cli-messages-flattened",
    place="body",
    sentence="The conversation is sent as one user message of lines such as `user: ...`.",
    cause="API usage",
    references=("run-llama/llama_index#9577", "run-llama/llama_index#16634"),
)
def messages_flattened(body: Json) -> Json:
    """Write the conversation as a text."""
    lines = [f"{message['role']}: {text_of(message)}" for message in body["messages"]]
    return {**body, "messages": [{"role": "user", "content": "\n".join([*lines, "assistant:"])}]}
