"""A model file's untrusted metadata, read by type, and the frame in which every check of it runs.

Whatever a file declares may be of any type and size. A reader here returns the value if it has the type asked for,
None if the key is absent, and otherwise raises `WrongTypeError`, which the frame turns into a `bad` check.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from harness.doctor.diagnosis import Check, Status
from harness.models.gguf import ModelFile

# Values of general.type that name something other than a language model. The engine does not look at it.
_OTHER_TYPES = ("adapter", "imatrix", "mmproj", "vocab")
# Multimodal projectors, and an audio decoder, with hyper-parameters of their own.
_OTHER_ARCHITECTURES = ("clip", "wavtokenizer-dec")
# tokenizer.ggml.model of a file that declares to have no vocabulary.
_NO_VOCABULARY = ("none", "no_vocab")


class WrongTypeError(Exception):
    """A metadata value that is not of the type its key stands for."""

    def __init__(self, key: str, value: object, wanted: str) -> None:
        super().__init__(f"{quoted(key)} is {quoted(value)} ({type(value).__name__}), not {wanted}")


class Judgement(NamedTuple):
    """A check's result, before it has its name."""

    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Facts:
    """What the checks of a model file look at."""

    model: ModelFile

    @property
    def architecture(self) -> str:
        """The value of `general.architecture`, or an empty string."""
        return self.text("general.architecture") or ""

    @property
    def known_architecture(self) -> str:
        """The same, where a text of another type counts as missing."""
        value = self.model.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    @property
    def is_language_model(self) -> bool:
        """Whether the file says to be a language model, rather than a projector or an adapter."""
        return (
            self.model.metadata.get("general.type") not in _OTHER_TYPES
            and self.model.metadata.get("general.architecture") not in _OTHER_ARCHITECTURES
        )

    @property
    def is_vocabulary_alone(self) -> bool:
        """Whether the file has neither tensors nor hyper-parameters, as one written to hold a vocabulary."""
        prefix = f"{self.known_architecture}."
        return not self.model.tensors and not any(key.startswith(prefix) for key in self.model.metadata)

    @property
    def is_one_of_several(self) -> bool:
        """Whether the file is one shard of a split model, so that tensors are elsewhere."""
        count = self.model.metadata.get("split.count")
        return _is_integer(count) and count > 1

    @property
    def tokenizer(self) -> str:
        """The value of `tokenizer.ggml.model`, or an empty string."""
        return self.text("tokenizer.ggml.model") or ""

    @property
    def says_no_vocabulary(self) -> bool:
        """Whether the file declares to have no vocabulary."""
        return self.tokenizer in _NO_VOCABULARY

    @property
    def has_vocabulary(self) -> bool:
        """Whether a vocabulary is there, or should be."""
        return "tokenizer.ggml.tokens" in self.model.metadata or (
            self.is_language_model and not self.says_no_vocabulary
        )

    @functools.cached_property
    def tokens(self) -> list[str]:
        """The vocabulary's texts in the order of their ids; empty if there is none."""
        return self.texts("tokenizer.ggml.tokens") or []

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of each text of the vocabulary."""
        return {text: id_ for id_, text in enumerate(self.tokens)}

    @functools.cached_property
    def token_types(self) -> list[int]:
        """The type of each token; empty if the file does not say."""
        return self.integers("tokenizer.ggml.token_type") or []

    def type_of(self, id_: int) -> int | None:
        """Return the token's type, or None if the file does not say."""
        return self.token_types[id_] if 0 <= id_ < len(self.token_types) else None

    def hyper(self, name: str) -> str:
        """Return the key of a hyper-parameter: its name under the architecture's prefix."""
        return f"{self.architecture}.{name}"

    def text(self, key: str) -> str | None:
        """Return a text."""
        value = self.model.metadata.get(key)
        if value is None or isinstance(value, str):
            return value
        raise WrongTypeError(key, value, "a text")

    def flag(self, key: str) -> bool | None:
        """Return a truth value."""
        value = self.model.metadata.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise WrongTypeError(key, value, "true or false")

    def integer(self, key: str) -> int | None:
        """Return an integer."""
        value = self.model.metadata.get(key)
        if value is None or _is_integer(value):
            return value
        raise WrongTypeError(key, value, "an integer")

    def number(self, key: str) -> float | None:
        """Return a finite number."""
        value = self.model.metadata.get(key)
        if value is None:
            return None
        if _is_integer(value) or (isinstance(value, float) and math.isfinite(value)):
            return float(value)
        raise WrongTypeError(key, value, "a finite number")

    def texts(self, key: str) -> list[str] | None:
        """Return an array of texts."""
        return self._array(key, lambda value: isinstance(value, str), "texts")

    def integers(self, key: str) -> list[int] | None:
        """Return an array of integers."""
        return self._array(key, _is_integer, "integers")

    def numbers(self, key: str) -> list[float] | None:
        """Return an array of numbers, which may be infinite or NaN."""
        return self._array(key, lambda value: isinstance(value, float) or _is_integer(value), "numbers")

    def _array(self, key: str, fits: Callable[[Any], bool], wanted: str) -> list[Any] | None:
        value = self.model.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise WrongTypeError(key, value, f"an array of {wanted}")
        for position, item in enumerate(value):
            if not fits(item):
                raise WrongTypeError(f"{key}[{position}]", item, f"one of {wanted}")
        return value


def _is_integer(value: object) -> TypeGuard[int]:
    # bool is a subclass of int, and no key means either.
    return isinstance(value, int) and not isinstance(value, bool)


def check(name: str) -> Callable[[Callable[[Facts], Judgement]], Callable[[Facts], Check]]:
    """Make a named check of a function that judges; metadata of a wrong type is a `bad` check, not an error."""

    def decorate(judge_facts: Callable[[Facts], Judgement]) -> Callable[[Facts], Check]:
        @functools.wraps(judge_facts)
        def run(facts: Facts) -> Check:
            try:
                judgement = judge_facts(facts)
            except WrongTypeError as error:
                judgement = Judgement("bad", str(error), "convert the model again; the file's metadata is damaged")
            return Check(name=name, **judgement._asdict())

        return run

    return decorate


def judge(bad: list[str], odd: list[str], fine: str, advice: str) -> Judgement:
    """Sum up one check: what is bad and what is odd about it, or else that it is fine."""
    if not bad and not odd:
        return Judgement("ok", fine)
    return Judgement("bad" if bad else "warning", "; ".join([*bad, *odd]), advice)


def some(items: Iterable[object], limit: int = 5) -> str:
    """Return the first few items, and how many more there are."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def quoted(value: object, limit: int = 60) -> str:
    """Return untrusted text fit for a terminal and a report: escaped, on one line and short."""
    # Cut before escaping: a hostile text may be as long as the file.
    if isinstance(value, str):
        return repr(value) if len(value) <= limit else f"{value[:limit]!r}... ({len(value):,} characters)"
    if isinstance(value, list):
        return f"an array of {len(value):,}"
    return repr(value)
