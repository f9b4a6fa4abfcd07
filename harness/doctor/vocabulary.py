"""Checks of the vocabulary: token texts, types, scores, merges, special tokens and the pre-tokenizer."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from harness.doctor.diagnosis import Check
from harness.doctor.facts import Facts, Judgement, check, judge, quoted, some
from harness.doctor.pre_tokenizers import (
    BPE_TOKENIZERS,
    DEFAULT_BOS,
    DEFAULT_EOS,
    ENGINE_VERSION,
    PRE_TOKENIZERS,
    PRE_TOKENIZERS_WITHOUT_MERGES,
    SCORED_TOKENIZERS,
    TOKENIZERS,
)

_CONVERT = "convert the model again from its tokenizer files"
_NO_VOCABULARY = Judgement("unobserved", "the file has no vocabulary")
_CONTROL_LOOKING = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
# All bytes that UTF-8 may have.
_BYTES_OF_TEXT = (*range(0xC0), *range(0xC2, 0xF5))
# Files with such a name get properties of these tokens changed, which must be there.
_NAMED_LIKE_PHI = re.compile(r"phi-?3", re.IGNORECASE)
_OF_PHI = {"</s>", "<unk>", "<s>", "<|endoftext|>"}
# The text of a token that may well serve as BOS and EOS in one, such as GPT-2's <|endoftext|>.
END_LOOKING = re.compile(r"end|eos|eot|</s>", re.IGNORECASE)
# Engines stop at these, and match them whole in a prompt, only if they are control tokens.
_ENDING = ("bos", "eos", "eot", "eom")
_OTHER_SPECIAL = (
    *("unknown", "seperator", "padding", "mask", "cls"),  # `seperator` is the standard's own spelling
    *("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep", "prefix", "suffix", "middle"),
)


def vocabulary_checks(facts: Facts) -> Iterator[Check]:
    """Run every check of the vocabulary."""
    yield _tokenizer_model(facts)
    yield _pre_tokenizer(facts)
    yield _tokens(facts)
    yield _vocabulary_size(facts)
    yield _token_types(facts)
    yield _byte_tokens(facts)
    yield _control_tokens(facts)
    yield _scores(facts)
    yield _merges(facts)
    yield _special_tokens(facts)
    yield _end_of_sequence(facts)


@check("tokenizer")
def _tokenizer_model(facts: Facts) -> Judgement:
    if not facts.has_vocabulary:
        return _NO_VOCABULARY
    if facts.says_no_vocabulary:
        found = f"tokenizer.ggml.model is {quoted(facts.tokenizer)}, but there are {len(facts.tokens):,} tokens"
        return Judgement("bad", f"{found}: llama.cpp aborts where a text is to be tokenized", _CONVERT)
    if facts.tokenizer in TOKENIZERS:
        return Judgement("ok", quoted(facts.tokenizer))
    found = (
        f"tokenizer.ggml.model is {quoted(facts.tokenizer)}" if facts.tokenizer else "tokenizer.ggml.model is missing"
    )
    return Judgement("bad", found, f"llama.cpp {ENGINE_VERSION} loads only {some(sorted(TOKENIZERS), 20)}; {_CONVERT}")


@check("pre-tokenizer")
def _pre_tokenizer(facts: Facts) -> Judgement:
    if not facts.has_vocabulary:
        return _NO_VOCABULARY
    name = facts.text("tokenizer.ggml.pre")
    if facts.tokenizer not in BPE_TOKENIZERS or facts.tokenizer == "gemma4":
        return Judgement("ok", f"not used by the tokenizer {quoted(facts.tokenizer)}")
    if not name:
        return Judgement(
            "bad",
            "tokenizer.ggml.pre is missing; llama.cpp warns 'missing pre-tokenizer type, using: default' and that "
            "generation quality will be degraded: words, digits and apostrophes are cut differently from training",
            "convert the model again with a current convert_hf_to_gguf.py",
        )
    if name == "default":
        return Judgement(
            "warning",
            "'default': llama.cpp cuts text by a rule of its own, rarely the one that the model was trained with",
            "compare token ids with the original tokenizer's, or convert the model again",
        )
    if name not in PRE_TOKENIZERS:
        return Judgement(
            "bad",
            f"{quoted(name)} is unknown to llama.cpp {ENGINE_VERSION}, which refuses to load the file",
            "check the spelling of tokenizer.ggml.pre, or use an engine new enough to know it",
        )
    return Judgement("ok", quoted(name))


@check("tokens")
def _tokens(facts: Facts) -> Judgement:
    if not facts.has_vocabulary:
        return _NO_VOCABULARY
    if not facts.tokens:
        return Judgement("bad", "tokenizer.ggml.tokens is missing or empty", _CONVERT)
    # The engine gives every empty text a name of its own, so only these may repeat.
    # It reads texts up to their first zero byte.
    read = [text.partition("\0")[0] for text in facts.tokens]
    repeated = [text for text, count in Counter(read).items() if count > 1 and text]
    empty = facts.tokens.count("")
    bad = [f"repeated texts: {some(map(quoted, repeated))}"] if repeated else []
    odd = [f"empty texts: {empty}"] if empty else []
    missing = [] if _NAMED_LIKE_PHI.search(facts.text("general.name") or "") is None else _OF_PHI - facts.ids.keys()
    if missing:
        bad.append(f"general.name says Phi 3, of whose tokens {some(map(quoted, sorted(missing)))} is missing")
    return judge(bad, odd, f"{len(facts.tokens):,}, all different", f"llama.cpp does not load the file; {_CONVERT}")


@check("vocabulary size")
def _vocabulary_size(facts: Facts) -> Judgement:
    declared = facts.integer(facts.hyper("vocab_size"))
    if not facts.tokens:
        return _NO_VOCABULARY
    if declared is None:
        return Judgement("ok", f"not declared apart from the {len(facts.tokens):,} tokens")
    bad = (
        [f"vocab_size is {declared}, but there are {len(facts.tokens)} tokens"] if declared != len(facts.tokens) else []
    )
    return judge(bad, [], f"{declared:,}, as many as tokens", _CONVERT)


@check("token types")
def _token_types(facts: Facts) -> Judgement:
    import gguf

    if not facts.tokens:
        return _NO_VOCABULARY
    if not facts.token_types:
        found = "tokenizer.ggml.token_type is missing: no token is a control token, so role markers are cut into pieces"
        return Judgement("bad" if any(map(_CONTROL_LOOKING.fullmatch, facts.tokens)) else "warning", found, _CONVERT)
    bad = []
    if len(facts.token_types) != len(facts.tokens):
        bad.append(f"there are {len(facts.token_types)} types for {len(facts.tokens)} tokens")
    names = {int(member): member.name.lower() for member in gguf.TokenType}
    counts = Counter(facts.token_types)
    unknown = sorted(value for value in counts if value not in names)
    if unknown:
        bad.append(f"{some(unknown)} is no token type")
    fine = ", ".join(f"{counts[value]:,} {name}" for value, name in names.items() if counts[value])
    return judge(bad, [], fine, f"expected one of {min(names)} to {max(names)} for each token; {_CONVERT}")


@check("byte tokens")
def _byte_tokens(facts: Facts) -> Judgement:
    """Check what stands for single bytes; llama.cpp reads their value out of their text, such as `<0x0A>`."""
    import gguf

    if not facts.tokens:
        return _NO_VOCABULARY
    typed = [
        text
        for text, type_ in zip(facts.tokens, facts.token_types, strict=False)
        if type_ == gguf.TokenType.BYTE and (len(text.encode()) < len("<0x") or facts.tokenizer == "bert")
    ]
    bad = [f"typed byte, though llama.cpp finds no byte in them: {some(map(quoted, typed))}"] if typed else []
    if facts.tokenizer == "llama":
        missing = [byte for byte in _BYTES_OF_TEXT if f"<0x{byte:02X}>" not in facts.ids and chr(byte) not in facts.ids]
        shown = some(f"0x{byte:02X}" for byte in missing)
        bad += [f"there is none for {shown}: llama.cpp aborts at a text that needs it"] if missing else []
    return judge(bad, [], "right, or not used by this tokenizer", _CONVERT)


@check("control tokens")
def _control_tokens(facts: Facts) -> Judgement:
    import gguf

    if not facts.token_types:
        return Judgement("unobserved", "the file declares no token types")
    looking = [id_ for id_, text in enumerate(facts.tokens) if _CONTROL_LOOKING.fullmatch(text)]
    normal = [id_ for id_ in looking if facts.type_of(id_) == gguf.TokenType.NORMAL]
    shown = [id_ for id_ in looking if facts.type_of(id_) == gguf.TokenType.USER_DEFINED]
    listed = some(f"{quoted(facts.tokens[id_])} ({id_})" for id_ in normal)
    odd = [f"typed normal, though they look like control tokens: {listed}"] if normal else []
    control = facts.token_types.count(gguf.TokenType.CONTROL)
    fine = f"{control}; of {len(looking)} tokens of the form <|...|> none is typed normal"
    # User-defined ones are matched whole as well, but printed in replies.
    fine += f", {len(shown)} user-defined: {some(quoted(facts.tokens[id_]) for id_ in shown)}" if shown else ""
    return judge([], odd, fine, f"the engine cuts them into pieces and prints them in replies; {_CONVERT}")


@check("scores")
def _scores(facts: Facts) -> Judgement:
    if not facts.tokens:
        return _NO_VOCABULARY
    scores = facts.numbers("tokenizer.ggml.scores")
    if scores is None:
        if facts.tokenizer not in SCORED_TOKENIZERS:
            return Judgement("ok", f"not used by the tokenizer {quoted(facts.tokenizer)}")
        found = f"tokenizer.ggml.scores is missing, by which the tokenizer {quoted(facts.tokenizer)} ranks its tokens"
        return Judgement("bad", found, _CONVERT)
    bad = []
    if len(scores) != len(facts.tokens):
        bad.append(f"there are {len(scores)} scores for {len(facts.tokens)} tokens")
    not_numbers = [position for position, score in enumerate(scores) if math.isnan(score)]
    if not_numbers:
        bad.append(f"the scores of tokens {some(not_numbers)} are NaN")
    return judge(bad, [], f"{len(scores):,}, one for each token", _CONVERT)


@check("merges")
def _merges(facts: Facts) -> Judgement:
    if not facts.tokens:
        return _NO_VOCABULARY
    merges = facts.texts("tokenizer.ggml.merges")
    if facts.tokenizer not in BPE_TOKENIZERS:
        return Judgement("ok", f"not used by the tokenizer {quoted(facts.tokenizer)}")
    if facts.text("tokenizer.ggml.pre") in PRE_TOKENIZERS_WITHOUT_MERGES:
        return Judgement("ok", "not used by this pre-tokenizer")
    if not merges:
        found = "tokenizer.ggml.merges is missing or empty: every word is cut into its bytes"
        return Judgement("bad", found, _CONVERT)
    malformed, strange = [], []
    for merge in merges:
        # As the engine splits it: a half may itself begin with a space, in vocabularies that keep spaces.
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or not right:
            malformed.append(quoted(merge))
        elif not (left in facts.ids and right in facts.ids and left + right in facts.ids):
            strange.append(quoted(merge))
    bad = []
    if malformed:
        bad.append(f"{len(malformed)} of {len(merges)} merges are not two texts: {some(malformed)}")
    if strange:
        bad.append(f"{len(strange)} of {len(merges)} merges have a half or a result that is no token: {some(strange)}")
    repeated = len(merges) - len(set(merges))
    odd = [f"repeated merges: {repeated}"] if repeated else []
    return judge(bad, odd, f"{len(merges):,}, all of them between tokens", _CONVERT)


@check("special tokens")
def _special_tokens(facts: Facts) -> Judgement:
    import gguf

    if not facts.tokens:
        return _NO_VOCABULARY
    # The unknown token has a type of its own, and often pads as well.
    fitting = {
        **dict.fromkeys(_ENDING, (gguf.TokenType.CONTROL,)),
        **dict.fromkeys(_OTHER_SPECIAL, (gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN)),
    }
    bad, odd, fine = [], [], []
    for role, types in fitting.items():
        id_ = facts.integer(f"tokenizer.ggml.{role}_token_id")
        if id_ is None:
            continue
        if not 0 <= id_ < len(facts.tokens):
            bad.append(f"{role} is {id_}, outside the {len(facts.tokens)} tokens")
            continue
        text, type_ = quoted(facts.tokens[id_]), facts.type_of(id_)
        fine.append(f"{role} {id_} {text}")
        if type_ in types or type_ is None:
            continue
        said = f"{role} is {id_} {text}, typed {_type_name(type_)}, not control"
        if role in _ENDING and type_ != gguf.TokenType.USER_DEFINED:
            bad.append(said)
        else:
            odd.append(said)
    if not fine and not bad:
        return Judgement("unobserved", "the file declares no special token")
    return judge(bad, odd, ", ".join(fine), _CONVERT)


@check("end of sequence")
def _end_of_sequence(facts: Facts) -> Judgement:
    if not facts.tokens:
        return _NO_VOCABULARY
    declared = facts.integer("tokenizer.ggml.eos_token_id")
    eos = DEFAULT_EOS.get(facts.tokenizer) if declared is None else declared
    if eos is None:
        return Judgement("ok", f"the tokenizer {quoted(facts.tokenizer)} has none")
    if not 0 <= eos < len(facts.tokens):
        return Judgement("bad", f"the EOS is {eos}, outside the {len(facts.tokens)} tokens", _CONVERT)
    text = quoted(facts.tokens[eos])
    bad, odd = [], []
    if declared is None:
        odd.append(f"tokenizer.ggml.eos_token_id is missing: the engine takes {eos} {text}")
    bos = facts.integer("tokenizer.ggml.bos_token_id")
    bos = DEFAULT_BOS.get(facts.tokenizer) if bos is None else bos
    fine = f"{eos} {text}"
    if eos == bos and not END_LOOKING.search(facts.tokens[eos]):
        bad.append(f"EOS and BOS are both {fine}, which does not look like an end")
    elif eos == bos:
        fine += ", the BOS as well"
    return judge(bad, odd, fine, f"with a wrong EOS a reply never ends, or ends at once; {_CONVERT}")


def _type_name(type_: int) -> str:
    import gguf

    return next((member.name.lower() for member in gguf.TokenType if member == type_), str(type_))
