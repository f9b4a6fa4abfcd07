"""Defects of the rendered text, between the template and the tokenizer."""

from __future__ import annotations

import datetime
import re

from harness.defects.catalogue._texts import edited
from harness.defects.defect import defect

_TOOLS = ("smollm2-135m-instruct-tools",)
_BOS = ("<|im_start|>", "<|begin_of_text|>", "<s>", "<bos>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>")
"""What texts begin with whose model has such a beginning."""
_OPENED = re.compile(r"<\|im_start\|>assistant\n(?:<think>\n)?\Z")
_DEFAULT_SYSTEM = re.compile(r"\A<\|im_start\|>system\nYou are [^<]*<\|im_end\|>\n")
_ROLE = re.compile(r"(?<=<\|im_start\|>)\w+")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_KEPT = 40


@defect(
    "tpl-bos-text-doubled",
    place="prompt",
    sentence="The text that begins a prompt is written twice.",
    cause="tokenizer and text",
    references=("abetlen/llama-cpp-python#1501", "sgl-project/sglang#888"),
    times=2,
)
@defect(
    "tpl-bos-text-stripped",
    place="prompt",
    sentence="The text that begins a prompt is taken away, for a tokenizer that does not put it back.",
    cause="tokenizer and text",
    references=("ggml-org/llama.cpp#15086",),
    times=0,
)
def bos_text(text: str, times: int) -> str:
    """Write it so many times."""
    found = next((one for one in _BOS if text.startswith(one)), "")
    return found * times + text.removeprefix(found)


@defect(
    "tpl-text-nfc",
    place="prompt",
    sentence="The prompt is normalized to NFC.",
    cause="tokenizer and text",
    edit="nfc",
)
@defect(
    "tpl-text-nfkc",
    place="prompt",
    sentence="The prompt is normalized to NFKC.",
    cause="tokenizer and text",
    edit="nfkc",
)
@defect(
    "tpl-text-html-unescaped",
    place="prompt",
    sentence="What HTML writes as entities is replaced in the prompt.",
    cause="data and computation",
    edit="html unescaped",
)
@defect(
    "tpl-text-smart-quotes",
    place="prompt",
    sentence="Straight quotes in the prompt become typographic ones.",
    cause="tokenizer and text",
    edit="smart quotes",
)
@defect(
    "tpl-text-non-ascii-dropped",
    place="prompt",
    sentence="What is not ASCII is left out of the prompt.",
    cause="tokenizer and text",
    edit="non-ascii dropped",
)
@defect(
    "tpl-text-non-ascii-escaped",
    place="prompt",
    sentence="What is not ASCII stands in the prompt as the letters of JSON's escapes.",
    cause="tokenizer and text",
    edit="non-ascii escaped",
)
@defect(
    "tpl-text-mojibake",
    place="prompt",
    sentence="The UTF-8 of the prompt is read as Windows' Latin letters.",
    cause="tokenizer and text",
    edit="mojibake",
)
@defect(
    "tpl-text-stripped",
    place="prompt",
    sentence="White space around the prompt is taken away, also the line break that ends it.",
    cause="tokenizer and text",
    edit="stripped",
)
@defect(
    "tpl-text-blank-lines-collapsed",
    place="prompt",
    sentence="Blank lines are taken out of the prompt.",
    cause="tokenizer and text",
    edit="blank lines collapsed",
)
@defect(
    "tpl-text-lines-stripped",
    place="prompt",
    sentence="White space at the ends of the prompt's lines is taken away.",
    cause="tokenizer and text",
    edit="lines stripped",
)
@defect(
    "tpl-text-crlf-made",
    place="prompt",
    sentence="Lines of the prompt end as on Windows.",
    cause="environment",
    edit="crlf made",
)
@defect(
    "tpl-text-crlf-lost",
    place="prompt",
    sentence="Line ends of Windows in the prompt become those of Unix.",
    cause="tokenizer and text",
    edit="crlf lost",
)
@defect(
    "tpl-text-placeholders-filled",
    place="prompt",
    sentence="The prompt is rendered a second time: what looks like a placeholder in it is lost.",
    cause="data and computation",
    edit="placeholders filled",
)
@defect(
    "tpl-text-newlines-escaped",
    place="prompt",
    sentence="Line breaks in the prompt are a backslash and the letter n.",
    cause="data and computation",
    edit="newlines escaped",
)
def text_edited(text: str, edit: str) -> str:
    """Edit the whole text."""
    return edited(text, edit)


