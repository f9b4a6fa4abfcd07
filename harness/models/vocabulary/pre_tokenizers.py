"""How text is cut into words before bytes are merged: the models' own definitions, and llama.cpp's names for them.

A pre-tokenizer is written as the JSON that a `tokenizer.json` has for it. Names: llama.cpp `src/llama-vocab.cpp`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)


def split(*patterns: str) -> dict[str, Any]:
    """Return the pre-tokenizer that cuts at each pattern in turn, then writes bytes."""
    steps: list[Any] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*steps, _bytes(use_regex=False)]}


def _bytes(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_DIGITS = {"type": "Digits", "individual_digits": True}
_WORDS = _bytes(use_regex=True)


@dataclass(frozen=True)
class Family:
    """What llama.cpp's name of a pre-tokenizer stands for in the models that it was made for.

    Attributes:
        steps: The pre-tokenizer, as in a `tokenizer.json`.
        nfc: Whether the models' own tokenizers normalize text first; llama.cpp never does.
        ignore_merges: Whether llama.cpp takes a whole word that is in the vocabulary without merging.
        adds_bos: Whether llama.cpp adds a BOS where the file does not say.
    """

    steps: Mapping[str, Any]
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False


FAMILIES: Mapping[str, Family] = {
    "deepseek-v3": Family(split(*DEEPSEEK_V3)),
    "gpt-2": Family(_WORDS),
    "llama-bpe": Family(split(LLAMA_3), ignore_merges=True, adds_bos=True),
    "llama4": Family(split(O200K)),
    "qwen2": Family(split(QWEN_2), nfc=True),
    "qwen35": Family(split(QWEN_35), nfc=True),
    "smollm": Family({"type": "Sequence", "pretokenizers": [_DIGITS, _WORDS]}),
    "tekken": Family(split(TEKKEN), ignore_merges=True, adds_bos=True),
}
_ALIASES = {
    **dict.fromkeys(("llama3", "llama-v3", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("starcoder", "refact"), "smollm"),
    "gpt-4o": "llama4",
    "deepseek-r1-qwen": "qwen2",
    "phi-2": "gpt-2",
}


def family_of(name: str | None) -> Family | None:
    """Return what a name of llama.cpp's stands for, where it is known here."""
    return None if name is None else FAMILIES.get(_ALIASES.get(name, name))


def name_of(steps: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name of a pre-tokenizer, or None where no known one cuts like it."""
    found = _comparable(steps)
    return next((name for name, family in FAMILIES.items() if _comparable(family.steps) == found), None)


def _comparable(steps: Mapping[str, Any]) -> str:
    """Return a pre-tokenizer without what does not change ids."""
    listed: Sequence[Any] = steps.get("pretokenizers", []) if steps.get("type") == "Sequence" else [steps]
    return json.dumps([{k: v for k, v in step.items() if k != "trim_offsets"} for step in listed], sort_keys=True)
