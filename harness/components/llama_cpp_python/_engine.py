"""The child's side of the component in process: each call of the parent is one run of `create_chat_completion`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.components.llama_cpp_python._taps import FORMATTER, PACKAGE, Done, Plan, TappedLlama
from harness.llama.ggml import VIEWS, Watcher, copied_rows_of
from harness.llama.layout import NotReadableError, Tensor, require_readable
from harness.process.owner import is_the_parts, the_parts_own
from harness.process.upstream import private

_INPUT = "embd"
"""The first node of a graph: a row for each token of the batch."""
_GREETING = [{"role": "user", "content": "unused"}]


class Engine(TappedLlama):
    """Runs the whole path, or one stage of it."""

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Run the client stage: the call as users make it, up to the completion call, with rendering left out."""
        self._need("create_completion")
        plan = self._run(Plan(prompt="", until="create_completion"), body)
        return self._request_seen(plan)

    def render(
        self, messages: Sequence[Any], tools: Sequence[Any] | None, tool_choice: Any, clock: str
    ) -> dict[str, Any]:
        """Run the template stage on these messages."""
        self._need(FORMATTER)
        plan = self._run(Plan(clock=clock, until="formatter"), _body(messages, tools, tool_choice))
        return self._prompt_seen(plan)

    def prompt_ids(self, text: str) -> list[int]:
        """Run the tokenization stage on this text and return the ids that would be fed to the engine."""
        self._need("create_completion", "generate")
        plan = Plan(prompt=text, until="generate")
        try:
            self._run(plan, {"messages": _GREETING, "max_tokens": 1})
        except ValueError as error:
            # The completion call refuses what does not fit the context; the ids were made before.
            if not is_the_parts(error) or "prompt_ids" not in plan.seen:
                raise
        return self._fed(plan)

    def generate(
        self, prompt_ids: Sequence[int], settings: Mapping[str, Any], forced: Sequence[int] | None
    ) -> dict[str, Any]:
        """Run the inference stage on a cleared context: feed the ids, then the forced ones, and watch each choice."""
        self._need("tokenize", "generate", "sample")
        with the_parts_own():
            self.llm.reset()
        # Stop strings are the postprocess stage's; they must not cut what is forced here.
        asked = {key: value for key, value in settings.items() if forced is None or key != "stop"}
        plan = Plan(prompt="", prompt_ids=prompt_ids, forced=forced)
        self._run(plan, {"messages": _GREETING, **asked})
        return self._generation_seen(plan)

    def reply(
        self,
        generated: Sequence[int],
        prompt_ids: Sequence[int],
        settings: Mapping[str, Any],
        stream: bool,
    ) -> Any:
        """Run the postprocess stage on ids that the engine is taken to have generated."""
        self._need("tokenize", "generate")
        plan = Plan(prompt="", prompt_ids=prompt_ids, scripted=generated)
        kept = self.llm.n_tokens, self.llm.input_ids.copy()
        try:
            self._run(plan, {"messages": _GREETING, "stream": stream, **settings})
        finally:
            self.llm.n_tokens, self.llm.input_ids[:] = kept
        return plan.answer

    def chat(self, body: Mapping[str, Any], clock: str, stream: bool) -> dict[str, Any]:
        """Run the whole path and return what every stage produced, and the error that ended it, if one did."""
        plan = Plan(clock=clock)
        try:
            self._run(plan, {**body, "stream": stream})
        except Exception as error:
            if not is_the_parts(error):
                raise
            said = {"error": type(error).__name__, "message": str(error)}
            return {**self._all_seen(plan), "error": said}
        return {**self._all_seen(plan), "error": None, "reply": plan.answer}

    def activations(self, ids: Sequence[int], names: Sequence[str]) -> dict[str, Any] | str:
        """Feed ids to an empty context and return what these nodes compute, by name, `(tokens, features)` each.

        A node that is computed in steps of one name counts with the last. The last layer may have the last token only.
        Where nodes cannot be read, why is returned.
        """
        try:
            require_readable()
            return self._activations(ids, names)
        except NotReadableError as error:
            return str(error)

    def _activations(self, ids: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
        wanted = {_INPUT, *names}
        found: dict[str, list[Any]] = {}
        seen: dict[str, Any] = {}
        tokens = 0

        def note(tensor: Tensor) -> None:
            nonlocal tokens
            name = tensor.name.decode()
            if name == _INPUT:
                # The engine may take the ids in several batches; each begins here.
                _add(found, seen, tokens)
                tokens = int(tensor.ne[1])
            one = tensor.ne[1] == tensor.ne[2] == 1
            rows = copied_rows_of(tensor, 1 if one else tokens)
            if rows is not None:
                seen[name] = rows

        watcher = Watcher(lambda name, operator: name in wanted and operator not in VIEWS, after=note)
        with self.nodes.watched(watcher), the_parts_own():
            self.llm.reset()
            self.llm.eval(list(ids))
            self.llm.reset()
        self.nodes.check()
        _add(found, seen, tokens)
        return {name: np.concatenate(found[name]) for name in names if name in found}

    def _run(self, plan: Plan, body: Mapping[str, Any]) -> Plan:
        self._follow(plan)
        call = private(self.llm, "create_chat_completion", PACKAGE)
        with contextlib.suppress(Done):
            with the_parts_own():
                answer: Any = call(**body)
                answer = answer if isinstance(answer, dict) else list(answer)
            plan.answer = answer
        self.nodes.check()
        return plan


def _add(found: dict[str, list[Any]], seen: dict[str, Any], tokens: int) -> None:
    """Add what the nodes of a batch computed; what was computed for its last token only stands for the last batch."""
    for name, rows in seen.items():
        if len(rows) == tokens:
            found.setdefault(name, []).append(rows)
        else:
            found[name] = [rows]
    seen.clear()


def _body(messages: Sequence[Any], tools: Sequence[Any] | None, tool_choice: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": list(messages), "max_tokens": 1}
    if tools is not None:
        body["tools"] = list(tools)
    if tool_choice is not None:
        body["tool_choice"] = tool_choice
    return body
