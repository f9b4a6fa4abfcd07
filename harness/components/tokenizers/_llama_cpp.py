"""llama.cpp's tokenizer through llama-cpp-python's low-level interface, vocabulary only."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from llama_cpp import llama_cpp as low_level

from harness.components.tokenizers._errors import no_answer, no_such_token
from harness.parts import PartError
from harness.process.owner import as_the_parts

_PIECE_BYTES = 1024
_ERROR = 4
"""`GGML_LOG_LEVEL_ERROR`."""
_ENOUGH = 4096
"""Ids that the buffer has room for at first."""


@cache
def _quiet() -> Any:
    """Have llama.cpp log errors alone, for it warns in thousands of lines; return what must live on."""

    def log(level: int, text: bytes, _: Any) -> None:
        if level == _ERROR:
            sys.stderr.write(text.decode("utf-8", errors="replace"))

    callback = low_level.llama_log_callback(log)
    low_level.llama_backend_init()
    low_level.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


class LlamaCppTokenizer:
    """`llama_tokenize` without BOS and EOS. Ids are decoded by `llama_token_to_piece`, one by one.

    Args:
        path: A GGUF; its vocabulary is enough.
    """

    name = "llama-tokenize"
    normalization = ""

    def __init__(self, path: str) -> None:
        _quiet()
        parameters = low_level.llama_model_default_params()
        parameters.vocab_only = True
        self._model = low_level.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise as_the_parts(ValueError(f"llama.cpp does not load {path}"))
        self._vocab = low_level.llama_model_get_vocab(self._model)
        self.size = int(low_level.llama_vocab_n_tokens(self._vocab))
        self.special = self._with(low_level.LLAMA_TOKEN_ATTR_CONTROL)
        self.added = self._with(low_level.LLAMA_TOKEN_ATTR_USER_DEFINED)
        bos = int(low_level.llama_vocab_bos(self._vocab))
        self.bos = bos if 0 <= bos < self.size else None
        self.adds_bos = bool(low_level.llama_vocab_get_add_bos(self._vocab))
        self._room = 0
        self._make_room(_ENOUGH)
        self._piece_buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._pieces: dict[int, bytes] = {}

    def version(self) -> str:
        """Return the version of the package that has the library."""
        return f"llama.cpp in llama-cpp-python {version('llama-cpp-python')}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text."""
        return self._tokenized(text, special, False)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with the BOS that llama.cpp adds."""
        return self._tokenized(text, True, True)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        pieces = self._pieces
        try:
            return b"".join([pieces[one] for one in ids])
        except KeyError:
            return b"".join([self._piece(one) for one in ids])

    def _tokenized(self, text: str, parses: bool, adds: bool) -> list[int]:
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise no_answer(error) from error
        count = low_level.llama_tokenize(self._vocab, data, len(data), self._ids, self._room, adds, parses)
        if count < 0:
            if count == -(1 << 31):
                raise as_the_parts(PartError("error", "the text has more ids than llama.cpp counts"))
            self._make_room(-count)
            count = low_level.llama_tokenize(self._vocab, data, len(data), self._ids, self._room, adds, parses)
        return self._ids[:count]

    def _make_room(self, count: int) -> None:
        self._room = count
        self._ids = (low_level.llama_token * count)()

    def _piece(self, token: int) -> bytes:
        found = self._pieces.get(token)
        if found is not None:
            return found
        # llama.cpp indexes with the id unchecked in some builds.
        if not 0 <= token < self.size:
            raise no_such_token(token, self.size)
        buffer = self._piece_buffer
        length = low_level.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        if length < 0:
            self._piece_buffer = buffer = ctypes.create_string_buffer(-length)
            length = low_level.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        self._pieces[token] = piece = buffer.raw[:length]
        return piece

    def _with(self, attribute: int) -> dict[str, int]:
        """Return the ids of tokens with an attribute, by text."""
        found = {}
        for token in range(self.size):
            if low_level.llama_vocab_get_attr(self._vocab, token) & attribute:
                text = low_level.llama_vocab_get_text(self._vocab, token)
                found[text.decode("utf-8", errors="replace")] = token
        return found
