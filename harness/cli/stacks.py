"""Commands that run stacks: list, check, diff, trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.shared import (
    CLEAN,
    CONVICTED,
    OWN_ERROR,
    UNJUDGED,
    As,
    Cases,
    Format,
    Html,
    Junit,
    Markdown,
    Outputs,
    Sarif,
    Where,
    command_line,
    console,
    print_own_errors,
    progress_line,
    project_at,
)
from harness.errors import NotRunningError, UserError

Key = Annotated[
    str | None,
    typer.Option("--api-key-variable", metavar="NAME", help="The environment variable with an address's API key."),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", help="An address's family: llama-server, ollama, lm-studio or generic; else tried."),
]


def stacks(project: Where = None, form: As = Format.TEXT) -> None:
    """List stacks, components, models and cases, and what is missing."""
    from harness.project.overview import overview
    from harness.report import machine
    from harness.report.console import print_overview

    found = overview(project_at(project))
    if form is Format.JSON:
        print(machine.to_json(machine.STACKS, **found.model_dump(mode="json")))
    else:
        print_overview(console(), found)


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="STACK_OR_URL", help="Stacks, or servers' addresses; all stacks without one."),
    ] = None,
    case: Cases = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Only this model, or a .gguf; of an address, the name to ask for."),
    ] = None,
    model_file: Annotated[
        Path | None, typer.Option("--model-file", metavar="FILE.gguf", help="The model file of an address.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option("--template", help="The chat template that is to be in force, of a .gguf.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="Ask a .gguf or an address every case, not those of a first look.")
    ] = False,
    key: Key = None,
    profile: Profile = None,
    golden: Annotated[
        str | None,
        typer.Option("--golden", metavar="MODEL", help="Hold it against this model's goldens: a quantization, say."),
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Keep every trace in this folder.")] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Convict a model file that is not the golden's; exit with 3 where a case was unobserved."
        ),
    ] = False,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Hold stacks against their goldens and print a verdict.

    Exit status 0: every stage cleared, or of an address every stage that it shows; 1: a stage convicted; 2: the call or
    a file is wrong; 3: could not judge; 4: an error of our own, which convicts nobody.
    """
    from harness.checking.compare.outcome import Outcome
    from harness.explain.subjects import Asked, is_right_in_part, judged, subjects
    from harness.report import machine
    from harness.report.console import print_verdicts
    from harness.report.sheet import sheet_of_check

    outputs = Outputs(html=html, markdown=markdown, junit=junit, sarif=sarif)
    asked = Asked(names or (), model or (), case or (), full, model_file, template, key, profile)
    verdicts: list[Any] = []
    sheets = []
    absent = False
    with progress_line() as progress:
        for subject in subjects(project_at(project), asked, _say):
            wanted = bool(outputs.wanted)
            try:
                for checked in judged(
                    subject, asked, progress, _say, save=save, keep=wanted, golden=golden, strict=strict
                ):
                    verdicts.append(checked.verdict)
                    if outputs.wanted:
                        sheets.append(sheet_of_check(checked, command_line()))
                    progress.clear()
                    if form is Format.TEXT:
                        print_verdicts(console(), [checked.verdict])
            except NotRunningError as error:
                # The others are judged all the same.
                progress.clear()
                _say(f"could not judge stack {subject.stack.name!r}: {error}")
                absent = True
    outputs.write(sheets)
    if not verdicts and not absent:
        raise UserError("none of these cases is asked of these models", "harness stacks lists both")
    # Of a server that runs already some stages can never be seen: what of it is right is told, and is no failure.
    statuses = {verdict.status for verdict in verdicts if strict or not is_right_in_part(verdict)}
    unseen = any(result.isolated.outcome is Outcome.UNOBSERVED for v in verdicts for result in v.results)
    unjudged = absent or "unjudged" in statuses or (strict and unseen)
    status = CONVICTED if "convicted" in statuses else UNJUDGED if unjudged else CLEAN
    errors = [told.error for verdict in verdicts for told in verdict.errors]
    if errors:
        status = OWN_ERROR
        print_own_errors(errors)
    if form is Format.JSON:
        print(machine.to_json(machine.CHECK, exit_status=status, verdicts=verdicts))
    raise typer.Exit(status)