@defect(
    "tpl-leading-space",
    place="prompt",
    sentence="A space is put before the prompt.",
    cause="tokenizer and text",
    before=" ",
)
@defect(
    "tpl-trailing-space",
    place="prompt",
    sentence="A space follows the prompt.",
    cause="tokenizer and text",
    after=" ",
)
@defect(
    "tpl-trailing-newline-doubled",
    place="prompt",
    sentence="A line break follows the one that ends the prompt.",
    cause="tokenizer and text",
    after="\n",
)
def text_around(text: str, before: str = "", after: str = "") -> str:
    """Put something around it."""
    return f"{before}{text}{after}"


@defect(
    "tpl-generation-prompt-doubled",
    place="prompt",
    sentence="The assistant's turn is opened twice.",
    cause="API usage",
    times=2,
)
@defect(
    "tpl-generation-prompt-cut",
    place="prompt",
    sentence="The end of the prompt that opens the assistant's turn is cut off.",
    cause="API usage",
    times=0,
)
def generation_prompt(text: str, times: int) -> str:
    """Write it so many times."""
    found = _OPENED.search(text)
    return text if found is None else text[: found.start()] + found[0] * times


@defect(
    "tpl-roles-capitalised",
    place="prompt",
    sentence="The names of roles are written with a capital letter.",
    cause="tokenizer and text",
    way="capital",
)
@defect(
    "tpl-assistant-called-model",
    place="prompt",
    sentence="The assistant's turns are those of another family's role, `model`.",
    cause="configuration",
    way="model",
)
def roles_written(text: str, way: str) -> str:
    """Write the names of roles otherwise."""

    def write(found: re.Match[str]) -> str:
        if way == "capital":
            return found[0].capitalize()
        return "model" if found[0] == "assistant" else found[0]

    return _ROLE.sub(write, text)


@defect(
    "tpl-default-system-lost",
    place="prompt",
    sentence="The system turn that the template writes by itself is missing.",
    cause="data and computation",
)
def default_system_lost(text: str) -> str:
    """Cut it off."""
    return _DEFAULT_SYSTEM.sub("", text)


@defect(
    "tpl-end-markers-lost",
    place="prompt",
    sentence="No turn is closed.",
    cause="data and computation",
    old="<|im_end|>",
    new="",
)
@defect(
    "tpl-end-markers-foreign",
    place="prompt",
    sentence="Turns are closed with the end of a text, not the end of a turn.",
    cause="configuration",
    old="<|im_end|>",
    new="<|endoftext|>",
)
def marker_replaced(text: str, old: str, new: str) -> str:
    """Write another marker."""
    return text.replace(old, new)


@defect(
    "tpl-prompt-cut-in-the-middle",
    place="prompt",
    sentence="A long prompt keeps its beginning and its end only.",
    cause="configuration",
    references=("ollama/ollama#5902",),
)
def prompt_cut(text: str) -> str:
    """Keep so many characters of both ends."""
    return text if len(text) <= 4 * _KEPT else text[:_KEPT] + text[-3 * _KEPT :]


@defect(
    "tpl-date-of-another-zone",
    place="prompt",
    sentence="The date is that of a zone where it is the next day already.",
    cause="environment",
    models=_TOOLS,
)
def date_of_another_zone(text: str) -> str:
    """Add a day."""

    def later(found: re.Match[str]) -> str:
        return str(datetime.date.fromisoformat(found[0]) + datetime.timedelta(days=1))

    return _DATE.sub(later, text)
