"""The reference tokenizer: Hugging Face `tokenizers` over a GGUF's own vocabulary.

A GGUF holds texts, types and merges, but of the pre-tokenizer only a *name*, and of the normalizer nothing. What a name
stands for is in `PRE_TOKENIZERS`, after the models' own `tokenizer.json`, not after llama.cpp where the two differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.errors import MissingPackageError, ModelFileError, UserError
from harness.models.gguf import ModelFile
from harness.models.vocabulary.byte_level import BYTE_OF
from harness.models.vocabulary.pre_tokenizers import DEEPSEEK_V3, LLAMA_3, QWEN_2, QWEN_35, TEKKEN
from harness.models.vocabulary.sentencepiece import BLANK, merges_of, piece_of

try:
    import tokenizers
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
except ImportError as error:
    raise MissingPackageError("the reference tokenizer", "tokenizers", "reference") from error

# Token types as `gguf.TokenType` numbers them.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

# A lone surrogate: text that UTF-8 can hold never contains it, so no token's text does.
_MASK = "\udc80"

# A stretch of text, or the token found there.
_Fragment = tuple[int, int] | int


@dataclass(frozen=True)
class _Family:
    """What a name in `tokenizer.ggml.pre` stands for.

    Attributes:
        steps: The pre-tokenizer.
        nfc: Whether ordinary text is normalized first. llama.cpp leaves that out.
        ignore_merges: Whether a whole word that is in the vocabulary is taken without merging.
        adds_bos: Whether a file that does not say so wants a BOS (llama.cpp, `llama_vocab::impl::load`).
    """

    steps: tuple[pre_tokenizers.PreTokenizer, ...]
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # the regex of GPT-2, then bytes
_DIGITS = pre_tokenizers.Digits(individual_digits=True)

_GPT_2 = _Family((_WORDS,))
_STARCODER = _Family((_DIGITS, _WORDS))
_LLAMA_3 = _Family((_split(LLAMA_3), _BYTES), ignore_merges=True, adds_bos=True)
# Escaped, because an editor that normalizes would merge letters that the class tells apart.
_DEEPSEEK_LETTERS = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_ASIAN = _split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+")

# Proven in tests/reference/test_tokenizer.py by the ids in llama.cpp's `ggml-vocab-*.gguf.out` and by llama.cpp itself;
# what the two disagree on is named there. Definitions: transformers 5 `models/*/tokenization_*.py` for command-r
# (cohere), gpt-2, mpt (gpt_neox), phi-2 (codegen), qwen2 and qwen35 (qwen3_5); for the others the models' own
# tokenizer.json, whose regexes llama.cpp `src/llama-vocab.cpp` (`llm_tokenizer_bpe`) quotes. deepseek-v3 and tekken are
# proven by the makers' own packages, in tests/families.
PRE_TOKENIZERS = {
    "command-r": _Family((_DIGITS, _WORDS), nfc=True),
    "deepseek-coder": _Family(
        (_split("[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _DEEPSEEK_ASIAN, _DIGITS, _BYTES)
    ),
    "deepseek-llm": _Family(
        (
            _split("[\r\n]"),
            _split(rf"\s?[{_DEEPSEEK_LETTERS}]+"),
            _split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
            _split(r"\s+$"),
            _DEEPSEEK_ASIAN,
            _DIGITS,
            _BYTES,
        )
    ),
    "deepseek-v3": _Family((*map(_split, DEEPSEEK_V3), _BYTES)),
    "falcon": _Family(
        (
            pre_tokenizers.Punctuation("contiguous"),
            _WORDS,
            pre_tokenizers.Digits(individual_digits=False),
            _split("[0-9][0-9][0-9]"),
        )
    ),
    "gpt-2": _GPT_2,
    "llama-bpe": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "llama3": _LLAMA_3,
    "mpt": _Family((_WORDS,), nfc=True),
    "phi-2": _GPT_2,
    "qwen2": _Family((_split(QWEN_2), _BYTES), nfc=True),
    "qwen35": _Family((_split(QWEN_35), _BYTES), nfc=True),
    "refact": _STARCODER,
    "smollm": _STARCODER,
    "starcoder": _STARCODER,
    "tekken": _Family((_split(TEKKEN), _BYTES), ignore_merges=True, adds_bos=True),
}

# llama.cpp, `llama_vocab::impl::load`: tokens that end a generation by their text, whatever the file says.
_ENDING_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "[e~[",
)
# And those that end it by their role: the one the file names, else one found by its text.
_ENDING_ROLES: dict[str, tuple[str, ...]] = {
    "eos": (),
    "eot": (),
    "eom": (),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}


@dataclass(frozen=True, eq=False)
class ReferenceTokenizer:
    """Text to ids and ids to bytes, as the model's own tokenizer does it.

    Attributes:
        pre: The pre-tokenizer's name, `tokenizer.ggml.pre`; `sentencepiece` where there is none, as SentencePiece's BPE
            merges across words.
        nfc: Whether ordinary text is normalized (NFC) first; `encode` then gives back the normalized text's bytes.
        texts: Every token's text as the file has it, by id.
        types: Every token's type as the file declares it, by id (`gguf.TokenType`).
        special_ids: The ids the file gives roles to, by role: `bos`, `eos`, `unknown`, `padding`, ...
        adds_bos: Whether the model wants a BOS before its prompt. `encode` never adds one.
        end_of_generation_ids: The ids that llama.cpp ends a generation at. A file without an EOS has none here, where
            llama.cpp takes id 11.
    """

    pre: str
    nfc: bool
    texts: tuple[str, ...] = field(repr=False)
    types: tuple[int, ...] = field(repr=False)
    special_ids: dict[str, int]
    adds_bos: bool
    end_of_generation_ids: frozenset[int]
    _ordinary: Tokenizer = field(repr=False)

    @classmethod
    def from_model_file(cls, model: ModelFile) -> ReferenceTokenizer:
        """Build the tokenizer that a GGUF describes.

        Raises:
            UserError: the vocabulary model or the pre-tokenizer is none of those that are proven here.
            ModelFileError: the vocabulary, its types and its merges do not hold together.
        """
        metadata = model.metadata
        kind = metadata.get("tokenizer.ggml.model")
        if kind == "llama":
            return cls._from_sentencepiece(model)
        if kind != "gpt2":
            raise UserError(
                f"{model.path} has a vocabulary of the model {kind!r}",
                "the reference tokenizer knows 'gpt2', byte-level BPE, and 'llama', SentencePiece's",
            )
        pre = metadata.get("tokenizer.ggml.pre")
        if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
            raise UserError(
                f"{model.path} has the pre-tokenizer {pre!r}, for which the reference has no proof",
                f"known: {', '.join(PRE_TOKENIZERS)}",
            )
        family = PRE_TOKENIZERS[pre]
        texts, types = _vocabulary(model)
        special_ids = _special_ids(metadata, len(texts))
        return cls(
            pre=pre,
            nfc=family.nfc,
            texts=texts,
            types=types,
            special_ids=special_ids,
            adds_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", family.adds_bos)),
            end_of_generation_ids=_end_of_generation(texts, special_ids),
            _ordinary=_ordinary_tokenizer(model, family, texts, types),
        )

    @classmethod
    def _from_sentencepiece(cls, model: ModelFile) -> ReferenceTokenizer:
        metadata = model.metadata
        if metadata.get("tokenizer.ggml.add_space_prefix", True):
            raise UserError(
                f"{model.path} has a SentencePiece vocabulary that wants a blank before the text",
                "the reference tokenizer knows those alone that do not (add_space_prefix = false)",
            )
        texts, types = _vocabulary(model)
        # Roles that the file does not name have these ids (llama.cpp, `llama_vocab::impl::load`).
        special_ids = {"bos": 1, "eos": 2, "unknown": 0} | _special_ids(metadata, len(texts))
        return cls(
            pre="sentencepiece",
            nfc=False,
            texts=texts,
            types=types,
            special_ids=special_ids,
            adds_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", True)),
            end_of_generation_ids=_end_of_generation(texts, special_ids),
            _ordinary=_sentencepiece_tokenizer(model, texts, types),
        )

    @property
    def version(self) -> str:
        """What made the ids, for a golden's provenance."""
        return f"tokenizers {tokenizers.__version__} over the model's own vocabulary, pre-tokenizer {self.pre}"

    @property
    def n_vocab(self) -> int:
        """How many tokens there are."""
        return len(self.texts)

    @property
    def bos_id(self) -> int | None:
        """The id that begins a prompt, if the file names one."""
        return self.special_ids.get("bos")

    @property
    def eos_id(self) -> int | None:
        """The id that ends a turn or text, if the file names one."""
        return self.special_ids.get("eos")

    @property
    def special_texts(self) -> dict[str, str]:
        """The texts of the tokens the file gives roles to, by role."""
        return {role: self.texts[token] for role, token in self.special_ids.items()}

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """The control tokens' ids, by text."""
        return {text: token for token, text in enumerate(self.texts) if self.is_control(token)}

    def is_control(self, token: int) -> bool:
        """Whether the file declares the token a control token.

        Raises:
            IndexError: there is no such token.
        """
        return self._type(token) == _CONTROL

    def piece(self, token: int) -> bytes:
        """Return the token's bytes, which need not be whole characters. An unused token has none.

        Raises:
            IndexError: there is no such token.
        """
        kind = self._type(token)
        text = self.texts[token]
        if kind == _UNUSED:
            return b""
        if kind == _BYTE:
            return bytes.fromhex(text[3:5])
        if kind == _NORMAL and self.pre == "sentencepiece":
            return piece_of(text)
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) or not set(text) <= BYTE_OF.keys():
            return text.encode()
        return bytes(BYTE_OF[character] for character in text)

    def encode(self, text: str, literals: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Return the ids of a rendered prompt. No BOS is added.

        Args:
            text: The prompt; control tokens' texts in it become those tokens.
            literals: Character spans of the caller's own text. No control token is found in them or across their ends:
                what looks like one is ordinary text, and merges with the ordinary text around it. User-defined tokens
                (runs of blanks, for one) are found everywhere, as in the models' own tokenizers and llama.cpp.

        Raises:
            UserError: the text holds a lone surrogate, which UTF-8 cannot hold.
            ValueError: a span does not lie within the text.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text holds a lone surrogate at character {error.start}: no tokenizer takes it"
            ) from error
        ids: list[int] = []
        for fragment in self._fragments(text, literals):
            if isinstance(fragment, int):
                ids.append(fragment)
            else:
                ids.extend(self._ordinary.encode(text[slice(*fragment)], add_special_tokens=False).ids)
        return ids

    def _type(self, token: int) -> int:
        # -1 is llama.cpp's "no token", and Python's last one.
        if not 0 <= token < len(self.types):
            raise IndexError(f"no token {token} in a vocabulary of {len(self.types)}")
        return self.types[token]

    def _fragments(self, text: str, literals: Sequence[tuple[int, int]]) -> list[_Fragment]:
        """Cut the text at its special tokens, at all places of the longest first (llama.cpp, `tokenizer_st_partition`).

        The library itself goes from left to right. That differs only where the texts of two tokens overlap, as in
        Falcon's `>>TITLE<<|endoftext|>`.
        """
        masked = list(text)
        for start, end in literals:
            if not 0 <= start <= end <= len(text):
                raise ValueError(f"the span ({start}, {end}) does not lie within a text of {len(text)} characters")
            masked[start:end] = _MASK * (end - start)
        template = "".join(masked)
        fragments: list[_Fragment] = [(0, len(text))] if text else []
        for token in self._special:
            where = text if self.types[token] == _USER_DEFINED else template
            if self.texts[token] in where:
                fragments = [part for fragment in fragments for part in _cut(where, fragment, self.texts[token], token)]
        return fragments

    @cached_property
    def _special(self) -> list[int]:
        """The tokens that are looked for in text, those of most bytes first."""
        kinds = (_UNKNOWN, _CONTROL, _USER_DEFINED)
        found = (token for token, kind in enumerate(self.types) if kind in kinds and self.texts[token])
        return sorted(found, key=lambda token: -len(self.texts[token].encode()))


