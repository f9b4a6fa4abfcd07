"""Recording goldens: what the reference makes of every case, and what of it is new, changed or stale.

Importing this module needs the extra `reference`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Any, Literal

import numpy as np

from harness.compare.inference import divergences
from harness.errors import UserError
from harness.golden import (
    FORMAT,
    PROVENANCE,
    CaseRecord,
    Golden,
    GoldenError,
    Provenance,
    case_digest,
    case_names,
    cases_for,
    load_golden,
    load_provenance,
    remove_golden,
    template_digest,
    write_golden,
    write_provenance,
)
from harness.model_file import ModelFile, read_model_file
from harness.project import Project
from harness.reference import client, reply
from harness.reference.client import expected_request
from harness.reference.oracle import Oracle
from harness.reference.parse import Parsed, parse
from harness.reference.reply import expected_reply, incomplete_bytes, text_bytes
from harness.reference.template import ReferenceTemplate
from harness.reference.tokenizer import ReferenceTokenizer
from harness.stage import StageFailedError, StageRefusedError
from harness.values import (
    Case,
    Distributions,
    Generation,
    ModelRef,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    shown,
)

POLICY_PARSED = "control-text-parsed"
"""The policy of stacks that take a control token's text in the caller's own words for the control token."""
POLICY_END_TEXT = "end-text-stops"
"""The policy of stacks for which the end token's text, written in ordinary tokens, ends the answer too."""
POLICY_WHOLE_CHARACTER = "length-completes-character"
"""The policy of stacks that go on past max_tokens until a character is whole."""

POLICY_CONTINUED = "last-turn-continued"
"""The policy of stacks that go on with a conversation's last message where it is the assistant's, unasked."""
POLICY_NULL_EMPTY = "null-as-empty"
"""The policy of stacks that hand a template an empty text where the caller gave no content."""
POLICY_JOINED = {"parts-joined": "", "parts-joined-by-space": " ", "parts-joined-by-newline": "\n"}
"""The policies of stacks that hand a template one text where the caller gave text parts, with what joins them."""
POLICY_PREFILL = "prefill-in-content"
"""The policy of stacks whose reply repeats the assistant's words that it goes on with."""
POLICY_UNPARSED = "unparsed"
"""The policy of stacks without a parser for the model's form: reasoning and calls stay in the content."""

_SAME = 1e-4
"""Nats between two recordings of one distribution that count as the same: float32 sums differ with the processor."""

_CHARACTER_IDS = 3
"""How many ids a character may still lack: its UTF-8 form has at most four bytes, an id at least one."""

_SPECIAL_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_SETTINGS = {"chat_template_kwargs", "temperature", "top_p", "max_tokens", "stop", "seed"}
_NEUTRAL = {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "n": 1, "logprobs": False}


class Change(StrEnum):
    """What recording a case would do."""

    NEW = "new"
    CHANGED = "changed"
    STALE = "stale"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Recorded:
    """One case, recorded.

    Attributes:
        case: The case's name.
        change: What is different from the golden on disk.
        what: Which stages' values changed.
        written: Whether the golden on disk was brought up to date.
    """

    case: str
    change: Change
    what: tuple[str, ...] = ()
    written: bool = False


