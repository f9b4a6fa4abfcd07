"""Verdicts on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.compare.outcome import Hunk, Outcome
from harness.report.visible import shorten, visible, visible_pair
from harness.stage import Stage
from harness.values import Ending, Generation, Observation, Prompt, Reply, Request, Tokens
from harness.verdict import Finding, StageVerdict, Verdict

if TYPE_CHECKING:
    from harness.doctor.diagnosis import Diagnosis
    from harness.overview import Overview
    from harness.record import Recorded

_STATUS_STYLE = {"cleared": "green", "convicted": "bold red", "inherits": "yellow", "unobserved": "bold yellow"}
_VERDICT_STYLE = {"clean": "bold green", "convicted": "bold red", "unjudged": "bold yellow"}
_HUNKS = 3
_CONTEXT = 40
_LONGEST = 400
_CASES = 6


def render_verdict(verdict: Verdict) -> RenderableType:
    """Return a verdict: the table of stages, each finding with its smallest difference, the notes, and the line."""
    cases = len({result.case for result in verdict.results})
    parts: list[RenderableType] = [
        Text.assemble((verdict.stack, "bold"), " around ", (verdict.model, "bold"), f", {cases} cases"),
        _stages(verdict.stages),
    ]
    for finding in verdict.findings:
        parts += [Text(), _finding(finding, cases)]
    if verdict.notes:
        parts += [Text(), *(Padding(Text(visible(note), style="yellow"), (0, 0, 0, 2)) for note in verdict.notes)]
    parts += [Text(), Text(visible(verdict.line), style=_VERDICT_STYLE[verdict.status])]
    return Group(*parts)


def print_verdicts(console: Console, verdicts: Iterable[Verdict]) -> None:
    """Print verdicts one below the other."""
    for verdict in verdicts:
        console.print(render_verdict(verdict))
        console.print()


def finding_text(finding: Finding, width: int = 100) -> str:
    """Return a finding as plain text."""
    console = Console(width=width, file=StringIO(), color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(_finding(finding, len(finding.cases)))
    return captured.get().rstrip()


def render_observation(observation: Observation) -> RenderableType:
    """Return what every stage produced, for a reader."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for stage, value in (
        ("client", observation.request),
        ("template", observation.prompt),
        ("tokenization", observation.tokens),
        ("inference", observation.generation),
        ("postprocess", observation.reply),
    ):
        table.add_row(stage, _value(value))
    if observation.broke is not None:
        table.add_row("died", Text(visible(observation.broke.describe()), style="red"))
    return table


def _stages(stages: Mapping[Stage, StageVerdict]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("cases", no_wrap=True)
    table.add_column("why", overflow="fold")
    for stage, said in stages.items():
        why = visible(said.why)
        table.add_row(stage, Text(said.status, style=_STATUS_STYLE[said.status]), _counts(said.outcomes), why)
    return table


def _counts(outcomes: Mapping[Outcome, int]) -> str:
    return "\n".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcome in outcomes) or "none"


def _finding(finding: Finding, cases: int) -> RenderableType:
    head = Text.assemble((str(finding.stage), "bold red"), f" ({finding.kind}): ", visible(finding.summary))
    listed = ", ".join(finding.cases[:_CASES])
    more = f", and {len(finding.cases) - _CASES} more" if len(finding.cases) > _CASES else ""
    where = f"in {len(finding.cases)} of {cases} cases: {listed}{more}"
    shown: list[RenderableType] = [head, _indented(where), _indented(f"case {finding.example}:")]
    shown += [_hunk(hunk) for hunk in finding.difference.hunks[:_HUNKS]]
    left = len(finding.difference.hunks) - _HUNKS
    if left > 0:
        shown.append(_indented(f"... and {left} more places"))
    return Group(*shown)


def _indented(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 0, 0, 2))


def _hunk(hunk: Hunk) -> Padding:
    golden, observed = visible_pair(hunk.golden, hunk.observed)
    before, after = visible(hunk.before)[-_CONTEXT:], visible(hunk.after)[:_CONTEXT]
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("@", Text(hunk.at, style="dim"))
    for sign, text, style in (("-", golden, "green"), ("+", observed, "red")):
        middle = f"\u27e6{shorten(text, _LONGEST)}\u27e7"
        table.add_row(sign, Text.assemble((before, "dim"), (middle, style), (after, "dim")))
    return Padding(table, (0, 0, 0, 4))


def _value(value: object) -> Text:
    if value is None:
        return Text("not reached", style="dim")
    if isinstance(value, Ending):
        said = value.describe() if value.kind == "failure" else value.model_dump_json()
        return Text(visible(said), style="yellow")
    if isinstance(value, Request):
        return Text(visible(value.model_dump_json(exclude_none=True)))
    if isinstance(value, Prompt):
        return Text(visible(value.text))
    if isinstance(value, Tokens):
        names = value.pieces or ("",) * len(value.ids)
        pairs = zip(value.ids, names, strict=True)
        return Text(" ".join(f"{i}[{visible(name)}]" if name else str(i) for i, name in pairs))
    if isinstance(value, Generation):
        return Text(f"{' '.join(map(str, value.ids))} ({value.finish})")
    assert isinstance(value, Reply)
    return Text(visible(value.model_dump_json(exclude_none=True, exclude_defaults=True)))


def print_overview(console: Console, found: Overview) -> None:
    """Print what a project has."""
    for title, lines in (("stacks", found.stacks), ("components", found.components), ("models", found.models)):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column(title, no_wrap=True)
        table.add_column("")
        table.add_column("", overflow="fold")
        for line in lines:
            mark = Text("ready", style="green") if line.ready else Text("missing", style="bold yellow")
            table.add_row(line.name, mark, visible(line.says))
        console.print(table)
        console.print()
    console.print(Text(f"{len(found.cases)} cases: {', '.join(found.cases)}"))


def print_recording(console: Console, model: str, results: Sequence[Recorded]) -> None:
    """Print what recording a model's goldens found, and how to approve what it did not write."""
    counts: dict[str, int] = {}
    for one in results:
        counts[one.change] = counts.get(one.change, 0) + 1
        if one.change != "unchanged":
            what = f" ({visible(', '.join(one.what))})" if one.what else ""
            console.print(Text(f"{one.change:9} {one.case}{what}{', written' if one.written else ''}"))
    console.print(Text(f"{model}: {', '.join(f'{count} {change}' for change, count in counts.items())}"))
    left = sorted({str(one.change) for one in results if one.change != "unchanged" and not one.written})
    if left:
        approve = " ".join(f"--approve {change}" for change in left)
        console.print(Text(f"nothing of it is written; to write it: harness record {model} {approve}"))


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print an examination, the worst first to be seen by its mark."""
    styles = {"ok": "green", "warning": "yellow", "bad": "bold red", "unobserved": "bold yellow"}
    console.print(Text.assemble((visible(diagnosis.subject), "bold"), f" ({diagnosis.kind}): {diagnosis.worst}"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in diagnosis.checks:
        said = visible(check.found) + (f" -> {visible(check.advice)}" if check.advice else "")
        table.add_row(Text(check.status, style=styles[check.status]), check.name, Text(said))
    console.print(table)
    console.print()


def print_scene(console: Console, planted: str, sentence: str, verdict: Verdict) -> None:
    """Print one part of the demonstration."""
    title = f"planted: {planted}" if planted else "nothing planted"
    console.rule(Text(title, style="bold"), align="left")
    console.print(Text(sentence, style="dim"))
    console.print()
    print_verdicts(console, [verdict])
