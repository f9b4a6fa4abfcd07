"""The child's side of the component behind HTTP: llama-cpp-python's own server, its `Llama` tapped, in a thread.

The parent says what the next call is to replace (`begin`), makes the call over HTTP, and asks what the taps saw
(`seen`). No tap ends a call with an exception here: the server would turn it into an answer of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import uvicorn
from llama_cpp.server import app as server_app
from llama_cpp.server.settings import ModelSettings, ServerSettings

from harness.components.llama_cpp_python._library import with_type_ids
from harness.components.llama_cpp_python._taps import FORMATTER, PACKAGE, Plan, TappedLlama
from harness.process.owner import as_the_parts, the_parts_own
from harness.process.upstream import private

_POLL = 0.02


class Server(TappedLlama):
    """The server, with a template of our own set on its `Llama`, as it has no setting for one."""

    _kept: tuple[int, Any] | None = None
    _uvicorn: uvicorn.Server | None = None
    _thread: threading.Thread

    def url(self) -> str:
        """Return where the server listens, which begins with the first call.

        Raises:
            OSError: it has ended.
        """
        if self._uvicorn is None:
            self._uvicorn = self._listening()
        if not self._thread.is_alive():
            raise as_the_parts(OSError("the server's thread has ended"))
        host, port = self._uvicorn.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    def begin(
        self,
        clock: str | None = None,
        prompt: str | None = None,
        prompt_ids: Sequence[int] | None = None,
        scripted: Sequence[int] | None = None,
        forced: Sequence[int] | None = None,
    ) -> None:
        """Say what the next call replaces; see `Plan`.

        A scripted call leaves the context as it was; a forced one begins with a cleared context.
        """
        self._restore()
        if prompt is None and scripted is not None:
            # What the template makes is to be seen.
            self._need(FORMATTER)
        if scripted is not None or forced is not None:
            self._need("create_completion", "generate", "tokenize")
        if scripted is not None:
            self._kept = self.llm.n_tokens, private(self.llm, "input_ids", PACKAGE).copy()
        end = None
        if forced is not None:
            self._need("sample")
            with the_parts_own():
                self.llm.reset()
                end = self.llm.token_eos()
        plan = Plan(
            clock=clock, prompt=prompt, prompt_ids=prompt_ids, scripted=scripted, forced=forced, past_forced=end
        )
        self._follow(plan)

    def seen(self) -> dict[str, Any]:
        """Return what the taps saw of the call, and let later ones pass as they are."""
        plan = self.plan
        self._follow(Plan())
        self._restore()
        return self._all_seen(plan)

    def _generation_seen(self, plan: Plan) -> dict[str, Any]:
        """Return the settings of the completion call too: nobody but the server knows what it made of the body."""
        found = super()._generation_seen(plan)
        settings = {**self._request_seen(plan)["settings"], **found["settings"]}
        if plan.forced is not None:
            # What ends a generation was kept from ending this one.
            settings.pop("stop", None)
        # What it was not asked for is the server's own default, not the binding's.
        return {**found, "settings": settings, "defaults": None}

    def _restore(self) -> None:
        if self._kept is not None:
            self.llm.n_tokens, self.llm.input_ids[:] = self._kept
            self._kept = None

    def _load(self, model_path: str, options: Mapping[str, Any]) -> Any:
        """Have the server load the model."""
        keywords = with_type_ids(options)
        with the_parts_own():
            self._app = server_app.create_app(
                server_settings=ServerSettings(host="127.0.0.1", port=0),
                model_settings=[ModelSettings(model=model_path, **keywords)],
            )
        proxy: Any = private(server_app, "_llama_proxy", PACKAGE)
        with the_parts_own():
            llm = proxy()
        llm.verbose = False
        return llm

    def _listening(self) -> uvicorn.Server:
        # A line for every request would push the evidence of a death out of the log.
        config = uvicorn.Config(self._app, host="127.0.0.1", port=0, log_level="warning")
        server = uvicorn.Server(config)
        self._thread = threading.Thread(target=server.run, daemon=True)
        self._thread.start()
        while not server.started and self._thread.is_alive():
            time.sleep(_POLL)
        return server