class Reference:
    """The reference of all five stages around one model file.

    Args:
        model: The model.

    Raises:
        UserError: the model has no template, or something that the references do not know.
        MissingPackageError: a package of the extra `reference` is not installed.
    """

    def __init__(self, model: ModelRef) -> None:
        self.model = model
        file = read_model_file(model.path)
        self.tokenizer = ReferenceTokenizer.from_model_file(file)
        self._context = _trained_context(file)
        template = model.chat_template or file.metadata.get("tokenizer.chat_template")
        if not isinstance(template, str):
            raise UserError(
                f"the model {model.name!r} has no chat template", "give it one: chat_template in models.toml"
            )
        special = {
            _SPECIAL_NAMES[role]: text for role, text in self.tokenizer.special_texts.items() if role in _SPECIAL_NAMES
        }
        self._template = ReferenceTemplate(template, special, tuple(self.tokenizer.control_tokens))
        del file
        self._oracle = Oracle.from_file(model.path)

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._template.__exit__(kind, error, tb)

    def versions(self) -> dict[str, str]:
        """Return who makes each stage's goldens."""
        packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "gguf"))
        return {
            "client": client.VERSION,
            "template": self._template.version(),
            "tokenization": self.tokenizer.version,
            "inference": f"NumPy float32 oracle over dequantized weights, {packages}",
            "postprocess": reply.VERSION,
        }

    def golden(self, case: Case) -> Golden:
        """Return what every stage must produce for a case.

        Raises:
            UserError: the case asks for something that the reference cannot judge.
        """
        request = expected_request(case)
        _check_settings(case, request.settings)
        made: dict[str, Any] = {"case": case, "model": self.model.name, "request": request}
        try:
            prompt = self._template.render(request, case.options)
        except StageRefusedError as refused:
            others = self._other_prompts(case, request, None)
            return Golden(**made, prompt=refused.refusal.model_copy(update={"policies": others}))
        except StageFailedError as failed:
            raise UserError(
                f"the template of {self.model.name!r} does not render case {case.name!r}: {failed.failure.describe()}"
            ) from failed
        prompt = prompt.model_copy(update={"policies": self._other_prompts(case, request, prompt.text)})
        tokens = self._tokens(prompt)
        made |= {"prompt": prompt, "tokens": tokens}
        if len(tokens.ids) >= self._context:
            message = f"the prompt has {len(tokens.ids)} tokens, the model was trained for {self._context}"
            return Golden(**made, generation=Refusal(error="ContextLength", message=message, context=True))
        generation = self._generation(case, request, tokens)
        return Golden(**made, generation=generation, reply=self._reply(generation, request, prompt, len(tokens.ids)))

    def _other_prompts(self, case: Case, request: Request, text: str | None) -> dict[str, str]:
        """Return the texts that declared policies would give instead, where they are others."""
        ways = {
            name: (_flattened(request, joint), case.options)
            for name, joint in {POLICY_NULL_EMPTY: None, **POLICY_JOINED}.items()
        }
        if _ends_with_assistant(request) and not case.options.continue_final_message:
            going_on = case.options.model_copy(update={"continue_final_message": True})
            ways[POLICY_CONTINUED] = (request, going_on)
        found = {}
        for name, (asked, options) in ways.items():
            with contextlib.suppress(StageRefusedError, StageFailedError):
                found[name] = self._template.render(asked, options).text
        return {name: other for name, other in found.items() if other != text}

    def _tokens(self, prompt: Prompt) -> Tokens:
        ids = self.tokenizer.encode(prompt.text, prompt.literals)
        parsed = self.tokenizer.encode(prompt.text)
        return Tokens(
            ids=tuple(ids),
            pieces=shown([self.tokenizer.piece(i) for i in ids]),
            policies={} if parsed == ids else {POLICY_PARSED: tuple(parsed)},
        )

    def _generation(self, case: Case, request: Request, tokens: Tokens) -> Generation:
        script = None if case.options.script is None else self.tokenizer.encode(case.options.script)
        limit = int(request.settings["max_tokens"])
        session = self._oracle.session()
        row = session.feed(tokens.ids, last=1)
        rows, ids = [row], list[int]()
        while True:
            ids.append(int(rows[-1][-1].argmax()) if script is None else script[len(ids)])
            finish = self._finish(ids, request.settings.get("stop", ()), limit)
            if finish is not None:
                break
            if script is not None and len(ids) == len(script):
                raise UserError(
                    f"case {case.name!r}: its script ends without an end token, a stop string or max_tokens"
                )
            rows.append(session.feed(ids[-1:], last=1))
        distributions = Distributions.from_logits(np.concatenate(rows)).top()
        beyond: list[int] = []
        while finish == "length" and incomplete_bytes(self.tokenizer, ids + beyond) and len(beyond) < _CHARACTER_IDS:
            last = session.feed((ids + beyond)[-1:], last=1)
            beyond.append(int(last[-1].argmax()) if script is None else script[len(ids + beyond)])
        return Generation(
            ids=tuple(ids),
            chosen=distributions.argmax(),
            finish=finish,
            distributions=distributions,
            beyond=tuple(beyond),
        )

    def _reply(self, generation: Generation, request: Request, prompt: Prompt, prompt_tokens: int) -> Reply:
        stop = tuple(request.settings.get("stop", ()))
        parsed = partial(
            parse,
            calls=self.model.calls is not None and bool(request.tools),
            reasoning=self.model.reasoning is not None,
            prompt=prompt.text,
        )

        def made(ids: Sequence[int], stop: Sequence[str], apart: Callable[[str], Parsed] = parsed) -> Reply:
            return expected_reply(self.tokenizer, ids, stop, prompt_tokens, apart)

        reply = made(generation.ids, stop)
        with_end = self._with_end(stop)
        others = {
            POLICY_END_TEXT: made(self._until(generation.ids, with_end), with_end),
            POLICY_UNPARSED: made(generation.ids, stop, Parsed),
        }
        if generation.beyond:
            others[POLICY_WHOLE_CHARACTER] = made(generation.ids + generation.beyond, stop)
        if _ends_with_assistant(request):
            said = str(request.messages[-1].get("content") or "")
            others[POLICY_PREFILL] = reply.model_copy(update={"content": said + (reply.content or "")})
        policies = {name: other for name, other in others.items() if other != reply}
        return reply.model_copy(update={"policies": policies})

    def _until(self, ids: tuple[int, ...], stop: Sequence[str]) -> tuple[int, ...]:
        """Return the ids up to the one that completes a stop string."""
        ends = (end for end in range(1, len(ids)) if self._stops(ids[:end], stop))
        return ids[: next(ends, len(ids))]

    def _stops(self, ids: Sequence[int], stop: Sequence[str]) -> bool:
        text = text_bytes(self.tokenizer, ids)
        return any(one.encode("utf-8") in text for one in stop)

    def _with_end(self, stop: tuple[str, ...]) -> tuple[str, ...]:
        end = self.tokenizer.special_texts.get("eos")
        return stop if end is None else (*stop, end)

    def _finish(
        self, ids: Sequence[int], stop: Sequence[str], limit: int
    ) -> Literal["end_token", "length", "stop"] | None:
        if ids[-1] in self.tokenizer.end_of_generation_ids:
            return "end_token"
        if self._stops(ids, stop):
            return "stop"
        return "length" if len(ids) >= limit else None


