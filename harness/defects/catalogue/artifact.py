"""Defects of the model file around a right part: its vocabulary, its template, its network's numbers.

Those of its weights are in `weights`. Each edits a copy of the file. The stage is the first one whose output the edit
changes on golden input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from harness.defects.defect import Place, Symptom, defect
from harness.defects.model_copy import ModelCopy
from harness.stage import Stage

_TOKENS: Final = "tokenizer.ggml.tokens"
_TYPES: Final = "tokenizer.ggml.token_type"
_MERGES: Final = "tokenizer.ggml.merges"
_PRE: Final = "tokenizer.ggml.pre"
_TEMPLATE: Final = "tokenizer.chat_template"
_OWN_TEMPLATE: Final = ("smollm2-135m-instruct",)
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_artifact = partial(defect, place=Place.MODEL, kind="artifact")
_tokenization = partial(_artifact, stage=Stage.TOKENIZATION, cause="tokenizer and text")
_postprocess = partial(_artifact, stage=Stage.POSTPROCESS, cause="tokenizer and text")
_template = partial(_artifact, stage=Stage.TEMPLATE, cause="tokenizer and text", models=_OWN_TEMPLATE)
_inference = partial(_artifact, stage=Stage.INFERENCE)


# The vocabulary


def _pre(name: str, what: str, *references: str) -> Callable[[Any], Any]:
    return _tokenization(
        f"art-pre-{name}",
        sentence=f"The file names the pre-tokenizer {name}, {what}.",
        references=references,
        name=name,
    )


@_pre("gpt-2", "which does not take digits one by one", "ggml-org/llama.cpp#8609")
@_pre("qwen2", "which takes runs of white space apart in another way")
@_pre("llama-bpe", "that of another family", "ggml-org/llama.cpp#7881")
@_pre("smaug-bpe", "as a converter does whose hash of a probe collides", "ggml-org/llama.cpp#7881")
@_pre("deepseek-llm", "which cuts at letters and signs of its own")
@_pre("deepseek-coder", "which cuts line breaks and signs apart")
@_pre("deepseek-v3", "which takes digits by threes")
@_pre("falcon", "which takes punctuation together")
@_pre("tekken", "which cuts where a word's case changes", "huggingface/transformers#42299")
@_pre("chameleon", "which knows image tokens")
@_pre("superbpe", "which merges across words")
def pre_tokenizer(copy: ModelCopy, name: str) -> None:
    """Name another pre-tokenizer."""
    copy.set(_PRE, name)


@_tokenization(
    "art-pre-missing",
    sentence="The file names no pre-tokenizer, so llama.cpp takes its default one.",
    references=("ggml-org/llama.cpp#6914", "ollama/ollama#4082"),
)
def pre_tokenizer_missing(copy: ModelCopy) -> None:
    """Leave the name out."""
    copy.remove(_PRE)


@_tokenization("art-merges-first-1000", sentence="The file has the first 1,000 merges only.", count=1000)
@_tokenization(
    "art-merges-first-half",
    sentence="The file has the first half of its merges only.",
    references=("ggml-org/llama.cpp#9692",),
    count=24_450,
)
def merges_truncated(copy: ModelCopy, count: int) -> None:
    """Cut the list of merges."""
    copy.set(_MERGES, copy.metadata[_MERGES][:count])


@_tokenization(
    "art-merges-swapped",
    sentence="Two merges have each other's rank.",
    first="\u0120 a",
    second="a n",
)
@_tokenization(
    "art-merges-swapped-late",
    sentence="Two merges that make rarer words have each other's rank.",
    first="h e",
    second="he l",
)
def merges_swapped(copy: ModelCopy, first: str, second: str) -> None:
    """Exchange two merges."""
    copy.set(_MERGES, _exchanged(copy.metadata[_MERGES], first, second))


@_tokenization(
    "art-merges-of-a-word-removed",
    sentence="No merge makes the word ' helpful' any more, which stands in the vocabulary.",
    references=("ggml-org/llama.cpp#7193",),
    word="\u0120helpful",
)
@_tokenization(
    "art-merges-of-assistant-removed",
    sentence="No merge makes the word ' assistant' any more, which stands in the vocabulary.",
    word="\u0120assistant",
)
def merges_of_a_word(copy: ModelCopy, word: str) -> None:
    """Leave out every merge whose result is the word."""
    copy.set(_MERGES, [merge for merge in copy.metadata[_MERGES] if merge.replace(" ", "") != word])


@_tokenization(
    "art-words-swapped",
    sentence="Two words of the vocabulary have each other's id.",
    touches=(Stage.POSTPROCESS,),
    first="\u0120the",
    second="\u0120a",
)
@_tokenization(
    "art-turn-tokens-swapped",
    sentence="The tokens that begin and end a turn have each other's id.",
    references=("ggml-org/llama.cpp#6852",),
    touches=(Stage.INFERENCE, Stage.POSTPROCESS),
    first="<|im_start|>",
    second="<|im_end|>",
)
def texts_swapped(copy: ModelCopy, first: str, second: str) -> None:
    """Exchange the texts of two tokens."""
    copy.set(_TOKENS, _exchanged(copy.metadata[_TOKENS], first, second))


@_tokenization(
    "art-turn-token-renamed",
    sentence="The token that begins a turn has another text, so the template's is no token.",
    first="<|im_start|>",
    second="<|im_begin|>",
)
@_tokenization(
    "art-end-token-renamed",
    sentence="The token that ends a turn has another text, so the template's is no token.",
    references=("vllm-project/vllm#4180",),
    touches=(Stage.INFERENCE, Stage.POSTPROCESS),
    first="<|im_end|>",
    second="<|im_done|>",
)
def token_renamed(copy: ModelCopy, first: str, second: str) -> None:
    """Give a token another text."""
    copy.set(_TOKENS, [second if text == first else text for text in copy.metadata[_TOKENS]])


@_tokenization(
    "art-turn-token-normal",
    sentence="The token that begins a turn is declared an ordinary one, so no text becomes it.",
    references=("ggml-org/llama.cpp#10875",),
    text="<|im_start|>",
    number=_NORMAL,
)
@_postprocess(
    "art-turn-token-user-defined",
    sentence="The token that begins a turn is declared a user-defined one, so it is shown in an answer.",
    references=("ggml-org/llama.cpp#26309",),
    text="<|im_start|>",
    number=_USER_DEFINED,
)
@_postprocess(
    "art-full-stop-control",
    sentence="The full stop is declared a control token, so no answer shows it.",
    text=".",
    number=_CONTROL,
)
@_postprocess(
    "art-word-unused",
    sentence="The word ' the' is declared unused, so no answer shows it.",
    text="\u0120the",
    number=_UNUSED,
)
def token_type(copy: ModelCopy, text: str, number: int) -> None:
    """Declare a token to be of another type."""
    types = list(copy.metadata[_TYPES])
    types[copy.metadata[_TOKENS].index(text)] = number
    copy.set(_TYPES, types)


@_inference(
    "art-eos-full-stop",
    sentence="The file names the full stop as the token that ends a generation.",
    references=("vllm-project/vllm#4180", "unslothai/unsloth#468"),
    touches=(Stage.POSTPROCESS,),
    text=".",
)
@_inference(
    "art-eos-end-of-text",
    sentence="The file names the token that ends a document as the one that ends a turn.",
    references=("oobabooga/textgen#5885",),
    touches=(Stage.POSTPROCESS,),
    text="<|endoftext|>",
)
def end_token(copy: ModelCopy, text: str) -> None:
    """Name another end token."""
    copy.set("tokenizer.ggml.eos_token_id", copy.metadata[_TOKENS].index(text))


def _exchanged(texts: Sequence[str], first: str, second: str) -> list[str]:
    found = list(texts)
    one, other = found.index(first), found.index(second)
    found[one], found[other] = second, first
    return found


# The template


def _drift(name: str, sentence: str, old: str, new: str, **more: Any) -> Callable[[Any], Any]:
    references = more.pop("references", ("ggml-org/llama.cpp#15110",))
    return _template(f"art-template-{name}", sentence=sentence, references=references, old=old, new=new, **more)


_OPENING = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_DEFAULT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@_drift("not-opened", "The file's template does not open the assistant's turn.", _OPENING, "")
@_drift(
    "always-opened",
    "The file's template opens the assistant's turn with a blank.",
    "assistant\n' }}",
    "assistant\n ' }}",
)
@_drift(
    "other-default", "The file's template has another default system prompt.", _DEFAULT, "You are a helpful assistant"
)
@_drift(
    "no-default",
    "The file's template is an older one, without a system prompt of its own.",
    "loop.first and",
    "false and",
)
@_drift("joined-turns", "The file's template has no line break after a turn.", "'<|im_end|>' + '\n'", "'<|im_end|>'")
@_drift(
    "trimmed",
    "The file's template strips white space off every message.",
    "message['content']",
    "message['content'] | trim",
)
@_drift(
    "capital-roles",
    "The file's template writes roles with a capital letter.",
    "message['role'] + '\n'",
    "message['role'] | capitalize + '\n'",
)
@_drift("other-end", "The file's template ends a turn with </s>.", "'<|im_end|>' + '\n'", "'</s>' + '\n'")
@_drift(
    "bos",
    "The file's template begins with a BOS.",
    "{% for message in messages %}",
    "{{ bos_token }}{% for message in messages %}",
)
@_drift("escaped", "The file's template prints a backslash and an n for each line break.", "\n", "\\\\n")
@_drift("last-turn", "The file's template renders the last message only.", "in messages %}", "in messages[-1:] %}")
@_drift(
    "refuses-system",
    "The file's template refuses a system message.",
    "{% for message in messages %}",
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    symptom="crash",
)
@_drift(
    "unclosed",
    "The file's template lacks its last tag, so it cannot be compiled.",
    "<|im_start|>assistant\n' }}{% endif %}",
    "<|im_start|>assistant\n' }}",
    symptom="loading failure",
)
def template_edited(copy: ModelCopy, old: str, new: str) -> None:
    """Replace a piece of the template wherever it stands."""
    copy.set(_TEMPLATE, copy.metadata[_TEMPLATE].replace(old, new))


@_template(
    "art-template-missing",
    sentence="The file has no template, so the binding takes that of another family.",
    references=("abetlen/llama-cpp-python#1484",),
)
def template_missing(copy: ModelCopy) -> None:
    """Leave the template out."""
    copy.remove(_TEMPLATE)


# The numbers of the network


def _number(name: str, sentence: str, key: str, value: Any, **more: Any) -> Callable[[Any], Any]:
    return _inference(f"art-{name}", sentence=sentence, cause="configuration", key=f"llama.{key}", value=value, **more)


_EPSILON = "attention.layer_norm_rms_epsilon"
_REFUSED: Symptom = "loading failure"


@_number(
    "rms-eps-small",
    "The file has an epsilon of RMSNorm ten times too small.",
    _EPSILON,
    1e-6,
    references=("ggml-org/llama.cpp#2373",),
)
@_number("rms-eps-large", "The file has an epsilon of RMSNorm a hundred times too large.", _EPSILON, 1e-3)
@_number("rms-eps-huge", "The file has an epsilon of RMSNorm of 0.1.", _EPSILON, 0.1)
@_number("rope-base-default", "The file has the architecture's default rotary base.", "rope.freq_base", 10_000.0)
@_number("rope-base-million", "The file has a rotary base ten times too large.", "rope.freq_base", 1_000_000.0)
@_number("rope-base-near", "The file has a rotary base one part in a hundred too large.", "rope.freq_base", 101_000.0)
@_number(
    "rope-dimensions", "The file says that half of a head is rotated.", "rope.dimension_count", 32, symptom=_REFUSED
)
@_number("kv-heads", "The file says that there is one key head.", "attention.head_count_kv", 1, symptom=_REFUSED)
@_number("block-count", "The file says that there are fewer blocks than it has.", "block_count", 29, symptom=_REFUSED)
@_number(
    "embedding-length",
    "The file says that embeddings are wider than they are.",
    "embedding_length",
    640,
    symptom=_REFUSED,
)
def number(copy: ModelCopy, key: str, value: Any) -> None:
    """Set one of the network's numbers."""
    copy.set(key, value)


