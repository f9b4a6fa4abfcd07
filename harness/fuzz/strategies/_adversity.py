"""The named ways in which an input can be adversarial, and what the texts of each are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, get_args

from harness.errors import unknown_name

Adversity = Literal[
    "control-tokens",
    "added-tokens",
    "poison",
    "nul",
    "nfc",
    "digits",
    "contractions",
    "whitespace",
    "han",
    "template-code",
    "long",
    "parts",
    "null-content",
    "empty",
    "no-content-key",
    "two-users",
    "assistant-first",
    "system-later",
    "developer",
    "mapping-arguments",
    "text-arguments",
    "broken-arguments",
    "nested",
    "numbers",
    "odd-ids",
    "named-results",
    "unanswered-calls",
    "orphan-results",
    "bare-tools",
]

ADVERSITIES: Final[Mapping[Adversity, str]] = {
    "control-tokens": "texts of control tokens in a text: whole, cut, doubled, with neighbours",
    "added-tokens": "texts next to and inside of added tokens",
    "poison": "markup, quotes, backslashes, U+2028, a BOM, zero-width characters, bidi marks, joined emoji",
    "nul": "the character U+0000",
    "nfc": "the composed and the decomposed form of the same text, and what NFKC would change",
    "digits": "runs of digits, also of other scripts",
    "contractions": "I'LL, don't, ’s",
    "whitespace": "runs of whitespace at the ends of a text and in it: tabs, no-break spaces, CRLF",
    "han": "Han, kana and Hangul next to Latin letters and digits",
    "template-code": "Jinja code in a text",
    "long": "texts of some thousand characters",
    "parts": "content as a list of text parts",
    "null-content": "content null in a message without calls",
    "empty": "content that is the empty text",
    "no-content-key": "a message without the key `content`",
    "two-users": "two user messages in a row",
    "assistant-first": "an assistant's message before the first user's",
    "system-later": "a system message after the first turn",
    "developer": "the role `developer` in place of `system`",
    "mapping-arguments": "arguments of a call as an object where a text is due",
    "text-arguments": "arguments of a call as a text where an object is due",
    "broken-arguments": "arguments that are a text, but not the text of a JSON object",
    "nested": "parameters and arguments that hold objects and lists of objects",
    "numbers": "arguments with exponents, negative zero, integers beyond 64 bits",
    "odd-ids": "ids of calls that are empty or long, or hold other characters than letters and digits",
    "named-results": "results of tools that repeat the tool's name",
    "unanswered-calls": "calls without a result",
    "orphan-results": "a result that no call asked for",
    "bare-tools": "tools without `parameters`, or without `description`",
}
"""Every adversity, with a sentence."""

NEED_TOOLS: Final = frozenset[str](
    {
        "mapping-arguments",
        "text-arguments",
        "broken-arguments",
        "nested",
        "numbers",
        "odd-ids",
        "named-results",
        "unanswered-calls",
        "bare-tools",
    }
)
"""What shows in tools and calls only."""

_RAISES = "{{ raise_exception('no') }}"

PIECES: Final[Mapping[Adversity, tuple[str, ...]]] = {
    "poison": (
        *"<>&'\"\\`{}[]|",
        "</s>",
        "&lt;",
        "\\n",
        "\\u0041",
        "\x1b[0m",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\u200b",
        "\u200d",
        "\u202e",
        "\u2066",
        "\ufffd",
        "\U0001f469\u200d\U0001f680",
        "\U0001f1f3\U0001f1f4",
        "\u2764\ufe0f",
    ),
    "nul": ("\x00",),
    "nfc": ("é", "e\u0301", "\u212b", "Å", "\u1e9b\u0323", "\uac00", "\u1100\u1161", "ﬁ", "①", "\u0344", "ｱﾞ"),
    "digits": ("0", "00", "7", "12", "123", "1234", "12345678901234567890", "3.14", "1,000", "１２３", "٣٤٥", "²"),
    "contractions": ("I'LL", "don't", "we've", "'S", "’s", "'ſ", "rock'n'roll", "l'été", "''d"),
    "whitespace": (" ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u3000", "\u2003", "\x0b", "\x0c"),
    "han": ("中", "中文a", "a中", "1中2", "日本語の", "カナ", "한국어", "中，", "。", "𠀀", "\u3007"),
    "template-code": ("{{ 7*7 }}", "{% raise %}", "{# c #}", "{%- endif %}", "{{", "%}", _RAISES, "{% endraw %}"),
    "long": ("a" * 3000, "ab " * 1000, "中" * 1500),
}
"""What a text of an adversity is made of, where the caller does not say it."""


def chosen(adversarial: Collection[str], control: Collection[str], added: Collection[str]) -> frozenset[str]:
    """Return the adversities of a call, checked.

    Args:
        adversarial: Their names.
        control: Texts of control tokens, which `control-tokens` needs.
        added: Texts of added tokens, which `added-tokens` needs.

    Raises:
        UserError: no adversity has this name.
        ValueError: texts are missing, or given for nothing, or empty, or hold a lone surrogate.
    """
    if isinstance(adversarial, str):
        raise ValueError(f"adversarial is a collection of names, e.g. ({adversarial!r},)")
    for name in adversarial:
        if name not in ADVERSITIES:
            raise unknown_name("adversity", name, get_args(Adversity))
    for key, name, given in (("control", "control-tokens", control), ("added", "added-tokens", added)):
        if (name in adversarial) != bool(given):
            wants = f"needs texts: {key}=(...)" if name in adversarial else f"is not asked for, but {key} is given"
            raise ValueError(f"the adversity {name!r} {wants}")
        for text in [given] if isinstance(given, str) else given:
            refuse_text(text, key)
        if isinstance(given, str):
            raise ValueError(f"{key} is a collection of texts, e.g. ({given!r},)")
    return frozenset(adversarial)


def refuse_text(text: str, key: str) -> None:
    """Refuse what is no text that a wire could carry.

    Raises:
        ValueError: it is empty or holds a lone surrogate.
    """
    if not text:
        raise ValueError(f"{key} holds an empty text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{key} holds a lone surrogate: {text!r}")
