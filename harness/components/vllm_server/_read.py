"""Reading vLLM's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from harness.values import Distributions, Generation, Json, Tokens
from harness.wire.form import field, reading

_ID = "token_id:"
_SETTINGS = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop", "logit_bias")},
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}
"""vLLM's name of a setting, and the one that requests have for it."""


def settings_of(rendered: Json) -> Json:
    """Return the settings in force that `/v1/chat/completions/render` shows.

    Raises:
        StageFailedError: it shows none.
    """
    with reading("no sampling parameters"):
        shown = rendered["sampling_params"]
        return {ours: shown[theirs] for theirs, ours in _SETTINGS.items() if shown.get(theirs) is not None}


def shown_ids(chunks: Sequence[Json]) -> tuple[int, ...]:
    """Return the generated ids that a chat answer, or a stream's chunks, shows.

    Raises:
        StageFailedError: it is no such answer.
    """
    with reading("no chat completion"):
        choices = (choice for chunk in chunks for choice in chunk.get("choices", ()))
        return tuple(int(one) for choice in choices for one in choice.get("token_ids") or ())


def prompt_of(answer: Json) -> tuple[str, tuple[int, ...]]:
    """Return the prompt that a chat answer, or a stream's first chunk, shows, as a text and as ids.

    Raises:
        StageFailedError: it shows none.
    """
    with reading("no prompt in the answer"):
        return field(answer, "prompt_text", str), tuple(int(one) for one in answer["prompt_token_ids"])


def tokens_of(answer: Json) -> Tokens:
    """Return the ids that `/tokenize` answers with.

    Raises:
        StageFailedError: there are none.
    """
    with reading("no ids"):
        pairs = list(zip(answer["tokens"], map(piece_of, answer["token_strs"]), strict=True))
        return Tokens(ids=tuple(one for one, _ in pairs), pieces=tuple(piece for _, piece in pairs))


def chat_generation(answer: Json | Sequence[Json], settings: Json) -> Generation | None:
    """Return the generation that a chat answer, or a stream's chunks, shows; None where it does not show every id.

    Args:
        answer: The answer.
        settings: Those in force.

    Raises:
        StageFailedError: it is no such answer.
    """
    chunks = [answer] if isinstance(answer, dict) else answer
    ids = shown_ids(chunks)
    with reading("no chat completion"):
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
        if not ids or usage is None or usage["completion_tokens"] != len(ids):
            return None
        content = (choices[0].get("logprobs") or {}).get("content") or []
        rows = [{_id_of(top["token"]): top["logprob"] for top in one["top_logprobs"]} for one in content]
        end: Json = next((choice for choice in reversed(choices) if choice.get("finish_reason")), {})
        return Generation(
            ids=ids,
            chosen=ids,
            finish=_finish(end),
            distributions=Distributions.of_top(rows) if rows else None,
            settings=settings,
        )


def _finish(choice: Json) -> Literal["end_token", "length", "stop"]:
    if choice.get("finish_reason") == "length":
        return "length"
    # The stop string or id that ended it; an end token has none.
    return "end_token" if choice.get("stop_reason") is None else "stop"


def steps_generation(answer: Json, forced: Sequence[int], settings: Json) -> Generation:
    """Return the generation that the answers to many prompts make, each one id longer than the one before.

    Raises:
        StageFailedError: it is no such answer.
    """
    with reading("no completion"):
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        chosen = tuple(int(choice["token_ids"][0]) for choice in choices)
        tops = [choice["logprobs"]["top_logprobs"][0] for choice in choices]
        rows = [{_id_of(token): logprob for token, logprob in top.items()} for top in tops]
        if len(rows) != len(forced):
            raise ValueError(f"{len(rows)} answers to {len(forced)} prompts")
        return Generation(
            ids=tuple(forced),
            chosen=chosen,
            finish="forced",
            distributions=Distributions.of_top(rows),
            settings=settings,
        )


def piece_of(token: str) -> str:
    """Return the text of a token of byte-level BPE, whose characters each stand for a byte."""
    if not set(token) <= _BYTE_OF.keys():
        return token
    return bytes(_BYTE_OF[character] for character in token).decode("utf-8", errors="replace")


def _id_of(token: str) -> int:
    return int(token.removeprefix(_ID))


def _byte_characters() -> dict[str, int]:
    """Return the byte that each character of GPT-2's alphabet stands for (openai/gpt-2, encoder.py)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


_BYTE_OF: Mapping[str, int] = _byte_characters()
