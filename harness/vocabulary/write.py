"""Writing a vocabulary as a GGUF that holds nothing else, and as a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import MissingPackageError, UserError
from harness.vocabulary.value import Kind, Vocabulary


def write_gguf(vocabulary: Vocabulary, path: Path) -> None:
    """Write a GGUF that llama.cpp loads with `vocab_only`.

    Args:
        vocabulary: The vocabulary.
        path: The file to write.

    Raises:
        UserError: llama.cpp has no name for the pre-tokenizer that is known here.
        MissingPackageError: the package `gguf` is not installed.
    """
    if vocabulary.pre is None:
        raise UserError(
            "this vocabulary's pre-tokenizer has no known name in llama.cpp", "it cannot be written as a GGUF"
        )
    try:
        import gguf
    except ImportError as error:
        raise MissingPackageError("writing a model file", "gguf", "doctor") from error
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.texts))
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.bos)
    if vocabulary.eos is not None:
        writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(vocabulary.adds_bos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a `tokenizer.json`: what `tokenizers.Tokenizer.from_str` reads when it is written as JSON.

    Raises:
        UserError: the pre-tokenizer is not known here.
    """
    if vocabulary.steps is None:
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
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if vocabulary.nfc else None,
        "pre_tokenizer": vocabulary.steps,
        "post_processor": _post_processor(vocabulary),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
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
