"""Rows on a terminal: what is wrong whole, the rest in a line each."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console, Group

from harness.checking.compare.outcome import Outcome
from harness.checking.rows import Row
from harness.report.rows import rows_block
from harness.stage import Stage
from harness.values import OwnError


def row(name: str, outcome: Outcome, **more: Any) -> Row:
    made = {"of": "load", "expected": "2,048", "found": "1,024", "source": "-c", "stage": Stage.INFERENCE}
    return Row(name=name, outcome=outcome, **{**made, **more})


def lines(*rows: Row) -> list[str]:
    console = Console(width=80, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(Group(*rows_block(rows)))
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


def test_what_is_right_and_what_is_not_seen_is_a_line_each():
    equal = [row(f"e{i}", Outcome.EQUAL) for i in range(18)]
    unseen = [row(f"u{i}", Outcome.UNOBSERVED) for i in range(6)]
    assert lines(*equal, *unseen) == ["18 settings as declared", "6 unobserved: u0, u1, u2, u3, and 2 more"]
    assert lines(equal[0], unseen[0]) == ["1 setting as declared", "1 unobserved: u0"]
    assert lines() == []


def test_what_diverged_comes_first_and_whole():
    error = OwnError(error="ValueError", message="ours", place="", traceback="")
    assert lines(
        row("template", Outcome.EQUAL),
        row("context of a slot", Outcome.DIVERGED),
        row("settings of x", Outcome.ERROR, error=error, expected=""),
    ) == [
        "loaded with        declared  in force",
        "context of a slot  2,048     1,024",
        "settings of x                " + error.describe(),
        "  1 setting as declared",
    ]


def test_canaries_are_told_apart():
    shown = lines(row("a", Outcome.EQUAL), row("stop", Outcome.DIVERGED, of="canary"))
    assert shown == ["1 setting as declared", "canary  documented  came", "stop    2,048       1,024"]


def test_no_text_of_a_server_is_read_by_the_terminal():
    assert "\x1b" not in "".join(lines(row("x", Outcome.DIVERGED, found="\x1b[31m[bold]red")))
