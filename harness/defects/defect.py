"""A defect: a fault that is planted on purpose, what it is labelled with, and the register of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar, get_args

from harness.checking.compare.outcome import Kind
from harness.defects.places import planted
from harness.errors import UserError, unknown_name
from harness.project.names import plain_name
from harness.stage import Stage

Symptom = Literal["crash", "loading failure", "incorrect functionality", "hang", "poor performance"]
"""How a defect shows. Source: the taxonomy of arXiv 2601.13655."""
Cause = Literal[
    "environment",
    "configuration",
    "data and computation",
    "API usage",
    "distributed",
    "tokenizer and text",
    "hardware",
    "algorithm",
    "corruption",
]
"""Where a defect comes from. Source: the taxonomy of arXiv 2601.13655."""
Function = TypeVar("Function", bound=Callable[..., Any])


class Place(StrEnum):
    """Where a defect is planted, which says what its function is given.

    Everything but `part`, `options` and `model` is the same in every stack that has such a place.
    """

    BODY = "body"
    """The request body of the client's program: `(body: dict) -> dict`."""
    RECEIVED = "received"
    """What the client's program gets, where it calls a server: `(reply: dict) -> dict` of a `Reply`'s fields."""
    REQUEST = "request"
    """What the template is given: `(given: dict) -> dict` of `messages`, `tools`, `tool_choice`."""
    SOURCE = "source"
    """The template's source: `(template: str) -> str`."""
    ENVIRONMENT = "environment"
    """Jinja's environment in which the template is rendered: `(environment: jinja2.Environment) -> None`."""
    PROMPT = "prompt"
    """The rendered text: `(text: str) -> str`."""
    IDS = "ids"
    """The prompt's ids: `(seen: Tokenizing) -> Sequence[int]`."""
    ANSWER = "answer"
    """The answer: `(answer: dict | list[dict], seen: Generated) -> dict | list[dict]`; a list is a stream's chunks."""
    PART = "part"
    """Whatever a component's child process serves: `(part) -> None`."""
    OPTIONS = "options"
    """The options that a stack gives a component: `(options: dict) -> dict`."""
    MODEL = "model"
    """A copy of the model file: `(copy: ModelCopy) -> None`."""


_STAGES: Mapping[Place, Stage] = {
    Place.BODY: Stage.CLIENT,
    Place.RECEIVED: Stage.CLIENT,
    Place.REQUEST: Stage.TEMPLATE,
    Place.SOURCE: Stage.TEMPLATE,
    Place.ENVIRONMENT: Stage.TEMPLATE,
    Place.PROMPT: Stage.TEMPLATE,
    Place.IDS: Stage.TOKENIZATION,
    Place.ANSWER: Stage.POSTPROCESS,
}
"""The stage at fault of what is planted at a boundary."""
_OF_A_COMPONENT = (Place.PART, Place.OPTIONS)


@dataclass(frozen=True)
class Defect:
    """A fault that is planted on purpose.

    Attributes:
        id: Its name.
        stage: The stage that is then at fault.
        kind: What sort of defect it is.
        sentence: What it does, for a human.
        place: Where it is planted.
        hook: Where its function is, as `module:function`.
        arguments: Keywords that the function is called with.
        component: Of one that is planted in a component or its options, which.
        models: The models that it is planted around; the bench's first one where none is named.
        touches: Other stages that it truly breaks as well.
        symptom: How it shows.
        cause: Where it comes from.
        references: Upstream threads, as `owner/repository#number`.
        fixed: The version in which it was fixed upstream, or a word on that.
        watches_nodes: It needs to see the nodes of llama.cpp's graph, which slows every evaluation.
    """

    id: str
    stage: Stage
    kind: Kind
    sentence: str
    place: Place
    hook: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    component: str | None = None
    models: tuple[str, ...] = ()
    touches: tuple[Stage, ...] = ()
    symptom: Symptom = "incorrect functionality"
    cause: Cause = "data and computation"
    references: tuple[str, ...] = ()
    fixed: str = ""
    watches_nodes: bool = False

    def planting(self) -> Callable[..., Any]:
        """Return its function, ready to be called; what it raises is a `DefectError`."""
        return planted(self.hook, self.arguments)


