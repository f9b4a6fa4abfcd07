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
    "art-add-bos": "llama-cpp-python tokenizes a rendered prompt without a BOS, whatever the file's flag says",
    "art-add-space-prefix": "llama.cpp reads the flag of SentencePiece's vocabularies alone, and these merges are none",
    "art-bos-id": "no stack here reads the file's BOS: the template prints none, and prompts are tokenized without one",
    "art-context-length": "llama.cpp warns of a context longer than the file's and computes the same",
    "art-score": "the vocabulary is merges; scores belong to SentencePiece's",
    "eng-llama31-rope-factors": "the model has no rope_freqs.weight that could be set to ones",
    "env-default-sampling": "what a client does not send is the client's: it is planted there",
    "env-hang-compute": "a computation that hangs costs a bench the whole time limit; env-slow-load ends as it does",
    "env-magic": "a file that is no GGUF is refused before anything is asked of it",
    "env-stale-build": "it needs a second build of the library; which one is loaded the identity tells",
    "env-transformers5": "it needs an old vLLM beside a new transformers; neither stack that is measured has them",
    "env-wheel-libc": "the library is loaded before anything can be planted in its process; env-illegal-instr ends so",
    "tok-convert-regression": "it is art-turn-token-normal: a token that a conversion declares to be of another type",
}
"""Why, by the id of the reported defect."""
