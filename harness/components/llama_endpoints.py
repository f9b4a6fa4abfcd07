"""What the endpoints of llama.cpp's server show of how its model is loaded.

Sources: llama.cpp, `tools/server/README.md`: `GET /props` (`default_generation_settings`, `total_slots`,
`chat_template`, `bos_token`, `eos_token`), `GET /slots`, `GET /v1/models` (`data[].meta`), and its tables of parameters
with their defaults; `tools/server/server-common.cpp`, for what it says of tools without Jinja. An answer may be of any
form: what is not there, or of another type, is not shown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from harness import settings as names
from harness.settings import SAMPLING, Scalar, Setting
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError

README: Final = "llama.cpp, tools/server/README.md"
LEAST_CONTEXT: Final = 4096
"""What `--fit-ctx` leaves at least where nobody asks for a context, and what older versions take."""
LEAST_CONTEXT_BY: Final = f"{README}: --fit-ctx"
OWN_CACHE: Final = "--kv-unified"
_PROPS, _SLOTS, _MODELS = "/props", "/slots", "/v1/models"
_PARAMETERS = ("default_generation_settings", "params")

_NO_JINJA = "--jinja"
"""What a server names that is asked for tools and runs no template."""
_TOOL = {"name": "now", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}}
_WITH_TOOL = {
    "messages": [{"role": "user", "content": "."}],
    "tools": [{"type": "function", "function": _TOOL}],
}
_SHORTEST = {"prompt": " ", "n_predict": 0, "cache_prompt": False}

Get = Callable[[str], Any]
Post = Callable[[str, Mapping[str, Any]], Any]


class Flag(NamedTuple):
    """How a setting is asked for.

    Attributes:
        arguments: Of the program; the first is named in a remedy.
        parameter: Of the package `xllamacpp`.
    """

    arguments: tuple[str, ...]
    parameter: str


class _Sampling(NamedTuple):
    """A sampling parameter.

    Attributes:
        flag: How it is asked for.
        default: Its documented default.
        usual: The least and the most that is recommended for any model; None where that is not known. Model cards go
            up to a temperature of 1.5 (DeepSeek, for poetry), a presence penalty of 2 (Qwen3) and a repeat penalty of
            1.3; XTC and DRY are recommended by their authors with 0.5 and 0.8.
    """

    flag: Flag
    default: Scalar
    usual: tuple[float, float] | None = None


SAMPLERS: Final[Mapping[str, _Sampling]] = {
    "temperature": _Sampling(Flag(("--temp", "--temperature"), "sampling.temp"), 0.8, (0, 1.5)),
    "top_k": _Sampling(Flag(("--top-k",), "sampling.top_k"), 40),
    "top_p": _Sampling(Flag(("--top-p",), "sampling.top_p"), 0.95, (0, 1)),
    "min_p": _Sampling(Flag(("--min-p",), "sampling.min_p"), 0.05, (0, 0.3)),
    "repeat_penalty": _Sampling(Flag(("--repeat-penalty",), "sampling.penalty_repeat"), 1.0, (1, 1.3)),
    "presence_penalty": _Sampling(Flag(("--presence-penalty",), "sampling.penalty_present"), 0.0, (0, 2)),
    "frequency_penalty": _Sampling(Flag(("--frequency-penalty",), "sampling.penalty_freq"), 0.0, (0, 1)),
    "typical_p": _Sampling(Flag(("--typical", "--typical-p"), "sampling.typ_p"), 1.0, (0.5, 1)),
    "xtc_probability": _Sampling(Flag(("--xtc-probability",), "sampling.xtc_probability"), 0.0, (0, 0.5)),
    "dry_multiplier": _Sampling(Flag(("--dry-multiplier",), "sampling.dry_multiplier"), 0.0, (0, 1)),
    "dynatemp_range": _Sampling(Flag(("--dynatemp-range",), "sampling.dynatemp_range"), 0.0, (0, 1)),
    "mirostat": _Sampling(Flag(("--mirostat",), "sampling.mirostat"), 0),
    "ignore_eos": _Sampling(Flag(("--ignore-eos",), "sampling.ignore_eos"), False, (0, 0)),
    "n_predict": _Sampling(Flag(("-n", "--predict", "--n-predict"), "n_predict"), -1, (128, math.inf)),
}
"""By their names in `/props`."""

FLAGS: Final[Mapping[str, Flag]] = {
    names.CONTEXT: Flag(("-c", "--ctx-size"), "n_ctx"),
    names.SLOTS: Flag(("-np", "--parallel"), "n_parallel"),
    names.TEMPLATE: Flag(("--chat-template",), "chat_template"),
    names.JINJA: Flag(("--jinja",), "use_jinja"),
    names.REASONING: Flag(("--reasoning-format",), "reasoning_format"),
    names.ROPE_BASE: Flag(("--rope-freq-base",), "rope_freq_base"),
    names.ROPE_SCALE: Flag(("--rope-freq-scale",), "rope_freq_scale"),
    names.ROPE_SCALING: Flag(("--rope-scaling",), "rope_scaling_type"),
    names.CACHE_K: Flag(("-ctk", "--cache-type-k"), "cache_type_k"),
    names.CACHE_V: Flag(("-ctv", "--cache-type-v"), "cache_type_v"),
    names.FLASH: Flag(("-fa", "--flash-attn"), "flash_attn_type"),
    names.LAYERS: Flag(("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers"),
    **{f"{SAMPLING}{name}": one.flag for name, one in SAMPLERS.items()},
}
"""How each setting is asked for, by its name."""
_FROM_COMMAND_LINE = (names.ROPE_BASE, names.ROPE_SCALE, names.CACHE_K, names.CACHE_V, names.FLASH, names.LAYERS)


OWN_TEMPLATE: Final = (
    "start llama-server with --jinja and without --chat-template, so that it takes the file's template"
)
"""What to do where another template is in force than the file's."""


