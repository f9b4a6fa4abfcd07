"""Which parser and which format names stand for, the inputs that are made up, and one input tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from harness.errors import MissingPackageError, UserError, unknown_name
from harness.fuzz.finding import Broken, Finding
from harness.fuzz.parser.run import Statistics, fuzz_parser
from harness.fuzz.strategies._adversity import Adversity
from harness.fuzz.strategies._conversations import conversations, messages
from harness.fuzz.strategies._streams import chunkings
from harness.fuzz.template.api import chosen, engine_paths
from harness.fuzz.template.run import MEMORY
from harness.fuzz.template.subjects import subjects
from harness.parts import Format, PartError, Rendering, make
from harness.process.worker import Worker, WorkerDiedError
from harness.project.project import Project, find_project
from harness.project.stack import component_entry_points
from harness.values import Json

REFERENCE: Final = "reference"
_REFERENCE_PATH: Final = "harness.reference.parser:ReferenceParser"
_RENDERER: Final = "transformers-template"
_SECONDS: Final = 60.0
_MARKERS: Final = 64
"""Control tokens of a format: those of the vocabulary that its template writes."""
_HARD: Final[tuple[Adversity, ...]] = ("poison", "digits", "han", "whitespace")
_IN_CALLS: Final[tuple[Adversity, ...]] = ("nested", "numbers")


def parser_path(name: str) -> str:
    """Return the import path of a parser: a component's, or the reference.

    Raises:
        UserError: there is none of this name.
        MissingPackageError: its package is not installed.
    """
    if name == REFERENCE:
        return _REFERENCE_PATH
    known = component_entry_points()
    path = getattr(known[name].load(), "parser", None) if name in known else None
    if path is None:
        parsers = [one for one, point in known.items() if hasattr(point.load(), "parser")]
        raise unknown_name("parser", name, [REFERENCE, *parsers])
    return str(path)


def format_named(project: Project, name: str, template: str | None = None) -> Format:
    """Return the format that a name stands for: what its template renders, and which texts are one token.

    Args:
        project: Where models are.
        name: A model of the fixtures (`Qwen/Qwen3-0.6B`), a model of the project, a GGUF, or what else
            `harness fuzz template` takes.
        template: Which of several templates.

    Raises:
        UserError: it is none of these.
    """
    if "/" in name and not name.endswith((".jinja", ".gguf", ".json")):
        found = _of_fixtures(name)
        if found is not None:
            return found
        if not Path(name).exists():
            raise _no_fixtures(name)
    subject = chosen(subjects(project, name), template)[0].read()
    control = tuple(text for text in subject.control if text in subject.source)[:_MARKERS]
    end = str(subject.variables.get("eos_token") or "</s>")
    return Format(
        name=subject.name,
        template=subject.source,
        control=tuple(text for text in control if text != end),
        shown=tuple(text for text in subject.shown if text in subject.source)[:_MARKERS],
        ends=(end,),
        bos=str(subject.variables.get("bos_token") or "<s>"),
    )


@contextmanager
def renderer(source: str) -> Iterator[Callable[[Rendering], str]]:
    """Render a template with the reference, in a child process, for as long as the context is open."""
    init: Json = {"engines": list(engine_paths([_RENDERER]).values()), "properties": [], "conversations": []}
    with Worker("harness.fuzz.template.child:Bench", init, seconds=_SECONDS, memory=MEMORY) as worker:

        def render(asked: Rendering) -> str:
            try:
                seen = worker.call(
                    "render",
                    source=source,
                    messages=list(asked.messages),
                    tools=None if asked.tools is None else list(asked.tools),
                    variables=dict(asked.variables),
                    opens=asked.opens,
                )
            except WorkerDiedError as death:
                raise PartError("limit", death.failure.describe()) from death
            if "text" not in seen:
                raise PartError(**seen)
            return str(seen["text"])

        yield render


@st.composite
def answered(draw: st.DrawFn) -> Json:
    """Draw a conversation that ends with an assistant's message: a text, reasoning, calls."""
    asked = draw(conversations(max_turns=1, adversarial=_IN_CALLS[:1]))
    tools = asked.get("tools")
    hard = (*_HARD, *(_IN_CALLS if tools else ()))
    last = draw(
        st.one_of(
            messages(role="assistant", tools=tools, reasoning=None),
            messages(role="assistant", tools=tools, reasoning=None, adversarial=hard),
        )
    )
    return {**asked, "messages": [*asked["messages"], last]}