def _ends_with_assistant(request: Request) -> bool:
    return bool(request.messages[-1].get("role") == "assistant")


def _flattened(request: Request, joint: str | None) -> Request:
    """Return a request whose contents are plain texts: nothing is an empty text, and parts are joined if at all."""
    messages = []
    for message in request.messages:
        content = message.get("content", "")
        if content is None:
            content = ""
        if joint is not None and isinstance(content, list) and all(_is_text(part) for part in content):
            content = joint.join(part["text"] for part in content)
        messages.append({**message, "content": content})
    return request.model_copy(update={"messages": tuple(messages)})


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _trained_context(file: ModelFile) -> int:
    return int(file.metadata[f"{file.architecture}.context_length"])


def _check_settings(case: Case, settings: Mapping[str, Any]) -> None:
    """Refuse what would change the distributions or the choice in a way that the reference does not compute."""
    for name, value in settings.items():
        if name not in _SETTINGS and _NEUTRAL.get(name, object()) != value:
            raise UserError(f"case {case.name!r}: the reference does not know the setting {name} = {value!r}")
    if type(settings.get("max_tokens")) is not int or settings["max_tokens"] < 1:
        raise UserError(f"case {case.name!r}: max_tokens must be a positive number, so that the golden ends")


# What is different from the goldens on disk