def how(name: str) -> str:
    """Return how a setting is set, by its name, with `{}` for the value."""
    return f"start llama-server with {FLAGS[name].arguments[0]} {{}}"


class Endpoints:
    """The answers of a server that runs; each endpoint is asked once.

    Args:
        get: Returns the JSON at a path.
        post: Posts JSON to a path and returns what comes back.
    """

    def __init__(self, get: Get, post: Post) -> None:
        self._get = get
        self._post = post
        self._answers: dict[str, tuple[Any, str]] = {}

    @property
    def is_llama_server(self) -> bool:
        """Whether `/props` answers as llama.cpp's server does."""
        return isinstance(self._answer(_PROPS), dict) and "default_generation_settings" in self._answer(_PROPS)

    def settings(self) -> tuple[Setting, ...]:
        """Return what the endpoints show, and what they do not."""
        return (
            self._slot(),
            self._setting(names.SLOTS, Stage.INFERENCE, int, _PROPS, "total_slots", remedy=how(names.SLOTS)),
            self._of_model(names.TRAINED, Stage.INFERENCE, "n_ctx_train"),
            self._of_model(names.VOCABULARY, Stage.TOKENIZATION, "n_vocab"),
            self._of_model(names.WEIGHTS, Stage.INFERENCE, "n_params"),
            self._of_model(names.SIZE, Stage.INFERENCE, "size"),
            self._setting(names.TEMPLATE, Stage.TEMPLATE, str, _PROPS, "chat_template", remedy=OWN_TEMPLATE),
            self._setting(names.BOS, Stage.TOKENIZATION, str, _PROPS, "bos_token"),
            self._setting(names.EOS, Stage.TOKENIZATION, str, _PROPS, "eos_token"),
            self._jinja(),
            self._reasoning(),
            self._speculative(),
            *(self._sampler(name, one) for name, one in SAMPLERS.items()),
            *(_not_shown(name) for name in _FROM_COMMAND_LINE),
        )

    def _slot(self) -> Setting:
        """Return the context of a slot: that of the smallest, where they differ."""
        shown = self._setting(names.SLOT, Stage.INFERENCE, int, _PROPS, "default_generation_settings", "n_ctx")
        slots = self._answer(_SLOTS)
        sizes = [one.get("n_ctx") for one in slots if isinstance(one, dict)] if isinstance(slots, list) else []
        counts = [one for one in sizes if isinstance(one, int) and _is(one, int)]
        found = min(counts) if counts else shown.found
        return shown.model_copy(
            update={"found": found, "hidden": "" if counts else shown.hidden, "remedy": how(names.CONTEXT)}
        )

    def _of_model(self, name: str, stage: Stage, key: str) -> Setting:
        return self._setting(name, stage, int, _MODELS, "data", 0, "meta", key)

    def _jinja(self) -> Setting:
        """Return whether the template is run: where it is not, tools are refused with a word about that."""
        told = Setting(
            name=names.JINJA,
            stage=Stage.TEMPLATE,
            default=True,
            default_by=README,
            usual=(1, 1),
            remedy="start llama-server with --jinja",
        )
        try:
            self._post("/apply-template", _WITH_TOOL)
        except StageRefusedError as refused:
            if _NO_JINJA in refused.refusal.message:
                return told.model_copy(update={"found": False})
            return told.model_copy(update={"hidden": f"a request with a tool is refused ({refused.refusal.line})"})
        except (StageUnobservedError, StageFailedError) as hidden:
            return told.model_copy(update={"hidden": f"/apply-template does not answer ({hidden})"})
        return told.model_copy(update={"found": True})

    def _reasoning(self) -> Setting:
        """Return the reasoning format: `/props` always says `none`, an answer says what is in force."""
        told = Setting(
            name=names.REASONING,
            stage=Stage.POSTPROCESS,
            default="deepseek",
            default_by=README,
            remedy=how(names.REASONING),
        )
        try:
            answer = self._post("/completion", _SHORTEST)
        except (StageRefusedError, StageUnobservedError, StageFailedError) as hidden:
            return told.model_copy(update={"hidden": f"/completion does not answer ({hidden})"})
        settings = answer.get("generation_settings") if isinstance(answer, dict) else None
        found = settings.get("reasoning_format") if isinstance(settings, dict) else None
        if not isinstance(found, str):
            return told.model_copy(update={"hidden": "an answer of /completion does not say it"})
        return told.model_copy(update={"found": "deepseek" if found == "auto" else found})

    def _speculative(self) -> Setting:
        found, hidden = self._at(bool, _SLOTS, 0, "speculative")
        return Setting(
            name=names.SPECULATIVE,
            stage=Stage.INFERENCE,
            found=found,
            hidden=hidden,
            default=False,
            default_by=README,
        )

    def _sampler(self, name: str, one: _Sampling) -> Setting:
        kind = bool if isinstance(one.default, bool) else float
        found, hidden = self._at(kind, _PROPS, *_PARAMETERS, name)
        return Setting(
            name=f"{SAMPLING}{name}",
            stage=Stage.INFERENCE,
            found=found,
            hidden=hidden,
            default=one.default,
            default_by=README,
            usual=one.usual,
            remedy=how(f"{SAMPLING}{name}"),
        )

    def _setting(self, name: str, stage: Stage, kind: type, path: str, *keys: str | int, remedy: str = "") -> Setting:
        found, hidden = self._at(kind, path, *keys)
        return Setting(name=name, stage=stage, found=found, hidden=hidden, remedy=remedy)

    def _at(self, kind: type, path: str, *keys: str | int) -> tuple[Any, str]:
        """Return a value of an answer and nothing, or None and why it is not shown."""
        answer = self._answer(path)
        if answer is None:
            return None, self._answers[path][1]
        for key in keys:
            try:
                answer = answer[key]
            except (LookupError, TypeError):
                return None, f"the answer of {path} has no {keys[-1]!r}"
        if not _is(answer, kind):
            return None, f"{keys[-1]!r} in the answer of {path} is {type(answer).__name__}, not {kind.__name__}"
        return answer, ""

    def _answer(self, path: str) -> Any:
        if path not in self._answers:
            try:
                self._answers[path] = self._get(path), f"the answer of {path} is empty"
            except StageRefusedError as refused:
                self._answers[path] = None, f"{path} is refused ({refused.refusal.line})"
            except StageUnobservedError as hidden:
                self._answers[path] = None, f"{path} shows nothing ({hidden})"
            except StageFailedError as failed:
                self._answers[path] = None, f"{path} does not answer ({failed.failure.describe()})"
        return self._answers[path][0]


def _is(value: object, kind: type) -> bool:
    if kind is float:
        # Neither a NaN nor an integer beyond every float is so small.
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.maxsize
    return isinstance(value, kind)


def _not_shown(name: str) -> Setting:
    return Setting(
        name=name,
        stage=Stage.INFERENCE,
        hidden="no endpoint of llama-server shows it",
        remedy=how(name),
    )
