"""Where a reply ends: the tokens at which llama.cpp stops, and whether the template's turns end with one of them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.diagnosis import Check
from harness.doctor.facts import Facts, Judgement, check, quoted, some
from harness.doctor.pre_tokenizers import DEFAULT_EOS
from harness.doctor.template import default_template
from harness.doctor.vocabulary import END_LOOKING

# Facts read in `src/llama-vocab.cpp`, of the same version as the pre-tokenizers: llama.cpp stops at these texts,
# whatever a file declares.
_ENDS_BY_TEXT = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~["),
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
)
_DECLARED_ENDS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")


def ending_checks(facts: Facts) -> Iterator[Check]:
    """Run the check of where turns end."""
    yield _turn_ending(facts)


def ends_of_generation(facts: Facts) -> set[int]:
    """Return the tokens at which llama.cpp stops."""
    ends = {facts.ids[text] for text in _ENDS_BY_TEXT if text in facts.ids}
    declared = [facts.integer(f"tokenizer.ggml.{role}_token_id") for role in _DECLARED_ENDS]
    if declared[0] is None:
        declared.append(DEFAULT_EOS.get(facts.tokenizer))
    ends |= {id_ for id_ in declared if id_ is not None and 0 <= id_ < len(facts.tokens)}
    # With these the token ends a part of a reply, not the reply.
    texts = {facts.tokens[id_] for id_ in ends}
    if "<|end|>" in texts and texts & {"<|call|>", "<|calls|>"} and texts & {"<|return|>", "<|flush|>"}:
        ends.discard(facts.ids["<|end|>"])
    return ends


@check("turn ending")
def _turn_ending(facts: Facts) -> Judgement:
    import gguf

    template = default_template(facts)
    if not facts.tokens or template is None:
        return Judgement("unobserved", "there is no vocabulary or no chat template that could be read")
    # Other control tokens after a content open the next turn. Longest first: one may begin with another.
    control = sorted(
        (
            text
            for text, id_ in facts.ids.items()
            if facts.type_of(id_) == gguf.TokenType.CONTROL and END_LOOKING.search(text)
        ),
        key=len,
        reverse=True,
    )
    found = (
        next((text for text in control if after.lstrip().startswith(text)), "") for after in template.after_content
    )
    closing = dict.fromkeys(text for text in found if text)
    if not closing:
        return Judgement("ok", "the template closes no turn with a control token that looks like an end")
    ends = ends_of_generation(facts)
    written = {facts.tokens[id_] for id_ in ends if any(facts.tokens[id_] in text for text in template.literals)}
    shown = some(map(quoted, closing))
    if not written and "eos_token" not in template.names:
        stops = some(f"{id_} {quoted(facts.tokens[id_])}" for id_ in sorted(ends)) or "no token at all"
        return Judgement(
            "warning",
            f"the template closes turns with {shown}, but llama.cpp stops at {stops} only: a reply does not end",
            "declare the token that ends a turn as tokenizer.ggml.eos_token_id or eot_token_id",
        )
    eos = facts.integer("tokenizer.ggml.eos_token_id")
    if eos is None or not 0 <= eos < len(facts.tokens) or facts.tokens[eos] in closing or not closing.keys() & written:
        return Judgement("ok", shown)
    return Judgement(
        "ok",
        f"{shown}, at which llama.cpp stops; an engine that goes by the declared EOS alone, "
        f"{quoted(facts.tokens[eos])}, does not",
    )