@dataclass
class Recording:
    """One pass over a model's cases; iterate over `run`.

    Attributes:
        approve: The kinds of change to write.
        results: What was found so far.
    """

    project: Project
    model: ModelRef
    approve: frozenset[Change]
    results: list[Recorded] = field(default_factory=list)

    def run(self, make: Callable[[ModelRef], Reference] = Reference) -> Iterator[Recorded]:
        """Record case after case. What is approved is on disk before the next case begins.

        Raises:
            UserError: a case or the model cannot be recorded, or a file cannot be written.
        """
        cases = cases_for(self.project, self.model.name)
        with make(self.model) as reference:
            known = self._known(reference.versions())
            for case in cases:
                yield self._note(self._record(reference, case, known))
            for name in sorted(set(known.cases) - {case.name for case in cases}):
                yield self._note(self._drop(name, known))

    def _note(self, recorded: Recorded) -> Recorded:
        self.results.append(recorded)
        return recorded

    def _known(self, references: Mapping[str, str]) -> Provenance:
        """Return the provenance on disk, or an empty one where it speaks of another model."""
        fresh = Provenance(
            format=FORMAT,
            model_sha256=self.model.sha256,
            template_sha256=template_digest(self.model),
            references=dict(references),
        )
        if not (self.project.golden / self.model.name / PROVENANCE).is_file():
            return fresh
        with contextlib.suppress(GoldenError):
            return load_provenance(self.project, self.model).model_copy(update={"references": dict(references)})
        return fresh

    def _record(self, reference: Reference, case: Case, known: Provenance) -> Recorded:
        golden = reference.golden(case)
        change, what = self._change(case, golden, known)
        if change in self.approve:
            write_golden(self.project, golden, partial(self._enter, case, known))
        return Recorded(case.name, change, what, written=change in self.approve)

    def _enter(self, case: Case, known: Provenance, digest: str) -> None:
        known.cases[case.name] = CaseRecord(asked=case_digest(case), golden=digest)
        write_provenance(self.project, self.model.name, known)

    def _change(self, case: Case, golden: Golden, known: Provenance) -> tuple[Change, tuple[str, ...]]:
        if case.name not in known.cases:
            return Change.NEW, ()
        try:
            old = load_golden(self.project, self.model, case, known)
        except GoldenError as error:
            # The case or the golden's files are not those that were recorded.
            return Change.CHANGED, (error.message,)
        what = _differing(old, golden)
        return (Change.CHANGED if what else Change.UNCHANGED), what

    def _drop(self, name: str, known: Provenance) -> Recorded:
        if Change.STALE in self.approve:
            del known.cases[name]
            write_provenance(self.project, self.model.name, known)
            remove_golden(self.project, self.model.name, name)
        gone = "the case is gone" if name not in case_names(self.project) else "the case is not asked of this model"
        return Recorded(name, Change.STALE, (gone,), written=Change.STALE in self.approve)


def _differing(old: Golden, new: Golden) -> tuple[str, ...]:
    """Return which values are not the same; distributions within the noise of float32 sums are."""
    what = []
    for name in ("request", "prompt", "tokens", "generation", "reply"):
        one, other = getattr(old, name), getattr(new, name)
        if type(one) is not type(other):
            what.append(name)
        elif isinstance(one, Generation):
            if one.model_dump() != other.model_dump() or not _same(one.distributions, other.distributions):
                what.append(name)
        elif one != other:
            what.append(name)
    return tuple(what)


def _same(one: Distributions | None, other: Distributions | None) -> bool:
    assert one is not None
    assert other is not None
    return bool((divergences(one, other) < _SAME).all())
