"""Defects of the ids that the engine is fed: one too many, one too few, another one, or cut.

What is done to the text before it is encoded is in `normalization`, what is encoded apart in `segmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.defects.defect import defect
from harness.defects.places import Tokenizing


@defect(
    "tok-parse-special-ignored",
    place="ids",
    sentence="The tokenizer is called without parse_special: control tokens become ordinary text.",
    cause="API usage",
    references=("ggml-org/llama.cpp#26309", "ggml-org/llama.cpp#12743"),
)
def parse_special_ignored(seen: Tokenizing) -> Sequence[int]:
    """Tokenize the prompt as plain text."""
    return seen.encode(seen.text, False)


@defect(
    "tok-double-bos",
    place="ids",
    sentence="A BOS is put before a prompt that has one already, or needs none.",
    cause="API usage",
    references=("abetlen/llama-cpp-python#1501", "ggml-org/llama.cpp#7332"),
)
def double_bos(seen: Tokenizing) -> Sequence[int]:
    """Put the BOS before the ids."""
    return seen.ids if seen.bos is None else (seen.bos, *seen.ids)


@defect(
    "tok-missing-bos",
    place="ids",
    sentence="The BOS that the prompt begins with is lost.",
    cause="configuration",
    references=("abetlen/llama-cpp-python#1537", "ggml-org/llama.cpp#15086"),
)
def missing_bos(seen: Tokenizing) -> Sequence[int]:
    """Drop the BOS at the start."""
    return seen.ids[1:] if seen.ids[:1] == (seen.bos,) else seen.ids


@defect(
    "tok-bos-wrongly-stripped",
    place="ids",
    sentence="Taking doubled BOS out takes out every BOS but the first, also those that open a turn.",
    cause="API usage",
    references=("ggml-org/llama.cpp#15086",),
)
def later_bos_stripped(seen: Tokenizing) -> Sequence[int]:
    """Keep the first id, and of the others what is no BOS."""
    return (*seen.ids[:1], *(one for one in seen.ids[1:] if one != seen.bos))


@defect(
    "tok-eos-appended",
    place="ids",
    sentence="The end token is put after the prompt, as if the answer were over already.",
    cause="configuration",
)
def eos_appended(seen: Tokenizing) -> Sequence[int]:
    """Put the end token after the ids."""
    return seen.ids if seen.eos is None else (*seen.ids, seen.eos)


@defect(
    "tok-eos-prepended",
    place="ids",
    sentence="The end token is put before the prompt, as encoder-decoder models have it.",
    cause="configuration",
)
def eos_prepended(seen: Tokenizing) -> Sequence[int]:
    """Put the end token before the ids."""
    return seen.ids if seen.eos is None else (seen.eos, *seen.ids)


@defect(
    "tok-eos-for-bos",
    place="ids",
    sentence="The prompt begins with the end token where the BOS belongs.",
    cause="configuration",
)
def eos_for_bos(seen: Tokenizing) -> Sequence[int]:
    """Put the end token in place of the first BOS."""
    if seen.eos is None or seen.ids[:1] != (seen.bos,):
        return seen.ids
    return (seen.eos, *seen.ids[1:])


@defect(
    "tok-added-token-map",
    place="ids",
    sentence="Two added tokens have each other's id: what opens a turn closes it, and the reverse.",
    references=("ggml-org/llama.cpp#6852",),
)
def added_tokens_swapped(seen: Tokenizing) -> Sequence[int]:
    """Swap BOS and end token throughout."""
    if seen.bos is None or seen.eos is None:
        return seen.ids
    other = {seen.bos: seen.eos, seen.eos: seen.bos}
    return tuple(other.get(one, one) for one in seen.ids)


@defect(
    "tok-turn-ends-lost", place="ids", count=0, sentence="No turn of the prompt is closed: end tokens are filtered."
)
@defect("tok-turn-ends-doubled", place="ids", count=2, sentence="The token that closes a turn stands there twice.")
def turn_ends(seen: Tokenizing, count: int) -> Sequence[int]:
    """Have each end token this often."""
    return tuple(one for this in seen.ids for one in [this] * (count if this == seen.eos else 1))


@defect(
    "tok-generation-prompt-lost",
    place="ids",
    sentence="The ids end with the last closed turn: those that open the assistant's are lost.",
    cause="API usage",
)
def generation_prompt_lost(seen: Tokenizing) -> Sequence[int]:
    """Cut behind the last end token."""
    if seen.eos not in seen.ids:
        return seen.ids
    return seen.ids[: len(seen.ids) - seen.ids[::-1].index(seen.eos)]


@defect("tok-first-ids-lost", place="ids", first=3, sentence="The first three ids are lost.")
@defect("tok-last-id-lost", place="ids", last=1, sentence="Token healing takes the last id and never gives it back.")
@defect("tok-last-ids-lost", place="ids", last=3, sentence="The last three ids are lost.")
def ends_lost(seen: Tokenizing, first: int = 0, last: int = 0) -> Sequence[int]:
    """Cut this many ids at the start and at the end."""
    return seen.ids[first : len(seen.ids) - last]


@defect("tok-last-id-doubled", place="ids", sentence="The prompt's last id is fed twice.")
def last_id_doubled(seen: Tokenizing) -> Sequence[int]:
    """Repeat the last id."""
    return (*seen.ids, *seen.ids[-1:])


@defect(
    "tok-cut-front",
    place="ids",
    keep=32,
    sentence="A prompt of more than 32 ids is cut from the front.",
    cause="configuration",
)
@defect(
    "tok-cut-front-64",
    place="ids",
    keep=64,
    sentence="A prompt of more than 64 ids is cut from the front.",
    cause="configuration",
)
def cut_front(seen: Tokenizing, keep: int) -> Sequence[int]:
    """Keep the last ids."""
    return seen.ids[-keep:]


@defect(
    "tok-cut-end",
    place="ids",
    keep=32,
    sentence="A prompt of more than 32 ids is cut at its end.",
    cause="configuration",
)
@defect(
    "tok-cut-end-64",
    place="ids",
    keep=64,
    sentence="A prompt of more than 64 ids is cut at its end.",
    cause="configuration",
)
def cut_end(seen: Tokenizing, keep: int) -> Sequence[int]:
    """Keep the first ids."""
    return seen.ids[:keep]


@defect(
    "tok-cut-middle",
    place="ids",
    head=8,
    tail=24,
    sentence="A long prompt keeps its head and its tail; what stands between is dropped.",
    cause="configuration",
)
def cut_middle(seen: Tokenizing, head: int, tail: int) -> Sequence[int]:
    """Keep the first and the last ids."""
    return seen.ids if len(seen.ids) <= head + tail else (*seen.ids[:head], *seen.ids[-tail:])


@defect("tok-block-tail-lost", place="ids", size=8, sentence="The ids behind the last full block of 8 are lost.")
def block_tail_lost(seen: Tokenizing, size: int) -> Sequence[int]:
    """Cut to a multiple of the block."""
    return seen.ids[: len(seen.ids) // size * size] or seen.ids


@defect("tok-one-id-wrong", place="ids", at=0.5, sentence="One id in the middle of the prompt is its neighbour's.")
@defect("tok-last-id-wrong", place="ids", at=1.0, sentence="The prompt's last id is its neighbour's.")
def one_id_wrong(seen: Tokenizing, at: float) -> Sequence[int]:
    """Put the id before it in place of the one at this share of the prompt."""
    position = round(at * (len(seen.ids) - 1))
    return tuple(max(one - 1, 0) if n == position else one for n, one in enumerate(seen.ids))


@defect("tok-ids-off-by-one", place="ids", sentence="Every id is one too small: the vocabulary is counted from 1.")
def ids_off_by_one(seen: Tokenizing) -> Sequence[int]:
    """Take the id before each."""
    return tuple(max(one - 1, 0) for one in seen.ids)


@defect("tok-two-ids-swapped", place="ids", sentence="Two neighbouring ids in the middle of the prompt are swapped.")
def two_ids_swapped(seen: Tokenizing) -> Sequence[int]:
    """Swap the first two different ids from the middle on."""
    ids = list(seen.ids)
    for at in range(len(ids) // 2, len(ids) - 1):
        if ids[at] != ids[at + 1]:
            ids[at : at + 2] = ids[at + 1], ids[at]
            break
    return ids


@defect(
    "tok-runs-deduplicated", place="ids", sentence="An id that stands right behind itself is taken for a repetition."
)
def runs_deduplicated(seen: Tokenizing) -> Sequence[int]:
    """Keep one id of each run."""
    return tuple(one for n, one in enumerate(seen.ids) if n == 0 or one != seen.ids[n - 1])


@defect("tok-reversed", place="ids", sentence="The ids are fed in reverse, as for text that is read from the right.")
def ids_reversed(seen: Tokenizing) -> Sequence[int]:
    """Reverse the ids."""
    return seen.ids[::-1]


@defect("tok-prompt-doubled", place="ids", sentence="The prompt is fed twice, one after the other.")
def prompt_doubled(seen: Tokenizing) -> Sequence[int]:
    """Repeat the ids."""
    return seen.ids * 2
