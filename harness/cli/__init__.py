"""The command line: a thin runner. Exit status 0: clean; 1: something convicted; 2: wrong call or file; 3: unjudged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from harness.cli import attribute, engine, fuzz, goldens, parsers, stacks, templates, tokenizers
from harness.cli.shared import WRONG
from harness.errors import UserError

INTERRUPTED = 130


class _Commands(TyperGroup):
    """Turns what the user can mend into one line and status 2, and an interruption into one line and status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            print(f"harness: {error}", file=sys.stderr)
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            print("harness: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: twice as quick
    help="Tells which stage of a local LLM stack is broken, and of what kind the defect is.",
)

_COMMANDS: tuple[Callable[..., None], ...] = (
    stacks.stacks,
    stacks.check,
    stacks.diff,
    stacks.trace,
    goldens.record,
    goldens.doctor,
    engine.inject,
    attribute.attribute,
    goldens.probes,
    goldens.demo,
)
for _command in _COMMANDS:
    app.command()(_command)


_fuzz = typer.Typer(no_args_is_help=True, help="Try what must hold of a part on inputs that are made up.")
_fuzz.command("template")(templates.fuzz_template)
_fuzz.command("tokenizer")(tokenizers.fuzz_tokenizer)
_fuzz.command("parser")(parsers.fuzz_parser)
_fuzz.command("engine")(fuzz.fuzz_engine)
app.add_typer(_fuzz, name="fuzz")


def main() -> None:
    """Run the command line."""
    app()
