"""Verdicts on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.checking.compare.outcome import Hunk, Outcome
from harness.checking.verdict import Finding, StageVerdict, Verdict
from harness.report.difference import place
from harness.report.rows import rows_block
from harness.report.visible import visible
from harness.stage import Stage
from harness.values import Ending, Generation, Observation, OwnError, Prompt, Reply, Request, Tokens

if TYPE_CHECKING:
    from harness.checking.compare.inference import Floor
    from harness.checking.diff import Diff
    from harness.doctor.diagnosis import Diagnosis
    from harness.fuzz.engine import Tried
    from harness.project.overview import Overview
    from harness.reference.record import Recorded

_STATUS_STYLE = {
    "cleared": "green",
    "convicted": "bold red",
    "inherits": "yellow",
    "unobserved": "bold yellow",
    "error": "bold magenta",
}
_VERDICT_STYLE = {"clean": "bold green", "convicted": "bold red", "unjudged": "bold yellow", "error": "bold magenta"}
DIFF_WORDS = {"convicted": "differs", "cleared": "agrees"}
"""What the statuses of a verdict are called where two stacks are held against each other and none is right."""
_HUNKS = 3
_CASES = 6


def render_verdict(verdict: Verdict) -> RenderableType:
    """Return a verdict: the table of stages, each finding with its smallest difference, the notes, and the line."""
    cases = len({result.case for result in verdict.results})
    parts: list[RenderableType] = [
        Text.assemble(
            (verdict.stack, "bold"), " around ", (verdict.model, "bold"), f", {cases} case{'' if cases == 1 else 's'}"
        ),
        stages_table(verdict.stages),
        *rows_block(verdict.rows),
    ]
    for finding in verdict.findings:
        parts += [Text(), finding_block(finding, cases)]
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
        console.print(finding_block(finding, len(finding.cases)))
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
        table.add_row("ended", _value(observation.broke))
    return table


def stages_table(stages: Mapping[Stage, StageVerdict], words: Mapping[str, str] | None = None) -> Table:
    """Return what is said of each stage, as a table; a status may be called by another word."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("cases", no_wrap=True)
    table.add_column("why", overflow="fold")
    for stage, said in stages.items():
        status = Text((words or {}).get(said.status, said.status), style=_STATUS_STYLE[said.status])
        table.add_row(stage, status, _counts(said.outcomes), Text(visible(said.why), overflow="fold"))
    return table


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _counts(outcomes: Mapping[Outcome, int]) -> str:
    return "\n".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcome in outcomes) or "none"


def finding_block(finding: Finding, cases: int) -> RenderableType:
    """Return a finding with its smallest differences."""
    head = Text.assemble((str(finding.stage), "bold red"), f" ({finding.kind}): ", visible(finding.summary))
    shown: list[RenderableType] = [head]
    if finding.cases:
        listed = ", ".join(finding.cases[:_CASES])
        more = f", and {len(finding.cases) - _CASES} more" if len(finding.cases) > _CASES else ""
        shown.append(_indented(f"in {len(finding.cases)} of {_cases(cases)}: {listed}{more}"))
    if finding.location is not None:
        shown.append(_indented(visible(finding.location)))
    shown += [_indented(visible(hint)) for hint in finding.hints]
    if finding.difference.hunks and finding.example:
        shown.append(_indented(f"case {finding.example}:"))
    shown += [_hunk(hunk) for hunk in finding.difference.hunks[:_HUNKS]]
    left = len(finding.difference.hunks) - _HUNKS
    if left > 0:
        shown.append(_indented(f"... and {left} more places"))
    if finding.remedy is not None:
        shown.append(Padding(Text(f"remedy: {visible(finding.remedy)}"), (0, 0, 0, 2)))
    return Group(*shown)


def _indented(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 0, 0, 2))


def _hunk(hunk: Hunk) -> Padding:
    shown = place(hunk)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("@", Text(shown.at, style="dim"))
    for sign, text, style in (("-", shown.expected, "green"), ("+", shown.observed, "red")):
        middle = f"\u27e6{text}\u27e7"
        table.add_row(sign, Text.assemble((shown.before, "dim"), (middle, style), (shown.after, "dim")))
    return Padding(table, (0, 0, 0, 4))


def _value(value: object) -> Text:
    if value is None:
        return Text("not reached", style="dim")
    if isinstance(value, OwnError):
        return Text(visible(f"an error of our own: {value.describe()}"), style="bold magenta")
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
            table.add_row(Text(line.name), mark, Text(visible(line.says)))
        console.print(table)
        console.print()
    console.print(Text(f"{len(found.cases)} cases: {', '.join(found.cases)}"))