def diff(
    a: Annotated[str, typer.Argument(metavar="STACK_A", help="The stack that the other is held against.")],
    b: Annotated[str, typer.Argument(metavar="STACK_B", help="The other stack.")],
    case: Cases = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be repeated.")] = None,
    other_model: Annotated[
        str | None, typer.Option("--other-model", help="Another model for STACK_B; different answers are then natural.")
    ] = None,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    sarif: Sarif = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Hold two stacks against each other, and name the stage that makes the difference."""
    from harness.checking.diff import diff as run_diff
    from harness.project.stack import load_stack
    from harness.report import machine
    from harness.report.console import print_diff
    from harness.report.sheet import sheet_of_diff

    place = project_at(project)
    outputs = Outputs(html=html, markdown=markdown, junit=junit, sarif=sarif)
    found = []
    with progress_line() as progress:
        first, second = load_stack(place, a), load_stack(place, b)
        for compared in run_diff(place, first, second, case or (), model or (), other_model, progress):
            found.append(compared)
            progress.clear()
            if form is Format.TEXT:
                print_diff(console(), compared.diff)
    if not found:
        raise UserError("none of these cases is asked of these models", "harness stacks lists both")
    outputs.write([sheet_of_diff(compared, command_line()) for compared in found])
    statuses = {compared.diff.status for compared in found}
    status = CONVICTED if "different" in statuses else UNJUDGED if "unjudged" in statuses else CLEAN
    errors = [told.error for compared in found for told in compared.diff.verdict.errors]
    if errors:
        status = OWN_ERROR
        print_own_errors(errors)
    if form is Format.JSON:
        print(machine.to_json(machine.DIFF, exit_status=status, diffs=[compared.diff for compared in found]))
    raise typer.Exit(status)


def trace(
    stack: Annotated[str, typer.Argument(metavar="STACK_OR_URL", help="A stack, or a server's address.")],
    case: Annotated[str | None, typer.Argument(help="A case.")] = None,
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="A request body as it was sent, in a case's stead.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A model of stacks/models.toml; of an address, the name to ask for.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Ask for a stream.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop before inference; needs no weights.")] = False,
    key: Key = None,
    profile: Profile = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Show what every stage of a stack makes of a case; of a server's address, what it sends to its model."""
    from harness.checking.adhoc import address_of, observe_address
    from harness.checking.opened import observe
    from harness.project.cases import case_of_body, load_case
    from harness.project.stack import load_stack
    from harness.report import machine
    from harness.report.console import render_observation

    place = project_at(project)
    if (case is None) == (body is None):
        raise UserError("name either a case or a body", "harness trace STACK_OR_URL CASE, or --body FILE")
    asked = load_case(place, case) if case is not None else case_of_body(body or Path())
    address = address_of(stack)
    if address is not None:
        found = observe_address(
            place, address, asked, key_variable=key, profile=profile, model=model, stream=stream, dry_run=dry_run
        )
    elif key or profile:
        raise UserError("--api-key-variable and --profile are of an address; a stack's file sets its own")
    else:
        found = observe(place, load_stack(place, stack), asked, model, stream=stream, dry_run=dry_run)
    if form is Format.JSON:
        print(machine.to_json(machine.TRACE, stack=stack, case=asked.name, observation=found))
    else:
        console().print(render_observation(found))
    errors = found.own_errors
    if errors:
        print_own_errors(errors)
        raise typer.Exit(OWN_ERROR)


def _say(line: str) -> None:
    print(f"harness: {line}", file=sys.stderr)
