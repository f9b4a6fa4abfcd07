"""Properties of tokenizers, and the search for texts that break them."""

from __future__ import annotations

from harness.fuzz.tokenizer.properties import PROPERTIES, Property
from harness.fuzz.tokenizer.runner import Group, Part, Statistics, fuzz_tokenizers

__all__ = ["PROPERTIES", "Group", "Part", "Property", "Statistics", "fuzz_tokenizers"]
