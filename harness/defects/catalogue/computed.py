"""Defects in what nodes of llama.cpp's graph compute: wrong size, wrong row, lost part, no number. Of the `Engine`.

Some strike always; others, as reported ones do, only a batch of a certain size, a certain position, a certain token,
or from the second call on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.defects.catalogue._nodes import COMPONENT, Array, after
from harness.defects.defect import defect
from harness.llama.ggml import Watcher, data_of, sources
from harness.llama.layout import Tensor
from harness.stage import Stage

_ENGINE: dict[str, Any] = {"stage": Stage.INFERENCE, "kind": "engine", "component": COMPONENT, "watches_nodes": True}
_HIDDEN = 576
"""SmolLM2's width."""
_HEAD = 64


@defect(
    "eng-mup-scales-1.01",
    sentence="One layer's output is a hundredth too large: a scale of the residual that was forgotten.",
    references=("ggml-org/llama.cpp#16273",),
    node="l_out-9",
    factor=1.01,
    **_ENGINE,
)
@defect(
    "eng-mup-scales",
    sentence="One layer's output is twice as large as it should be.",
    references=("ggml-org/llama.cpp#16273", "antonellof/ferrox#186"),
    node="l_out-9",
    factor=2.0,
    **_ENGINE,
)
@defect(
    "eng-residual-everywhere",
    sentence="Every layer's feed-forward output is multiplied by 0.7 before it is added.",
    references=("ggml-org/llama.cpp#16273",),
    node="ffn_out-*",
    factor=0.7,
    **_ENGINE,
)
@defect(
    "eng-embedding-scale",
    sentence="Embeddings are multiplied by the square root of the width, as another architecture does.",
    references=("ggml-org/llama.cpp#12567", "mattn/tensai#248"),
    node="embd",
    factor=_HIDDEN**0.5,
    **_ENGINE,
)
@defect(
    "eng-attention-norm-double",
    sentence="The norm before attention gives twice what it should, in one layer.",
    node="attn_norm-5",
    factor=2.0,
    **_ENGINE,
)
@defect(
    "eng-attention-lost",
    sentence="What attention gives is lost in one layer.",
    node="kqv_out-3",
    factor=0.0,
    **_ENGINE,
)
@defect(
    "eng-ffn-lost",
    sentence="What the feed-forward network gives is lost in one layer.",
    node="ffn_out-20",
    factor=0.0,
    **_ENGINE,
)
@defect(
    "eng-ffn-sign",
    sentence="What the feed-forward network gives has the wrong sign in one layer.",
    node="ffn_out-2",
    factor=-1.0,
    **_ENGINE,
)
@defect(
    "eng-query-scale",
    sentence="Queries are half as large as they should be in one layer.",
    node="Qcur-10",
    factor=0.5,
    **_ENGINE,
)
@defect(
    "eng-value-scale",
    sentence="Values are half as large as they should be in every layer.",
    node="Vcur-*",
    factor=0.5,
    **_ENGINE,
)
@defect(
    "eng-lora-scale",
    sentence="A change to one layer is eight times as large as it should be: an adapter's alpha without its rank.",
    references=("Blaizzy/mlx-vlm#845", "NVIDIA/TensorRT-LLM#1668"),
    node="ffn_gate-4",
    factor=8.0,
    **_ENGINE,
)
def scaled(engine: Any, node: str, factor: float) -> None:
    """Multiply what a node computes."""

    def edit(values: Array) -> None:
        values *= np.float32(factor)

    after(engine, node, edit)


@defect(
    "eng-bf16-state",
    sentence="Every layer's output is cut to bfloat16: sixteen bits of each number are lost.",
    references=("ollama/ollama#14075", "ollama/ollama#15865"),
    bits=16,
    **{**_ENGINE, "cause": "hardware"},
)
@defect(
    "eng-e5m2-state",
    sentence="Every layer's output is cut to two bits of mantissa.",
    bits=21,
    **{**_ENGINE, "cause": "hardware"},
)
def truncated(engine: Any, bits: int) -> None:
    """Drop the lowest bits of each number."""
    mask = np.uint32((0xFFFFFFFF << bits) & 0xFFFFFFFF)

    def edit(values: Array) -> None:
        words = values.view(np.uint32)
        np.bitwise_and(words, mask, out=words)

    after(engine, "l_out-*", edit)


