"""The command that tries parsers of replies: fuzz parser."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.searching import (
    Again,
    BaselineFile,
    Database,
    Examples,
    Only,
    Seconds,
    Seed,
    Write,
    again,
    concluded,
    example_of,
    needs_hypothesis,
    remembered,
)
from harness.cli.shared import As, Format, Html, Junit, Markdown, Outputs, Sarif, Where, progress_line, project_at

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding

FIXTURES, KNOWN = "canitoolcall", "known"
_EXAMPLES = 100
_REASONS = 5


def fuzz_parser(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help=f"A model of the fixtures (Qwen/Qwen3-0.6B), a model of the project, a GGUF; {FIXTURES}, for all the"
            f" fixtures of that package; or {KNOWN}, for what is known to be wrong.",
        ),
    ],
    parser: Annotated[str, typer.Option("--parser", help="llama-server, transformers or reference.")] = "llama-server",
    template: Annotated[str | None, typer.Option("--template", help="Which one of several templates.")] = None,
    only: Only = None,
    examples: Examples = None,
    seconds: Seconds = None,
    seed: Seed = 0,
    example: Again = None,
    baseline: BaselineFile = None,
    write_baseline: Write = None,
    database: Database = None,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Try the parser of a server on replies that a template has rendered, cut in any way; needs no model."""
    outputs = Outputs("harness.report.fuzz", html=html, markdown=markdown, junit=junit, sarif=sarif)
    needs_hypothesis()
    if name == FIXTURES:
        told = _fixtures(parser, tuple(only or ()))
    elif name == KNOWN:
        told = _known(parser, tuple(only or ()))
    else:
        from harness.fuzz.parser.api import checked, format_named, search_parser
        from harness.fuzz.parser.properties import PROPERTIES

        made = format_named(project_at(project), name, template)
        count = _EXAMPLES if examples is None else examples
        with remembered(database, "parser", [made.name]) as memory, progress_line() as progress:
            tried = None if example is None else checked(example_of(example))
            findings, statistics, version = search_parser(
                parser,
                made,
                examples=0 if tried else count,
                number=seed,
                seconds=seconds,
                only=tuple(only or ()),
                known=[tried] if tried else list(memory.failed.get(made.name, ())),
                progress=lambda done: progress("replies", done, count),
            )
            memory.findings = () if tried else findings
        reasons = statistics.unasked.most_common(_REASONS)
        told = {
            "findings": [one.model_copy(update=_again(one, name, parser, template)) for one in findings],
            "facts": {"replies": f"{statistics.inputs:,}", parser: version},
            "properties": {one: PROPERTIES[one].sentence for one in statistics.judged},
            "held": statistics.judged,
            "ended": statistics.ended,
            "notes": tuple(f"{number:,} replies could not be asked: {reason}" for reason, number in reasons),
        }
    concluded(
        kind="parser",
        subject=name,
        baseline=baseline,
        write_baseline=write_baseline,
        outputs=outputs,
        form=form,
        seed=seed,
        **told,
    )


def _fixtures(parser: str, ids: tuple[str, ...]) -> dict[str, Any]:
    """Run the fixtures of the package canitoolcall."""
    from harness.fuzz.parser.api import parser_path
    from harness.fuzz.parser.fixtures import findings_of, run_fixtures

    path = parser_path(parser)
    with progress_line() as progress:
        judged = list(run_fixtures(path, ids=ids or None, progress=lambda done, of: progress("fixtures", done, of)))
    counted = Counter(one.status for one in judged)
    unasked = Counter(one.reason for one in judged if one.status == "unsupported").most_common(_REASONS)
    found = findings_of(judged, parser)
    return {
        "findings": [one.model_copy(update=_again_fixture(one, parser)) for one in found],
        "facts": {"parser": parser, **{status: f"{number:,}" for status, number in sorted(counted.items())}},
        "properties": {"fixtures": "a fixture's text gives the reply that the fixture expects"},
        "held": {"fixtures": len(judged) - counted["unsupported"]},
        "subjects": len({one.template for one in judged}),
        "notes": tuple(f"{number:,} fixtures could not be asked: {reason}" for reason, number in unasked),
    }


def _known(parser: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Try what is known to be wrong."""
    from harness.fuzz.parser.api import known_findings
    from harness.fuzz.parser.known import KNOWN as ALL

    found, unasked = known_findings(parser, names)
    command = ["harness", "fuzz", "parser", KNOWN, "--parser", parser, "--only"]
    return {
        "findings": [one.model_copy(update={"command": shlex.join([*command, one.example["name"]])}) for one in found],
        "facts": {"parser": parser, "texts": str(len(names or ALL))},
        "properties": {"known": "a text gives the reply that its format means"},
        "held": {"known": len(names or ALL) - len(unasked)},
        "subjects": len(names or ALL),
        "notes": tuple(unasked),
    }


def _again_fixture(finding: Finding, parser: str) -> dict[str, str]:
    words = ["harness", "fuzz", "parser", FIXTURES, "--parser", parser, "--only", finding.example["fixture"]]
    return {"command": shlex.join(words)}


def _again(finding: Finding, name: str, parser: str, template: str | None) -> dict[str, str]:
    which = [] if template is None else ["--template", template]
    words = ["harness", "fuzz", "parser", name, *which, "--parser", parser, "--only", finding.broken.name]
    call = f"try_parser({name!r}, example, parser={parser!r}, properties={[finding.broken.name]!r})"
    return again(finding, words, call, "example")
