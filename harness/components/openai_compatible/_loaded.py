"""With which settings a server of OpenAI's API has loaded its model, as far as it tells."""

from __future__ import annotations

from typing import Any, Final

from harness import settings as names
from harness.components.llama_endpoints import LEAST_CONTEXT, LEAST_CONTEXT_BY, OWN_CACHE, Endpoints
from harness.components.openai_compatible import _lm_studio, _ollama
from harness.components.openai_compatible._options import Options
from harness.components.openai_compatible._server import Server
from harness.settings import Loaded, Setting
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError

_HIDDEN: Final = "OpenAI's API does not show it"
_LENGTHS: Final = ("max_model_len", "context_length", "max_context_length")
"""Names under which servers tell the context in `/v1/models`: vLLM and SGLang, OpenRouter and others."""


def loaded_of(server: Server, options: Options) -> Loaded:
    """Return what a server tells.

    Raises:
        StageUnobservedError: it tells nothing.
        UserError: it has no model of the name asked for.
    """
    if options.profile == "ollama":
        told = _ollama.loaded(server)
    elif options.profile == "lm-studio":
        told = _lm_studio.loaded(server)
    else:
        told = _generic(server)
    return told.model_copy(update={"any_model": options.any_model})


def _generic(server: Server) -> Loaded:
    endpoints = Endpoints(server.api.get, server.api.post)
    if endpoints.is_llama_server:
        settings = endpoints.settings()
        return Loaded(
            by="llama-server",
            settings=settings,
            least_context=LEAST_CONTEXT,
            least_by=LEAST_CONTEXT_BY,
            own_cache=OWN_CACHE,
        )
    entry = _entry(server)
    lengths = [entry.get(name) for name in _LENGTHS]
    found = next((one for one in lengths if isinstance(one, int) and not isinstance(one, bool)), None)
    others = ((names.TEMPLATE, Stage.TEMPLATE), (f"{names.SAMPLING}temperature", Stage.INFERENCE))
    return Loaded(
        by="the server",
        settings=(
            Setting(name=names.SLOT, stage=Stage.INFERENCE, found=found, hidden=_HIDDEN),
            *(Setting(name=name, stage=stage, hidden=_HIDDEN) for name, stage in others),
        ),
        least_context=LEAST_CONTEXT,
        least_by="what servers take at least by themselves",
    )


def _entry(server: Server) -> dict[str, Any]:
    try:
        answer = server.api.get("/v1/models")
    except (StageRefusedError, StageUnobservedError, StageFailedError):
        return {}
    listed = answer.get("data") if isinstance(answer, dict) else None
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return next((one for one in entries if one.get("id") == server.name), {})
