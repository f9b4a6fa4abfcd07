"""What LM Studio shows beside OpenAI's API.

Source: lmstudio.ai/docs, "REST API v0", `GET /api/v0/models`: `id`, `arch`, `compatibility_type`, `quantization`,
`state`, `max_context_length`, `loaded_context_length`. It shows neither templates nor ids, and gives no log-
probabilities in its OpenAI routes.
"""

from __future__ import annotations

from typing import Final

from harness import settings as names
from harness.components.openai_compatible._server import Server
from harness.errors import unknown_name
from harness.settings import Loaded, Setting
from harness.stage import Stage, StageUnobservedError
from harness.values import Json

_LEAST_CONTEXT: Final = 4096
_HIDDEN: Final = "LM Studio's REST API does not show it"
_VERY_FILE: Final = "load the very file: lms import, and lms load"
_NOT_SHOWN: Final = (names.CACHE_K, names.CACHE_V, names.FLASH, names.LAYERS, f"{names.SAMPLING}temperature")
_SHOWN = ("quantization", "compatibility_type", "state", "max_context_length", "loaded_context_length")


def check(server: Server) -> dict[str, str]:
    """Make sure that the server has a model of the name asked for, and return what identifies it.

    Raises:
        UserError: the server has none of this name.
    """
    try:
        found = _entry(server)
    except StageUnobservedError as hidden:
        # An older version. It is then known as little as any other server.
        return {"model file": f"not shown: {hidden}"}
    return {name: str(found[name]) for name in _SHOWN if name in found}


def loaded(server: Server) -> Loaded:
    """Return with which settings the model is loaded.

    Raises:
        StageUnobservedError: it is an older version, which does not tell.
    """
    found = _entry(server)
    # An MLX model names its architecture in another way.
    architecture = found.get("arch") if found.get("compatibility_type") == "gguf" else None
    hidden = (names.TEMPLATE, Stage.TEMPLATE), *((name, Stage.INFERENCE) for name in _NOT_SHOWN)
    return Loaded(
        by="LM Studio",
        settings=(
            _setting(
                names.SLOT, int, found.get("loaded_context_length"), "load it with a context of {}: lms load -c {}"
            ),
            _setting(names.TRAINED, int, found.get("max_context_length"), _VERY_FILE),
            _setting(names.ARCHITECTURE, str, architecture, _VERY_FILE),
            *(Setting(name=name, stage=stage, hidden=_HIDDEN) for name, stage in hidden),
        ),
        least_context=_LEAST_CONTEXT,
        least_by="LM Studio's default",
    )


def _entry(server: Server) -> Json:
    """Return what `/api/v0/models` tells of the model.

    Raises:
        StageUnobservedError: the server has no such route.
        UserError: it has no model of this name.
    """
    answer = server.api.get("/api/v0/models")
    listed = answer.get("data") if isinstance(answer, dict) else None
    models = {str(one.get("id")): one for one in listed if isinstance(one, dict)} if isinstance(listed, list) else {}
    if server.name not in models:
        raise unknown_name(f"model of LM Studio at {server.root}", server.name, models)
    return models[server.name]


def _setting(name: str, kind: type[str] | type[int], found: object, remedy: str) -> Setting:
    value = found if isinstance(found, kind) and not isinstance(found, bool) else None
    return Setting(name=name, stage=Stage.INFERENCE, found=value, hidden=_HIDDEN, remedy=remedy)
