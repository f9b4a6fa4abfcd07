"""The reference of each stage with a defect in it: what a healthy part around the defect would make of a golden.

Only what is planted at a boundary can be said so. Of a part's own defects nobody but the part can tell.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from harness.defects.defect import Defect, Place
from harness.defects.places import DefectError, Generated, Tokenizing
from harness.defects.planting import template_of
from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.project.golden import Golden
from harness.reference.client import expected_request
from harness.reference.tokenizer import ReferenceTokenizer
from harness.stage import StageFailedError
from harness.values import Generation, Json, ModelRef, Prompt, Reply, Request, Tokens
from harness.wire.chat import answer_of, reply_of

RENDERED = (Place.REQUEST, Place.SOURCE, Place.ENVIRONMENT)
"""Places of the template's, where a defect is in the way of a rendering."""
BEFORE_IDS = (Place.BODY, *RENDERED, Place.PROMPT, Place.IDS)
"""Places from which a defect reaches the engine through the prompt's ids."""
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_SECONDS, _MEMORY = 20.0, 2 << 30
_Made = Request | Prompt | Tokens | Reply | None


class HurtReference:
    """The reference around one model; what it needs is loaded when a stage is first asked.

    Args:
        model: The model.
    """

    def __init__(self, model: ModelRef) -> None:
        self._model = model
        self._opened = ExitStack()
        self._known: ReferenceTokenizer | None = None
        self._worker: Worker | None = None

    def __enter__(self) -> HurtReference:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._opened.close()

    def made(self, defect: Defect, golden: Golden) -> _Made:
        """Return what a stage would make of a golden's input with a defect in it; None where nobody can say.

        Args:
            defect: The defect.
            golden: The case's golden.

        Raises:
            UserError: something that the reference needs is not installed.
        """
        try:
            if defect.place in RENDERED:
                return self._rendered(defect, golden)
            if defect.place not in _OUTCOMES:
                return None
            return _OUTCOMES[defect.place](self, defect.planting(), golden)
        except (DefectError, StageFailedError):
            return None

    def prompt_ids(self, defect: Defect, golden: Golden) -> tuple[int, ...] | None:
        """Return the ids that an engine would be fed; None where no prompt comes of it, as where a template raises.

        Args:
            defect: The defect, at one of the places `BEFORE_IDS`.
            golden: The case's golden; the caller's own text in it spells no control token.

        Raises:
            UserError: something that the reference needs is not installed.
        """
        found: object = self.made(defect, golden)
        if isinstance(found, Request):
            found = self._prompt("healthy", golden, found)
        if isinstance(found, Prompt):
            tokenizer = self._tokenizer()
            try:
                return tuple(tokenizer.encode(found.text))
            except UserError:
                # A lone surrogate: no tokenizer takes it.
                return None
        return found.ids if isinstance(found, Tokens) else None

    def _rendered(self, defect: Defect, golden: Golden) -> Prompt | None:
        return self._prompt(
            "render",
            golden,
            golden.request,
            place=defect.place.value,
            function=defect.hook,
            arguments=dict(defect.arguments),
        )

    def _prompt(self, method: str, golden: Golden, request: Request, **keywords: Any) -> Prompt | None:
        worker = self._rendering()
        given = request.model_dump(mode="json", include={"messages", "tools", "tool_choice"})
        options = golden.case.options.model_dump(mode="json")
        try:
            text: str | None = worker.call(method, given=given, options=options, **keywords)
        except WorkerDiedError:
            return None
        except RemoteError as error:
            if error.whose == "part":
                return None
            raise
        return None if text is None else Prompt(text=text)

    def _body(self, edit: Callable[..., Any], golden: Golden) -> Request | None:
        """What must reach the server of an edited body."""
        body = edit(copy.deepcopy(golden.case.body))
        try:
            return expected_request(golden.case.model_copy(update={"body": body}))
        except (UserError, LookupError, TypeError, ValueError):
            # It asks for what the reference does not know, or is no request any more.
            return None

    def _edited(self, edit: Callable[..., Any], golden: Golden) -> Prompt | None:
        """The golden's text, edited."""
        return Prompt(text=edit(golden.prompt.text)) if isinstance(golden.prompt, Prompt) else None

    def _ids(self, edit: Callable[..., Any], golden: Golden) -> Tokens | None:
        """The golden's ids, edited."""
        if not isinstance(golden.prompt, Prompt) or golden.tokens is None:
            return None
        tokenizer = self._tokenizer()
        seen = Tokenizing(
            text=golden.prompt.text,
            ids=golden.tokens.ids,
            encode=self._encode,
            bos=tokenizer.bos_id,
            eos=tokenizer.eos_id,
        )
        return Tokens(ids=tuple(int(one) for one in edit(seen)))

    def _answer(self, edit: Callable[..., Any], golden: Golden) -> Reply | None:
        """The golden's reply, edited."""
        if not isinstance(golden.reply, Reply) or not isinstance(golden.generation, Generation):
            return None
        tokenizer = self._tokenizer()
        ids = golden.generation.ids + golden.generation.beyond
        body: Json = {**golden.case.body}
        seen = Generated(pieces=tuple(tokenizer.piece(one) for one in ids), body=body)
        return reply_of(edit(answer_of(golden.reply), seen))

    def _encode(self, text: str, parsed: bool) -> Sequence[int]:
        tokenizer = self._tokenizer()
        added = len(tokenizer.encode(""))
        return tokenizer.encode(text, () if parsed else ((0, len(text)),))[added:]

    def _tokenizer(self) -> ReferenceTokenizer:
        if self._known is None:
            self._known = ReferenceTokenizer.from_model_file(read_model_file(self._model.path))
        return self._known

    def _rendering(self) -> Worker:
        if self._worker is None:
            texts = self._tokenizer().special_texts
            init = {
                "template": template_of(self._model),
                "special_texts": {_SPECIAL[role]: text for role, text in texts.items() if role in _SPECIAL},
            }
            worker = Worker("harness.defects.rendering:HurtRenderer", init, seconds=_SECONDS, memory=_MEMORY)
            self._worker = self._opened.enter_context(worker)
        return self._worker


_OUTCOMES: Mapping[Place, Callable[[HurtReference, Callable[..., Any], Golden], _Made]] = {
    Place.BODY: HurtReference._body,
    Place.PROMPT: HurtReference._edited,
    Place.IDS: HurtReference._ids,
    Place.ANSWER: HurtReference._answer,
}
