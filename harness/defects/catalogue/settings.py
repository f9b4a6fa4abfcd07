"""Defects of what a generation is told, settings and where it ends, in llama-cpp-python between call and sampler.

Each is called with the child's `Engine`. They are defects of integration: the engine does what it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from harness.defects.defect import defect
from harness.stage import Stage


def _setting(
    name: str, sentence: str, *references: str, touches: tuple[Stage, ...] = (), **arguments: Any
) -> Callable[..., Callable[..., None]]:
    return defect(
        name,
        stage=Stage.INFERENCE,
        kind="integration",
        component="llama-cpp-python",
        sentence=sentence,
        touches=touches,
        cause="configuration",
        references=references,
        **arguments,
    )


@_setting("smp-temperature-ignored", "The temperature is always the default of 0.8.", setting="temperature", value=0.8)
@_setting("smp-temperature-one", "The temperature is always 1.", setting="temperature", value=1.0)
@_setting("smp-temperature-zero", "The temperature is always 0.", setting="temperature", value=0.0)
@_setting("smp-top-p-ignored", "top_p is always 1.", setting="top_p", value=1.0)
@_setting("smp-top-p-forced", "top_p is always 0.5.", setting="top_p", value=0.5)
@_setting("smp-top-p-zero", "top_p is always 0: only the likeliest token is left.", setting="top_p", value=0.0)
@_setting("smp-min-p-forced", "A min_p of 0.5 that nobody asked for.", setting="min_p", value=0.5)
@_setting("smp-top-k-one", "A top_k of 1 that nobody asked for.", setting="top_k", value=1)
@_setting("smp-typical-forced", "A typical_p of 0.2 that nobody asked for.", setting="typical_p", value=0.2)
@_setting("smp-mirostat-forced", "Mirostat, which nobody asked for.", setting="mirostat_mode", value=2)
@_setting(
    "smp-repeat-penalty-1.1",
    "A repeat penalty of 1.1 that nobody asked for.",
    "abetlen/llama-cpp-python#878",
    setting="repeat_penalty",
    value=1.1,
)
@_setting("smp-repeat-penalty-2", "A repeat penalty of 2 that nobody asked for.", setting="repeat_penalty", value=2.0)
@_setting("smp-repeat-reward", "A repeat penalty of 0.5, which rewards.", setting="repeat_penalty", value=0.5)
@_setting(
    "smp-presence-penalty-1", "A presence penalty of 1 that nobody asked for.", setting="presence_penalty", value=1.0
)
@_setting(
    "smp-presence-penalty-10", "A presence penalty of 10 that nobody asked for.", setting="presence_penalty", value=10.0
)
@_setting(
    "smp-frequency-penalty-1", "A frequency penalty of 1 that nobody asked for.", setting="frequency_penalty", value=1.0
)
@_setting("smp-frequency-reward", "A frequency penalty of -5, which rewards.", setting="frequency_penalty", value=-5.0)
@_setting("smp-seed-fixed", "The seed is always 0.", setting="seed", value=0)
def setting_forced(engine: Any, setting: str, value: Any) -> None:
    """Run every completion with this value."""
    _asked(engine, lambda asked: {setting: value})  # noqa: ARG005


@_setting(
    "smp-temperature-clamped",
    "A temperature of 0 is taken for one that is too small and becomes 0.01.",
    setting="temperature",
    low=0.01,
)
@_setting(
    "smp-temperature-percent", "A temperature below 1 is taken for percent of it.", setting="temperature", factor=0.01
)
@_setting("smp-temperature-halved", "Temperatures are halved.", setting="temperature", factor=0.5)
@_setting("smp-top-p-inverted", "1 - top_p is taken for top_p.", setting="top_p", factor=-1.0, more=1.0)
def setting_scaled(engine: Any, setting: str, factor: float = 1.0, more: float = 0.0, low: float | None = None) -> None:
    """Run every completion that asks for it with another value."""

    def change(asked: Mapping[str, Any]) -> dict[str, Any]:
        value = asked.get(setting)
        if value is None:
            return {}
        scaled = value * factor + more
        return {setting: scaled if low is None else max(scaled, low)}

    _asked(engine, change)


_BOTH = (Stage.POSTPROCESS,)
"""The completion call ends what is generated and says why, so an end that is wrong shows in the answer as well."""


@_setting("smp-max-tokens-less", "One token fewer than max_tokens is generated.", touches=_BOTH, less=1)
@_setting("smp-max-tokens-more", "One token more than max_tokens is generated.", touches=_BOTH, less=-1)
@_setting("smp-max-tokens-halved", "Half of max_tokens is generated.", touches=_BOTH, share=0.5)
@_setting("smp-max-tokens-doubled", "Twice max_tokens is generated.", touches=_BOTH, share=2.0)
@_setting(
    "smp-max-tokens-capped",
    "max_tokens is capped at 4.",
    touches=_BOTH,
    cap=4,
)
def limit_changed(engine: Any, less: int = 0, share: float = 1.0, cap: int = 1 << 30) -> None:
    """Run every completion with another limit."""

    def change(asked: Mapping[str, Any]) -> dict[str, Any]:
        limit = asked.get("max_tokens")
        return {} if not limit else {"max_tokens": max(1, min(int(limit * share) - less, cap))}

    _asked(engine, change)


@_setting(
    "smp-max-tokens-ignored",
    "max_tokens does not reach the completion call, which has a limit of 64 of its own.",
    touches=_BOTH,
)
def limit_ignored(engine: Any) -> None:
    """Run every completion with a limit of 64."""
    _asked(engine, lambda asked: {"max_tokens": 64})  # noqa: ARG005


@_setting(
    "tok-eos-id",
    "No token is known to end the turn: generation runs through it.",
    "vllm-project/vllm#4180",
    "unslothai/unsloth#468",
    touches=_BOTH,
)
def end_unknown(engine: Any) -> None:  # noqa: ARG001
    """Have the binding, and nobody else, be told that no token ends a generation."""
    import llama_cpp.llama as binding

    known = vars(vars(binding)["llama_cpp"])
    never = SimpleNamespace(**{**known, "llama_vocab_is_eog": lambda vocab, token: False})  # noqa: ARG005
    vars(binding)["llama_cpp"] = never


def _asked(engine: Any, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Change what the completion call is given, behind the boundary at which the client's request is seen."""
    real = engine._create_completion
    engine._create_completion = lambda **asked: real(**{**asked, **change(asked)})
