"""Defects of the reasoning that a parser splits off, in whole answers. Most of them show where reasoning is parsed."""

from __future__ import annotations

import re

from harness.defects.catalogue.postprocess import with_content, with_message
from harness.defects.defect import defect
from harness.defects.places import Answer, Generated
from harness.values import Json

_MODELS = ("smollm2-135m-instruct-thinking",)
_BLOCK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_TO_THE_CLOSE = re.compile(r".*</think>\s*", re.DOTALL)


def _message(answer: Answer) -> Json:
    return {} if isinstance(answer, list) else answer["choices"][0]["message"]


@defect(
    "pp-reasoning-open-tag-in-prompt",
    place="answer",
    models=_MODELS,
    opened="",
    sentence="The parser wants both tags, the prompt has the first: reasoning and its closing tag are content.",
    references=("vllm-project/vllm#12999", "vllm-project/vllm#13125"),
)
@defect(
    "pp-reasoning-in-content",
    place="answer",
    models=_MODELS,
    opened="<think>",
    sentence="Reasoning is not split off: it stands in the content, between its tags.",
)
def reasoning_in_content(answer: Answer, seen: Generated, opened: str) -> Answer:  # noqa: ARG001
    """Put the reasoning of a whole answer back before its content."""
    message = _message(answer)
    reasoning = message.get("reasoning_content")
    if not reasoning:
        return answer
    content = f"{opened}{reasoning}</think>{message.get('content') or ''}"
    return with_message(answer, content=content, reasoning_content=None)


@defect("pp-reasoning-lost", place="answer", models=_MODELS, sentence="Reasoning is split off and lost.")
def reasoning_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Take the reasoning out of a whole answer."""
    return with_message(answer, reasoning_content=None) if _message(answer).get("reasoning_content") else answer


@defect(
    "pp-answer-in-reasoning",
    place="answer",
    models=_MODELS,
    sentence="An answer without reasoning is taken for reasoning: there is no content.",
    references=("vllm-project/vllm#19839", "QwenLM/Qwen3#1297"),
)
def answer_in_reasoning(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Move the content of a whole answer without reasoning."""
    message = _message(answer)
    if message.get("reasoning_content") or not message.get("content"):
        return answer
    return with_message(answer, content=None, reasoning_content=message["content"])


@defect("pp-reasoning-swapped", place="answer", models=_MODELS, sentence="Content and reasoning are swapped.")
def swapped(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Swap the two of a whole answer that has both."""
    message = _message(answer)
    if not message.get("reasoning_content") or not message.get("content"):
        return answer
    return with_message(answer, content=message["reasoning_content"], reasoning_content=message["content"])


@defect(
    "pp-reasoning-tag-left",
    place="answer",
    models=_MODELS,
    sentence="The closing tag of the reasoning is left at the start of the content.",
)
def tag_left(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put the tag before the content of a whole answer with reasoning."""
    message = _message(answer)
    if not message.get("reasoning_content"):
        return answer
    return with_message(answer, content=f"</think>{message.get('content') or ''}")


@defect(
    "pp-reasoning-split-last",
    place="answer",
    models=_MODELS,
    sentence="Everything up to the last closing tag is cut off as reasoning, also where the answer speaks of the tag.",
)
def split_at_the_last(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Cut the content of a whole answer behind its last closing tag."""
    return with_content(answer, lambda text: _TO_THE_CLOSE.sub("", text))


@defect(
    "pp-reasoning-block-cut",
    place="answer",
    models=_MODELS,
    sentence="Whatever stands between thinking tags is cut out of the answer.",
)
def block_cut(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Cut blocks out of the content of a whole answer."""
    return with_content(answer, lambda text: _BLOCK.sub("", text))
