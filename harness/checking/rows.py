"""Evidence that needs no golden: what is declared or documented, and what was found in its place, one row a thing.

Two kinds of rows exist. Those of the *load stage* hold what a file, a command line or a stack declares against what is
in force. *Canaries* hold what a server answers against the API that it says it speaks.
"""

from __future__ import annotations

from typing import Literal

from harness.checking.compare.outcome import Kind, Outcome
from harness.stage import Stage
from harness.values import OwnError, Value


class Row(Value):
    """One thing that was looked at.

    Attributes:
        of: The load stage, or a canary.
        name: What it is, in a few words: `context of a slot`.
        expected: What is declared, or documented; a short text.
        found: What is in force, or came; empty where it was not seen.
        source: Who declares it: `llama.context_length of the file`, `OpenAI API reference, chat completions: stop`.
        outcome: `equal`, `diverged`, `unobserved` or `error`.
        stage: Whose it is.
        kind: What sort of defect it is, where it diverged.
        why: Of what was not seen, why; of what diverged, the finding in one line.
        remedy: What to change, where that is known.
        error: The error of our own.
    """

    of: Literal["load", "canary"]
    name: str
    expected: str
    found: str = ""
    source: str
    outcome: Outcome
    stage: Stage
    kind: Kind = "integration"
    why: str = ""
    remedy: str = ""
    error: OwnError | None = None
