"""Commands about the engine itself: inject."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.shared import (
    CLEAN,
    UNJUDGED,
    As,
    Format,
    Html,
    Markdown,
    Model,
    Outputs,
    Where,
    console,
    progress_line,
    project_at,
    writer,
)
from harness.errors import UserError


def inject(
    stack: Annotated[str, typer.Argument(help="A stack whose inference is llama-cpp-python's.")],
    out: Annotated[Path, typer.Option("--out", help="The campaign's folder: its manifest and its results.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many faults.")] = 1000,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="A kind of fault, or activation, weight, operator, cache, logits; may be repeated."
        ),
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option("--phase", help="When activations are hurt: prefill, first, decode; may be repeated."),
    ] = None,
    case: Annotated[str, typer.Option("--case", help="The case whose prompt is fed.")] = "several-turns",
    model: Model = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same faults.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Ids that are generated after the first.")] = 2,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that compute.")] = 2,
    setting: Annotated[
        list[str] | None,
        typer.Option("--setting", metavar="FIELD=NUMBER", help="A field of llama_context_params; may be repeated."),
    ] = None,
    faults_of: Annotated[
        Path | None,
        typer.Option("--faults-of", metavar="FOLDER", help="The faults of this campaign again, compared one by one."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the campaign in the folder.")] = False,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Run on a dask cluster with this scheduler.")
    ] = None,
    html: Html = None,
    markdown: Markdown = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Write the plots as PNG into this folder.")] = None,
    project: Where = None,
    form: As = Format.TEXT,
) -> None:
    """Inject faults into the engine, and report what came of them and which check would have noticed."""
    from harness.inject import campaign
    from harness.inject.fault import LeakError
    from harness.inject.prepare import PHASES, prepare
    from harness.inject.summary import paired, summarise
    from harness.project.files import write_file
    from harness.report import machine
    from harness.report.campaign.console import print_campaign, print_paired

    outputs = Outputs("harness.report.campaign", html=html, markdown=markdown)
    to_pngs = _plots(plots) if plots is not None else None
    other = None if faults_of is None else campaign.load(faults_of)
    if resume:
        manifest = campaign.load(out)
    else:
        campaign.check_new(out)
        context = _settings(setting or ())
        if other is not None:
            manifest = campaign.again(other, threads, context)
        else:
            manifest = prepare(
                project_at(project),
                stack,
                model,
                case,
                count=count,
                seed=seed,
                kinds=kind or ("activation-bit",),
                phases=tuple(phase or PHASES[1:]),  # type: ignore[arg-type]
                steps=steps,
                threads=threads,
                context=context,
            )
    total = len(manifest.faults)
    try:
        with progress_line() as progress, campaign.executor_at(scheduler) as executor:
            if not resume:
                campaign.save(manifest, out)
            found = campaign.run(out, manifest, executor, lambda done: progress("faults", done, total))
    except LeakError as leak:
        print(f"harness: the engine was not what it was after its faults were undone: {leak}", file=sys.stderr)
        raise typer.Exit(UNJUDGED) from None
    summary = summarise(manifest, found)
    pairs = None if other is None or faults_of is None else paired(campaign.results(faults_of, other), found)
    outputs.write(summary)
    if plots is not None and to_pngs is not None:
        for name, data in to_pngs(summary).items():
            write_file(plots / name, data)
    if form is Format.JSON:
        print(machine.to_json(machine.INJECT, exit_status=CLEAN, summary=summary, paired=pairs))
        return
    print_campaign(console(), summary)
    if pairs is not None and faults_of is not None:
        print_paired(console(), (faults_of.name, out.name), pairs)


def _settings(texts: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            raise UserError(f"--setting {text!r} is no FIELD=NUMBER", "as in --setting flash_attn_type=1") from None
    return found


def _plots(folder: Path) -> Any:
    """Return what draws the plots, so that what is missing is said before the work begins."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder", "name one for the plots")
    return writer("harness.report.campaign.plots", "to_pngs", "plots")
