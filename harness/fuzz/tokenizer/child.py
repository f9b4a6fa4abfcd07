"""The child process that makes the tokenizers of a group and searches: no id crosses a pipe while it does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.errors import UserError
from harness.fuzz.finding import Broken
from harness.fuzz.search import Search, found_in
from harness.fuzz.tokenizer.asking import Asked, encoded
from harness.fuzz.tokenizer.journal import Journal
from harness.fuzz.tokenizer.properties import PROPERTIES
from harness.fuzz.tokenizer.scans import broken_controls, broken_pieces, broken_roles, drift, entries
from harness.models.vocabulary import Vocabulary, tokenizer_json, write_gguf
from harness.parts import Tokenizer, make


class Laboratory:
    """The tokenizers of a group.

    Args:
        parts: Each part: `path`, its import path; `name`, or None for its own; `keywords`; and `over`: `gguf` or
            `json`, where it is made over a file of that form with the vocabulary of the first part, or None.
        journal: The file of the journal.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]], journal: str) -> None:
        self._journal = Journal(Path(journal))
        self.tokenizers: list[Tokenizer] = []
        vocabulary: Vocabulary | None = None
        with TemporaryDirectory() as folder:
            for part in parts:
                self._journal.note(0, part["path"])
                keywords = dict(part["keywords"])
                if part["over"] is not None:
                    if vocabulary is None:
                        vocabulary = _vocabulary_of(self.tokenizers)
                    keywords["path"] = _written(vocabulary, Path(folder), part["over"])
                made = make(part["path"], **keywords)
                made.name = part["name"] or made.name
                if any(one.name == made.name for one in self.tokenizers):
                    raise UserError(f"two tokenizers are named {made.name!r}", "name one of them otherwise")
                self.tokenizers.append(made)
        self._journal.note(0, "")

    def facts(self) -> list[dict[str, Any]]:
        """Return what each tokenizer says of itself."""
        return [{"name": one.name, "version": one.version(), "size": one.size} for one in self.tokenizers]

    def search(
        self,
        texts: str,
        only: Sequence[str],
        examples: int,
        number: int,
        seconds: float | None,
        skipped: Sequence[str],
        replayed: Sequence[str],
    ) -> dict[str, Any]:
        """Search for texts that break properties.

        Args:
            texts: The import path of what makes a strategy for texts, given a tokenizer.
            only: The properties' names.
            examples: How many texts are made up; 0 for none.
            number: The seed.
            seconds: The time budget.
            skipped: Texts that ended the process before.
            replayed: Texts that are tried first.
        """
        properties = [PROPERTIES[name] for name in only]
        passed = frozenset(skipped)
        held: Counter[str] = Counter()

        def check(text: str) -> list[Broken]:
            self._journal.note(search.result.inputs, text)
            if text in passed:
                return []
            asked = Asked(self.tokenizers, text)
            found = {one.name: one.check(asked) for one in properties}
            held.update(name for name, broken in found.items() if broken is not None)
            return [one for broken in found.values() for one in broken or ()]

        search: Search[str] = Search(check, seconds)
        search.replay(replayed)
        if examples:
            search.explore(make(texts, tokenizer=self.tokenizers[0]), examples=examples, number=number)
        found = [
            {"broken": one.broken.model_dump(mode="json"), "example": one.example, "inputs": one.inputs}
            for one in found_in(search)
        ]
        return {"found": found, "held": held, "inputs": search.result.inputs, "ended": search.result.ended}

    def ask(self, part: int, text: str) -> None:
        """Ask one tokenizer for the ids of a text, both ways; what ends the process is its own doing."""
        for special in (False, True):
            encoded(self.tokenizers[part], text, special=special)

    def scan(self, number: int, seconds: float) -> dict[str, Any]:
        """Return what holds of the whole vocabularies: classes, drift, and what is broken.

        Args:
            number: The seed.
            seconds: The time budget of the vocabulary's entries.
        """
        counts, broken = entries(self.tokenizers, seconds)
        broken += broken_pieces(self.tokenizers) + broken_roles(self.tokenizers) + broken_controls(self.tokenizers)
        return {
            "classes": counts,
            "drift": [drift(one, number) for one in self.tokenizers],
            "found": [
                {"broken": one.model_dump(mode="json"), "example": shown, "inputs": count}
                for one, shown, count in broken
            ],
        }


def _vocabulary_of(tokenizers: Sequence[Any]) -> Vocabulary:
    if not tokenizers or not hasattr(tokenizers[0], "vocabulary"):
        raise UserError("the group's first tokenizer has no vocabulary to make a file of", "give the others a file")
    vocabulary: Vocabulary = tokenizers[0].vocabulary()
    return vocabulary


def _written(vocabulary: Vocabulary, folder: Path, form: str) -> str:
    path = folder / f"vocabulary.{form}"
    if form == "gguf":
        write_gguf(vocabulary, path)
    else:
        path.write_text(json.dumps(tokenizer_json(vocabulary)), encoding="utf-8")
    return str(path)
