"""Hugging Face `tokenizers`."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from harness.components.tokenizers._errors import no_answer, no_such_token
from harness.errors import UserError
from harness.models.gguf import ModelFile, read_metadata
from harness.models.vocabulary import Kind, Vocabulary, from_tokenizer_json
from harness.models.vocabulary.byte_level import bytes_of
from harness.models.vocabulary.sentencepiece import piece_of
from harness.parts import Tokenizer
from harness.process.owner import as_the_parts, the_parts_own
from harness.reference.tokenizer import ReferenceTokenizer

_REPLACED = "\ufffd"
_BYTE_TEXTS = {f"<0x{byte:02X}>" for byte in range(256)}


def open_tokenizer(path: str) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json` or of a GGUF's vocabulary.

    Raises:
        UserError: the file is neither, or is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return GgufTokenizer(path) if is_gguf else JsonTokenizer(path)


class JsonTokenizer:
    """`Tokenizer.encode` without what its post-processor adds; plain text is encoded with `encode_special_tokens` set.

    Args:
        path: A `tokenizer.json`.
    """

    name = "hf-tokenizers"

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            self._real = tokenizers.Tokenizer.from_file(path)
        except Exception as error:
            raise as_the_parts(UserError(f"{path} is no tokenizer that the library reads: {error}")) from error
        found = self._real.get_added_tokens_decoder().items()
        self.special: Mapping[str, int] = {added.content: token for token, added in found if added.special}
        self.added: Mapping[str, int] = {added.content: token for token, added in found if not added.special}
        self._ids = self._real.get_vocab(with_added_tokens=True)
        self._texts = {token: text for text, token in self._ids.items()}
        self.size = max(self._texts, default=-1) + 1
        begin = self._real.encode("", add_special_tokens=True).ids
        self.adds_bos = len(begin) > 0
        self.bos: int | None = begin[0] if begin else None
        # U+212B is the only character of its kind in common use: NFC makes it U+00C5.
        normalizer = self._real.normalizer
        normal = "" if normalizer is None else normalizer.normalize_str("\u212b")
        self.normalization = "NFC" if normal == unicodedata.normalize("NFC", "\u212b") else ""
        self._falls_back = getattr(self._real.model, "byte_fallback", False) is True
        self._plain = False

    def version(self) -> str:
        """Return the library's version."""
        return f"tokenizers {tokenizers.__version__}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text."""
        return self._encoded(text, special, False)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with what the post-processor adds."""
        return self._encoded(text, True, True)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        missing = next((one for one in ids if one not in self._texts), None)
        if missing is not None:
            raise no_such_token(missing, self.size)
        with the_parts_own():
            text: str = self._real.decode(ids, skip_special_tokens=False)
        if _REPLACED not in text:
            return text.encode("utf-8")
        # The library shows bytes that are no text as replacement characters.
        return b"".join(self._bytes(self._texts[one]) for one in ids)

    def vocabulary(self) -> Vocabulary:
        """Return what it was made of."""
        return from_tokenizer_json(self._path)

    def _encoded(self, text: str, parses: bool, adds: bool) -> list[int]:
        if self._plain is parses:
            self._plain = self._real.encode_special_tokens = not parses
        try:
            ids: list[int] = self._real.encode(text, add_special_tokens=adds).ids
        except Exception as error:
            raise no_answer(error) from error
        return ids

    def _bytes(self, text: str) -> bytes:
        plain = text not in self.special and text not in self.added
        if plain and self._falls_back:
            return bytes.fromhex(text[3:5]) if text in _BYTE_TEXTS else piece_of(text)
        found = bytes_of(text) if plain else None
        return text.encode("utf-8") if found is None else found


class GgufTokenizer:
    """The reference tokenizer: the library over a GGUF's vocabulary, where special tokens are found before it is asked.

    Args:
        path: The GGUF.
    """

    name = "hf-tokenizers"

    def __init__(self, path: str) -> None:
        self._real = ReferenceTokenizer.from_model_file(ModelFile(Path(path), read_metadata(Path(path)), []))
        kinds = self._real.types
        self.special: Mapping[str, int] = self._real.control_tokens
        self.added: Mapping[str, int] = {
            text: token for token, text in enumerate(self._real.texts) if kinds[token] == Kind.USER_DEFINED
        }
        self.size, self.bos, self.adds_bos = self._real.n_vocab, self._real.bos_id, self._real.adds_bos
        self.normalization = "NFC" if self._real.nfc else ""

    def version(self) -> str:
        """Return the library's version."""
        return self._real.version

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text."""
        try:
            return self._real.encode(text, [] if special else [(0, len(text))])
        except UserError as error:
            raise no_answer(error) from error

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with a BOS where the file wants one."""
        ids = self.encode(text, special=True)
        return [self.bos, *ids] if self.adds_bos and self.bos is not None else ids

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        try:
            return b"".join(map(self._real.piece, ids))
        except IndexError as error:
            raise no_such_token(next(one for one in ids if not 0 <= one < self.size), self.size) from error
