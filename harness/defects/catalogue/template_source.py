"""Defects of a template's source: another template than the model's, or the model's with a mistake in it."""

from __future__ import annotations

import re

from harness.defects.defect import defect

_TOOLS = ("smollm2-135m-instruct-tools",)
_CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_OTHERS = {
    "chatml": _CHATML,
    "llama2": (
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{{- '[INST] <<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' -}}"
        "{%- elif message.role == 'user' -%}"
        "{{- ('' if messages[loop.index0 - 1].role == 'system' else '[INST] ') + message.content + ' [/INST]' -}}"
        "{%- else -%}{{- ' ' + (message.content or '') + ' ' -}}{%- endif -%}"
        "{%- endfor -%}"
    ),
    "mistral": (
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{{- '[INST] ' + message.content + '\\n\\n' -}}"
        "{%- elif message.role == 'user' -%}"
        "{{- ('' if messages[loop.index0 - 1].role == 'system' else '[INST] ') + message.content + ' [/INST]' -}}"
        "{%- else -%}{{- ' ' + (message.content or '') + '</s>' -}}{%- endif -%}"
        "{%- endfor -%}"
    ),
    "plain": (
        "{%- for message in messages -%}"
        "{{- {'system': 'RULE: ', 'user': 'USER: '}.get(message.role, 'ASSISTANT: ') -}}"
        "{{- (message.content or '') + '\\n' -}}"
        "{%- endfor -%}"
        "{{- 'ASSISTANT:' -}}"
    ),
}
"""Templates that stand in for a model's own. Ours, after the forms that the families have published."""


@defect(
    "tpl-unsupported-syntax-fallback",
    place="source",
    sentence="The engine cannot read the model's template and goes on with plain ChatML.",
    cause="API usage",
    models=_TOOLS,
    references=("ggml-org/llama.cpp#13178", "ggml-org/llama.cpp#12231", "ggml-org/llama.cpp#11866"),
    name="chatml",
)
@defect(
    "tpl-builtin-name-swapped-llama2",
    place="source",
    sentence="The template in force is that of Llama 2.",
    cause="configuration",
    references=("ggml-org/llama.cpp#9583",),
    name="llama2",
)
@defect(
    "tpl-builtin-name-swapped-mistral",
    place="source",
    sentence="The template in force is that of Mistral.",
    cause="configuration",
    references=("ggml-org/llama.cpp#9583",),
    name="mistral",
)
@defect(
    "tpl-no-template-default",
    place="source",
    sentence="The model's template is not found, and the server invents lines such as `USER: ...`.",
    cause="configuration",
    references=("sgl-project/sglang#2431", "nomic-ai/gpt4all#3287"),
    name="plain",
)
def other_template(template: str, name: str) -> str:  # noqa: ARG001 - a defect's signature
    """Render with another template."""
    return _OTHERS[name]


