"""A small vocabulary made up for a probe: every byte, the words that are wanted, and the markers of a chat format.

A parser sees markers as it sees them in a real model, each one token, without the files of that model.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from gguf import GGUFWriter, TokenType

from harness.probes.alphabet import BYTES

_ENDS = ("add_eos_token_id", "add_eot_token_id", "add_eom_token_id")
_NUL = "\u0100"


def write_vocabulary(
    path: Path, words: Sequence[str], control: Sequence[str], shown: Sequence[str], ends: Sequence[str], bos: str
) -> dict[bytes, int]:
    """Write a GGUF that is a vocabulary and nothing else.

    Args:
        path: The file to write.
        words: Texts that are one id, where the text is generated.
        control: Texts of control tokens: a server shows those only that its parser wants to see.
        shown: Texts of user-defined tokens, which a server always shows.
        ends: Texts of the tokens that end a generation, at most three; control tokens, where `shown` has them not.
        bos: The text of the control token that begins a text; it is not added to a prompt.

    Returns:
        The ids by their bytes, markers by their texts.
    """
    alphabet = [character for character, _ in sorted(BYTES.items(), key=itemgetter(1))]
    special = dict.fromkeys((*ends, bos, *control), TokenType.CONTROL) | dict.fromkeys(shown, TokenType.USER_DEFINED)
    ids: dict[bytes, int] = {bytes([byte]): byte for byte in range(256)}
    tokens = list(alphabet)
    for word in words:
        raw = word.encode("utf-8")
        if raw not in ids and word not in special:
            ids[raw] = len(tokens)
            tokens.append("".join(alphabet[byte] for byte in raw))
    types = [TokenType.NORMAL] * len(tokens)
    for text, kind in special.items():
        ids[text.encode("utf-8")] = len(tokens)
        tokens.append(text)
        types.append(kind)
    writer = GGUFWriter(path, "gpt2")
    writer.add_tokenizer_model("gpt2")
    # With these rules a word of the vocabulary is one id without merges. There must be a merge all the same.
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_merges([f"{_NUL} {_NUL}"])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(ids[bos.encode("utf-8")])
    writer.add_add_bos_token(False)
    for name, text in zip(_ENDS, ends, strict=False):
        getattr(writer, name)(ids[text.encode("utf-8")])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return ids
