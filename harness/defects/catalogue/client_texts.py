"""Defects of a client's program: what it does to the contents of messages before they are sent."""

from __future__ import annotations

import copy
import re

from harness.defects.catalogue._messages import each, each_text, parts_of, with_text
from harness.defects.catalogue._texts import edited
from harness.defects.defect import defect
from harness.values import Json

_THINKING = ("smollm2-135m-instruct-thinking",)


@defect(
    "cli-null-content-as-text",
    place="body",
    sentence="A content that is null is sent as the word None.",
    cause="data and computation",
)
def null_content(body: Json) -> Json:
    """Send the word in its place."""
    return each(body, lambda message: message if message.get("content") is not None else with_text(message, "None"))


@defect(
    "cli-system-parts-object-object",
    place="body",
    sentence="A content given as parts is sent as the text that JavaScript makes of objects.",
    cause="data and computation",
    references=("Mintplex-Labs/anything-llm#6422",),
    way="object",
)
@defect(
    "cli-parts-as-repr",
    place="body",
    sentence="A content given as parts is sent as the text that Python makes of dictionaries.",
    cause="data and computation",
    way="repr",
)
@defect(
    "cli-content-parts-joiner-newline",
    place="body",
    sentence="The parts of a content are joined by a line break.",
    cause="data and computation",
    references=("vllm-project/vllm#9358",),
    way="newline",
)
@defect(
    "cli-content-parts-joiner-blank-line",
    place="body",
    sentence="The parts of a content are joined by a blank line.",
    cause="data and computation",
    references=("vllm-project/vllm#9358",),
    way="blank line",
)
@defect(
    "cli-parts-first-only",
    place="body",
    sentence="Of the parts of a content only the first is sent.",
    cause="data and computation",
    way="first",
)
def parts_flattened(body: Json, way: str) -> Json:
    """Send one text for the parts."""

    def change(message: Json) -> Json:
        parts = parts_of(message)
        if not parts:
            return message
        texts = [part["text"] for part in parts]
        ways = {
            "object": ",".join("[object Object]" for _ in parts),
            "repr": str(parts),
            "newline": "\n".join(texts),
            "blank line": "\n\n".join(texts),
            "first": texts[0],
        }
        return with_text(message, ways[way])

    return each(body, change)


@defect(
    "cli-content-parts-split",
    place="body",
    sentence="Each part of a content is sent as a message of its own.",
    cause="data and computation",
)
def parts_split(body: Json) -> Json:
    """Send as many messages as there are parts."""
    messages: list[Json] = []
    for message in copy.deepcopy(body["messages"]):
        parts = parts_of(message)
        messages += [with_text(message, part["text"]) for part in parts] or [message]
    return {**body, "messages": messages}


@defect(
    "cli-content-as-parts",
    place="body",
    sentence="A content that is a text is sent as a list with one part.",
    cause="API usage",
)
def content_as_parts(body: Json) -> Json:
    """Put the text into a part."""

    def change(message: Json) -> Json:
        text = message.get("content")
        return with_text(message, [{"type": "text", "text": text}]) if isinstance(text, str) else message

    return each(body, change)


@defect(
    "cli-last-turn-cut",
    place="body",
    sentence="The last message loses everything after its first line break.",
    cause="data and computation",
)
def last_turn_cut(body: Json) -> Json:
    """Keep its first line."""
    *others, last = copy.deepcopy(body["messages"])
    if isinstance(last.get("content"), str):
        last["content"] = last["content"].partition("\n")[0]
    return {**body, "messages": [*others, last]}


@defect(
    "cli-reasoning-dropped-from-history",
    place="body",
    sentence="The reasoning in earlier answers is not sent.",
    cause="data and computation",
    models=_THINKING,
    references=("NousResearch/hermes-agent#20577", "can1357/oh-my-pi#9693"),
)
@defect(
    "cli-reasoning-field-renamed",
    place="body",
    sentence="The reasoning in earlier answers is sent in a field `thinking` that nobody reads.",
    cause="API usage",
    models=_THINKING,
    references=("vllm-project/recipes#311",),
    field="thinking",
)
def reasoning_moved(body: Json, field: str | None = None) -> Json:
    """Take the reasoning out of the assistant's contents, and put it into a field if one is named."""

    def change(message: Json) -> Json:
        text = message.get("content")
        if message["role"] != "assistant" or not isinstance(text, str):
            return message
        found = re.match(r"<think>(.*?)</think>\s*", text, re.DOTALL)
        if found is None:
            return message
        left = with_text(message, text[found.end() :])
        return left if field is None else {**left, field: found[1].strip()}

    return each(body, change)


@defect(
    "cli-text-stripped",
    place="body",
    sentence="White space around contents is not sent.",
    cause="tokenizer and text",
    edit="stripped",
)
@defect(
    "cli-text-spaces-collapsed",
    place="body",
    sentence="Runs of white space in contents are sent as one space.",
    cause="tokenizer and text",
    edit="spaces collapsed",
)
@defect(
    "cli-text-nfc",
    place="body",
    sentence="Contents are normalized to NFC.",
    cause="tokenizer and text",
    edit="nfc",
)
@defect(
    "cli-text-html-escaped",
    place="body",
    sentence="Markup in contents is escaped as for HTML.",
    cause="data and computation",
    edit="html escaped",
)
@defect(
    "cli-text-non-ascii-escaped",
    place="body",
    sentence="What is not ASCII in contents is sent as the letters of JSON's escapes.",
    cause="tokenizer and text",
    edit="non-ascii escaped",
)
@defect(
    "cli-text-mojibake",
    place="body",
    sentence="The UTF-8 of contents is read as Windows' Latin letters.",
    cause="tokenizer and text",
    edit="mojibake",
)
@defect(
    "cli-text-invisible-removed",
    place="body",
    sentence="Characters that show nothing are taken out of contents.",
    cause="tokenizer and text",
    edit="invisible removed",
)
@defect(
    "cli-text-control-text-removed",
    place="body",
    sentence="Texts of control tokens are taken out of contents, where they are what the caller wrote.",
    cause="tokenizer and text",
    edit="control text removed",
)
def text_edited(body: Json, edit: str) -> Json:
    """Send edited texts."""
    return each_text(body, lambda text: edited(text, edit))