def print_recording(console: Console, model: str, results: Sequence[Recorded], follows: str = "") -> None:
    """Print what recording a model's goldens found, and how to approve what it did not write.

    Args:
        console: Where.
        model: The model.
        results: What was found.
        follows: The command that comes next where nothing is left to approve, if there is one.
    """
    if not results:
        remedy = "add a file to golden/cases, or name cases in models.toml"
        console.print(Text(f"{model}: nothing to record: no case is asked of it; {remedy}"))
        return
    counts: dict[str, int] = {}
    for one in results:
        counts[one.change] = counts.get(one.change, 0) + 1
        if one.change != "unchanged":
            what = f" ({visible(', '.join(one.what))})" if one.what else ""
            console.print(Text(f"{one.change:9} {one.case}{what}{', written' if one.written else ''}"))
    idle = ", nothing to record" if set(counts) == {"unchanged"} else ""
    then = f"; next: {follows}" if follows else ""
    counted = ", ".join(f"{count} {change}" for change, count in counts.items())
    console.print(Text(f"{model}: {counted}{idle}{then}"))
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


def print_tried(console: Console, model: str, tried: Sequence[Tried], floor: Floor | None) -> None:
    """Print what came of each invariant of an engine, each finding with its smallest input, and the line."""
    styles = {"holds": "green", "broken": "bold red", "unjudged": "bold yellow"}
    console.print(Text.assemble("llama.cpp around ", (visible(model), "bold")))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("invariant", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("inputs", justify="right")
    table.add_column("rows bit for bit", justify="right")
    table.add_column("of the limit", justify="right")
    for one in tried:
        share = f"{one.share:.0%}" if one.share else ""
        exact = str(one.exact) if one.exact else ""
        table.add_row(one.invariant, Text(one.status, style=styles[one.status]), str(one.inputs), exact, share)
    console.print(table)
    for one in tried:
        if one.broken is not None:
            console.print()
            head = Text.assemble((one.invariant, "bold red"), f": not true that {one.sentence}")
            console.print(head)
            console.print(_indented(visible(f"{one.broken.what}: {one.broken.message}")))
            console.print(_indented(f"the smallest prompt found: {' '.join(map(str, one.ids))}"))
            # In one line however long, to be copied.
            console.print(Text(f"  again: {visible(one.command)}", style="dim"), soft_wrap=True)
    broken, unjudged = ([one.invariant for one in tried if one.status == word] for word in ("broken", "unjudged"))
    if unjudged:
        other = "the prompt is too short, or the model has no rotary positions"
        why = "no noise floor was measured for it; --limit sets one" if floor is None else other
        console.print(Padding(Text(f"unjudged: {', '.join(unjudged)}: {why}", style="yellow"), (1, 0, 0, 2)))
    console.print()
    if broken:
        console.print(Text(f"broken: {', '.join(broken)} [{len(broken)} of {len(tried)}]", style="bold red"))
    else:
        held = f"{len(tried) - len(unjudged)} of {len(tried)} invariants hold"
        console.print(Text(held, style="bold yellow" if unjudged else "bold green"))


def print_scene(console: Console, planted: str, sentence: str, verdict: Verdict) -> None:
    """Print one part of the demonstration."""
    title = f"planted: {planted}" if planted else "nothing planted"
    console.rule(Text(title, style="bold"), align="left")
    console.print(Text(sentence, style="dim"))
    console.print()
    print_verdicts(console, [verdict])


def print_diff(console: Console, diff: Diff) -> None:
    """Print a diff: the table of stages, each finding with what the reference says of it, the swaps, and the line."""
    cases = len({result.case for result in diff.verdict.results})
    console.print(
        Text.assemble((diff.a, "bold"), " (-) and ", (diff.b, "bold"), f" (+) around {diff.model}, {_cases(cases)}")
    )
    console.print(stages_table(diff.verdict.stages, DIFF_WORDS))
    for finding, sides in zip(diff.verdict.findings, diff.sides, strict=True):
        console.print()
        console.print(finding_block(finding, cases))
        if sides is not None:
            console.print(_indented(visible(sides.describe(diff.a, diff.b))))
    if diff.swaps:
        console.print()
        console.print(_swaps(diff))
    for note in diff.verdict.notes:
        console.print(Padding(Text(visible(note), style="yellow"), (0, 0, 0, 2)))
    console.print()
    console.print(Text(visible(diff.line), style=_VERDICT_STYLE[diff.verdict.status]))
    console.print()


def _swaps(diff: Diff) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("swapped", no_wrap=True)
    table.add_column("differ", justify="right")
    table.add_column("then equal", justify="right")
    table.add_column("", overflow="fold")
    for swap in diff.swaps:
        left = sorted(set(swap.differ) - set(swap.equal))
        more = f"still different: {', '.join(left[:_CASES])}{', ...' if len(left) > _CASES else ''}" if left else ""
        table.add_row(" and ".join(swap.stages), str(len(swap.differ)), str(len(swap.equal)), Text(visible(more)))
    return table