@defect(
    "eng-noise-0.1",
    sentence="One layer's output carries noise of a tenth of its own size.",
    references=("ggml-org/llama.cpp#24764",),
    share=0.1,
    **{**_ENGINE, "cause": "hardware"},
)
@defect(
    "eng-noise-0.5",
    sentence="One layer's output carries noise of half of its own size.",
    references=("ggml-org/llama.cpp#24764",),
    share=0.5,
    **{**_ENGINE, "cause": "hardware"},
)
def noisy(engine: Any, share: float) -> None:
    """Add normal noise, the same for the same shape."""

    def edit(values: Array) -> None:
        numbers = np.random.Generator(np.random.PCG64(values.size)).standard_normal(values.shape, dtype=np.float32)
        values += numbers * np.float32(share * float(values.std()))

    after(engine, "l_out-4", edit)


@defect(
    "eng-nondeterministic",
    sentence="One layer's output carries noise that is another in every run: a race between threads.",
    references=("ggml-org/llama.cpp#24764",),
    **{**_ENGINE, "cause": "hardware"},
)
def racing(engine: Any) -> None:
    """Add normal noise that nothing repeats."""
    numbers = np.random.Generator(np.random.PCG64(int.from_bytes(os.urandom(8), "little")))

    def edit(values: Array) -> None:
        values += numbers.standard_normal(values.shape, dtype=np.float32) * np.float32(0.7 * float(values.std()))

    after(engine, "l_out-4", edit)


@defect(
    "eng-head-zeroed",
    sentence="One head of attention gives nothing in one layer.",
    **_ENGINE,
)
def head_zeroed(engine: Any) -> None:
    """Take one head's part out of what attention gives."""

    def edit(values: Array) -> None:
        values[..., 2 * _HEAD : 3 * _HEAD] = 0

    after(engine, "kqv_out-6", edit)


@defect(
    "eng-activation-inf",
    sentence="An accumulator in half precision overflows: one number of one layer is infinite.",
    references=("ggml-org/llama.cpp#12946", "ggml-org/llama.cpp#13101", "ggml-org/llama.cpp#13607"),
    number=float("inf"),
    **{**_ENGINE, "cause": "hardware"},
)
@defect(
    "eng-activation-nan",
    sentence="One number of one layer is none.",
    references=("intel/auto-round#1908",),
    number=float("nan"),
    **{**_ENGINE, "cause": "hardware"},
)
@defect(
    "eng-activation-huge",
    sentence="One number of one layer is the largest that half precision holds.",
    references=("ggml-org/llama.cpp#13137",),
    number=65504.0,
    **{**_ENGINE, "cause": "hardware"},
)
def one_number(engine: Any, number: float) -> None:
    """Set one element of the last row."""

    def edit(values: Array) -> None:
        values[0, 0, -1, 11] = number

    after(engine, "ffn_out-8", edit)


def _where(engine: Any, node: str, is_hurt: Callable[[Array], bool], factor: float = 0.0) -> None:
    """Multiply what a node computes where a condition on it holds."""

    def edit(values: Array) -> None:
        if is_hurt(values):
            values *= np.float32(factor)

    after(engine, node, edit)


@defect(
    "eng-large-batch-only",
    sentence="A kernel for 64 tokens or more at once is wrong; shorter prompts and all decoding are right.",
    references=("ggml-org/llama.cpp#12946", "ggml-org/llama.cpp#28211"),
    fewest=64,
    most=1 << 30,
    **{**_ENGINE, "cause": "algorithm"},
)
@defect(
    "eng-batch-of-33-to-48-only",
    sentence="A kernel for batches of 33 to 48 tokens is wrong; every other size is right.",
    references=("ggml-org/llama.cpp#24064", "ggml-org/llama.cpp#28018"),
    fewest=33,
    most=48,
    **{**_ENGINE, "cause": "algorithm"},
)
@defect(
    "eng-decode-only",
    sentence="The kernel for a single token is wrong: prompts are right, and every generated token after the first.",
    references=("ml-explore/mlx-lm#1457", "ml-explore/mlx#3795"),
    fewest=1,
    most=1,
    **{**_ENGINE, "cause": "algorithm"},
)
def of_a_size(engine: Any, fewest: int, most: int) -> None:
    """Lose the feed-forward output of batches of a certain size."""
    _where(engine, "ffn_out-12", lambda values: fewest <= values.shape[2] <= most)


