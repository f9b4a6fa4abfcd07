"""The reference of the postprocess stage: what the reply to generated ids must be.

The content is the text of the ids before the first end token, cut before the first stop string that it completes. A
character whose last bytes were not generated is withheld. Where the model has a form for reasoning or tool calls, they
are taken out of the content (`harness.reference.parse`). `finish_reason` is `tool_calls` for an answer that ends with
calls, else `stop` for an end token or a stop string and `length` otherwise. The completion count is that of the
generated ids, the end token not among them. A stream's deltas, added up, are the same reply.
Source: OpenAI's OpenAPI description, `CreateChatCompletionResponse` and `CreateChatCompletionStreamResponse`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.reference.parse import Parsed
from harness.reference.tokenizer import ReferenceTokenizer
from harness.values import Reply, Usage

VERSION = "chat-completions format, rules of harness.reference.reply 2"


def text_bytes(tokenizer: ReferenceTokenizer, ids: Sequence[int]) -> bytes:
    """Return the bytes that ids show to a user: control tokens show nothing."""
    return b"".join(tokenizer.piece(i) for i in ids if not tokenizer.is_control(i))


def incomplete_bytes(tokenizer: ReferenceTokenizer, ids: Sequence[int]) -> int:
    """Return how many bytes of an incomplete character stand at the end of what ids show."""
    raw = text_bytes(tokenizer, ids)
    return len(raw) - len(_whole_characters(raw))


def expected_reply(
    tokenizer: ReferenceTokenizer,
    ids: Sequence[int],
    stop: Sequence[str],
    prompt_tokens: int,
    parsed: Callable[[str], Parsed] = Parsed,
    *,
    drops: bool = False,
) -> Reply:
    """Return the reply to generated ids.

    Args:
        tokenizer: The vocabulary.
        ids: What was generated, an end token included.
        stop: The caller's stop strings.
        prompt_tokens: How many ids the prompt has.
        parsed: Takes the text apart; without it all is content.
        drops: Show nothing for bytes that are no text, instead of U+FFFD.
    """
    ended = bool(ids) and ids[-1] in tokenizer.end_of_generation_ids
    shown = list(ids[:-1] if ended else ids)
    raw = text_bytes(tokenizer, shown)
    cuts = [at for at in (raw.find(text.encode("utf-8")) for text in stop) if at >= 0]
    whole = raw[: min(cuts)] if cuts else raw
    content = _whole_characters(whole)
    parts = parsed(content.decode("utf-8", errors="ignore" if drops else "replace"))
    ending = "stop" if ended or cuts else "length"
    return Reply(
        content=parts.content,
        reasoning=parts.reasoning,
        tool_calls=parts.calls or None,
        finish_reason="tool_calls" if parts.calls and ended else ending,
        usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(shown)),
        withheld=len(whole) - len(content),
    )


def _whole_characters(data: bytes) -> bytes:
    """Return the bytes without an incomplete character at their end (RFC 3629, section 3)."""
    for back in range(1, min(4, len(data) + 1)):
        lead = data[-back]
        if lead & 0b1100_0000 == 0b1000_0000:
            continue
        needed = 2 if lead >> 5 == 0b110 else 3 if lead >> 4 == 0b1110 else 4 if lead >> 3 == 0b11110 else 1
        return data[:-back] if needed > back else data
    return data