def search_parser(
    parser: str,
    made: Format,
    *,
    examples: int,
    number: int = 0,
    seconds: float | None = None,
    only: Sequence[str] = (),
    known: Sequence[Json] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Finding], Statistics, str]:
    """Try a parser on made-up replies in one format.

    Args:
        parser: Its name.
        made: The format.
        examples: How many inputs; 0 for the known ones only.
        number: The seed.
        seconds: The time budget.
        only: Names of properties; all where none is named.
        known: Inputs to try first.
        progress: Told how many inputs were tried.

    Returns:
        The findings, what was done, and the parser's version.

    Raises:
        UserError: there is no such parser or property.
        MissingPackageError: a package is not installed.
    """
    with renderer(made.template) as render, _opened(parser, made) as opened:
        found, statistics = fuzz_parser(
            opened,
            made,
            render,
            conversations=answered(),
            chunkings=chunkings,
            examples=examples,
            number=number,
            only=only,
            known=known,
            seconds=seconds,
            progress=progress,
        )
        return found, statistics, opened.version()


def try_parser(
    name: str, example: Json, *, parser: str = "llama-server", properties: Sequence[str] = ()
) -> list[Finding]:
    """Return what one input breaks.

    Args:
        name: What `harness fuzz parser` takes.
        example: The example of a finding: `conversation`, and the `sizes` in which its text comes.
        parser: The parser's name.
        properties: Names of properties; all where none is named.

    Raises:
        UserError: there is no such format, parser or property, or the example is none.
    """
    made = format_named(find_project(), name)
    return search_parser(parser, made, examples=0, only=properties, known=[checked(example)])[0]


def checked(example: Any) -> Json:
    """Return an example that can be tried.

    Raises:
        UserError: it is none.
    """
    if not isinstance(example, dict) or not isinstance(example.get("conversation"), dict):
        raise UserError("the example has no conversation", "take it from the report")
    found: Json = {"conversation": example["conversation"], "sizes": list(example.get("sizes") or ())}
    return found


def known_findings(parser: str, names: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """Try what is known to be wrong with a parser, each with one text.

    Returns:
        What still is, and of what cannot be asked of this parser, why.

    Raises:
        UserError: nothing is known by one of these names.
    """
    from harness.fuzz.parser.difference import shown
    from harness.fuzz.parser.known import KNOWN, reproduce
    from harness.fuzz.parser.properties import NOT_ASKED

    for name in names:
        if name not in KNOWN:
            raise unknown_name("known defect", name, KNOWN)
    found: list[Finding] = []
    unasked: list[str] = []
    for name in names or KNOWN:
        given, wrong = reproduce(name, parser_path(parser))
        one = KNOWN[name]
        if isinstance(given, PartError) and given.kind in NOT_ASKED:
            unasked.append(f"{name} could not be asked: {given.message}")
        elif wrong:
            outputs = (shown("due", one.due), shown(parser, given))
            broken = Broken(name="known", path=parser, cause=one.sentence, message=wrong, shown=outputs)
            example = {"name": name, "text": one.text, "ended": one.ended}
            sentence = "the text gives the reply that its format means"
            told = {"broken": broken, "sentence": sentence, "subjects": (one.model,), "inputs": 1, "example": example}
            found.append(Finding.model_validate({**told, "subject": one.model}))
    return found, unasked


def _of_fixtures(model: str) -> Format | None:
    try:
        from harness.fuzz.parser.fixtures import format_of
    except MissingPackageError:
        return None
    return format_of(model)


def _no_fixtures(model: str) -> UserError:
    """Return the error for what looks like a model's name on a hub, and is no file either."""
    try:
        from harness.fuzz.parser.fixtures import models
    except MissingPackageError as error:
        return error
    return unknown_name("model with a template and fixtures, and no file", model, models())


def _opened(parser: str, made: Format) -> Any:
    try:
        return make(parser_path(parser), format=made)
    except ImportError as error:
        raise MissingPackageError(f"the parser {parser!r}", str(error.name), "servers") from error