@defect(
    "eng-second-call-only",
    sentence="The engine is right when it is first asked, and wrong from the third evaluation on.",
    references=("ggml-org/llama.cpp#23468", "vllm-project/vllm#5543"),
    **{**_ENGINE, "cause": "algorithm"},
)
def from_the_third_on(engine: Any) -> None:
    """Count the evaluations by the first node of each."""
    calls = 0

    def count(values: Array) -> None:
        nonlocal calls
        del values
        calls += 1

    after(engine, "embd", count)
    _where(engine, "ffn_out-12", lambda values: calls > 2)  # noqa: ARG005


@defect(
    "eng-row-contaminated",
    sentence="The last row of a batch gets another row's attention.",
    references=("ggml-org/llama.cpp#28537",),
    **{**_ENGINE, "cause": "algorithm"},
)
def contaminated(engine: Any) -> None:
    """Copy the first row of what attention gives over the last one."""

    def edit(values: Array) -> None:
        values[0, 0, -1] = values[0, 0, 0]

    after(engine, "kqv_out-2", edit)


@defect(
    "eng-long-prompt-only",
    sentence="From the 48th position on one layer is wrong; short prompts are right.",
    references=("ggml-org/llama.cpp#28211", "ggml-org/llama.cpp#27579"),
    **{**_ENGINE, "cause": "algorithm"},
)
def from_a_position_on(engine: Any) -> None:
    """Lose the feed-forward output of rows behind a position, which is read from RoPE's own input."""
    positions = np.zeros(0, dtype=np.int32)

    def read(tensor: Tensor) -> None:
        nonlocal positions
        positions = data_of(sources(tensor)[1]).reshape(-1).copy()

    def edit(values: Array) -> None:
        if len(positions) == values.shape[2]:
            values[0, 0, positions >= 48] = 0

    engine.nodes.watchers.append(Watcher(lambda name, op: op == "ROPE" and name.endswith("-12"), before=read))
    after(engine, "ffn_out-12", edit)


@defect(
    "eng-one-token-wrong",
    sentence="The embedding of one token, the line break, is wrong.",
    references=("intel/auto-round#1908",),
    **{**_ENGINE, "cause": "corruption"},
)
def one_token(engine: Any) -> None:
    """Turn the sign of the row of a token, which the id in the lookup's own input tells."""
    (line_break,) = engine.llm._model.tokenize(b"\n", False, True)

    def edit(tensor: Tensor) -> None:
        ids = data_of(sources(tensor)[1]).reshape(-1)
        values = data_of(tensor)
        values[0, 0, ids == line_break] *= -1

    engine.nodes.watchers.append(Watcher(lambda name, op: name == "embd" and op == "GET_ROWS", after=edit))


@defect(
    "eng-abort",
    sentence="An assertion of the engine ends the process while a prompt is computed.",
    references=("ggml-org/llama.cpp#24064",),
    number=int(signal.SIGABRT),
    **{**_ENGINE, "symptom": "crash", "cause": "algorithm"},
)
@defect(
    "eng-segfault",
    sentence="The engine reads memory that is not its own, and its process ends.",
    references=("ggml-org/llama.cpp#21587",),
    number=int(signal.SIGSEGV),
    **{**_ENGINE, "symptom": "crash", "cause": "algorithm"},
)
def dies(engine: Any, number: int) -> None:
    """End the process in the middle of a graph that computes 16 tokens or more."""

    def edit(values: Array) -> None:
        if values.shape[2] >= 16:
            os.kill(os.getpid(), number)

    after(engine, "ffn_out-1", edit)
