"""What LM Studio shows beside OpenAI's API.

Source: lmstudio.ai/docs, "REST API v0", `GET /api/v0/models`: `id`, `arch`, `compatibility_type`, `quantization`,
`state`, `max_context_length`. It shows neither templates nor ids, and gives no log-probabilities in its OpenAI routes.
"""

from __future__ import annotations

from harness.components.openai_compatible._server import Server
from harness.errors import UserError, unknown_name
from harness.stage import StageUnobservedError

_SHOWN = ("quantization", "compatibility_type", "state", "max_context_length", "loaded_context_length")


def check(server: Server) -> dict[str, str]:
    """Make sure that the server's model can be the one of the goldens, and return what identifies it.

    Raises:
        UserError: the server has none of this name, or one of another architecture.
    """
    try:
        answer = server.api.get("/api/v0/models")
    except StageUnobservedError as hidden:
        # An older version. It is then known as little as any other server.
        return {"model file": f"not shown: {hidden}"}
    listed = answer.get("data") if isinstance(answer, dict) else None
    models = {str(one.get("id")): one for one in listed if isinstance(one, dict)} if isinstance(listed, list) else {}
    if server.name not in models:
        raise unknown_name(f"model of LM Studio at {server.root}", server.name, models)
    found = models[server.name]
    # An MLX model names its architecture in another way.
    if found.get("compatibility_type") == "gguf" and found.get("arch") not in (None, server.known.architecture):
        raise UserError(
            f"the model {server.name!r} of LM Studio at {server.root} is not the one of the goldens: its architecture "
            f"is {found['arch']}, not {server.known.architecture}",
            "load the very file (lms import), or record goldens for the one that it is",
        )
    return {name: str(found[name]) for name in _SHOWN if name in found}
