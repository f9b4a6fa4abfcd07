"""By what mechanism an output differs: the parts of a difference that have one cause each, the same in all cases.

The places where two outputs differ are other ones in every case, as the texts are. What was done to them is not: the
messages are in another order, the last character of a text is missing, a count is smaller by one. That is looked for in
what the golden was made of, and a part is only made of what is recognised; the rest keeps the places as its causes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.checking.compare.outcome import Comparison, Difference
from harness.checking.compare.parts import client, prompt, reply, tokens
from harness.values import Prompt, Reply, Request, Tokens


def with_parts(comparison: Comparison, golden: Any, observed: Any, request: Request) -> Comparison:
    """Return a comparison whose difference, where there is one, says of which parts it consists.

    Args:
        comparison: What was compared.
        golden: The golden's output of the stage.
        observed: The stack's.
        request: The golden's request: the messages that the case is about.
    """
    difference = comparison.difference
    if difference is None:
        return comparison
    parts: Iterable[Difference] = ()
    if isinstance(golden, Request) and isinstance(observed, Request):
        parts = client.parts(golden, observed, difference)
    elif isinstance(golden, Prompt) and isinstance(observed, Prompt):
        parts = prompt.parts(golden, observed, request, difference)
    elif isinstance(golden, Tokens) and isinstance(observed, Tokens):
        parts = tokens.parts(golden, observed, difference)
    elif isinstance(golden, Reply) and isinstance(observed, Reply):
        parts = reply.parts(golden, observed, difference)
    found = tuple(parts)
    if not found:
        return comparison
    return comparison.model_copy(update={"difference": difference.model_copy(update={"parts": found})})
