"""A logits processor for vLLM: a request that names ids gets these ids generated, one after the other.

vLLM loads it into its engine (`--logits-processors`). The log-probabilities that it reports are those of before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

ARGUMENT = "forced_ids"


class Force(AdapterLogitsProcessor):  # type: ignore[misc]
    """Leaves only the next of the ids that the request names in `vllm_xargs`."""

    def is_argmax_invariant(self) -> bool:
        """It changes what a greedy sampler chooses."""
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[list[int], Any], Any] | None:
        """Return what is done to the logits of one request; None where nothing is."""
        forced = [int(one) for one in (params.extra_args or {}).get(ARGUMENT) or ()]
        if not forced:
            return None

        def process(generated: list[int], logits: Any) -> Any:
            step = len(generated)
            if step < len(forced):
                logits.fill_(float("-inf"))
                logits[forced[step]] = 0.0
            return logits

        return process