def _cut(where: str, fragment: _Fragment, wanted: str, token: int) -> Iterator[_Fragment]:
    if isinstance(fragment, int):
        yield fragment
        return
    start, end = fragment
    while (at := where.find(wanted, start, end)) >= 0:
        if at > start:
            yield start, at
        yield token
        start = at + len(wanted)
    if start < end:
        yield start, end


def _vocabulary(model: ModelFile) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return every token's text and type."""
    texts = _strings(model, "tokenizer.ggml.tokens")
    types = model.metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(texts))
    if not isinstance(types, list) or len(types) != len(texts):
        raise ModelFileError(f"{model.path} has not one token type for each of its {len(texts)} tokens")
    (text, times), *_ = Counter(texts).most_common(1)
    if times > 1:
        raise ModelFileError(f"{model.path} has {times} tokens with the text {text!r}", "convert the model again")
    for text, kind in zip(texts, types, strict=True):
        if kind == _BYTE and not re.fullmatch("<0x[0-9A-Fa-f]{2}>", text):
            raise ModelFileError(f"{model.path} declares {text!r} a byte token", "convert the model again")
    return tuple(texts), tuple(types)


def _strings(model: ModelFile, key: str) -> list[str]:
    value = model.metadata.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise ModelFileError(f"{model.path} holds no list of texts under {key}", "convert the model again")
    return value


