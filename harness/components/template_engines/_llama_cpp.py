"""llama.cpp's own Jinja (`common/jinja`), compiled to WebAssembly: the module that the package ggufdoctor carries."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.resources
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harness.components.template_engines._endings import as_json, one_line
from harness.parts import PartError, Rendering
from harness.process.owner import the_parts_own
from harness.process.upstream import gone, private

_PACKAGE = "ggufdoctor"
_EXPORTS = ("_initialize", "gd_alloc", "memory", "gd_render", "gd_out_len")
_PINNED = datetime(2026, 1, 1)
"""The time that its build put into the code."""
_SECONDS_MODULE_CAN_HOLD = range(1 << 27, 1 << 34)
"""Times whose constant has as many bytes as that of the pinned one: 1974 to 2514."""
_CONSTANT = b"\x42"
"""WebAssembly's `i64.const`; its number follows."""
_CLOCKS = 8
"""How many modules are kept, one for each time that was asked."""
_LINE = re.compile(r"at line (\d+), column")
_HINT = re.compile(r"\(hint: '(\w+)'\)")
_MEMBER = "object_property"
"""Its hint where what is undefined is a member."""
_COMPILING = 20
"""Which part of the fuel may be used to see whether a template compiles."""


class LlamaCppJinjaEngine:
    """What llama-server renders: llama.cpp probes what the template can do, rewrites the messages to that, and renders.

    So where a template takes only texts, the parts of a message are joined; where it takes objects as arguments of
    calls, they are parsed; `enable_thinking` is true unless given; `tools` and `add_generation_prompt` exist only where
    there are tools and where the turn is opened. llama-server strips a BOS that the tokenizer adds again; this does
    not.

    The module is entered as ggufdoctor's `LlamaCppEngine` does, with its limits of fuel and memory, without the texts
    of special tokens that it assumes. The module's clock stands, at a constant of its code. Where a template asks for
    the time, that constant is replaced before the module is compiled.
    """

    name = "llama-cpp-jinja"

    def __init__(self) -> None:
        import wasmtime
        from ggufdoctor.engines import llamacpp_engine

        self._wasmtime: Any = wasmtime
        self._limits: Any = llamacpp_engine
        module = private(llamacpp_engine, "MODULE_NAME", _PACKAGE)
        self._code = (importlib.resources.files("ggufdoctor.engine_data") / module).read_bytes()
        self._fuel: int = private(llamacpp_engine, "FUEL_BUDGET", _PACKAGE)
        self._memory: int = private(llamacpp_engine, "MEMORY_LIMIT_BYTES", _PACKAGE)
        config = wasmtime.Config()
        config.wasm_exceptions = True
        config.consume_fuel = True
        # Compiling takes 2 s, and 20 ms where this machine has done it before and has a folder to remember it in.
        with contextlib.suppress(wasmtime.WasmtimeError):
            config.cache = True
        with the_parts_own():
            self._engine = wasmtime.Engine(config)
            self._linker = wasmtime.Linker(self._engine)
            self._linker.define_wasi()
        self._modules: OrderedDict[int, Any] = OrderedDict()

    def version(self) -> str:
        """Return name and version of what renders."""
        manifest = private(self._limits, "load_manifest", _PACKAGE)()
        build = f"llama.cpp {manifest['build_tag']} ({manifest['commit'][:7]})"
        carried = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ggufdoctor", "wasmtime"))
        return f"{build} of {carried}"

    def compile(self, source: str) -> _Compiled:
        """Compile a template; see `harness.parts.TemplateEngine`."""
        compiled = _Compiled(self, source)
        request = compiled.request(Rendering(messages=()))
        try:
            text_of(self.answer(request, _PINNED, self._fuel // _COMPILING))
        except PartError as error:
            # It cannot be asked to compile alone; whatever else an empty conversation leads to says nothing yet.
            if error.kind == "syntax":
                raise
        return compiled

    def answer(self, request: bytes, clock: datetime, fuel: int | None = None) -> Any:
        """Return the module's answer to a request, in a store of its own.

        Args:
            request: The request, as JSON.
            clock: The time that it has, without a zone.
            fuel: Instructions that it may take; None for ggufdoctor's limit.

        Raises:
            PartError: of kind `limit`, `error`, or `unsupported`: it cannot have that time.
        """
        module = self._module(clock if b"strftime_now" in request else _PINNED)
        store = self._wasmtime.Store(self._engine)
        store.set_fuel(fuel or self._fuel)
        store.set_limits(memory_size=self._memory)
        store.set_wasi(self._wasmtime.WasiConfig())
        try:
            exports: Any = self._linker.instantiate(store, module).exports(store)
            start, room, memory, render, size = (_export(exports, name) for name in _EXPORTS)
            start(store)
            place = room(store, len(request))
            memory.write(store, request, place)
            found = render(store, place, len(request))
            answer = bytes(memory.read(store, found, found + size(store)))
        except self._wasmtime.Trap as trap:
            raise _trapped(trap.trap_code.name) from None
        except self._wasmtime.WasmtimeError as error:
            raise PartError("error", one_line(error), type(error).__name__) from error
        try:
            return json.loads(answer)
        except ValueError as error:
            raise PartError("error", one_line(error), type(error).__name__) from error

    def _module(self, clock: datetime) -> Any:
        """Return the module with this time."""
        # It prints its time as UTC, so the local time is written as if it were that.
        time, pinned = (int(one.replace(tzinfo=UTC).timestamp()) for one in (clock, _PINNED))
        if time not in self._modules:
            constant = _CONSTANT + _signed(pinned)
            if time != pinned and (self._code.count(constant) != 1 or time not in _SECONDS_MODULE_CAN_HOLD):
                raise PartError("unsupported", "its clock cannot be set to this time", "clock")
            code = self._code.replace(constant, _CONSTANT + _signed(time))
            with the_parts_own():
                self._modules[time] = self._wasmtime.Module(self._engine, code)
            if len(self._modules) > _CLOCKS:
                self._modules.popitem(last=False)
        return self._modules[time]


def _export(exports: Any, name: str) -> Any:
    try:
        return exports[name]
    except KeyError:
        raise gone(_PACKAGE, f"no export {name!r} in its module") from None


class _Compiled:
    def __init__(self, engine: LlamaCppJinjaEngine, source: str) -> None:
        self._engine = engine
        self._source = source

    def render(self, asked: Rendering) -> str:
        """Return the text; see `harness.parts.Compiled`."""
        return text_of(self._engine.answer(self.request(asked), asked.local))

    def request(self, asked: Rendering) -> bytes:
        """Return what the module is asked."""
        context: dict[str, Any] = {"bos_token": "", "eos_token": "", **asked.variables, "messages": asked.messages}
        if asked.tools:
            context["tools"] = asked.tools
        # Left out, it is taken for true.
        context["add_generation_prompt"] = asked.opens
        return as_json({"template": self._source, "context": context, "normalize": True})


def text_of(answer: Mapping[str, Any]) -> str:
    """Return the text of an answer.

    Raises:
        PartError: it has none.
    """
    if answer.get("ok"):
        return str(answer["text"])
    raise _ending(answer.get("stage", ""), str(answer.get("error", "")))


def _ending(stage: str, said: str) -> PartError:
    if stage == "raise":
        return PartError("refused", one_line(said), "raise_exception")
    if stage in ("lexer", "parser"):
        return PartError("syntax", one_line(said), stage)
    lines = [line for line in said.splitlines() if line.strip()]
    message = one_line(lines[-1] if lines else "").removeprefix("Error: ")
    # The innermost place comes first.
    place = _LINE.search(said)
    line = int(place[1]) if place else None
    if "bad_alloc" in message or "length_error" in message:
        return PartError("limit", "out of memory", "bad_alloc", line)
    if "Undefined" in message:
        hint = _HINT.search(message)
        return PartError("undefined", message, hint[1] if hint and hint[1] != _MEMBER else "", line)
    return PartError("error", message, "Error", line)


def _trapped(code: str) -> PartError:
    if code == "OUT_OF_FUEL":
        return PartError("limit", "out of fuel", code)
    if code in ("MEMORY_OUT_OF_BOUNDS", "STACK_OVERFLOW"):
        # Its stack lies at the low end of the memory: beyond it is nothing.
        return PartError("limit", "too many calls within each other", code)
    return PartError("error", "the module trapped", code)


def _signed(number: int) -> bytes:
    """Return a positive number as WebAssembly writes it: seven bits a byte, the lowest first, with room for a sign."""
    found = bytearray()
    while number >= 0x40:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
