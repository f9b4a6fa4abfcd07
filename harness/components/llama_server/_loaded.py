"""With which settings a llama-server has loaded its model: what it was asked for, and what is in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness import settings as names
from harness.components.llama_endpoints import (
    FLAGS,
    LEAST_CONTEXT,
    LEAST_CONTEXT_BY,
    OWN_CACHE,
    OWN_TEMPLATE,
    README,
    Endpoints,
    Flag,
    how,
)
from harness.components.llama_server._log import read_log
from harness.components.llama_server._options import Options
from harness.components.llama_server._running import Running
from harness.settings import Loaded, Scalar, Setting, read_scalar
from harness.stage import Stage

_WHERE: Final = "options.llama-server"
_FLASH: Final = {-1: "auto", 0: "disabled", 1: "enabled", "on": "enabled", "off": "disabled"}
_REASONING: Final = {0: "none", 1: "deepseek", 2: "deepseek-legacy", 3: "deepseek", "auto": "deepseek"}
_SCALING: Final = {-1: None, 0: "none", 1: "linear", 2: "yarn"}
_BY_DEFAULT: Final[Mapping[str, tuple[Scalar, str]]] = {
    names.ROPE_SCALE: (1.0, "llama.cpp, src/llama-model.cpp, where the file has no rope.scaling.factor"),
    names.ROPE_BASE: (10000.0, "llama.cpp, src/llama-hparams.h, where the file has no rope.freq_base"),
    names.CACHE_K: ("f16", README),
    names.CACHE_V: ("f16", README),
    names.FLASH: ("auto", README),
}
_OF_ITSELF: Final = frozenset({names.ROPE_BASE, names.ROPE_SCALE, names.LAYERS, names.CONTEXT})
"""Of these a value that is not positive asks for nothing."""


def loaded_of(running: Running, options: Options, template_of_its_own: bool) -> Loaded:
    """Return what a server tells.

    Args:
        running: The server.
        options: What the stack asks of it.
        template_of_its_own: Whether the model is given a template that replaces the file's.

    Raises:
        StageFailedError: it does not start, or has died.
    """
    running.url()
    asked = dict(_asked(options))
    log = read_log(running.log_head())
    told = [_with_log(one, log) for one in Endpoints(running.get, running.post).settings()]
    told += [_of_log(names.CONTEXT, log), _of_log(names.WINDOW, log)]
    settings = tuple(_with_asked(one, asked, options, template_of_its_own) for one in told)
    return Loaded(
        by="llama-server",
        settings=settings,
        least_context=LEAST_CONTEXT,
        least_by=LEAST_CONTEXT_BY,
        any_model=options.any_model,
        own_cache="parameters kv_unified = true" if _is_package(options) else OWN_CACHE,
    )


def _is_package(options: Options) -> bool:
    return options.url is None and options.binary is None


def _with_log(setting: Setting, log: Mapping[str, Scalar]) -> Setting:
    if setting.found is None and setting.name in log:
        setting = setting.model_copy(update={"found": log[setting.name], "hidden": ""})
    if setting.name in _BY_DEFAULT:
        default, by = _BY_DEFAULT[setting.name]
        setting = setting.model_copy(update={"default": default, "default_by": by})
    return setting


def _of_log(name: str, log: Mapping[str, Scalar]) -> Setting:
    return Setting(
        name=name,
        stage=Stage.INFERENCE,
        found=log.get(name),
        hidden="" if name in log else "no endpoint of llama-server shows it",
    )


def _with_asked(
    setting: Setting, asked: Mapping[str, tuple[Scalar, str]], options: Options, template_of_its_own: bool
) -> Setting:
    value, by = asked.get(setting.name, (None, ""))
    name = names.CONTEXT if setting.name == names.SLOT else setting.name
    flag = FLAGS.get(name)
    remedy = "" if flag is None else _remedy(name, flag, options, template_of_its_own)
    return setting.model_copy(update={"asked": value, "asked_by": by, "remedy": remedy})


def _remedy(name: str, flag: Flag, options: Options, template_of_its_own: bool) -> str:
    """Return how a setting is set, `{}` for the value."""
    if name == names.TEMPLATE:
        if _is_package(options):
            return f"leave {flag.parameter} out of the parameters in {_WHERE}"
        if template_of_its_own:
            return "start llama-server with --jinja and --chat-template-file, and the model's template"
        return OWN_TEMPLATE
    if _is_package(options):
        return f"set n_ctx = {{}} in {_WHERE}" if name == names.CONTEXT else f"parameters {flag.parameter} = {{}}"
    if name == names.JINJA:
        return "start llama-server with --jinja"
    return how(name) if options.url is not None else f"in the arguments of {_WHERE}: {flag.arguments[0]} {{}}"


def _asked(options: Options) -> Iterator[tuple[str, tuple[Scalar, str]]]:
    """Yield what the stack asks for, by the names of settings; the later holds."""
    if options.url is not None:
        # What a server elsewhere was started with is not known, unless the stack says what it should be.
        if "n_ctx" in options.model_fields_set:
            yield names.CONTEXT, (options.n_ctx, f"n_ctx in {_WHERE}")
        return
    yield names.CONTEXT, (options.n_ctx, f"n_ctx in {_WHERE}")
    yield names.SLOTS, (1, "the way the harness starts it")
    yield names.JINJA, (True, "the way the harness starts it")
    for name, flag in FLAGS.items():
        for source, value in (*_of_arguments(options, flag), *_of_parameters(options, flag)):
            read = _read(name, value)
            if read is not None:
                yield name, (read, source)
    if "--no-jinja" in options.arguments:
        yield names.JINJA, (False, "--no-jinja in the arguments")


def _of_parameters(options: Options, flag: Flag) -> Iterator[tuple[str, Any]]:
    if flag.parameter in options.parameters:
        yield f"{flag.parameter} in the parameters", options.parameters[flag.parameter]


def _of_arguments(options: Options, flag: Flag) -> Iterator[tuple[str, Any]]:
    arguments = options.arguments
    for at, one in enumerate(arguments):
        if one in flag.arguments:
            value = arguments[at + 1] if at + 1 < len(arguments) else ""
            yield f"{one} in the arguments", True if value.startswith("--") or not value else value


def _read(name: str, value: Any) -> Scalar | None:
    """Return a value as the server tells it; None where it asks for what is so anyway, or cannot be read."""
    if isinstance(value, str) and name not in (names.TEMPLATE,):
        value = read_scalar(value)
    if name in (names.CACHE_K, names.CACHE_V):
        return _type_name(value)
    if name == names.FLASH:
        return _FLASH.get(value, "enabled" if value is True else None)
    if name == names.REASONING:
        return _REASONING.get(value, value if isinstance(value, str) else None)
    if name == names.ROPE_SCALING:
        return _SCALING.get(value, value if isinstance(value, str) else None)
    if name in _OF_ITSELF and (not isinstance(value, int | float) or isinstance(value, bool) or value <= 0):
        return None
    return value if isinstance(value, str | bool | int | float) else None


def _type_name(value: Any) -> str | None:
    """Return the name of a tensor type that is given by its name or llama.cpp's number."""
    if isinstance(value, str):
        return value.lower()
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(int(value)).name.lower()
    except (TypeError, ValueError):
        return None