def _ordinary_tokenizer(model: ModelFile, family: _Family, texts: tuple[str, ...], types: tuple[int, ...]) -> Tokenizer:
    """Build what encodes ordinary text. Control tokens are no part of it, so no ordinary text can become one."""
    vocabulary = {
        text: token
        for token, (text, kind) in enumerate(zip(texts, types, strict=True))
        if kind not in (_UNKNOWN, _CONTROL)
    }
    merges = []
    for line in _strings(model, "tokenizer.ggml.merges"):
        left, _, right = line.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise ModelFileError(
                f"{model.path} has the merge {line!r}, whose parts or result are no ordinary tokens",
                "convert the model again",
            )
        merges.append((left, right))
    ordinary = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=family.ignore_merges))
    ordinary.pre_tokenizer = pre_tokenizers.Sequence(list(family.steps))
    if family.nfc:
        ordinary.normalizer = normalizers.NFC()
    return ordinary


def _sentencepiece_tokenizer(model: ModelFile, texts: tuple[str, ...], types: tuple[int, ...]) -> Tokenizer:
    """Build what encodes ordinary text by SentencePiece's BPE: merges follow from scores, and what is left is bytes."""
    scores = model.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(texts):
        raise ModelFileError(f"{model.path} has not one score for each of its {len(texts)} tokens")
    merged = {
        text: score
        for text, kind, score in zip(texts, types, scores, strict=True)
        if kind in (_NORMAL, _USER_DEFINED) and text
    }
    vocabulary = {
        text: token
        for token, (text, kind) in enumerate(zip(texts, types, strict=True))
        if text in merged or kind == _BYTE
    }
    ordinary = Tokenizer(models.BPE(vocab=vocabulary, merges=merges_of(merged), byte_fallback=True))
    ordinary.normalizer = normalizers.Replace(" ", BLANK)
    return ordinary


