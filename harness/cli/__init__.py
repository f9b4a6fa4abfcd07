"""The command line: a thin runner.

Exit status 0: clean; 1: something convicted; 2: wrong call or file; 3: unjudged; 4: an error of our own;
130: interrupted.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from harness.cli import attribute, engine, fuzz, goldens, parsers, stacks, templates, tokenizers
from harness.cli.shared import OWN_ERROR, UNJUDGED, WRONG, print_own_errors
from harness.errors import NotRunningError, UserError

INTERRUPTED = 130
# Typer has brought Click by other names; what is common to its errors is public in none of them.
_USAGE: tuple[type[Exception], ...] = tuple(
    kind for kind in typer.BadParameter.__mro__ if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)


class _Commands(TyperGroup):
    """Turns every end of a command that is no answer into one line and its status.

    What the user can mend is status 2; a part or a server that does not run, where nothing else can be said, 3; an
    error of our own 4; an interruption 130.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                # A disk may be full behind it, which is else seen when nobody can say so any more.
                sys.stdout.flush()
        except UserError as error:
            print(f"harness: {error}", file=sys.stderr)
            raise typer.Exit(UNJUDGED if isinstance(error, NotRunningError) else WRONG) from None
        except KeyboardInterrupt:
            print("harness: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, (typer.Exit, typer.Abort, *_USAGE)):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                # Whoever read has gone.
                raise
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                where = error.filename or "standard output, or the folder of temporary files,"
                print(f"harness: {where} cannot be written: {error.strerror}; make room", file=sys.stderr)
                _drop_output()
                raise typer.Exit(WRONG) from None
            raise typer.Exit(_ended(error)) from None


def _drop_output() -> None:
    """Let what standard output still holds go nowhere, or the interpreter's end would try to write it again."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _ended(error: Exception) -> int:
    """Say what ended a command, and return its status."""
    from harness.checking.own import own_error
    from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError

    if isinstance(error, StageFailedError | StageRefusedError | StageUnobservedError):
        print(f"harness: could not go on: {error}", file=sys.stderr)
        return UNJUDGED
    print_own_errors([own_error(error)])
    return OWN_ERROR


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: twice as quick
)


def _version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("llm-stack-harness"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Tells which stage of a local LLM stack is broken, and of what kind the defect is.

    Of a server: harness check http://127.0.0.1:8080. Of a model file: harness check --model FILE.gguf.
    Exit status 0: clean; 1: something convicted; 2: wrong call or file; 3: could not judge; 4: an error of our own.
    """


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