@_inference(
    "art-rope-linear-scaling",
    sentence="The file asks for positions four times as close as the model was trained with.",
    cause="configuration",
    references=("ggml-org/llama.cpp#8676",),
    kind_of_scaling="linear",
)
@_inference(
    "art-rope-yarn-scaling",
    sentence="The file asks for YaRN's scaling, which the model was not trained with.",
    cause="configuration",
    kind_of_scaling="yarn",
)
def rope_scaling(copy: ModelCopy, kind_of_scaling: str) -> None:
    """Declare a scaling of positions."""
    copy.set("llama.rope.scaling.type", kind_of_scaling, "STRING")
    copy.set("llama.rope.scaling.factor", 4.0, "FLOAT32")


@_inference("art-not-causal", sentence="The file says that positions see those after them.", cause="configuration")
def not_causal(copy: ModelCopy) -> None:
    """Declare the attention not causal."""
    copy.set("llama.attention.causal", False, "BOOL")


@_inference(
    "art-last-block-lost", sentence="The file was written without its last block, and says so.", cause="corruption"
)
def last_block_lost(copy: ModelCopy) -> None:
    """Drop the tensors of the last block and count one less."""
    last = int(copy.metadata["llama.block_count"]) - 1
    copy.set("llama.block_count", last)
    for name in copy.tensor_names:
        if name.startswith(f"blk.{last}."):
            copy.drop(name)