_REGISTER: dict[str, Defect] = {}


def defect(
    id: str,  # noqa: A002
    *,
    sentence: str,
    place: Place | str = Place.PART,
    stage: Stage | str | None = None,
    kind: Kind | None = None,
    component: str | None = None,
    models: Sequence[str] = (),
    touches: Sequence[Stage] = (),
    symptom: Symptom = "incorrect functionality",
    cause: Cause = "data and computation",
    references: Sequence[str] = (),
    fixed: str = "",
    watches_nodes: bool = False,
    **arguments: Any,
) -> Callable[[Function], Function]:
    """Register the decorated function as a defect; see `Place` for what it is given. May be used several times on one.

    Args:
        id: Its name.
        sentence: What it does, for a human.
        place: Where it is planted.
        stage: The stage that is then at fault; a boundary says it by itself.
        kind: What sort of defect it is; at a boundary it is `integration` unless said otherwise.
        component: Of one that is planted in a component or its options, which.
        models: The models that it is planted around, where it shows on some only.
        touches: Other stages that it truly breaks as well.
        symptom: How it shows.
        cause: Where it comes from.
        references: Upstream threads, as `owner/repository#number`.
        fixed: The version in which it was fixed upstream.
        watches_nodes: It needs to see the nodes of llama.cpp's graph, which slows every evaluation.
        arguments: Keywords that the function is called with.

    Raises:
        UserError: the id is taken or no plain name, or what must be said is not.
    """
    try:
        # A bench keeps the traces of a defect in a folder of this name.
        plain_name(id)
    except ValueError as error:
        raise UserError(f"the id of a defect: {error}") from None
    where = _member(Place, "place", place, id)
    at = _STAGES.get(where) if stage is None else _member(Stage, "stage", stage, id)
    if at is None:
        raise UserError(f"the defect {id!r} names no stage", f"planted at {where.value!r} it must: stage=...")
    sort = kind or ("integration" if where in _STAGES else None)
    if sort is None:
        raise UserError(f"the defect {id!r} names no kind", f"one of {', '.join(get_args(Kind))}")
    for what, value, known in (("kind", sort, Kind), ("symptom", symptom, Symptom), ("cause", cause, Cause)):
        if value not in get_args(known):
            raise _unknown(what, value, get_args(known), id)
    if (where in _OF_A_COMPONENT) != (component is not None):
        if component is None:
            raise UserError(f"the defect {id!r} is planted at {where.value!r} and names no component")
        raise UserError(f"the defect {id!r} is planted at {where.value!r}, which is no component's: leave it out")

    def register(function: Function) -> Function:
        if id in _REGISTER:
            raise UserError(f"two defects have the id {id!r}", f"{_REGISTER[id].hook} has it already")
        _REGISTER[id] = Defect(
            id=id,
            stage=at,
            kind=sort,
            sentence=sentence,
            place=where,
            hook=f"{function.__module__}:{function.__qualname__}",
            arguments=arguments,
            component=component,
            models=tuple(models),
            touches=tuple(touches),
            symptom=symptom,
            cause=cause,
            references=tuple(references),
            fixed=fixed,
            watches_nodes=watches_nodes,
        )
        return function

    return register


def registered() -> Mapping[str, Defect]:
    """Return every defect that has been registered so far, by id."""
    return _REGISTER


Member = TypeVar("Member", bound=StrEnum)


def _member(known: type[Member], what: str, value: str, name: str) -> Member:
    try:
        return known(value)
    except ValueError:
        raise _unknown(what, value, [one.value for one in known], name) from None


def _unknown(what: str, value: str, known: Sequence[str], name: str) -> UserError:
    error = unknown_name(what, value, known)
    return UserError(f"the defect {name!r}: {error.message}", error.remedy)
