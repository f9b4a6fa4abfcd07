"""The number of prompt ids that a reply reports: evidence where neither the prompt nor its ids are shown.

It proves nothing right, as another prompt may be as long. It is not the golden's where a turn was dropped, rewritten or
added. One id more or less is left alone: not every server counts the BOS.
"""

from __future__ import annotations

from typing import Final

from harness.checking.compare.outcome import Difference, Hunk
from harness.values import Prompt, Refusal, Tokens

CAUSE: Final = "another number of prompt ids"
_BOS: Final = 1


def by_count(prompt: Prompt | Refusal | None, tokens: Tokens | None, count: int | None) -> Difference | None:
    """Return how a count speaks against the prompt; None where it does not, or nothing is known.

    Args:
        prompt: The golden's.
        tokens: The golden's.
        count: What the reply reports. The number of any known policy is right too, declared or not: a server of which
            nothing else is known declares none.
    """
    if count is None or tokens is None or not isinstance(prompt, Prompt) or prompt.policies:
        # By a policy the template makes another prompt, of which the ids are not known.
        return None
    right = [len(tokens.ids), *(len(ids) for ids in tokens.policies.values())]
    if any(abs(count - one) <= _BOS for one in right):
        return None
    more = count > right[0]
    summary = (
        f"its prompt has {count} ids, the golden's {right[0]}: "
        + ("something is added to it" if more else "something of it is lost")
        + ", by the template or before it, or other ids are made of its text"
    )
    hunk = Hunk(at="prompt_tokens", golden=str(right[0]), observed=str(count))
    return Difference(summary=summary, hunks=(hunk,), causes=(CAUSE,), size=float(abs(count - right[0])))
