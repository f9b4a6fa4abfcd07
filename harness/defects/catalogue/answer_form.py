"""Defects of a whole answer's form: its counts, and fields that are lost or stand elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from harness.defects.defect import defect
from harness.defects.places import Answer, Generated
from harness.values import Json

Counts = tuple[int, int]
"""Of the prompt and of the completion."""
_COUNTS: Mapping[str, Callable[[int, int], Counts]] = {
    "prompt-less": lambda prompt, completion: (prompt - 1, completion),
    "prompt-more": lambda prompt, completion: (prompt + 1, completion),
    "completion-less": lambda prompt, completion: (prompt, max(completion - 1, 0)),
    "completion-more": lambda prompt, completion: (prompt, completion + 2),
    "zero": lambda prompt, completion: (0, 0),  # noqa: ARG005
    "prompt-zero": lambda prompt, completion: (0, completion),  # noqa: ARG005
    "swapped": lambda prompt, completion: (completion, prompt),
    "all": lambda prompt, completion: (prompt, prompt + completion),
}


@defect("pp-usage-prompt-less", place="answer", change="prompt-less", sentence="The prompt counts one token too few.")
@defect("pp-usage-prompt-more", place="answer", change="prompt-more", sentence="The prompt counts one token too many.")
@defect(
    "pp-usage-completion-less",
    place="answer",
    change="completion-less",
    sentence="The completion counts one token too few.",
)
@defect(
    "pp-usage-completion-more",
    place="answer",
    change="completion-more",
    sentence="The completion counts two tokens too many.",
)
@defect("pp-usage-zero", place="answer", change="zero", sentence="All token counts are zero.")
@defect(
    "pp-usage-cached",
    place="answer",
    change="prompt-zero",
    sentence="The prompt counts nothing, as if all of it had been in the cache and that were no token.",
)
@defect(
    "pp-usage-swapped",
    place="answer",
    change="swapped",
    sentence="Prompt and completion have each other's token count.",
)
@defect(
    "pp-usage-all-completion", place="answer", change="all", sentence="The prompt is counted as part of the completion."
)
def usage(answer: Answer, seen: Generated, change: str) -> Answer:  # noqa: ARG001
    """Give a whole answer other counts."""
    if isinstance(answer, list) or not answer.get("usage"):
        return answer
    answer = copy.deepcopy(answer)
    counts = answer["usage"]
    prompt, completion = _COUNTS[change](counts["prompt_tokens"], counts["completion_tokens"])
    counts.update(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    return answer


@defect("pp-usage-characters", place="answer", sentence="The completion counts characters instead of tokens.")
def usage_in_characters(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Count the letters of the content."""
    if isinstance(answer, list) or not answer.get("usage"):
        return answer
    answer = copy.deepcopy(answer)
    count = len(answer["choices"][0]["message"].get("content") or "")
    counts = answer["usage"]
    counts.update(completion_tokens=count, total_tokens=counts["prompt_tokens"] + count)
    return answer


@defect("pp-usage-total-wrong", place="answer", sentence="The total leaves the prompt's tokens out.")
def usage_total(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Count the completion alone as the total."""
    if isinstance(answer, list) or not answer.get("usage"):
        return answer
    return {**answer, "usage": {**answer["usage"], "total_tokens": answer["usage"]["completion_tokens"]}}


@defect("pp-usage-lost", place="answer", sentence="A whole answer has no usage.")
def usage_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Leave the usage out."""
    if isinstance(answer, list):
        return answer
    return {name: value for name, value in answer.items() if name != "usage"}


@defect("pp-role-wrong", place="answer", role="user", sentence="The answer's role is user.")
@defect("pp-role-lost", place="answer", role=None, sentence="The answer's message has no role.")
def role(answer: Answer, seen: Generated, role: str | None) -> Answer:  # noqa: ARG001
    """Give the message another role, or none."""
    if isinstance(answer, list):
        return answer
    answer = copy.deepcopy(answer)
    message = answer["choices"][0]["message"]
    message.pop("role", None)
    if role is not None:
        message["role"] = role
    return answer


@defect("pp-finish-lost", place="answer", field="finish_reason", sentence="A whole answer has no finish reason.")
@defect("pp-message-lost", place="answer", field="message", sentence="The answer's choice has no message.")
def choice_field_lost(answer: Answer, seen: Generated, field: str) -> Answer:  # noqa: ARG001
    """Leave a field of the choice out."""
    if isinstance(answer, list):
        return answer
    choices = [{name: value for name, value in one.items() if name != field} for one in answer["choices"]]
    return {**answer, "choices": choices}


@defect("pp-content-field-lost", place="answer", sentence="The message of a whole answer has no content field.")
def content_field_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Leave the content out, not as null but altogether."""
    if isinstance(answer, list):
        return answer
    answer = copy.deepcopy(answer)
    answer["choices"][0]["message"].pop("content", None)
    return answer


@defect(
    "pp-completion-form", place="answer", sentence="The answer has the older completion's form: a text, no message."
)
def completion_form(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put the content where the completion route has it."""
    if isinstance(answer, list):
        return answer
    choices: list[Json] = []
    for one in answer["choices"]:
        kept = {name: value for name, value in one.items() if name != "message"}
        choices.append({**kept, "text": one["message"].get("content") or ""})
    return {**answer, "object": "text_completion", "choices": choices}


@defect("pp-choices-empty", place="answer", sentence="The answer has no choice.")
def choices_empty(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Take the choices out."""
    return answer if isinstance(answer, list) else {**answer, "choices": []}
