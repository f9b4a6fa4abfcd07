"""Verdicts as a comment on a pull request, in GitHub's Markdown.

Whatever a model, a template or a server said stands in code, where no Markdown, mention, reference or link is read:
within a line as an element in which every character that could mean something is an entity, else in a fence that is
longer than any run of backticks within.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.checking.compare.outcome import Difference, Outcome
from harness.checking.verdict import Finding
from harness.report.difference import diff_lines
from harness.report.sheet import SIGNS, Sheet, SheetCase, by_weight, difference_of, is_bad, outcome_of, word_of
from harness.report.visible import shorten, visible
from harness.stage import Stage

LIMIT = 65_536
"""Characters that a comment may hold."""
_NOTICE = 200
"""Characters kept free for saying what was left out."""
_PLACES = 3
_LONGEST = 600
_CASES = 12
MARK = {"good": "\u2705", "bad": "\u274c", "unknown": "\u2754"}
"""What stands before a result."""
# All punctuation but what means nothing within a line; of the dots the one that makes a link.
_MEANING = re.compile(r"""(?<=www)\.|_|[^\w ,.;()'"/=+%?{}^\u0080-\U0010ffff-]""", re.IGNORECASE)


def to_markdown(sheets: Sequence[Sheet]) -> str:
    """Return sheets as one comment: first every verdict, then tables, then findings, and the cases last.

    What goes beyond GitHub's limit is left out from the end, and the comment says so.

    Args:
        sheets: What to show, one a model.
    """
    return fitted([block for part in (_head, _findings, _rest, _details) for sheet in sheets for block in part(sheet)])


def fitted(blocks: Sequence[str]) -> str:
    """Return blocks as one comment. What goes beyond GitHub's limit is left out from the end, and that is said."""
    kept: list[str] = []
    length = 0
    for block in blocks:
        length += len(block) + 2
        if length > LIMIT - _NOTICE:
            break
        kept.append(block)
    left = len(blocks) - len(kept)
    if left:
        kept.append(f"> **Truncated:** {left} of {len(blocks)} parts of this report do not fit into a comment.")
    return "\n\n".join(kept) + "\n"


def code(text: str) -> str:
    """Return text of others for use within a line or a cell: one line of code that means nothing but itself."""
    return f"<code>{prose(text)}</code>"


def prose(text: str) -> str:
    """Return text of ours for use within a line or a cell, in which no Markdown is read."""
    return _MEANING.sub(lambda found: f"&#{ord(found[0])};", visible(shorten(text, _LONGEST)))


def fence(lines: Sequence[str], language: str) -> str:
    """Return lines in a fence that nothing in them can close."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    bar = "`" * max(longest + 1, 3)
    return "\n".join((f"{bar}{language}", *lines, bar))


def _head(sheet: Sheet) -> Iterator[str]:
    yield f"### {MARK[sheet.status]} {code(sheet.line)}"
    made = f", {code(sheet.made)}" if sheet.made else ""
    yield f"{code(sheet.title)}, {_number(len(sheet.cases), 'case')}{made}"
    rows = ["| stage | status | cases | why |", "|---|---|---|---|"]
    for stage, said in sheet.stages.items():
        word = word_of(sheet, said.status)
        status = f"**{code(word)}**" if said.status == "convicted" else word
        counts = ", ".join(f"{said.outcomes[o]} {o}" for o in Outcome if o in said.outcomes) or "none"
        rows.append(f"| {stage} | {status} | {counts} | {code(said.why)} |")
    yield "\n".join(rows)


def _findings(sheet: Sheet) -> Iterator[str]:
    for finding in by_weight(sheet.findings):
        yield "\n\n".join(_finding(finding, len(sheet.cases)))


def _finding(finding: Finding, cases: int) -> Iterator[str]:
    evidence = "" if finding.evidence == "isolated" else f", {finding.evidence}"
    yield f"#### {finding.stage} ({finding.kind}{evidence})"
    yield code(finding.summary)
    if finding.cases:
        named = ", ".join(code(case) for case in finding.cases[:_CASES])
        more = f", and {len(finding.cases) - _CASES} more" if len(finding.cases) > _CASES else ""
        yield f"In {len(finding.cases)} of {_number(cases, 'case')}: {named}{more}"
    if finding.location is not None:
        yield code(finding.location)
    yield from (code(hint) for hint in finding.hints)
    if finding.difference.hunks:
        yield f"How, in {code(finding.example)}:" if finding.example else "How:"
        yield fence(diff_lines(finding.difference, _PLACES), "diff")
    if finding.remedy is not None:
        yield f"Remedy: {code(finding.remedy)}"


def _rest(sheet: Sheet) -> Iterator[str]:
    if sheet.notes:
        yield "\n".join(f"* {code(note)}" for note in sheet.notes)
    if sheet.command:
        yield f"Run it again:\n\n{fence([visible(sheet.command)], 'sh')}"
    if sheet.parts:
        rows = "\n".join(f"| {code(name)} | {code(value)} |" for name, value in sheet.parts.items())
        yield f"<details><summary>What ran</summary>\n\n| part | version |\n|---|---|\n{rows}\n\n</details>"


def _details(sheet: Sheet) -> Iterator[str]:
    for case in sheet.cases:
        if case.bad:
            yield _case(case)
    rows = [_row(case) for case in sheet.cases]
    # Tables of a size that a limit can leave out without leaving out all.
    for start in range(0, len(rows), 100):
        head = f"| case | {' | '.join(Stage)} |\n|---|{'---|' * len(Stage)}"
        table = "\n".join((head, *rows[start : start + 100]))
        span = f"{start + 1} to {min(start + 100, len(rows))} of {len(rows)}"
        yield f"<details><summary>Cases {span}</summary>\n\n{table}\n\n</details>"


def _row(case: SheetCase) -> str:
    found = {result.stage: f"{SIGNS[outcome_of(result)]} {outcome_of(result)}" for result in case.results}
    return f"| {code(case.name)} | {' | '.join(found.get(stage, '') for stage in Stage)} |"


def _case(case: SheetCase) -> str:
    parts = [f"<details><summary>{code(case.name)}</summary>"]
    for result in case.results:
        difference: Difference | None = difference_of(result)
        if is_bad(result) and difference is not None:
            parts.append(f"{result.stage}: {outcome_of(result)}: {code(difference.summary)}")
            if difference.hunks:
                parts.append(fence(diff_lines(difference, _PLACES), "diff"))
    return "\n\n".join((*parts, "</details>"))


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
