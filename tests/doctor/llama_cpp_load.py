"""What llama.cpp does with a file: each is tried in a process of its own, forked where the library is loaded already.

`python -m tests.doctor.llama_cpp_load` reads paths, one a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 30
MEMORY = 6 << 30
# What the child ends with.
COMPUTES = "computes"
_STAGES = {0: COMPUTES, 10: "does not load", 11: "has no context", 12: "does not compute"}


def try_files(paths: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield of each file the path, what becomes of it, and the library's last words.

    It is one of `computes`, `does not load`, `has no context`, `does not compute`, or the name of the signal that ended
    it (`SIGABRT`, `SIGALRM` after too long).
    """
    command = [sys.executable, "-m", "tests.doctor.llama_cpp_load"]
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # which would start a debugger
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for path in paths:
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
            found = json.loads(child.stdout.readline())
            yield path, found["outcome"], found["said"]
        child.stdin.close()


def main() -> None:
    """Answer the lines of standard input."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_tried(llama_cpp, line.rstrip("\n"))) + "\n")
        sys.stdout.flush()


def _tried(library: Any, path: str) -> dict[str, str]:
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 2)
            os.dup2(log.fileno(), 1)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(SECONDS)
            os._exit(_stage(library, path))
        _, status = os.waitpid(child, 0)
        log.seek(0)
        lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if os.WIFSIGNALED(status):
        outcome = signal.Signals(os.WTERMSIG(status)).name
        telling = [line for line in lines if "GGML_ASSERT" in line or "ABORT" in line or "what():" in line]
    else:
        outcome = _STAGES[os.WEXITSTATUS(status)]
        telling = [line for line in lines if "rror" in line or "gguf_init" in line]
    return {"outcome": outcome, "said": (telling or lines or [""])[0][:200]}


def _stage(library: Any, path: str) -> int:
    parameters = library.llama_model_default_params()
    parameters.use_mmap = True
    parameters.n_gpu_layers = 0
    model = library.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        return 10
    wanted = library.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_ubatch, wanted.n_threads, wanted.n_threads_batch = 64, 32, 32, 1, 1
    context = library.llama_init_from_model(model, wanted)
    if not context:
        return 11
    vocabulary = library.llama_model_get_vocab(model)
    many = max(1, library.llama_vocab_n_tokens(vocabulary))
    ids = (library.llama_token * 3)(0, 1 % many, 2 % many)
    if library.llama_decode(context, library.llama_batch_get_one(ids, 3)):
        return 12
    room = (library.llama_token * 64)()
    text = "Hello world\n 1\u00e9 \U0001f642".encode()
    # Aborts where it cannot.
    library.llama_tokenize(vocabulary, text, len(text), room, 64, True, True)
    return 0


if __name__ == "__main__":
    main()
