"""What Ollama shows beside OpenAI's API.

Sources: docs.ollama.com, "Show model details", "List running models", "Generate a response", "OpenAI compatibility",
"Modelfile Reference", "Context length"; ollama/ollama, `api/types.go` (`ShowResponse`, `GenerateRequest.Raw`,
`Logprob`, `DebugInfo.RenderedTemplate`) and `openai/openai.go` (`ChatCompletionRequest.DebugRenderOnly`,
`ChatCompletion.DebugInfo`). `_debug_render_only` is not in the documentation: it loads the model, renders, and
answers with the prompt instead of a reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from harness import settings as names
from harness.components.openai_compatible._read import Row, rows_of
from harness.components.openai_compatible._server import Server
from harness.errors import UserError
from harness.settings import Loaded, Scalar, Setting, read_scalar
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, Json

MOST_LOGPROBS = 20

_TAKEN = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    }
)
_MODELFILE: Final = "docs.ollama.com, Modelfile Reference"
_CONTEXT_LENGTH: Final = "docs.ollama.com, Context length"
_LEAST_CONTEXT: Final = 4096
_DEFAULTS: Final[Mapping[str, tuple[Scalar, tuple[float, float] | None]]] = {
    "temperature": (0.8, (0, 1.5)),
    "top_k": (40, None),
    "top_p": (0.9, (0, 1)),
    "min_p": (0.0, (0, 0.3)),
    "repeat_penalty": (1.0, (1, 1.3)),
    "presence_penalty": (0.0, (0, 2)),
    "frequency_penalty": (0.0, (0, 1)),
    "num_predict": (-1, (128, math.inf)),
}
"""PARAMETERs of a Modelfile with their documented defaults, and the least and the most that is recommended."""
_NOT_SHOWN: Final = (names.CACHE_K, names.CACHE_V, names.FLASH, names.ROPE_SCALE)
_HIDDEN: Final = "Ollama's API does not show it"
_JINJA = "{%"
"""Go templates, in which Ollama's own are written, have no such sign."""


def check(server: Server) -> dict[str, str]:
    """Make sure that the server has a model of the name asked for, and return what identifies it.

    Raises:
        UserError: it has none, or is no Ollama.
    """
    shown = _shown(server)
    details = _objects(shown, "details")
    template = shown.get("template")
    jinja = isinstance(template, str) and _JINJA in template
    return {
        "ollama": str(_objects(server.api.get("/api/version")).get("version")),
        "quantization": str(details.get("quantization_level")),
        "template source": str(shown.get("template_source", "jinja" if jinja else "not shown")),
        "parameters": " ".join(str(shown.get("parameters", "")).split()),
    }


def loaded(server: Server) -> Loaded:
    """Return with which settings the model is loaded: what `/api/show` tells of it, and `/api/ps` of its context."""
    shown = _shown(server)
    info = _objects(shown, "model_info")
    architecture = info.get("general.architecture")
    tokens = info.get("tokenizer.ggml.tokens")
    # Arrays are there only with `verbose`; an older version leaves them empty all the same.
    size = len(tokens) if isinstance(tokens, list) and tokens else info.get(f"{architecture}.vocab_size")
    asked = _parameters(shown.get("parameters"))
    return Loaded(
        by="Ollama",
        settings=(
            _context(server, asked.get("num_ctx")),
            _of_file(names.CONTEXT, None, asked=asked.get("num_ctx")),
            _of_file(names.ARCHITECTURE, architecture),
            _of_file(names.VOCABULARY, size, Stage.TOKENIZATION),
            _of_file(names.WEIGHTS, info.get("general.parameter_count")),
            _of_file(names.TRAINED, info.get(f"{architecture}.context_length")),
            _of_file(names.ROPE_BASE, info.get(f"{architecture}.rope.freq_base")),
            _template(shown.get("template")),
            _system(shown.get("system")),
            *(_sampler(name, asked.get(name), default, usual) for name, (default, usual) in _DEFAULTS.items()),
            *(Setting(name=name, stage=Stage.INFERENCE, hidden=_HIDDEN) for name in _NOT_SHOWN),
        ),
        least_context=_LEAST_CONTEXT,
        least_by=_CONTEXT_LENGTH,
    )


def _shown(server: Server) -> Json:
    """Return what `/api/show` tells of the model.

    Raises:
        UserError: the server has none of this name, or is no Ollama.
    """
    try:
        shown = server.api.post("/api/show", {"model": server.name, "verbose": True})
    except StageRefusedError as refused:
        raise UserError(
            f"Ollama at {server.root} has no model {server.name!r} ({refused.refusal.line})",
            f"make it from the very file: a Modelfile with 'FROM <file>', then: ollama create {server.name}",
        ) from refused
    except StageUnobservedError as hidden:
        raise UserError(
            f"the server at {server.root} is no Ollama: {hidden}", "leave out the profile, or name the server's own"
        ) from hidden
    return _objects(shown)


def _parameters(said: object) -> dict[str, Scalar]:
    """Return the Modelfile's PARAMETERs, of several of one name the last."""
    lines = said.splitlines() if isinstance(said, str) else []
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[0]: read_scalar(pair[1].strip().strip('"')) for pair in pairs if len(pair) == 2}


