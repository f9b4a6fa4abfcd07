"""A server by its address alone: no stack, no model, no goldens. What would it send to its model?

The address tells nothing, so the families are tried by what only they answer: llama-server by `/props`, Ollama by
`/api/version`. Everything else is a server of OpenAI's API, which does not show its prompt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from harness.checking.running import open_stack
from harness.checking.trace import Tracer
from harness.errors import NotRunningError, UserError, unknown_name
from harness.project.project import Project
from harness.project.stack import Stack, Stages, load_stack, stack_names
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, Failure, Json, ModelRef, Observation, Prompt, Refusal, Unobserved

_CLIENT = "httpx"
"""The case's body as it stands; what a client makes of it is not the question here."""
_LLAMA_SERVER = "llama-server"
_COMPATIBLE = "openai-compatible"
PROFILES = (_LLAMA_SERVER, "ollama", "lm-studio", "generic")
NO_MODEL = ModelRef(name="the server's own", path=Path(os.devnull), sha256="")
"""Stands where nobody says which model it is."""
_UNAVAILABLE = "HTTP 503"
_START = "start the server, or mend the address"
_HOST_AND_PORT = re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}(/|$)")
_NAME = "local"
"""Asked for where the server lists no model: most take any name."""


def address_of(text: str) -> str | None:
    """Return a server's address where a text is one, and not a stack's name; without a scheme it is HTTP's."""
    if text.startswith(("http://", "https://")):
        return text
    return f"http://{text}" if _HOST_AND_PORT.match(text) else None


def observe_address(
    project: Project,
    url: str,
    case: Case,
    *,
    key_variable: str | None = None,
    profile: str | None = None,
    model: str | None = None,
    stream: bool = False,
    dry_run: bool = False,
) -> Observation:
    """Run a case against a server, or only show what it would send to its model.

    Args:
        project: Where the stacks of such servers are.
        url: The server, with or without `/v1`.
        case: The case.
        key_variable: The environment variable that holds the API key.
        profile: The server's family, one of `PROFILES`; None finds out.
        model: The name to ask for; None takes the first that the server lists.
        stream: Ask for a stream.
        dry_run: Only render, and tokenize where the server can be asked to.

    Raises:
        NotRunningError: the server does not answer.
        UserError: a dry run could show nothing.
    """
    stack = stack_at(project, url, key_variable=key_variable, profile=profile, asked=model)
    with open_stack(stack, NO_MODEL) as running:
        tracer = Tracer(running)
        found = tracer.dry(case) if dry_run else tracer.chained(case, stream=stream)
    if dry_run and not isinstance(found.prompt, Prompt):
        raise UserError(f"{url} does not show what it would send to its model: {_why(found)}", _remedy(found))
    return found


def stack_at(
    project: Project,
    url: str,
    *,
    key_variable: str | None = None,
    profile: str | None = None,
    asked: str | None = None,
    model: str | None = None,
) -> Stack:
    """Return a stack of the plain client and the component that knows the server's family.

    Args:
        project: Where the stacks of such servers are: what these declare to be by design is so of this one.
        url: The server, with or without `/v1`.
        key_variable: The environment variable that holds the API key.
        profile: The server's family, one of `PROFILES`; None finds out.
        asked: The name to ask for; None takes the first that the server lists.
        model: The model of the project that it is held against; None where there is none.

    Raises:
        NotRunningError: the server does not answer.
        UserError: there is no such family, or the address is none.
    """
    from harness.wire.api import Api  # speaking HTTP is an extra

    _check_address(url)
    at = url.rstrip("/")
    if profile is not None and profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    api = Api(at.removesuffix("/v1"), key_variable=key_variable, seconds=20, start=_START)
    try:
        family = profile or _family(api.get, url)
        options: Json = {"url": at, "any_model": model is None, "api_key_variable": key_variable}
        if family == _LLAMA_SERVER:
            server = _LLAMA_SERVER
        else:
            server = _COMPATIBLE
            options |= {"profile": family, "model": asked or _first_model(api.get)}
    finally:
        api.close()
    return Stack(
        name=url,
        description=f"a server that was named by its address ({family})",
        models=(model or NO_MODEL.name,),
        stages=Stages(client=_CLIENT, template=server, tokenization=server, inference=server, postprocess=server),
        options={server: options},
        policies=load_stack(project, family).policies if family in stack_names(project) else (),
    )


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise UserError(f"{url} is no address of a server", "give one like http://127.0.0.1:8080")


def _family(get: Callable[[str], object], url: str) -> str:
    if "chat_template" in _object(get, "/props", url):
        return _LLAMA_SERVER
    return "ollama" if "version" in _object(get, "/api/version", url) else "generic"


def _first_model(get: Callable[[str], object]) -> str:
    listed = _object(get, "/v1/models", "").get("data")
    names = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return next((name for name in names if isinstance(name, str)), _NAME)


def _object(get: Callable[[str], object], path: str, url: str) -> Json:
    """Return the object at a path, an empty one where there is none.

    Raises:
        NotRunningError: no server answers at all, or it is not ready.
    """
    try:
        found = get(path)
    except StageRefusedError as refused:
        if refused.refusal.error == _UNAVAILABLE and "loading" in refused.refusal.message.lower():
            # llama-server says so while it loads its model, and shows nothing until then.
            raise NotRunningError(
                f"{url} is not ready: {refused.refusal.line}", "wait until it is, and ask again"
            ) from None
        return {}
    except StageUnobservedError:
        return {}
    except StageFailedError as failed:
        if failed.failure.reason == "hang":
            raise NotRunningError(f"{url}: {failed.failure.describe()}", _START) from failed
        return {}
    return found if isinstance(found, dict) else {}


def _why(found: Observation) -> str:
    ended = found.request if found.prompt is None else found.prompt
    if isinstance(ended, Unobserved):
        return ended.reason
    if isinstance(ended, Refusal):
        return f"{ended.error}: {ended.message}"
    return ended.describe() if isinstance(ended, Failure) else "nothing was reached"


def _remedy(found: Observation) -> str:
    hidden = isinstance(found.prompt, Unobserved)
    return "llama-server and Ollama do; name the family with --profile if this is one of them" if hidden else ""