def _special_ids(metadata: dict[str, Any], n_vocab: int) -> dict[str, int]:
    """Return the ids of the file's roles; one outside the vocabulary counts as not given, as in llama.cpp."""
    roles = {
        match[1]: value
        for key, value in metadata.items()
        if (match := re.fullmatch(r"tokenizer\.ggml\.(\w+)_token_id", key))
    }
    return {role: token for role, token in roles.items() if isinstance(token, int) and 0 <= token < n_vocab}


def _end_of_generation(texts: tuple[str, ...], special_ids: dict[str, int]) -> frozenset[int]:
    """Return the ids that llama.cpp ends a generation at (`llama_vocab::impl::load`).

    Where the file names no token for a role and several texts fit it, llama.cpp takes whichever its hash table yields
    first, and this the lowest id.
    """
    ids = {text: token for token, text in enumerate(texts)}
    ending = {ids[text] for text in _ENDING_TEXTS if text in ids}
    for role, candidates in _ENDING_ROLES.items():
        by_text = sorted(ids[text] for text in candidates if text in ids)
        ending.update([special_ids[role]] if role in special_ids else by_text[:1])
    names = {texts[token] for token in ending}
    if names & {"<|call|>", "<|calls|>"} and names & {"<|return|>", "<|flush|>"}:
        names.discard("<|end|>")  # it ends a message there, not the turn
    if names & {"<|tool_response>", "<|plamo:eos|>"}:
        names.discard("</s>")  # an ordinary word there
    return frozenset(ids[name] for name in names)
