"""Defects of where a stack runs: a processor, a memory or a time that does not do, and files that it cannot load."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from harness.defects.defect import Place, defect
from harness.defects.model_copy import ModelCopy
from harness.stage import Stage

_COMPONENT: Final = "llama-cpp-python"
_REMOVED_TYPE: Final = 31
"""Q4_0_4_4 in `enum ggml_type`, which ggml has removed."""

_environment = partial(
    defect, stage=Stage.INFERENCE, kind="environment", component=_COMPONENT, cause="environment", symptom="crash"
)
_file = partial(defect, place=Place.MODEL, stage=Stage.INFERENCE, kind="artifact", symptom="loading failure")


# The process


@_environment(
    "env-illegal-instr",
    sentence="The library was built for another processor: loading ends in SIGILL.",
    references=("abetlen/llama-cpp-python#839", "ggml-org/llama.cpp#8734"),
    number=signal.SIGILL.value,
)
@_environment(
    "env-killed-at-load",
    sentence="The machine has too little memory for the model: its process is killed while it loads.",
    references=("ggml-org/llama.cpp#8817",),
    number=signal.SIGKILL.value,
)
def ended_at_load(_engine: Any, number: int) -> None:
    """End the process before it answers."""
    os.kill(os.getpid(), number)


@_environment(
    "env-illegal-instr-compute",
    sentence="A kernel was built for another processor: the first computation ends in SIGILL.",
    references=("dougeeai/llama-cpp-python-wheels#10",),
    number=signal.SIGILL.value,
)
@_environment(
    "env-killed-at-compute",
    sentence="The machine runs out of memory: the process is killed while it computes.",
    references=("khoj-ai/khoj#1127",),
    number=signal.SIGKILL.value,
)
@_environment(
    "env-unreadable-map",
    sentence="The disk cannot give back a page of the mapped model: computing ends in SIGBUS.",
    number=signal.SIGBUS.value,
)
@_environment(
    "env-no-kernel",
    sentence="The library has no kernel for this device: it aborts at the first computation.",
    references=("ggml-org/llama.cpp#4215", "vllm-project/vllm#19906"),
    number=signal.SIGABRT.value,
    said="CUDA error 209: no kernel image is available for execution on the device",
)
def ended_at_compute(engine: Any, number: int, said: str = "") -> None:
    """End the process when the network is first run."""

    def run(_ids: Any) -> None:
        os.write(2, f"{said}\n".encode())
        os.kill(os.getpid(), number)

    engine.llm.eval = run


# What the stack's options ask of the machine


def _options(name: str, sentence: str, change: Mapping[str, Any], **more: Any) -> Callable[[Any], Any]:
    return _environment(name, place=Place.OPTIONS, sentence=sentence, change=dict(change), **more)


@_options(
    "env-oom-context",
    "The stack asks for a context of 16 million tokens, for which the machine has no memory.",
    {"n_ctx": 1 << 24, "memory_mb": 1500},
    references=("ggml-org/llama.cpp#8817", "ggml-org/llama.cpp#8101"),
    symptom="loading failure",
)
@_options(
    "env-oom-load",
    "The process may have less memory than it takes to load the model.",
    {"memory_mb": 60},
    symptom="loading failure",
)
@_options(
    "env-slow-load",
    "The machine is too slow to load the model in the time it is given.",
    {"seconds": 0.3},
    symptom="hang",
)
@_options(
    "env-context-of-256",
    "The stack's context has room for 256 tokens, and some prompts are longer.",
    {"n_ctx": 256},
    kind="integration",
    cause="configuration",
    models=("smollm2-135m-instruct-tools",),
    touches=(Stage.POSTPROCESS,),
)
def options_changed(options: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Set options."""
    return {**options, **change}


# Files that the runtime cannot load


@_file(
    "env-unknown-pre",
    sentence="The file is newer than the runtime: it names a pre-tokenizer that this one does not know.",
    references=("abetlen/llama-cpp-python#1900", "ggml-org/llama.cpp#11341"),
    key="tokenizer.ggml.pre",
    value="no-such-pre",
)
@_file(
    "env-unknown-arch",
    sentence="The file is newer than the runtime: it is of an architecture that this one does not know.",
    references=("abetlen/llama-cpp-python#2008",),
    key="general.architecture",
    value="no-such-architecture",
)
@_file(
    "env-other-arch",
    sentence="The file says that it is of another architecture, for which it has no numbers.",
    key="general.architecture",
    value="qwen2",
)
@_file(
    "env-unknown-vocabulary",
    sentence="The file's vocabulary is of a kind that this runtime does not know.",
    key="tokenizer.ggml.model",
    value="no-such-vocabulary",
)
def file_key(copy: ModelCopy, key: str, value: str) -> None:
    """Set a key."""
    copy.set(key, value)


@_file(
    "env-no-merges",
    sentence="The file has no merges.",
    references=("ggml-org/llama.cpp#9692", "unslothai/unsloth#1062"),
    key="tokenizer.ggml.merges",
)
@_file(
    "env-no-context-length", sentence="The file does not say how long a context it is for.", key="llama.context_length"
)
def file_key_removed(copy: ModelCopy, key: str) -> None:
    """Leave a key out."""
    copy.remove(key)


@_file(
    "env-removed-type",
    sentence="A tensor is of a type that ggml has removed.",
    references=("ggml-org/llama.cpp#10757",),
)
def file_type_removed(copy: ModelCopy) -> None:
    """Declare a tensor to be of a removed type."""
    copy.retype("blk.0.ffn_up.weight", _REMOVED_TYPE)


@_file(
    "env-missing-tensor",
    sentence="The file lacks a tensor.",
    references=("ggml-org/llama.cpp#12567",),
    name="output_norm.weight",
)
@_file("env-missing-matrix", sentence="The file lacks a matrix of one block.", name="blk.29.ffn_down.weight")
def file_tensor_missing(copy: ModelCopy, name: str) -> None:
    """Drop a tensor."""
    copy.drop(name)


@_file("env-version-1", sentence="The file is in the first version of its format.", version=1)
@_file("env-version-99", sentence="The file is in a version of its format that is not there yet.", version=99)
def file_version(copy: ModelCopy, version: int) -> None:
    """Say another version."""
    copy.version = version


@_file("env-truncated-end", sentence="The file lacks its last megabyte.", cause="corruption", count=1 << 20)
@_file("env-truncated-data", sentence="The file lacks its second half.", cause="corruption", count=46 << 20)
@_file("env-truncated-header", sentence="The file ends within its tables.", cause="corruption", count=92 << 20)
def file_cut(copy: ModelCopy, count: int) -> None:
    """Leave bytes off the end."""
    copy.cut = count


@_file("env-vocabulary-short", sentence="The file lists fewer tokens than it has embeddings.", cause="corruption")
def vocabulary_short(copy: ModelCopy) -> None:
    """Leave the last hundred tokens out."""
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
        copy.set(key, copy.metadata[key][:-100])
