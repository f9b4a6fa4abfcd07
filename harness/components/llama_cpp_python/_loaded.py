"""With which settings llama-cpp-python has loaded its model: what it was asked for, and what is in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness import settings as names
from harness.settings import SAMPLING, Loaded, Scalar, Setting
from harness.stage import Stage

_BINDING: Final = "llama-cpp-python"
_REFERENCE: Final = "llama-cpp-python, API Reference: Llama"
_STAGES: Final = {
    names.TEMPLATE: Stage.TEMPLATE,
    names.VOCABULARY: Stage.TOKENIZATION,
    names.BOS: Stage.TOKENIZATION,
    names.EOS: Stage.TOKENIZATION,
}
_KEYWORDS: Final = {
    names.SLOT: "n_ctx",
    names.CONTEXT: "n_ctx",
    names.CACHE_K: "type_k",
    names.CACHE_V: "type_v",
    names.FLASH: "flash_attn",
    names.LAYERS: "n_gpu_layers",
    names.ROPE_BASE: "rope_freq_base",
    names.ROPE_SCALE: "rope_freq_scale",
}
_DEFAULTS: Final[Mapping[str, tuple[Scalar, tuple[float, float] | None]]] = {
    names.CACHE_K: ("f16", None),
    names.CACHE_V: ("f16", None),
    names.FLASH: (False, None),
    names.ROPE_SCALE: (1.0, None),
    f"{SAMPLING}temperature": (0.2, (0, 1.5)),
    f"{SAMPLING}top_k": (40, None),
    f"{SAMPLING}top_p": (0.95, (0, 1)),
    f"{SAMPLING}min_p": (0.05, (0, 0.3)),
    f"{SAMPLING}repeat_penalty": (1.0, (1, 1.3)),
    f"{SAMPLING}presence_penalty": (0.0, (0, 2)),
    f"{SAMPLING}frequency_penalty": (0.0, (0, 1)),
}
"""What its reference says is in force where nobody asks, and the least and the most that is recommended."""
_FROM_FILE: Final = frozenset({names.ROPE_BASE, names.ROPE_SCALE})
"""Of these nothing is asked for with 0."""
_ALL: Final = (
    names.SLOT, names.TRAINED, names.VOCABULARY, names.WEIGHTS, names.SIZE, names.TEMPLATE, names.BOS, names.EOS,
    names.ROPE_BASE, names.ROPE_SCALE, names.CACHE_K, names.CACHE_V, names.FLASH, names.LAYERS,
)  # fmt: skip


def loaded_of(found: Mapping[str, Scalar], options: Mapping[str, Any], by: str) -> Loaded:
    """Return what a `Llama` tells.

    Args:
        found: What is in force, by the names of settings.
        options: The keywords that it was made with.
        by: What it is called.
    """
    # Its server has defaults of its own, which it does not tell.
    samplers = tuple(name for name in found if name.startswith(SAMPLING) and by == _BINDING)
    asked = {name: _asked(name, options) for name in (*_ALL, names.CONTEXT)}
    context = Setting(
        name=names.CONTEXT, stage=Stage.INFERENCE, found=found.get(names.SLOT), **_told(asked, names.CONTEXT)
    )
    return Loaded(by=by, settings=(context, *(_setting(name, found, asked, by) for name in (*_ALL, *samplers))))


def _setting(name: str, found: Mapping[str, Scalar], asked: Mapping[str, Scalar | None], by: str) -> Setting:
    default, usual = _DEFAULTS.get(name, (None, None))
    keyword = _KEYWORDS.get(name)
    return Setting(
        name=name,
        stage=_STAGES.get(name, Stage.INFERENCE),
        found=found.get(name),
        hidden="it renders by a format of its own, which it has taken the file's template for"
        if name == names.TEMPLATE
        else "it does not tell it",
        default=default,
        default_by=_REFERENCE,
        usual=usual,
        remedy=f"set {keyword} = {{}} in options.{by}" if keyword is not None else "",
        **_told(asked, name),
    )


def _told(asked: Mapping[str, Scalar | None], name: str) -> dict[str, Any]:
    value = asked.get(name)
    return {} if value is None else {"asked": value, "asked_by": f"{_KEYWORDS[name]} in the options"}


def _asked(name: str, options: Mapping[str, Any]) -> Scalar | None:
    value = options.get(_KEYWORDS.get(name, ""))
    if not isinstance(value, str | bool | int | float) or (name in _FROM_FILE and not value):
        return None
    # -1 asks for all layers, however many that are.
    return None if name == names.LAYERS and value == -1 else value
