"""Mistakes as users make them: is each noticed at an address, is the remedy the right one, and is nobody accused else?

A real llama-server of the package is started with one mistake, or stands behind a server that makes one, and is
checked by its address and the model file, as `harness check URL --model-file FILE` does. Before them stand servers that
are set rightly. Prints a table.

    python -m benchmarks.mistakes [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.components.llama_server._options import Options
from harness.components.llama_server._running import Running
from harness.defects.model_copy import ModelCopy
from harness.explain.subjects import Asked, judged, subjects
from harness.project.project import find_project
from harness.project.stack import resolve_model
from harness.values import Json, ModelRef
from tests.wire.servers import Asked as Question
from tests.wire.servers import Handler, serving

_MODEL = "smollm2-135m-instruct"
_QUIET = {"verbosity": 3}
_N_CTX = 4096
_LLAMA2 = "llama2"
_TEMPLATE = "tokenizer.chat_template"
_TOKENS = "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class Mistake:
    """One set-up.

    Attributes:
        name: What is wrong.
        remedy: What a right remedy or finding says (a regular expression); empty where nothing is wrong.
        n_ctx: The context.
        parameters: Attributes of `xllamacpp.CommonParams`.
        edit: Edits a copy of the model file, which is then served.
        body: Changes what is asked on its way to the server. Then nothing but the chat route is shown.
        answer: Changes what it answers, or each chunk.
        file: Whether the check is given the model file.
    """

    name: str
    remedy: str
    n_ctx: int = _N_CTX
    parameters: Mapping[str, Any] = field(default_factory=dict)
    edit: Callable[[ModelCopy], object] | None = None
    body: Callable[[Json], Json] | None = None
    answer: Callable[[Json], object] | None = None
    file: bool = True


def _without(*names: str) -> Callable[[Json], Json]:
    return lambda body: {name: value for name, value in body.items() if name not in names}


def _messages(change: Callable[[list[Json]], list[Json]]) -> Callable[[Json], Json]:
    return lambda body: {**body, "messages": change(body["messages"])}


def _shortened(message: Json) -> Json:
    content = message["content"]
    return {**message, "content": content[-300:]} if isinstance(content, str) else message


def _with(key: str, value: Any, type_name: str | None = None) -> Callable[[ModelCopy], object]:
    return lambda copy: copy.set(key, value, type_name)


def _no_system(messages: list[Json]) -> list[Json]:
    return [one for one in messages if one["role"] != "system"]


def _system_as_user(messages: list[Json]) -> list[Json]:
    return [{**one, "role": "user"} if one["role"] == "system" else one for one in messages]


def _content(change: Callable[[str], str]) -> Callable[[Json], object]:
    def edit(answer: Json) -> None:
        for choice in answer["choices"]:
            message = choice.get("message") or {}
            if isinstance(message.get("content"), str):
                message["content"] = change(message["content"])

    return edit


MISTAKES = (
    Mistake("template of another family", "template", parameters={"chat_template": _LLAMA2, "use_jinja": False}),
    Mistake("Jinja off", "--jinja", parameters={"use_jinja": False}),
    Mistake("context of 256", r"(?i)context|-c |--ctx-size", n_ctx=256),
    Mistake("two slots share a small context", r"(?i)slot|-np|--parallel", n_ctx=2048, parameters={"n_parallel": 2}),
    Mistake("temperature 1.7 by default", r"(?i)temp", parameters={"sampling.temp": 1.7}),
    Mistake("repeat penalty 1.5 by default", r"(?i)repeat", parameters={"sampling.penalty_repeat": 1.5}),
    Mistake("top_k 1 by default", r"(?i)top_k|sampler", parameters={"sampling.top_k": 1}, file=False),
    Mistake("greedy by the file", r"(?i)general\.sampling", edit=_with("general.sampling.temp", 0.0, "FLOAT32")),
    Mistake("end token wrong in the file", r"(?i)eos|end|file", edit=_with("tokenizer.ggml.eos_token_id", 0)),
    Mistake("pre-tokenizer wrong in the file", r"(?i)pre|file", edit=_with("tokenizer.ggml.pre", "falcon")),
    Mistake("rope base wrong in the file", r"(?i)rope|file", edit=_with("llama.rope.freq_base", 10000.0)),
    Mistake("rope base on the command line", r"(?i)rope", parameters={"rope_freq_base": 10000.0}),
    Mistake("rope scale on the command line", r"(?i)rope", parameters={"rope_freq_scale": 0.25}),
    Mistake(
        "template trimmed in the file",
        r"(?i)template|file",
        edit=lambda c: c.set(_TEMPLATE, c.metadata[_TEMPLATE].replace("<|im_end|>", "")),
    ),
    Mistake("system message dropped", r"(?i)system|prompt", body=_messages(_no_system)),
    Mistake("only the last turn kept", r"(?i)earlier|prompt", body=_messages(lambda m: m[-1:])),
    Mistake("long messages cut", r"(?i)long prompt|prompt|cut", body=_messages(lambda m: [_shortened(x) for x in m])),
    Mistake("system message made the user's", r"(?i)system|prompt|template", body=_messages(_system_as_user)),
    Mistake("stop strings dropped", r"(?i)stop", body=_without("stop")),
    Mistake("limit dropped", r"(?i)limit|max_tokens", body=_without("max_tokens", "max_completion_tokens")),
    Mistake("seed fixed", r"(?i)seed|drawn|sampler", body=lambda body: {**body, "seed": 1}),
    Mistake("temperature 0 for all", r"(?i)drawn|temp|sampler", body=lambda body: {**body, "temperature": 0}),
    Mistake("response_format dropped", r"(?i)JSON|schema", body=_without("response_format")),
    Mistake("stream options dropped", r"(?i)usage|stream", body=_without("stream_options")),
    Mistake(
        "log-probabilities of another scale",
        r"(?i)prob",
        answer=lambda a: [
            one.update(logprob=1.0) for c in a["choices"] for one in (c.get("logprobs") or {}).get("content") or ()
        ],
    ),
    Mistake(
        "finish_reason always stop",
        r"(?i)finish|length|end",
        answer=lambda a: [c.update(finish_reason="stop") for c in a["choices"] if c.get("finish_reason")],
    ),
    Mistake(
        "role missing in streams",
        r"(?i)role",
        answer=lambda a: [(c.get("delta") or {}).pop("role", None) for c in a["choices"]],
    ),
    Mistake("usage does not add up", r"(?i)usage|total", answer=lambda a: a.get("usage", {}).update(total_tokens=1)),
    Mistake("control text left in", r"(?i)control", answer=_content(lambda text: text + "<|im_end|>")),
    Mistake(
        "vocabulary of another model",
        r"(?i)model|file|vocabulary",
        edit=lambda c: c.set(_TOKENS, [*c.metadata[_TOKENS][:-2], "aaa", "bbb"]),
    ),
)
RIGHT = (
    Mistake("as it should be", ""),
    Mistake("as it should be, without the file", "", file=False),
    Mistake("one thread", "", parameters={"cpuparams.n_threads": 1}),
    Mistake("four slots of 4096", "", n_ctx=16384, parameters={"n_parallel": 4}),
    Mistake("small batches", "", parameters={"n_batch": 64}),
    Mistake("temperature 0.6 by default", "", parameters={"sampling.temp": 0.6}),
    Mistake("behind a server that shows only chat", "", body=lambda body: body),
)


@contextmanager
def _served(mistake: Mistake, model: ModelRef, folder: Path) -> Iterator[str]:
    """Yield the address of the set-up."""
    file = model.path
    if mistake.edit is not None:
        copy = ModelCopy(model.path)
        mistake.edit(copy)
        file = folder / f"{re.sub('[^a-z]+', '-', mistake.name)}.gguf"
        copy.save(file)
    options = Options(n_ctx=mistake.n_ctx, parameters={**_QUIET, **mistake.parameters})
    running = Running(model.model_copy(update={"path": file}), options)
    try:
        if mistake.body is None and mistake.answer is None:
            yield running.url()
            return
        with serving(_before(running.url(), mistake)) as proxy:
            yield proxy.url
    finally:
        running.close()


def _before(server: str, mistake: Mistake) -> Callable[[Handler, Question], None]:
    """Return what answers as a server of the chat route alone, which makes the mistake."""

    def answer(handler: Handler, asked: Question) -> None:
        if asked.path == "/v1/models":
            handler.json({"object": "list", "data": [{"id": "m", "object": "model"}]})
            return
        if asked.path != "/v1/chat/completions":
            handler.json({"error": {"message": "not found"}}, 404)
            return
        body = asked.body
        if mistake.body is not None and body.get("messages"):
            body = mistake.body(body)
        request = urllib.request.Request(
            server + asked.path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                data, form = reply.read(), reply.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            handler.whole(error.read(), status=error.code)
            return
        if mistake.answer is not None:
            data = _changed(data, mistake.answer)
        handler.whole(data, kind=form)

    return answer


def _changed(data: bytes, change: Callable[[Json], object]) -> bytes:
    if not data.startswith(b"data:"):
        whole = json.loads(data)
        change(whole)
        return json.dumps(whole).encode()
    lines = []
    for line in data.decode().split("\n"):
        if line.startswith("data: {"):
            chunk = json.loads(line.removeprefix("data: "))
            change(chunk)
            line = f"data: {json.dumps(chunk)}"
        lines.append(line)
    return "\n".join(lines).encode()


def main() -> None:
    """Check every set-up and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    only = parser.parse_args().only
    project = find_project()
    model = resolve_model(project, _MODEL)
    noticed = remedied = accused = 0
    tried = [one for one in (*RIGHT, *MISTAKES) if not only or one.name in only]
    with tempfile.TemporaryDirectory() as folder:
        for mistake in tried:
            began = time.monotonic()
            with _served(mistake, model, Path(folder)) as url:
                asked = Asked(names=[url], model_file=model.path if mistake.file else None)
                verdict = next(judged(next(subjects(project, asked)), asked)).verdict
            told = [
                f"{one.summary} {one.location or ''} {one.remedy or ''} {one.difference.hunks}"
                for one in verdict.findings
            ]
            found = bool(verdict.findings)
            right = any(re.search(mistake.remedy, one) for one in told) if mistake.remedy else not found
            noticed += found and bool(mistake.remedy)
            remedied += right and bool(mistake.remedy)
            accused += found and not mistake.remedy
            stages = ", ".join(dict.fromkeys(f"{one.stage} ({one.kind})" for one in verdict.findings)) or "nothing"
            line = verdict.findings[0].summary if found else verdict.line
            said, seconds = "yes" if right else "NO", time.monotonic() - began
            print(f"| {mistake.name} | {stages} | {line[:110]} | {said} | {seconds:.0f} s |", flush=True)
    of = sum(bool(one.remedy) for one in tried)
    print(f"{noticed} of {of} noticed, {remedied} told rightly; {accused} of {len(tried) - of} right ones accused")


if __name__ == "__main__":
    main()
