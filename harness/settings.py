"""With which settings a model is loaded: what was asked for, and what the part that loaded it says is in force.

A component tells these (`harness.stage.TellsSettings`); what they should be is judged elsewhere.
"""

from __future__ import annotations

from typing import Final

from harness.stage import Stage
from harness.values import Value

Scalar = str | bool | int | float
"""What a setting has."""

CONTEXT: Final = "context in all"
SLOT: Final = "context of a slot"
SLOTS: Final = "slots"
TRAINED: Final = "training context"
TEMPLATE: Final = "template"
JINJA: Final = "Jinja"
REASONING: Final = "reasoning format"
BOS: Final = "BOS token"
EOS: Final = "EOS token"
VOCABULARY: Final = "vocabulary size"
WEIGHTS: Final = "number of weights"
SIZE: Final = "size of the weights"
ARCHITECTURE: Final = "architecture"
ROPE_BASE: Final = "RoPE base"
ROPE_SCALE: Final = "RoPE frequency scale"
ROPE_SCALING: Final = "RoPE scaling"
WINDOW: Final = "sliding window"
CACHE_K: Final = "cache type of keys"
CACHE_V: Final = "cache type of values"
FLASH: Final = "flash attention"
LAYERS: Final = "layers on a GPU"
SPECULATIVE: Final = "speculative decoding"
SYSTEM: Final = "system message"
SAMPLING: Final = "default "
"""How the name of a sampling setting begins: what is in force for a request that asks for none."""


class Setting(Value):
    """One setting.

    Attributes:
        name: One of the names above, or any other.
        stage: Whose it is.
        found: What is in force; None where the part does not show it.
        hidden: Why it does not.
        asked: What the command line, the stack or a Modelfile asks for; None where none does, as far as is known.
        asked_by: Which of them, in a few words.
        default: What the part's documentation says is in force where nobody asks.
        default_by: The document.
        usual: The least and the most that publishers of models recommend; None where that is not known.
        remedy: How it is set, with `{}` for the value.
    """

    name: str
    stage: Stage
    found: Scalar | None = None
    hidden: str = ""
    asked: Scalar | None = None
    asked_by: str = ""
    default: Scalar | None = None
    default_by: str = ""
    usual: tuple[float, float] | None = None
    remedy: str = ""


class Loaded(Value):
    """What a part tells of how its model is loaded.

    Attributes:
        by: The program that has loaded it: `llama-server`.
        settings: What it tells, and what it does not.
        least_context: The least context that it takes by itself, where nobody asks; None where that is not documented.
        least_by: The document.
        any_model: Whether it may be any model, so that no file says what it should be.
        own_cache: How slots are made to share one cache, so that each has the whole context; empty where they cannot.
    """

    by: str
    settings: tuple[Setting, ...]
    least_context: int | None = None
    least_by: str = ""
    any_model: bool = False
    own_cache: str = ""


def read_scalar(text: str) -> Scalar:
    """Return a text as the number that it is, or as it stands."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
