"""Reading llama-server's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from harness.components.forcing import Position
from harness.values import Distributions, Generation, Json, Unobserved
from harness.wire.form import field, reading

_FINISH = {"eos": "end_token", "limit": "length", "word": "stop"}
_SETTINGS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "stop",
    "logit_bias",
    "typical_p",
    "xtc_probability",
    "dynatemp_range",
    "dry_multiplier",
    "mirostat",
)


def verbose_of(answer: Json | Sequence[Json]) -> Json | None:
    """Return what a chat answer, or a stream's chunks, shows of its making; None where it shows nothing.

    Raises:
        StageFailedError: it is none, or what it shows is no object.
    """
    with reading("no chat completion"):
        chunks = [answer] if isinstance(answer, dict) else answer
        found = [chunk for chunk in chunks if "__verbose" in chunk]
        return field(found[-1], "__verbose", dict) if found else None


def prompt_tokens_of(answer: Json | Sequence[Json]) -> int | None:
    """Return how many ids the prompt of a chat answer had; None where it has no usage.

    Raises:
        StageFailedError: what it says is no count.
    """
    shown = verbose_of(answer)
    if shown is not None:
        return field(shown, "tokens_evaluated", int)
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if usage is None:
        return None
    with reading("no usage"):
        return int(usage["prompt_tokens"])


def generation_of(answer: Json) -> Generation:
    """Return the generation of a `/completion` answer, or of what a chat answer shows of its own.

    Raises:
        StageFailedError: the answer is none.
    """
    with reading("no completion"):
        ids = tuple(int(one) for one in answer["tokens"])
        rows = _leading_rows(answer.get("completion_probabilities", ()), ids)
        finish = _FINISH[answer["stop_type"]]
        settings = _settings(answer["generation_settings"])
        tops = [{one["id"]: one["logprob"] for one in row["top_logprobs"]} for row in rows]
        distributions = Distributions.of_top(tops) if tops else None
        return Generation(ids=ids, chosen=ids, finish=finish, distributions=distributions, settings=settings)  # type: ignore[arg-type]


def generation_of_logprobs(answer: Json | Sequence[Json]) -> Generation | Unobserved:
    """Return what a chat answer, or a stream's chunks, generated, by the ids of its log-probabilities.

    Raises:
        StageFailedError: its log-probabilities have another form.
    """
    chunks = [answer] if isinstance(answer, dict) else answer
    ids = streamed_ids(chunks)
    with reading("no usage"):
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
        finish = [one["finish_reason"] for chunk in chunks for one in chunk["choices"] if one.get("finish_reason")]
    if not counts or counts[-1] != len(ids):
        return Unobserved(reason="the answer does not show every id that was generated")
    ended: Literal["length", "stop"] = "length" if finish[-1:] == ["length"] else "stop"
    return Generation(ids=ids, chosen=ids, finish=ended)


def streamed_ids(chunks: Sequence[Json]) -> tuple[int, ...]:
    """Return the ids of a stream that was asked for log-probabilities; those that complete no character are missing.

    Raises:
        StageFailedError: its log-probabilities have another form.
    """
    with reading("no log-probabilities in the stream"):
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        shown = [choice["logprobs"]["content"] for choice in choices if choice.get("logprobs")]
        return tuple(int(one["id"]) for content in shown for one in content)


def logprobs_of(answer: Json) -> dict[int, float]:
    """Return the log-probabilities of the first generated position, by id.

    Raises:
        StageFailedError: the answer has none.
    """
    with reading("no log-probabilities"):
        rows = answer["completion_probabilities"][0]["top_logprobs"]
        return {int(one["id"]): float(one["logprob"]) for one in rows}


def positions_of(generation: Generation) -> list[Position]:
    """Return the leading positions that have numbers."""
    rows = generation.distributions
    if rows is None or rows.ids is None:
        return []
    return [Position(*position) for position in zip(generation.chosen, rows.ids, rows.logprobs, strict=False)]


def _leading_rows(rows: Sequence[Json], ids: Sequence[int]) -> Sequence[Json]:
    """Return the rows up to the first id without one: the server drops those that end inside a character."""
    matching = (row["id"] == token for row, token in zip(rows, ids, strict=False))
    return rows[: next((at for at, same in enumerate(matching) if not same), min(len(rows), len(ids)))]


def _settings(shown: Mapping[str, Any]) -> Json:
    return {name: _as_asked(shown[name]) for name in _SETTINGS if name in shown}


def _as_asked(value: Any) -> Any:
    """Return a number as it was asked for: the server keeps 0.95 as a float32 and shows it as a float64."""
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return float(str(np.float32(value)))
    return value
