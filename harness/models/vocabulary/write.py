"""Writing a vocabulary as the metadata of a GGUF, as a GGUF that holds nothing else, and as a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import MissingPackageError, UserError
from harness.models.vocabulary.sentencepiece import BLANK, scores_of
from harness.models.vocabulary.value import Kind, Vocabulary


def gguf_keys(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the metadata that a GGUF has of a vocabulary.

    Raises:
        UserError: llama.cpp has no name for the pre-tokenizer that is known here.
    """
    tokens = {"tokens": list(vocabulary.texts), "token_type": [int(kind) for kind in vocabulary.kinds]}
    if vocabulary.sentencepiece:
        kind: dict[str, Any] = {
            "model": "llama",
            "scores": scores_of(vocabulary.texts, vocabulary.merges),
            "add_space_prefix": False,
            "unknown_token_id": next(iter(vocabulary.of_kind(Kind.UNKNOWN).values()), None),
            **tokens,
        }
    elif vocabulary.pre is None:
        raise UserError(
            "this vocabulary's pre-tokenizer has no known name in llama.cpp", "it cannot be written as a GGUF"
        )
    else:
        merges = [f"{left} {right}" for left, right in vocabulary.merges]
        kind = {"model": "gpt2", "pre": vocabulary.pre, **tokens, "merges": merges}
    keys = {
        **kind,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "add_bos_token": vocabulary.adds_bos,
    }
    whole = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    whole["tokenizer.chat_template"] = vocabulary.chat_template
    return {name: value for name, value in whole.items() if value is not None}


def write_gguf(vocabulary: Vocabulary, path: Path) -> None:
    """Write a GGUF that llama.cpp loads with `vocab_only`.

    Args:
        vocabulary: The vocabulary.
        path: The file to write.

    Raises:
        UserError: llama.cpp has no name for the pre-tokenizer that is known here.
        MissingPackageError: the package `gguf` is not installed.
    """
    keys = gguf_keys(vocabulary)
    try:
        import gguf
    except ImportError as error:
        raise MissingPackageError("writing a model file", "gguf", "doctor") from error
    writer = gguf.GGUFWriter(path, "llama")
    add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
    for name, value in keys.items():
        add.get(type(value), writer.add_array)(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a `tokenizer.json`: what `tokenizers.Tokenizer.from_str` reads when it is written as JSON.

    Raises:
        UserError: the pre-tokenizer is not known here.
    """
    if vocabulary.steps is None and not vocabulary.sentencepiece:
        raise UserError(f"the pre-tokenizer {vocabulary.pre!r} is not known here", "it cannot be written as JSON")
    found = vocabulary.of_kind(Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
    added = [
        {
            "id": token,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": vocabulary.kinds[token] is not Kind.USER_DEFINED,
        }
        for text, token in found.items()
    ]
    marked = vocabulary.sentencepiece
    mark, blank = ({"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in ((" ", BLANK), (BLANK, " ")))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    fallback = {"type": "Sequence", "decoders": [blank, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": mark if marked else {"type": "NFC"} if vocabulary.nfc else None,
        "pre_tokenizer": vocabulary.steps,
        "post_processor": _post_processor(vocabulary),
        "decoder": fallback if marked else byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": next(iter(vocabulary.of_kind(Kind.UNKNOWN)), None) if marked else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": marked,
            "byte_fallback": marked,
            "ignore_merges": vocabulary.ignore_merges,
            "vocab": {text: token for token, text in enumerate(vocabulary.texts)},
            "merges": [list(merge) for merge in vocabulary.merges],
        },
    }


def _post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Return what adds the BOS where special tokens are added."""
    if not vocabulary.adds_bos or vocabulary.bos is None:
        return None
    text = vocabulary.texts[vocabulary.bos]
    begin = {"SpecialToken": {"id": text, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {text: {"id": text, "ids": [vocabulary.bos], "tokens": [text]}},
    }