def _context(server: Server, asked: Scalar | None) -> Setting:
    """Return the context of the model as it is loaded, which versions since 0.9 tell."""
    try:
        running = _objects(server.api.get("/api/ps")).get("models")
        hidden = "/api/ps does not show the model as loaded"
    except (StageRefusedError, StageUnobservedError, StageFailedError) as ended:
        running, hidden = None, f"/api/ps does not answer ({ended})"
    mine = [one for one in running if isinstance(one, dict)] if isinstance(running, list) else []
    wanted = (server.name, f"{server.name}:latest")
    sizes = [one.get("context_length") for one in mine if one.get("name") in wanted or one.get("model") in wanted]
    found = next((one for one in sizes if isinstance(one, int) and not isinstance(one, bool)), None)
    remedy = "set PARAMETER num_ctx {} in the Modelfile, or OLLAMA_CONTEXT_LENGTH={} for the server"
    return Setting(
        name=names.SLOT,
        stage=Stage.INFERENCE,
        found=found,
        hidden=hidden,
        asked=asked,
        asked_by=_asked_by("num_ctx", asked),
        remedy=remedy,
    )


def _asked_by(parameter: str, asked: Scalar | None) -> str:
    return "" if asked is None else f"PARAMETER {parameter} of the Modelfile"


def _of_file(name: str, found: object, stage: Stage = Stage.INFERENCE, asked: Scalar | None = None) -> Setting:
    is_told = isinstance(found, str | int | float) and not isinstance(found, bool)
    return Setting(
        name=name,
        stage=stage,
        found=found if is_told and isinstance(found, str | int | float) else None,
        hidden="/api/show does not tell it",
        asked=asked,
        asked_by=_asked_by("num_ctx", asked),
        remedy="make the model anew, with FROM and the very file in the Modelfile, and ollama create",
    )


def _template(found: object) -> Setting:
    is_jinja = isinstance(found, str) and _JINJA in found
    return Setting(
        name=names.TEMPLATE,
        stage=Stage.TEMPLATE,
        found=found if is_jinja and isinstance(found, str) else None,
        hidden="it is a Go template; whether it says what the file's does, only what it renders shows",
        remedy="make the model anew from the very file, with no TEMPLATE in the Modelfile, or with this one",
    )


def _system(found: object) -> Setting:
    said = found if isinstance(found, str) else ""
    return Setting(
        name=names.SYSTEM,
        stage=Stage.TEMPLATE,
        found=said,
        asked=said,
        asked_by="SYSTEM of the Modelfile" if said else "the Modelfile, which has no SYSTEM",
        remedy="leave SYSTEM out of the Modelfile",
    )


def _sampler(name: str, asked: Scalar | None, default: Scalar, usual: tuple[float, float] | None) -> Setting:
    """Return a default, which the Modelfile sets; where it does not, the program's own is not shown."""
    return Setting(
        name=f"{names.SAMPLING}{name}",
        stage=Stage.INFERENCE,
        found=asked,
        hidden="the Modelfile does not set it, and what is in force then is not shown",
        asked=asked,
        asked_by=_asked_by(name, asked),
        default=default,
        default_by=_MODELFILE,
        usual=usual,
        remedy=f"set PARAMETER {name} {{}} in the Modelfile, or leave it out",
    )


def rendered(server: Server, body: Mapping[str, Any]) -> str:
    """Return the prompt that the chat route makes of a body.

    Raises:
        StageUnobservedError: this version does not show it.
    """
    # A version that does not know the field answers; it then shall not do so at length.
    answer = server.chat({**body, "max_tokens": 1, "_debug_render_only": True})
    text = _objects(answer, "_debug_info").get("rendered_template")
    if not isinstance(text, str):
        raise StageUnobservedError("this version of Ollama does not know _debug_render_only, so it hides its prompt")
    return text


def generated(server: Server, text: str, settings: Mapping[str, Any], limit: int) -> tuple[int | None, list[Row], Any]:
    """Return how many ids a text has, and what is generated after it without a template (`raw`), and why that ends."""
    options = {name: value for name, value in settings.items() if name in _TAKEN}
    answer: Json = server.api.post(
        "/api/generate",
        {
            "model": server.name,
            "prompt": text,
            "raw": True,
            "stream": False,
            "logprobs": True,
            "top_logprobs": MOST_LOGPROBS,
            "options": {**options, "num_predict": limit},
        },
    )
    count = _objects(answer).get("prompt_eval_count")
    rows = rows_of(answer.get("logprobs"), server.known.vocabulary)
    return (count if isinstance(count, int) else None), rows, answer.get("done_reason")


def _objects(answer: Any, *path: str) -> Json:
    """Return an object inside an answer, empty where there is none."""
    if not isinstance(answer, dict):
        raise StageFailedError(Failure(reason="broken", message="the answer is no object"))
    found: Json = answer
    for name in path:
        found = found[name] if isinstance(found.get(name), dict) else {}
    return found
