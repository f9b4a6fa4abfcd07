"""What a setting should be, and whether it is.

Only what contradicts a declaration speaks against a part. Declarations are, the nearest first: what the stack, the
command line or a Modelfile asks for; the model file; the documentation of the program. What nobody declares is
`unobserved`, unless it lies beyond what is recommended for any model.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping
from typing import Final

from harness import settings as names
from harness.checking.compare.outcome import Kind, Outcome
from harness.checking.load.declared import Declared
from harness.checking.rows import Row
from harness.settings import SAMPLING, Loaded, Scalar, Setting
from harness.values import ModelRef

_FAR: Final = 8
"""A context this many times shorter than the model's, and shorter than any that a program takes by itself, is far too
short to be meant without being said."""
_MOST: Final = sys.float_info.max
_THINK: Final = "<think>"
_NEAR: Final = 24
"""Characters of a text shown on either side of where it differs."""
_SAME: Final = 1e-5
"""Of single precision, which files and servers write numbers in."""
_SLOTS_OF_ITSELF: Final = 4
"""Slots of a llama-server that nobody has asked for a number of them (`--parallel`); they share one cache."""
_OF_THE_MODEL: Final = (names.ARCHITECTURE, names.VOCABULARY, names.WEIGHTS, names.SIZE, names.TRAINED)


class Rules:
    """What the settings of a part should be.

    Args:
        loaded: That.
        model: The model that it was to load.
        golden: What that model's file declares; None where it cannot be read here.
        served: What the file declares that the part has; None where the part does not tell, or it is not here.
    """

    def __init__(self, loaded: Loaded, model: ModelRef, golden: Declared | None, served: Declared | None) -> None:
        self._loaded = loaded
        self._model = model
        self._golden = golden
        self._served = served
        self._by_name = {one.name: one for one in loaded.settings}
        self._special: Mapping[str, Callable[[Setting], Row]] = {
            names.CONTEXT: self._context,
            names.SLOT: self._slot,
            names.SLOTS: self._as_asked,
            names.TEMPLATE: self._template,
            names.LAYERS: self._layers,
            names.WINDOW: self._window,
            names.REASONING: self._reasoning,
            **dict.fromkeys(_OF_THE_MODEL, self._of_the_model),
        }

    def row(self, setting: Setting) -> Row:
        """Return the row of a setting."""
        if setting.found is None:
            return self._unseen(setting, setting.hidden or f"{self._loaded.by} does not show it")
        special = self._special.get(setting.name)
        if special is not None:
            return special(setting)
        if setting.asked is not None:
            return self._as_asked(setting)
        return self._sampler(setting) if setting.name.startswith(SAMPLING) else self._plain(setting)

    # Rules

    def _plain(self, setting: Setting) -> Row:
        """What the file that is served says, or else the documentation."""
        file = self._served or self._golden
        value, key = file.of(setting.name) if file is not None else (None, "")
        if value is not None:
            return self._held(setting, value, f"{key} of the file")
        if setting.default is None:
            return self._unseen(setting, f"it is {_shown(setting.found)}, and nothing declares what it should be")
        return self._by_default(setting)

    def _as_asked(self, setting: Setting) -> Row:
        if setting.asked is None:
            return self._unseen(setting, f"it is {_shown(setting.found)}, and nothing declares what it should be")
        row = self._held(setting, setting.asked, setting.asked_by)
        served, key = self._served.of(setting.name) if self._served is not None else (None, "")
        if row.outcome.bad and served is not None and setting.found is not None and _same(served, setting.found):
            why = f"{row.why}: {key} of the file that is served goes before it"
            remedy = f"load a file without {key}, or ask for it in every request"
            return row.model_copy(update={"why": why, "remedy": remedy})
        return row

    def _by_default(self, setting: Setting) -> Row:
        """Nobody is known to have asked: whoever started it may have, so only what is beyond the usual is wrong."""
        assert setting.default is not None
        assert setting.found is not None
        found, default = _shown(setting.found), _shown(setting.default)
        if _same(setting.found, setting.default):
            return self._held(setting, setting.default, setting.default_by)
        if setting.usual is None or _within(setting.found, setting.usual):
            why = f"it is {found}, by default {default}; who has asked for that, if anyone, is not shown"
            return self._unseen(setting, why)
        far = "and by default" if isinstance(setting.found, bool) else "far from its default of"
        why = f"{setting.name} is {found}, {far} {default}, and nothing declares it"
        return self._diverged(setting, default, found, setting.default_by, why, setting.default)

    def _sampler(self, setting: Setting) -> Row:
        own, key = self._golden.of(setting.name) if self._golden is not None else (None, "")
        served, served_key = self._served.of(setting.name) if self._served is not None else (None, "")
        assert setting.found is not None
        found = _shown(setting.found)
        if served is not None and _same(served, setting.found) and (own is None or not _same(own, served)):
            why = (
                f"{setting.name} is {found}: {served_key} of the file that is served is in force though nobody asked, "
                "and the golden's file does not say so"
            )
            declared = own if own is not None else setting.default
            expected = "" if declared is None else _shown(declared)
            by = f"{key} of the golden's file" if own is not None else setting.default_by
            return self._diverged(setting, expected, found, by, why, declared, kind="artifact")
        if own is None:
            return self._plain(setting) if setting.default is None else self._by_default(setting)
        if not _same(own, setting.found):
            why = f"it is {found}, and {key} of the file recommends {_shown(own)}; who has asked for that is not shown"
            return self._unseen(setting, why)
        if _greedy(setting.name, own):
            why = (
                f"{setting.name} is {found}: {key} of the file is in force though nobody asked, so every answer is "
                "the greedy one"
            )
            default = "" if setting.default is None else _shown(setting.default)
            return self._diverged(setting, default, found, setting.default_by, why, setting.default, kind="artifact")
        return self._held(setting, own, f"{key} of the file")

    def _of_the_model(self, setting: Setting) -> Row:
        """What tells one model from another is held against the model that was asked for."""
        file = self._golden or self._served
        value, key = file.of(setting.name) if file is not None else (None, "")
        if value is None:
            return self._unseen(setting, f"it is {_shown(setting.found)}, and the model's file does not say it")
        assert setting.found is not None
        if _same(value, setting.found):
            return self._held(setting, value, f"{key} of the file")
        told = f"{setting.name} is {_shown(setting.found)}, not {_shown(value)}"
        why = f"another model is loaded than {self._model.name}: {told}"
        remedy = setting.remedy or f"start {self._loaded.by} with the very file: {self._model.path.name}"
        row = self._diverged(setting, _shown(value), _shown(setting.found), f"{key} of the file", why, kind="artifact")
        return row.model_copy(update={"remedy": remedy})

    def _template(self, setting: Setting) -> Row:
        given = self._model.chat_template
        own = self._golden.template if self._golden is not None else None
        expected = given if given is not None else own
        found = str(setting.found)
        if self._golden is None and given is None:
            return self._template_of_any(setting, found)
        which, source = ("file's own", "tokenizer.chat_template of the file")
        if given is not None:
            which, source = ("one that the model is given", f"the template of the model {self._model.name}")
        if expected is None:
            why = f"the file has no chat template, and {self._loaded.by} renders with one of its own"
            return self._diverged(setting, "none", _excerpt(found, 0), source, why, kind="artifact")
        if _normal(found) == _normal(expected):
            return self._held(setting, _digest(expected), source, found=_digest(expected))
        at = next((i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(expected), len(found)) if at is None else at
        if "{" in found:
            why = f"another template is in force than the {which}: it differs from character {at:,} on"
        else:
            why = f"{self._loaded.by} renders with its built-in template {found!r}, not with the {which}"
        from_file = given is None and self._served is not None and self._served.template == found
        kind: Kind = "artifact" if from_file else "integration"
        return self._diverged(setting, _excerpt(expected, at), _excerpt(found, at), source, why, kind=kind)

    def _template_of_any(self, setting: Setting, found: str) -> Row:
        """What no file was named for: the template of the file that is served, or one that is meant in its stead."""
        own = self._served.template if self._served is not None else None
        source = "tokenizer.chat_template of the file that is served"
        if own is not None and _normal(own) == _normal(found):
            return self._held(setting, _digest(own), source, found=_digest(own))
        if "{" not in found:
            why = f"{self._loaded.by} renders with its built-in template {found!r}, not with its file's own"
            return self._diverged(setting, "the file's own", found, source, why)
        if own is None:
            return self._unseen(setting, "what the file declares is not known here")
        return self._unseen(setting, "it is another than the file's own; whether that is meant, nothing declares")

    def _layers(self, setting: Setting) -> Row:
        """As many as were asked for, or as there are; none where the build or the machine has no GPU."""
        asked = setting.asked
        if asked is None or _number(asked) <= 0:
            return self._unseen(setting, f"{_shown(setting.found)} are; how many should be, nothing declares")
        if _number(setting.found) > 0:
            return self._held(setting, setting.found or 0, setting.asked_by)
        many = _shown(asked)
        why = f"no layer is on a GPU, though {setting.asked_by} asks for {many}: the build or the machine has none"
        row = self._diverged(setting, _shown(asked), "0", setting.asked_by, why, kind="environment")
        return row.model_copy(update={"remedy": f"install a build of {self._loaded.by} for the GPU, or ask for 0"})

    def _window(self, setting: Setting) -> Row:
        file = self._served or self._golden
        value, key = file.of(names.WINDOW) if file is not None else (None, "")
        if value is None and file is not None and setting.found == 0:
            return self._held(setting, 0, "the file, which declares none")
        if value is not None and setting.found == 0:
            return self._unseen(
                setting, f"{key} of the file is {_shown(value)}; the engine has none for this architecture"
            )
        return self._plain(setting)

    def _reasoning(self, setting: Setting) -> Row:
        """Where the template has a block of reasoning, it is kept apart unless somebody asks otherwise."""
        if setting.asked is not None:
            return self._as_asked(setting)
        template = self._by_name.get(names.TEMPLATE)
        thinks = template is not None and isinstance(template.found, str) and _THINK in template.found
        if setting.found == "none" and thinks:
            why = (
                "the reasoning format is none, so what the model thinks stays in the content, and nothing declares that"
            )
            return self._diverged(setting, _shown(setting.default), "none", setting.default_by, why, setting.default)
        return self._plain(setting)

    def _context(self, setting: Setting) -> Row:
        if setting.asked is None:
            return self._as_asked(setting)
        # It is rounded up, to each slot's share.
        enough = _number(setting.found) >= _number(setting.asked)
        expected = setting.found if enough and setting.found is not None else setting.asked
        return self._held(setting, expected, setting.asked_by)

    def _slot(self, setting: Setting) -> Row:
        """What a conversation has: divided among slots, capped at what the model was trained with, or far too short."""
        found = int(_number(setting.found))
        asked = self._by_name.get(names.CONTEXT, setting)
        slots = self._slots()
        trained = self._trained()
        least = min(filter(None, (self._loaded.least_context, trained)), default=0)
        told = f"a slot has a context of {found:,}"
        if asked.asked is not None:
            wanted = int(_number(asked.asked))
            share = wanted // max(slots, 1)
            if found >= wanted or (slots > 1 and found >= share and found >= least):
                return self._held(setting, found, asked.asked_by)
            if trained is not None and found == trained and found < share:
                why = f"{told}, not {share:,}: it is capped at what the model was trained with"
                return self._diverged(setting, f"{share:,}", f"{found:,}", asked.asked_by, why, trained * slots)
            if slots > 1:
                why = f"the context of {wanted:,} is divided among {slots} slots: each has {found:,}"
                row = self._diverged(
                    setting, f"{wanted:,}", f"{found:,}", asked.asked_by, why, max(wanted, least) * slots
                )
                return row.model_copy(update={"remedy": self._or_one_slot(row.remedy)})
            why = f"{told}, not {wanted:,} as {asked.asked_by} says"
            return self._diverged(setting, f"{wanted:,}", f"{found:,}", asked.asked_by, why, wanted)
        if least and found >= least:
            return self._held(setting, found, self._loaded.least_by)
        # Where nobody asks for slots, there are four and they share one cache: each has the whole.
        divided = slots not in (1, _SLOTS_OF_ITSELF)
        if trained is None or not least or not (divided or found * _FAR <= trained):
            of = "" if trained is None else f" of the {trained:,} that the model was trained with"
            return self._unseen(setting, f"it is {found:,}{of}, and nothing declares what it should be")
        why = f"{told}, of the {trained:,} that the model was trained with, and nothing declares that"
        if divided:
            why = (
                f"each of {slots} slots has a context of {found:,}, of the {trained:,} that the model was trained with"
            )
        row = self._diverged(setting, f"at least {least:,}", f"{found:,}", self._loaded.least_by, why, trained * slots)
        return row.model_copy(update={"remedy": self._or_one_slot(row.remedy)}) if divided else row

    def _slots(self) -> int:
        told = self._by_name.get(names.SLOTS)
        value = None if told is None else told.found if told.found is not None else told.asked
        return int(_number(value)) if value is not None else 1

    def _trained(self) -> int | None:
        file = self._served or self._golden
        value = file.of(names.TRAINED)[0] if file is not None else None
        if value is None and names.TRAINED in self._by_name:
            value = self._by_name[names.TRAINED].found
        return None if value is None or _number(value) <= 0 else int(_number(value))

    def _or_one_slot(self, remedy: str) -> str:
        slots = self._by_name.get(names.SLOTS)
        others = [self._loaded.own_cache, slots.remedy.replace("{}", "1") if slots is not None else ""]
        return ", or ".join(filter(None, (remedy, *others)))

    # Rows

    def _held(self, setting: Setting, expected: Scalar, source: str, found: Scalar | None = None) -> Row:
        has = found if found is not None else setting.found
        assert has is not None
        if _same(expected, has):
            return self._row(setting, _shown(expected), _shown(has), source, Outcome.EQUAL)
        why = f"{setting.name} is {_shown(has)}, not {_shown(expected)} as {source} says"
        return self._diverged(setting, _shown(expected), _shown(has), source, why, expected)

    def _diverged(
        self,
        setting: Setting,
        expected: str,
        found: str,
        source: str,
        why: str,
        value: Scalar | None = None,
        kind: Kind = "integration",
    ) -> Row:
        remedy = setting.remedy if value is None else setting.remedy.replace("{}", _plainly(value))
        row = self._row(setting, expected, found, source, Outcome.DIVERGED)
        return row.model_copy(update={"why": why, "remedy": remedy, "kind": kind})

    def _unseen(self, setting: Setting, why: str) -> Row:
        found = "" if setting.found is None or setting.name == names.TEMPLATE else _shown(setting.found)
        return self._row(setting, "", found, self._loaded.by, Outcome.UNOBSERVED).model_copy(update={"why": why})

    def _row(self, setting: Setting, expected: str, found: str, source: str, outcome: Outcome) -> Row:
        return Row(
            of="load",
            name=setting.name,
            expected=expected,
            found=found,
            source=source,
            outcome=outcome,
            stage=setting.stage,
        )


def _same(one: Scalar, other: Scalar) -> bool:
    if isinstance(one, str) or isinstance(other, str) or isinstance(one, bool) or isinstance(other, bool):
        return type(one) is type(other) and one == other
    return one == other or math.isclose(_number(one), _number(other), rel_tol=_SAME, abs_tol=_SAME)


def _within(value: Scalar, usual: tuple[float, float]) -> bool:
    return not isinstance(value, str) and usual[0] - _SAME <= value <= usual[1] + _SAME


def _greedy(name: str, value: Scalar) -> bool:
    parameter = name.removeprefix(SAMPLING)
    return (parameter == "temperature" and _number(value) <= 0) or (parameter == "top_k" and _number(value) == 1)


def _number(value: Scalar | None) -> float:
    if not isinstance(value, int | float) or value != value:
        return 0.0
    # A server's answer may hold a number beyond every float.
    return float(min(max(value, -_MOST), _MOST))


def _normal(template: str) -> str:
    return template.replace("\r\n", "\n").rstrip()


def _digest(text: str) -> str:
    return f"{len(text):,} characters, SHA-256 {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}..."


def _excerpt(text: str, at: int) -> str:
    begin, end = max(0, at - _NEAR), at + _NEAR
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"


def _shown(value: Scalar | None) -> str:
    """Return a value for a reader."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _plainly(value: Scalar) -> str:
    """Return a value for a command line."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
