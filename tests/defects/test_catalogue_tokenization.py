"""Defects of tokenization: what becomes of the ids of a small prompt, and that the same comes of the same."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.defects.catalogue import catalogue
from harness.defects.catalogue.not_planted import NOT_PLANTED
from harness.defects.defect import Place
from harness.defects.places import Tokenizing

MARKERS = {"<|im_start|>": 1, "<|im_end|>": 2}
MERGED = ("ab", "\n\n", "  ", " a", "::")
"""What the small tokenizer has an id for beside single characters."""


def encode(text: str, parsed: bool) -> tuple[int, ...]:
    """Take the longest known piece, from the left; a character beyond ASCII is spelled in its bytes."""
    ids: list[int] = []
    known = (*(MARKERS if parsed else ()), *MERGED)
    while text:
        piece = next((one for one in known if text.startswith(one)), text[0])
        text = text[len(piece) :]
        if piece in MARKERS:
            ids.append(MARKERS[piece])
        elif piece in MERGED:
            ids.append(300 + MERGED.index(piece))
        else:
            ids += [10 + byte for byte in piece.encode("utf-8")]
    return tuple(ids)


def tokenizing(text: str) -> Tokenizing:
    return Tokenizing(text=text, ids=encode(text, True), encode=encode, bos=1, eos=2)


def plain(text: str) -> tuple[int, ...]:
    return encode(text, True)


def planted(name: str, seen: Tokenizing) -> tuple[int, ...]:
    return tuple(catalogue()[name].planting()(seen))


PROMPT = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"
RICH = (
    "<|im_start|>user\n\n ﬁ½ Ａ é e\u0301 🦊 “ab”  \t a::b ,x\r\n 1234 &amp; \\n\u00a0\u200d \n"
    "<|im_end|>\n<|im_start|>assistant\n"
)
IDS = [one for one in catalogue().values() if one.place is Place.IDS]
SHOWN = [one for one in IDS if not one.id.startswith(("tok-cut-", "tok-chunks-", "tok-block-"))]
"""Those that do not rest on how long the prompt is."""


@pytest.mark.parametrize("defect", IDS, ids=lambda one: one.id)
def test_the_same_comes_of_the_same_and_nothing_is_changed_in_place(defect):
    edit = defect.planting()
    for text in (PROMPT, RICH, "a", ""):
        seen = tokenizing(text)
        once, again = tuple(edit(seen)), tuple(edit(tokenizing(text)))
        assert once == again
        assert seen == replace(tokenizing(text), encode=seen.encode)
        assert all(isinstance(one, int) and one >= 0 for one in once)


@pytest.mark.parametrize("defect", SHOWN, ids=lambda one: one.id)
def test_each_shows_in_a_prompt_that_has_everything(defect):
    assert tuple(defect.planting()(tokenizing(RICH))) != plain(RICH)


@pytest.mark.parametrize("defect", IDS, ids=lambda one: one.id)
def test_a_vocabulary_without_bos_and_end_token_is_no_error(defect):
    seen = Tokenizing(text="ab a", ids=plain("ab a"), encode=encode)
    assert all(isinstance(one, int) for one in defect.planting()(seen))


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("tok-double-bos", (1, 1, 5, 2, 9, 1, 6)),
        ("tok-missing-bos", (5, 2, 9, 1, 6)),
        ("tok-bos-wrongly-stripped", (1, 5, 2, 9, 6)),
        ("tok-eos-appended", (1, 5, 2, 9, 1, 6, 2)),
        ("tok-eos-prepended", (2, 1, 5, 2, 9, 1, 6)),
        ("tok-eos-for-bos", (2, 5, 2, 9, 1, 6)),
        ("tok-added-token-map", (2, 5, 1, 9, 2, 6)),
        ("tok-turn-ends-lost", (1, 5, 9, 1, 6)),
        ("tok-turn-ends-doubled", (1, 5, 2, 2, 9, 1, 6)),
        ("tok-generation-prompt-lost", (1, 5, 2)),
        ("tok-first-ids-lost", (9, 1, 6)),
        ("tok-last-id-lost", (1, 5, 2, 9, 1)),
        ("tok-last-ids-lost", (1, 5, 2)),
        ("tok-last-id-doubled", (1, 5, 2, 9, 1, 6, 6)),
        ("tok-one-id-wrong", (1, 5, 1, 9, 1, 6)),
        ("tok-last-id-wrong", (1, 5, 2, 9, 1, 5)),
        ("tok-ids-off-by-one", (0, 4, 1, 8, 0, 5)),
        ("tok-two-ids-swapped", (1, 5, 2, 1, 9, 6)),
        ("tok-prompt-doubled", (1, 5, 2, 9, 1, 6) * 2),
        ("tok-cut-front", (1, 5, 2, 9, 1, 6)),
    ],
)
def test_ids(name, ids):
    assert planted(name, Tokenizing(text="", ids=(1, 5, 2, 9, 1, 6), encode=encode, bos=1, eos=2)) == ids


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("tok-cut-front", tuple(range(8, 40))),
        ("tok-cut-end", tuple(range(32))),
        ("tok-cut-middle", (*range(8), *range(16, 40))),
        ("tok-block-tail-lost", tuple(range(40))),
        ("tok-cut-front-64", tuple(range(40))),
    ],
)
def test_a_long_prompt_is_cut(name, ids):
    assert planted(name, Tokenizing(text="", ids=tuple(range(40)), encode=encode)) == ids


def test_a_block_that_is_not_full_is_lost():
    assert planted("tok-block-tail-lost", Tokenizing(text="", ids=tuple(range(13)), encode=encode)) == tuple(range(8))


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("tok-nfc", "e\u0301", "é"),
        ("tok-wpm-nfd", "é", "e\u0301"),
        ("tok-nfkc", "½ﬁ", "1\u20442fi"),
        ("tok-accents-lost", "Kantō", "Kanto"),
        ("tok-ascii-marked", "aé🦊", "a??"),
        ("tok-surrogates", "é🦊", "é\ufffd\ufffd"),
        ("tok-invisible-lost", "a\u200db", "ab"),
        ("tok-mojibake", "é", "Ã©"),
        ("tok-unicode-escaped", "é", "\\u00e9"),
        ("tok-escapes-read", "a\\nb", "a\nb"),
        ("tok-newlines-collapsed", "a\n\n\nb", "a\nb"),
        ("tok-lf", "a\r\nb\r", "a\nb\n"),
        ("tok-spaces-collapsed", "a   b", "a b"),
        ("tok-tfv5-metaspace", "a b", "a▁b"),
        ("tok-tabs-expanded", "\ta", "    a"),
        ("tok-line-ends-stripped", "a \t\nb ", "a\nb "),
        ("tok-indents-lost", "a\n  b", "a\nb"),
        ("tok-retok-space-growth", "<|im_start|>a<|im_end|>", "<|im_start|> a<|im_end|> "),
        ("tok-markers-strip-left", "a\n <|im_end|>\n", "a<|im_end|>\n"),
        ("tok-markers-strip-right", "a\n<|im_end|>\n b", "a\n<|im_end|>b"),
        ("tok-digits-apart", "a123", "a1 2 3"),
        ("tok-thousands-marked", "12345 123", "12,345 123"),
        ("tok-ugm-bytefallback", "aé", "a\ufffd"),
        ("tok-unknown-dropped", "aé🦊b", "ab"),
    ],
)
def test_a_changed_text_is_encoded(name, text, other):
    assert planted(name, tokenizing(text)) == plain(other)


@pytest.mark.parametrize(
    ("name", "text", "segments"),
    [
        ("tok-lines-apart", "a\n\nb", ("a\n", "\n", "b")),
        ("tok-words-apart", "b a  b", ("b", " ", "a", "  ", "b")),
        ("tok-gemma-tabs", "b   a", ("b", " ", " ", " a")),
        ("tok-client-server-split", "ab<|im_end|>ab", ("a", "b", "<|im_end|>", "a", "b")),
        ("tok-punctuation-apart", "a::b", ("a:", ":b")),
        ("tok-chunks-apart", "x" * 47 + "ab", ("x" * 47 + "a", "b")),
        ("tok-messages-apart", "<|im_start|>user\n\nb", ("<|im_start|>user\n", "\nb")),
    ],
)
def test_segments_are_encoded_apart(name, text, segments):
    assert planted(name, tokenizing(text)) == tuple(one for part in segments for one in plain(part))


def test_one_control_token_becomes_text():
    spelled = encode("<|im_end|>", False)
    ids = planted("tok-end-token-as-text", tokenizing("<|im_start|>a<|im_end|><|im_end|>b"))
    assert ids == (1, *plain("a"), *spelled, *spelled, *plain("b"))
    assert planted("tok-start-token-as-text", tokenizing("a<|im_end|>")) == plain("a<|im_end|>")


def test_what_is_not_planted_has_a_reason_and_is_not_planted():
    assert not NOT_PLANTED.keys() & catalogue().keys()
    assert all(re.fullmatch(r"(cli|tpl|tok|eng|smp|pp|art|env)-[a-z0-9.-]+", name) for name in NOT_PLANTED)
    assert all(NOT_PLANTED.values())