@defect(
    "tpl-gguf-template-drift",
    place="source",
    sentence="The template is of an older revision, which calls the assistant by another default.",
    cause="configuration",
    references=("ggml-org/llama.cpp#15110",),
    old="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    new="You are a helpful assistant.",
)
@defect(
    "tpl-gguf-template-drift-letter",
    place="source",
    sentence="The template is of an older revision, in which one letter of its own words is a small one.",
    cause="configuration",
    references=("ggml-org/llama.cpp#15110",),
    old="You are a helpful",
    new="you are a helpful",
)
@defect(
    "tpl-ported-template-typos",
    place="source",
    sentence="A template written from memory has a space where a line break follows the role.",
    cause="data and computation",
    references=("ollama/ollama#1977",),
    old="message['role'] + '\n'",
    new="message['role'] + ' '",
)
@defect(
    "tpl-ported-template-typos-end",
    place="source",
    sentence="A template written from memory has no line break after a turn.",
    cause="data and computation",
    references=("ollama/ollama#1977",),
    old="'<|im_end|>' + '\n'",
    new="'<|im_end|>'",
)
@defect(
    "tpl-tool-args-string",
    place="source",
    sentence="The template writes the arguments of a call as JSON though they are a text of JSON already.",
    cause="data and computation",
    models=_TOOLS,
    references=("QwenLM/Qwen3-Coder#444", "mudler/LocalAI#10256"),
    old="call.function.arguments is string",
    new="false",
)
@defect(
    "tpl-tools-in-system-message",
    place="source",
    sentence="The template looks for the tools in the system message, where nobody put them.",
    cause="API usage",
    models=_TOOLS,
    references=("ggml-org/llama.cpp#12288", "vllm-project/vllm#14682"),
    old="if tools -",
    new="if messages[0].tools -",
)
@defect(
    "tpl-ported-template-missing-tool-calls",
    place="source",
    sentence="A ported template has no branch for calls in the history.",
    cause="data and computation",
    models=_TOOLS,
    references=("ollama/ollama#11621", "ollama/ollama#14360"),
    old="in message.tool_calls or []",
    new="in []",
)
@defect(
    "tpl-js-engine-gap-filter",
    place="source",
    sentence="The template uses a filter that the engine does not have.",
    cause="API usage",
    symptom="loading failure",
    models=_TOOLS,
    references=("zed-industries/zed#45379",),
    old="| tojson",
    new="| to_json",
)
def source_replaced(template: str, old: str, new: str) -> str:
    """Write something else for each of these pieces of it."""
    return template.replace(old, new)


@defect(
    "tpl-ported-template-missing-tools",
    place="source",
    sentence="A ported template has no block for the tools.",
    cause="data and computation",
    models=_TOOLS,
    references=("ollama/ollama#11621", "ollama/ollama#14360"),
)
def tools_block_missing(template: str) -> str:
    """Cut out what is done where there are tools, with the loop over them."""
    block = re.compile(r"\{%-?\s*if tools\s*-?%\}.*?\{%-?\s*endfor\s*-?%\}.*?\{%-?\s*endif\s*-?%\}", re.DOTALL)
    return block.sub("", template)


@defect(
    "tpl-ported-template-system-repeated",
    place="source",
    sentence="A ported template writes the system message before every user's turn.",
    cause="data and computation",
    references=("ollama/ollama#1977",),
)
def system_repeated(template: str) -> str:
    """Write it at the beginning of the loop's body, in a turn of its own."""
    again = (
        "{% if message.role == 'user' and messages[0].role == 'system' and loop.index0 > 1 %}"
        "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    )
    return re.sub(r"(\{%-?\s*for message in messages\s*-?%\})", lambda loop: loop[1] + again, template, count=1)


@defect(
    "tpl-system-role-raises",
    place="source",
    sentence="The template refuses system messages.",
    cause="API usage",
    symptom="crash",
    references=("EricLBuehler/mistral.rs#506", "sgl-project/sglang#892"),
    condition="message.role == 'system'",
    message="System role not supported",
)
@defect(
    "tpl-role-order-raises",
    place="source",
    sentence="The template refuses conversations in which user and assistant do not take turns.",
    cause="API usage",
    symptom="crash",
    references=("huggingface/text-generation-inference#3198", "ggml-org/llama.cpp#19851"),
    condition="not loop.first and message.role == messages[loop.index0 - 1].role",
    message="Conversation roles must alternate",
)
@defect(
    "tpl-thinking-and-content-conflict",
    place="source",
    sentence="The template refuses an assistant's message that has both a text and calls.",
    cause="API usage",
    symptom="crash",
    models=_TOOLS,
    references=("lmstudio-ai/lmstudio-bug-tracker#842",),
    condition="message.content and message.tool_calls",
    message="Cannot pass both content and tool calls",
)
def refusal_added(template: str, condition: str, message: str) -> str:
    """Go through the messages first, and raise where the condition holds of one."""
    check = (
        f"{{%- for message in messages -%}}{{%- if {condition} -%}}"
        f"{{{{- raise_exception('{message}') -}}}}{{%- endif -%}}{{%- endfor -%}}"
    )
    return check + template
