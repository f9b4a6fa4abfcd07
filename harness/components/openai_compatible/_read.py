"""Reading log-probabilities in the forms that servers give them.

Chat completions have `logprobs.content` (OpenAI's OpenAPI description, `ChatCompletionTokenLogprob`); llama.cpp adds
the id of each token and gives `/v1/completions` the same form. The older form has `logprobs.tokens` and `top_logprobs`
by text (`CreateCompletionResponse`); vLLM writes `token_id:7` for a text if asked to. Ollama's own routes have the
content without a wrapper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.components.openai_compatible._model import Vocabulary
from harness.stage import StageFailedError
from harness.values import Distributions, Failure, Json
from harness.wire.form import bytes_of, reading

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Finish = Literal["end_token", "length", "stop"]


@dataclass(frozen=True)
class Row:
    """One generated position.

    Attributes:
        chosen: The id; None where the server does not show which it is.
        top: Log-probabilities by id, of those tokens that are known.
    """

    chosen: int | None
    top: Mapping[int, float]


def choice_of(answer: Any) -> Json:
    """Return the first choice of an answer.

    Raises:
        StageFailedError: there is none.
    """
    try:
        choice = answer["choices"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise _broken("no completion: it has no choices") from error
    if not isinstance(choice, dict):
        raise _broken("no completion: its choice is no object")
    return choice


def count_of(answer: Any, name: str) -> int | None:
    """Return a count of an answer's usage, or None."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def rows_of(shown: Any, vocabulary: Vocabulary) -> list[Row]:
    """Return the positions of what a choice has under `logprobs`; empty where it has nothing.

    Raises:
        StageFailedError: it has no known form.
    """
    if not shown:
        return []
    with reading("log-probabilities of no known form"):
        if isinstance(shown, list):
            return [_row(one, vocabulary) for one in shown]
        if shown.get("content") is not None:
            return [_row(one, vocabulary) for one in shown["content"]]
        return _older(shown, vocabulary)


def distributions_of(rows: Sequence[Row]) -> Distributions | None:
    """Return the distributions of the leading positions that have numbers; None where the first has none.

    Raises:
        StageFailedError: an id is none that a token can have.
    """
    shown: list[Row] = []
    for row in rows:
        if not row.top:
            break
        shown.append(row)
    with reading("log-probabilities that are no numbers of a token"):
        return Distributions.of_top([row.top for row in shown]) if shown else None


def finish_of(reason: Any, last: int, vocabulary: Vocabulary) -> Finish:
    """Return why a generation ended whose last id is known."""
    if last in vocabulary.ends:
        return "end_token"
    return "length" if reason == "length" else "stop"


def _row(one: Json, vocabulary: Vocabulary) -> Row:
    chosen = _id(one, vocabulary)
    top = {_id(other, vocabulary): float(other["logprob"]) for other in one.get("top_logprobs") or ()}
    if chosen is not None and one.get("logprob") is not None:
        top.setdefault(chosen, float(one["logprob"]))
    return Row(chosen, {token: number for token, number in top.items() if token is not None})


def _older(shown: Json, vocabulary: Vocabulary) -> list[Row]:
    rows = []
    tops = shown.get("top_logprobs") or [None] * len(shown["tokens"])
    for token, number, top in zip(shown["tokens"], shown["token_logprobs"], tops, strict=True):
        others = [{"token": text, "logprob": value} for text, value in (top or {}).items()]
        rows.append(_row({"token": token, "logprob": number, "top_logprobs": others}, vocabulary))
    return rows


def _id(one: Json, vocabulary: Vocabulary) -> int | None:
    if isinstance(one.get("id"), int):
        return int(one["id"])
    named = _TOKEN_ID.fullmatch(one["token"])
    if named:
        return int(named[1])
    if one.get("bytes"):
        return vocabulary.id_of(bytes_of(one["bytes"]))
    # A token that ends inside a character has no text; the replacement shows which, but not what it replaces.
    return None if not one["token"] or _REPLACEMENT in one["token"] else vocabulary.id_of(one["token"].encode("utf-8"))


def _broken(message: str) -> StageFailedError:
    return StageFailedError(Failure(reason="broken", message=message))
