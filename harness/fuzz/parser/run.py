"""Properties of a parser tried on conversations that are made up and rendered by its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.errors import unknown_name
from harness.fuzz.finding import Broken, Finding, cause_of
from harness.fuzz.parser.cutting import units
from harness.fuzz.parser.properties import NOT_ASKED, PROPERTIES, Property, UnjudgedError
from harness.fuzz.parser.trial import Render, Trial, written
from harness.fuzz.search import Search, found_in
from harness.parts import Format, Parser, PartError
from harness.values import Json


@dataclass
class Statistics:
    """What a search came to.

    Attributes:
        inputs: How many different inputs were tried.
        judged: By property, how many of them could be judged.
        unasked: Why the parser did not parse an input, and how many inputs.
        ended: Whether its time was over before its examples were.
    """

    inputs: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    unasked: Counter[str] = field(default_factory=Counter)
    ended: bool = False


def fuzz_parser(
    parser: Parser,
    format: Format,  # noqa: A002 - the name that every parser has for it
    render: Render,
    *,
    conversations: SearchStrategy[Json],
    chunkings: Callable[[int], SearchStrategy[Sequence[int]]],
    examples: int,
    number: int,
    variables: Mapping[str, Any] = MappingProxyType({}),
    only: Sequence[str] = (),
    known: Iterable[Json] = (),
    seconds: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Finding], Statistics]:
    """Try the properties of a parser.

    Args:
        parser: The parser, made for this format.
        format: The format.
        render: Renders with the format's template. Raises `PartError` where it cannot.
        conversations: Makes `{"messages": [...], "tools": [...]}`; those that end with the assistant are judged.
        chunkings: Makes ways to cut so many pieces into groups: the sizes of the groups.
        examples: How many inputs are made up; 0 for none.
        number: The seed; the same one makes the same inputs.
        variables: Template variables, for the renderer and for the parser's own template alike.
        only: The names of the properties; all of them where nothing is said.
        known: Inputs to try before any are made up: the examples of findings.
        seconds: The time budget; None for none.
        progress: Told how many inputs were tried.

    Raises:
        UserError: there is no such property.
    """
    chosen = [_named(name) for name in only] or list(PROPERTIES.values())
    statistics = Statistics(judged=dict.fromkeys((one.name for one in chosen), 0))

    def check(example: Json) -> list[Broken]:
        made = written(example["conversation"], format, render, variables)
        if made is None:
            statistics.unasked["the template does not render the message after its prompt"] += 1
            return []
        trial = Trial(parser, format, example["conversation"], made, example["sizes"], variables)
        broken = []
        for one in chosen:
            try:
                found = one.check(trial)
            except UnjudgedError:
                continue
            statistics.judged[one.name] += 1
            broken += [found] if found else []
        if isinstance(trial.whole, PartError) and trial.whole.kind in NOT_ASKED:
            statistics.unasked[cause_of(trial.whole.message)] += 1
        return broken

    @st.composite
    def inputs(draw: st.DrawFn) -> Json:
        conversation = draw(conversations)
        made = written(conversation, format, render, variables)
        length = len(units(made.text, format.markers)) if made is not None else 0
        return {"conversation": conversation, "sizes": list(draw(chunkings(length))) if length else []}

    search: Search[Json] = Search(check, seconds, progress)
    search.replay(known)
    if examples:
        search.explore(inputs(), examples=examples, number=number)
    statistics.inputs, statistics.ended = search.result.inputs, search.result.ended
    findings = [
        Finding(
            broken=found.broken,
            sentence=PROPERTIES[found.broken.name].sentence,
            subjects=(format.name,),
            inputs=found.inputs,
            example=found.example,
            subject=format.name,
        )
        for found in found_in(search)
    ]
    return findings, statistics


def _named(name: str) -> Property:
    if name not in PROPERTIES:
        raise unknown_name("property", name, PROPERTIES)
    return PROPERTIES[name]
