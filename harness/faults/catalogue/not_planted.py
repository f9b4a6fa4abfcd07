"""Reported defects that cannot be planted where this catalogue plants, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NO_CASE = "no case asks for it"
_POLICY = "the stack does so by design, as a declared policy, so planting it changes nothing"

NOT_PLANTED: Final[Mapping[str, str]] = {
    "cli-wrong-endpoint": "a stack has its chat route only; such a client's text is planted as cli-messages-flattened",
    "tok-special-token-injection": f"control tokens in a message's text are read as such: {_POLICY}",
    "tok-parse-special-injection": f"control tokens in a message's text are read as such: {_POLICY}",
    "tok-swap-test": "no defect: it says how one is found",
    "tok-reference-dispute": "no defect of a stack: which of two references is right",
    "pp-stop-string-hidden-by-skip-special": f"a stop string that is a control token: {_NO_CASE}",
    "pp-logprobs-semantics": f"log-probabilities in the answer: {_NO_CASE}, and a reply keeps none",
    "tok-mistral-regex": "no case has a token with a capital letter inside, where that pattern splits",
    "pp-finish-reason-hides-length": "no case cuts a call by max_tokens; pp-finish-tool-calls is its form without one",
    "pp-partial-tag-invalid-diff": "a stream cannot take back what it sent, so a parser that tries to ends",
    "pp-special-stripped-before-parser": "the markers of the templates in use are ordinary text",
    "eng-logit-bias": f"a logit_bias: {_NO_CASE}; biases that nobody asked for are planted as smp-hidden-logit-bias",
    "eng-grammar-order": f"a grammar: {_NO_CASE}",
}
"""Why, by the id of the reported defect."""
