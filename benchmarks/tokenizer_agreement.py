"""The check that two tokenizers agree against the time that the two need alone, for the same texts, in one run.

The tokenizer of SmolLM2's file by llama.cpp and by Hugging Face `tokenizers`, over a `tokenizer.json` made of the file.
Texts are made up, of some ten to some thousand characters; check and bare calls take turns. Wanted: a ratio of at most
1.3.

    python benchmarks/tokenizer_agreement.py [ROUNDS]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.fuzz.tokenizer.asking import Asked
from harness.fuzz.tokenizer.journal import Journal
from harness.fuzz.tokenizer.properties import PROPERTIES
from harness.models.vocabulary import from_gguf, tokenizer_json
from harness.parts import Tokenizer, make
from harness.project.project import find_project
from harness.project.stack import resolve_model

_HERE = "harness.components.tokenizers."
_WORDS = (
    "the",
    "Hello",
    " ",
    "  ",
    "\n",
    "\u00e9t\u00e9",
    "12345",
    "\u65e5\u672c\u8a9e",
    "don't",
    "<|",
    "\U0001f680",
    ".",
)
_TEXTS = 300
_LENGTHS = (4, 40, 400)


def main(rounds: int) -> None:
    """Measure and print, by the length of the texts."""
    model = resolve_model(find_project(), "smollm2-135m-instruct").path
    with TemporaryDirectory() as folder:
        written = Path(folder) / "tokenizer.json"
        written.write_text(json.dumps(tokenizer_json(from_gguf(model))), encoding="utf-8")
        pair = [
            make(_HERE + "_llama_cpp:LlamaCppTokenizer", path=str(model)),
            make(_HERE + "_hf:open_tokenizer", path=str(written)),
        ]
        journal = Journal(Path(folder) / "journal")
        for words in _LENGTHS:
            chance = random.Random(words)
            texts = ["".join(chance.choices(_WORDS, k=words)) for _ in range(_TEXTS)]
            bare(pair, texts)  # warm
            ratios = []
            for _ in range(rounds):
                alone = bare(pair, texts)
                ratios.append(checked(pair, texts, journal) / alone)
            print(
                f"{words} words a text: bare {alone / _TEXTS * 1e6:.0f} us a text, "
                f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}; wanted at most 1.3)"
            )


def bare(pair: Sequence[Tokenizer], texts: Sequence[str]) -> float:
    """Return the seconds of the calls alone: plain text, then with control texts parsed."""
    start = time.perf_counter()
    for text in texts:
        for special in (False, True):
            for tokenizer in pair:
                tokenizer.encode(text, special=special)
    return time.perf_counter() - start


def checked(pair: Sequence[Tokenizer], texts: Sequence[str], journal: Journal) -> float:
    """Return the seconds of the property `agreement`, as the search in the child process asks it."""
    agreement = PROPERTIES["agreement"]
    start = time.perf_counter()
    for count, text in enumerate(texts):
        journal.note(count, text)
        assert agreement.check(Asked(pair, text)) == [], text
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
