"""The five stages, and what a component offers to perform one.

A component implements the protocol of each stage it performs and nothing else. It raises the three exceptions below
where a stage does not end with a value; anything else it raises is a defect of the component itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from harness.values import (
    Case,
    CaseOptions,
    Failure,
    Generation,
    Json,
    ModelRef,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Unobserved,
)

if TYPE_CHECKING:
    from harness.settings import Loaded


SETTINGS_ELSEWHERE = "settings that a server elsewhere does not show"
"""The class of noise of an engine that runs already, and may have been started with any healthy settings."""


class Stage(StrEnum):
    """A step of the path from the caller's request to the caller's reply, in the order a request passes them."""

    CLIENT = "client"
    TEMPLATE = "template"
    TOKENIZATION = "tokenization"
    INFERENCE = "inference"
    POSTPROCESS = "postprocess"


class StageRefusedError(Exception):
    """The real part refused its input and said why: an ordinary error of its own."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.error}: {refusal.line}")
        self.refusal = refusal


class StageFailedError(Exception):
    """The real part died or did not answer in time."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.describe())
        self.failure = failure


class StageUnobservedError(Exception):
    """The part cannot be asked, or does not show, what this case needs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.unobserved = Unobserved(reason=reason)


@runtime_checkable
class ClientStage(Protocol):
    """Turns the caller's request body into what reaches the model server."""

    def request(self, case: Case) -> Request:
        """Return the messages, tools and effective settings that this client makes of the case's body."""


@runtime_checkable
class TemplateStage(Protocol):
    """Renders messages into the prompt's text."""

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """Return the prompt's text, rendered with the pinned clock of the options."""


@runtime_checkable
class TokenizationStage(Protocol):
    """Turns the prompt's text into the ids that the engine is fed."""

    def tokenize(self, prompt: Prompt) -> Tokens:
        """Return the ids, special ones included, as the chat path would feed them."""


@runtime_checkable
class InferenceStage(Protocol):
    """Turns ids into ids and distributions."""

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """Feed the tokens, then the forced ids one by one, whatever the engine would choose; None lets it choose.

        Returns:
            A generation whose `ids` are the forced ones, if any, and whose `chosen` are what the engine's own sampler
            chose at each position; its distributions have one row a position.
        """


@runtime_checkable
class PostprocessStage(Protocol):
    """Turns generated ids into the reply."""

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """Return what the caller would get, had the engine generated these ids."""


@runtime_checkable
class ChatRoute(Protocol):
    """The whole real path in one call, with every stage recorded as it passes.

    A component that performs all five stages offers this, so that the chained run is the part's own code from end to
    end. Without it the chained run calls the stages one after the other.
    """

    def chat(self, case: Case, *, stream: bool) -> Observation:
        """Run the case and return what every stage produced, as far as it came."""


@runtime_checkable
class Caller(Protocol):
    """A client that speaks HTTP: it calls a server as a program does that uses it."""

    def call(self, case: Case, url: str, *, stream: bool) -> Reply:
        """Call the server under `url` (it ends in `/v1`) and return what the program that called gets."""


@runtime_checkable
class Served(Protocol):
    """A part behind an HTTP server: all stages after the client, in one call that another component makes.

    The call passes through a recording proxy. What it adds to the body makes the answer show more than a caller asks
    for; what the part's answer, or the part itself, then shows of the stages is read by `seen`. The fields of an answer
    that come of it may be named in a class attribute `added`: the client does not get them.
    """

    def url(self) -> str:
        """Return where the OpenAI API is; it ends in `/v1`."""

    def key_variable(self) -> str | None:
        """Return the environment variable that holds the API key, if the server wants one."""

    def additions(self, case: Case, *, stream: bool) -> Json:
        """Return the fields that the proxy adds to the body on its way. Called before every call."""

    def seen(self, case: Case, body: Json, answer: Json | Sequence[Json] | None) -> Observation:
        """Return what is known of prompt, tokens and generation after a call.

        Args:
            case: The case.
            body: The request's body as the client sent it.
            answer: The response, or the chunks of a streamed one; None where there was none.
        """


@runtime_checkable
class TellsFile(Protocol):
    """A part that tells which model file it has.

    A part whose options may name another file than its model's has a static method `around_its_model` too, which
    returns options without what does; of others the option `file` is left out.
    """

    def model_file(self) -> Path | None:
        """Return the file that the running part has, as it or the command that starts it says; None if neither does.

        It need not be the one that the part was given: options, or a program around the real one, may name another.
        """


@runtime_checkable
class TellsSettings(Protocol):
    """A part that tells with which settings its model is loaded."""

    def loaded(self) -> Loaded:
        """Return what was asked for and what is in force.

        Raises:
            StageFailedError: it does not start, or has died.
        """


@runtime_checkable
class Transparent(Protocol):
    """An engine whose network can be looked into."""

    def watch(self) -> None:
        """Begin with what looking takes, so that it need not be begun anew when it is first asked."""

    def activations(self, ids: Sequence[int], names: Sequence[str]) -> Mapping[str, Any]:
        """Feed ids to an empty context and return what nodes compute.

        Args:
            ids: The ids; no more than the engine computes at once.
            names: llama.cpp's names of the nodes: `Qcur-3`, `l_out-3`, `result_norm`, ...

        Returns:
            By name float32 `(tokens, features)`; of a layer that is computed for the last token only, its one row.
            A node that the engine does not have is missing.

        Raises:
            StageUnobservedError: its nodes cannot be read; the reason says why.
        """


PROTOCOLS: Mapping[Stage, type] = {
    Stage.CLIENT: ClientStage,
    Stage.TEMPLATE: TemplateStage,
    Stage.TOKENIZATION: TokenizationStage,
    Stage.INFERENCE: InferenceStage,
    Stage.POSTPROCESS: PostprocessStage,
}


class Component(AbstractContextManager["Component"], Protocol):
    """A real part. Entering it starts what it needs; leaving it ends that.

    It is made with a model and the options that the stack definition gives it. Making it starts and imports nothing.
    """

    name: ClassVar[str]
    stages: ClassVar[frozenset[Stage]]
    requires: ClassVar[tuple[str, str]]
    """The distribution that must be installed, and the extra of this package that brings it; empty where none must."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None: ...

    def identity(self) -> Mapping[str, str]:
        """Return what identifies the running part: versions, build, processor features, effective settings."""
