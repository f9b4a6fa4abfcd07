"""Reading a vocabulary out of the files that models and packages carry. All of them are untrusted."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import ModelFileError, UserError
from harness.models.gguf import read_metadata
from harness.models.vocabulary.byte_level import text_of
from harness.models.vocabulary.pre_tokenizers import family_of, name_of, split
from harness.models.vocabulary.sentencepiece import BLANK, merges_of
from harness.models.vocabulary.value import Kind, Vocabulary

_MAX_BYTES = 256 << 20
_MAX_TOKENS = 1_000_000
_AGAIN = "download or convert it again"
_KNOWN = "byte-level BPE alone is known, and SentencePiece's that wants no blank before a text"
_BYTE_TEXT = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_MARKED = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
"""The normalizer of a SentencePiece vocabulary."""
_INERT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
"""A pre-tokenizer that cuts where no blank is left."""


def from_tokenizer_json(path: Path, *, bos: str | None = None, eos: str | None = None) -> Vocabulary:
    """Read a `tokenizer.json` of Hugging Face `tokenizers`.

    Flags of added tokens (`lstrip`, `single_word`, ...) are not kept.

    Args:
        path: The file.
        bos: The text of the token that begins a text, where the file's post-processor adds none.
        eos: The text of the token that ends it; the file itself names none.

    Raises:
        UserError: the file is no such BPE tokenizer as is known here, or is damaged.
    """
    data = _json_object(path)
    model = data.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise UserError(f"{path} has a tokenizer model of the type {kind!r}", _KNOWN)
    steps = data.get("pre_tokenizer")
    marked = model.get("byte_fallback") is True and data.get("normalizer") == _MARKED and steps in (None, _INERT)
    unknown = ["continuing_subword_prefix", "end_of_word_suffix", "dropout", *([] if marked else ["byte_fallback"])]
    odd = next((name for name in unknown if model.get(name)), None)
    if odd is not None or not (marked or (isinstance(steps, dict) and "ByteLevel" in _types(steps))):
        raise UserError(f"{path} is BPE, but {odd or 'not byte-level'}", _KNOWN)
    words = model.get("vocab")
    if not isinstance(words, dict) or not words:
        _damaged(path, "it has no vocabulary")
    ids = {text: (token, _kind(text, model) if marked else Kind.NORMAL) for text, token in words.items()}
    for added in _list(path, data.get("added_tokens", []), "added tokens"):
        if not isinstance(added, dict) or not isinstance(added.get("content"), str):
            _damaged(path, "an added token has no text")
        if ids.get(added["content"], (None, None))[1] is not Kind.UNKNOWN:
            ids[added["content"]] = added.get("id"), Kind.CONTROL if added.get("special") else Kind.USER_DEFINED
    texts, kinds = _laid_out(path, ids)
    if marked:
        # The mark is for ordinary tokens: what is looked for in a text has the text's own blanks.
        user = Kind.USER_DEFINED
        texts = tuple(t.replace(BLANK, " ") if k is user else t for t, k in zip(texts, kinds, strict=True))
    begin = _added_before(data.get("post_processor"))
    return Vocabulary(
        texts=texts,
        kinds=kinds,
        merges=tuple(_merge(path, one) for one in _list(path, model.get("merges", []), "merges")),
        steps=None if marked else steps,
        pre=None if marked or steps is None else name_of(steps),
        nfc="NFC" in _types(data.get("normalizer")),
        ignore_merges=model.get("ignore_merges") is True,
        bos=_named(path, ids, bos or begin),
        eos=_named(path, ids, eos),
        adds_bos=begin is not None,
        sentencepiece=marked,
    )


def from_tiktoken(
    ranks: Mapping[bytes, int],
    special: Mapping[str, int],
    pattern: str,
    *,
    nfc: bool = False,
    bos: int | None = None,
    eos: int | None = None,
    adds_bos: bool = False,
) -> Vocabulary:
    """Make a vocabulary of what a tiktoken encoding is made of.

    tiktoken merges any two neighbours whose bytes together have a rank, the lowest rank first. So every way to cut a
    token into two tokens is a merge, in the order of the ranks (transformers, `TikTokenConverter`).

    Args:
        ranks: The id of each token's bytes.
        special: The ids of control tokens by text.
        pattern: The regex that cuts text into words.
        nfc: Whether the package that has the encoding normalizes text before.
        bos: The id that begins a text.
        eos: The id that ends it.
        adds_bos: Whether a prompt wants a BOS before it.

    Raises:
        UserError: two tokens have one id.
    """
    steps = split(pattern)
    ids = {text_of(piece): (token, Kind.NORMAL) for piece, token in ranks.items()}
    ids |= {text: (token, Kind.CONTROL) for text, token in special.items()}
    texts, kinds = _laid_out(None, ids)
    return Vocabulary(
        texts=texts,
        kinds=kinds,
        merges=tuple(_merges(ranks)),
        steps=steps,
        pre=name_of(steps),
        nfc=nfc,
        ignore_merges=True,
        bos=bos,
        eos=eos,
        adds_bos=adds_bos,
    )


def from_tekken(path: Path, special: Sequence[str] = ()) -> Vocabulary:
    """Read a `tekken.json` of mistral-common.

    Args:
        path: The file.
        special: The texts of the control tokens, by id, where the file names none.

    Raises:
        UserError: the file is damaged.
    """
    data = _json_object(path)
    try:
        config = data["config"]
        size, reserved = config["default_vocab_size"], config["default_num_special_tokens"]
        if not 0 <= reserved <= size <= _MAX_TOKENS:
            _damaged(path, "its sizes make no sense")
        named = [one["token_str"] for one in data.get("special_tokens") or []] or list(special)
        filled = [*named, *(f"<SPECIAL_{number}>" for number in range(len(named), reserved))]
        pieces = (base64.b64decode(one["token_bytes"], validate=True) for one in data["vocab"][: size - reserved])
        ranks = {piece: reserved + rank for rank, piece in enumerate(pieces)}
        controls = {str(text): token for token, text in enumerate(filled)}
        return from_tiktoken(
            ranks,
            controls,
            str(config["pattern"]),
            bos=controls.get("<s>"),
            eos=controls.get("</s>"),
            adds_bos=True,
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise UserError(f"{path} is damaged: {error!r}", _AGAIN) from error


def from_gguf(path: Path) -> Vocabulary:
    """Read a GGUF's vocabulary.

    Raises:
        ModelFileError: the file is damaged.
        UserError: its vocabulary is no such BPE as is known here.
    """
    metadata = read_metadata(path)
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    marked = model == "llama" and metadata.get("tokenizer.ggml.add_space_prefix") is False
    if model != "gpt2" and not marked:
        raise UserError(f"{path} has a vocabulary of the model {model!r}", _KNOWN)
    texts = _list(path, metadata.get("tokenizer.ggml.tokens"), "tokens")
    types = _list(path, metadata.get("tokenizer.ggml.token_type"), "token types")
    if not texts or len(texts) != len(types) or not all(isinstance(text, str) for text in texts):
        raise ModelFileError(f"{path} has {len(texts)} tokens and {len(types)} token types", _AGAIN)
    try:
        kinds = tuple(Kind(one) for one in types)
    except ValueError as error:
        raise ModelFileError(f"{path} has an unknown token type: {error}", _AGAIN) from error
    bytes_ = (text for text, kind in zip(texts, kinds, strict=True) if kind is Kind.BYTE)
    if not all(map(_BYTE_TEXT.fullmatch, bytes_)):
        raise ModelFileError(f"{path} has a byte token whose text names no byte", _AGAIN)
    family = family_of(pre if isinstance(pre, str) else None)
    return Vocabulary(
        texts=tuple(texts),
        kinds=kinds,
        merges=_scored(path, metadata, texts, kinds)
        if marked
        else tuple(_merge(path, one) for one in _list(path, metadata.get("tokenizer.ggml.merges"), "merges")),
        steps=None if family is None else family.steps,
        pre=pre if isinstance(pre, str) else None,
        nfc=family is not None and family.nfc,
        ignore_merges=family is not None and family.ignore_merges,
        bos=_role(metadata, "bos", len(texts)),
        eos=_role(metadata, "eos", len(texts)),
        adds_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", marked or (family is not None and family.adds_bos))),
        chat_template=metadata.get("tokenizer.chat_template"),
        sentencepiece=marked,
    )


def _scored(
    path: Path, metadata: Mapping[str, Any], texts: Sequence[str], kinds: Sequence[Kind]
) -> tuple[tuple[str, str], ...]:
    """Return the merges that the scores of a SentencePiece vocabulary stand for."""
    scores = _list(path, metadata.get("tokenizer.ggml.scores"), "scores")
    if len(scores) != len(texts) or not all(isinstance(score, float) for score in scores):
        raise ModelFileError(f"{path} has not one score for each of its {len(texts)} tokens", _AGAIN)
    ordinary = (Kind.NORMAL, Kind.USER_DEFINED)
    listed = zip(texts, kinds, scores, strict=True)
    return tuple(merges_of({text: score for text, kind, score in listed if kind in ordinary}))


def _kind(text: str, model: Mapping[str, Any]) -> Kind:
    """Return the kind of a token that a SentencePiece vocabulary lists."""
    if text == model.get("unk_token"):
        return Kind.UNKNOWN
    return Kind.BYTE if _BYTE_TEXT.fullmatch(text) else Kind.NORMAL


def _added_before(processor: Any) -> str | None:
    """Return the text of the token that a post-processor puts before every text."""
    if not isinstance(processor, dict):
        return None
    if processor.get("type") == "Sequence" and isinstance(processor.get("processors"), list):
        return next(filter(None, map(_added_before, processor["processors"])), None)
    single = processor.get("single")
    if processor.get("type") != "TemplateProcessing" or not isinstance(single, list) or not single:
        return None
    token = single[0].get("SpecialToken") if isinstance(single[0], dict) else None
    text = token.get("id") if isinstance(token, dict) else None
    return text if isinstance(text, str) else None


def _named(path: Path, ids: Mapping[str, tuple[int, Kind]], text: str | None) -> int | None:
    if text is not None and text not in ids:
        raise UserError(f"{path} has no token {text!r}")
    return None if text is None else ids[text][0]


def _json_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            _damaged(path, f"it has more than {_MAX_BYTES:,} bytes")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}", _AGAIN) from error
    if not isinstance(data, dict):
        _damaged(path, "it is no JSON object")
    return data


def _damaged(path: Path | None, why: str) -> NoReturn:
    raise UserError(f"{path or 'the vocabulary'} is damaged: {why}", _AGAIN)


def _list(path: Path, value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        _damaged(path, f"it has no list of {what}")
    return value


def _merge(path: Path, one: Any) -> tuple[str, str]:
    """Return a merge, written as a pair or, as it used to be and is in a GGUF, with a blank between."""
    parts = one.split(" ") if isinstance(one, str) else one
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        _damaged(path, f"the merge {one!r:.60} is no pair of texts")
    return parts[0], parts[1]


def _laid_out(path: Path | None, ids: Mapping[str, tuple[Any, Kind]]) -> tuple[tuple[str, ...], tuple[Kind, ...]]:
    """Return texts and kinds by id. An id that no token has is unused."""
    by_id: dict[int, tuple[str, Kind]] = {}
    for text, (token, kind) in ids.items():
        if not isinstance(token, int) or not 0 <= token < _MAX_TOKENS:
            _damaged(path, f"the token {text!r:.40} has the id {token!r:.40}")
        if token in by_id:
            _damaged(path, f"the tokens {by_id[token][0]!r:.40} and {text!r:.40} have the id {token}")
        by_id[token] = text, kind
    size = max(by_id, default=-1) + 1
    entries = [by_id.get(token, (f"[UNUSED_{token}]", Kind.UNUSED)) for token in range(size)]
    try:
        "".join(ids).encode("utf-8")
    except UnicodeEncodeError:
        _damaged(path, "a token's text holds a lone surrogate")
    return tuple(text for text, _ in entries), tuple(kind for _, kind in entries)


def _merges(ranks: Mapping[bytes, int]) -> Iterable[tuple[str, str]]:
    for piece, _ in sorted(ranks.items(), key=lambda entry: entry[1]):
        found = []
        for cut in range(1, len(piece)):
            left, right = ranks.get(piece[:cut]), ranks.get(piece[cut:])
            if left is not None and right is not None:
                found.append((left, right, cut))
        for _, _, cut in sorted(found):
            yield text_of(piece[:cut]), text_of(piece[cut:])


def _types(value: Any) -> set[str]:
    """Return the types of a pre-tokenizer or normalizer, and of its parts."""
    if not isinstance(value, dict):
        return set()
    lists = (value.get("pretokenizers"), value.get("normalizers"))
    parts = [part for parts in lists if isinstance(parts, list) for part in parts if isinstance(part, dict)]
    return {str(value.get("type")), *(str(part.get("type")) for part in parts)}


def _role(metadata: Mapping[str, Any], role: str, size: int) -> int | None:
    token = metadata.get(f"tokenizer.ggml.{role}_token_id")
    return token if isinstance(token, int) and 0 <= token < size else None
