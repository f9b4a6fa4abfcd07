"""Defects of a client's program: the settings that it sends. What it does to messages and tools stands beside this."""

from __future__ import annotations

from typing import Any

from harness.defects.catalogue._messages import text_of
from harness.defects.defect import defect
from harness.values import Json

_SAMPLING = ("temperature", "top_p", "seed", "stop")


@defect(
    "cli-temperature-dropped",
    place="body",
    sentence="The temperature is not sent, so that the server's own default is in force.",
    cause="API usage",
    field="temperature",
)
@defect(
    "cli-top-p-dropped",
    place="body",
    sentence="`top_p` is not sent, so that the server's own default is in force.",
    cause="API usage",
    field="top_p",
)
@defect(
    "cli-seed-dropped",
    place="body",
    sentence="The seed is not sent: no sampled answer can be had again.",
    cause="API usage",
    field="seed",
)
@defect(
    "cli-stop-dropped",
    place="body",
    sentence="The stop strings are not sent.",
    cause="API usage",
    field="stop",
)
def field_dropped(body: Json, field: str) -> Json:
    """Leave a field out."""
    return {name: value for name, value in body.items() if name != field}


@defect(
    "cli-max-completion-tokens-refused",
    place="body",
    sentence="`max_tokens` is sent as `max_completion_tokens`, which the part does not know.",
    cause="API usage",
    symptom="crash",
    references=("abetlen/llama-cpp-python#1907",),
    field="max_tokens",
    name="max_completion_tokens",
)
def field_renamed(body: Json, field: str, name: str) -> Json:
    """Send a field under another name, at its place."""
    return {name if one == field else one: value for one, value in body.items()}


@defect(
    "cli-temperature-zero-lost",
    place="body",
    sentence="A temperature of 0 is taken for none at all and is not sent.",
    cause="API usage",
)
def zero_lost(body: Json) -> Json:
    """Leave out a temperature that is false."""
    return body if body.get("temperature") else field_dropped(body, "temperature")


@defect(
    "cli-temperature-rounded",
    place="body",
    sentence="The temperature is sent as a whole number.",
    cause="data and computation",
)
def temperature_rounded(body: Json) -> Json:
    """Cut its fraction off."""
    return {**body, "temperature": int(body["temperature"])} if "temperature" in body else body


@defect(
    "cli-temperature-as-text",
    place="body",
    sentence="The temperature is sent as a text.",
    cause="API usage",
    symptom="crash",
)
def temperature_as_text(body: Json) -> Json:
    """Write the number."""
    return {**body, "temperature": str(body["temperature"])} if "temperature" in body else body


@defect(
    "cli-sampling-swapped",
    place="body",
    sentence="`temperature` and `top_p` are exchanged.",
    cause="API usage",
)
def sampling_swapped(body: Json) -> Json:
    """Exchange them where both are given."""
    if not {"temperature", "top_p"} <= set(body):
        return body
    return {**body, "temperature": body["top_p"], "top_p": body["temperature"]}


@defect(
    "cli-max-completion-tokens-ignored",
    place="body",
    sentence="The answer's limit is sent under a name that nobody reads: the server's own, 100 tokens, is in force.",
    cause="API usage",
    references=("ollama/ollama#7125", "abetlen/llama-cpp-python#1907"),
    over={"max_tokens": 100},
)
@defect(
    "cli-seed-fixed",
    place="body",
    sentence="Every request is sent with the seed 42, whatever the caller asked for.",
    cause="configuration",
    over={"seed": 42},
)
@defect(
    "cli-max-tokens-legacy-default",
    place="body",
    sentence="Every answer is limited to 16 tokens, the default of the old completions API.",
    cause="configuration",
    over={"max_tokens": 16},
)
@defect(
    "cli-generation-config-wins",
    place="body",
    sentence="The model's generation_config.json replaces the settings of the request.",
    cause="configuration",
    references=("vllm-project/vllm#15241",),
    over={"temperature": 0.1, "top_k": 1, "top_p": 0.001, "repeat_penalty": 1.05},
)
@defect(
    "cli-json-mode-left-on",
    place="body",
    sentence="Every request asks for a JSON object, which the caller did not.",
    cause="configuration",
    over={"response_format": {"type": "json_object"}},
)
def settings_over(body: Json, over: dict[str, Any]) -> Json:
    """Put settings over those of the request."""
    return {**body, **over}


@defect(
    "cli-v1-overrides-model-sampling",
    place="body",
    sentence="A temperature and a `top_p` of 1.0 are sent where the caller gave none.",
    cause="configuration",
    references=("ollama/ollama#17744",),
    under={"temperature": 1.0, "top_p": 1.0},
)
@defect(
    "cli-generation-config-silent-override",
    place="body",
    sentence="`top_k` 1 and a repeat penalty of 1.05, of a file beside the model, are sent with every request.",
    cause="configuration",
    references=("vllm-project/vllm#15241", "Blaizzy/mlx-vlm#1331"),
    under={"top_k": 1, "repeat_penalty": 1.05},
)
def settings_under(body: Json, under: dict[str, Any]) -> Json:
    """Add settings that the caller left to the server."""
    return {**body, **{name: value for name, value in under.items() if name not in body}}


@defect(
    "cli-presence-penalty-remapped",
    place="body",
    sentence="The presence penalty, 0 where none is given, is sent as a repeat penalty 2 higher.",
    cause="API usage",
    references=("huggingface/text-generation-inference#1796", "huggingface/tgi-gaudi#238"),
)
def presence_penalty_remapped(body: Json) -> Json:
    """Send it under the other name, on the other scale."""
    return {**field_dropped(body, "presence_penalty"), "repeat_penalty": body.get("presence_penalty", 0.0) + 2.0}


@defect(
    "cli-sampling-wrong-nesting",
    place="body",
    sentence="The sampling settings stand in `options`, where another API reads them and this one does not.",
    cause="API usage",
    symptom="crash",
    references=("career-ops-hq/career-ops#1842",),
)
def sampling_nested(body: Json) -> Json:
    """Move them into a dictionary of their own."""
    options = {name: body[name] for name in _SAMPLING if name in body}
    return {**{name: value for name, value in body.items() if name not in options}, "options": options}


@defect(
    "cli-sampling-wrong-nesting-ignored",
    place="body",
    sentence="The sampling settings are sent where nobody reads them: all of them are the server's defaults.",
    cause="API usage",
    references=("career-ops-hq/career-ops#1842",),
)
def sampling_dropped(body: Json) -> Json:
    """Leave all of them out."""
    return {name: value for name, value in body.items() if name not in _SAMPLING}


@defect(
    "cli-max-tokens-total",
    place="body",
    sentence="`max_tokens` is taken for the limit of prompt and answer together: the prompt's words are taken off.",
    cause="API usage",
)
def max_tokens_total(body: Json) -> Json:
    """Take a token for each word off, and leave one."""
    if "max_tokens" not in body:
        return body
    words = sum(len(text_of(message).split()) for message in body["messages"])
    return {**body, "max_tokens": max(1, body["max_tokens"] - words)}


@defect(
    "cli-stop-first-only",
    place="body",
    sentence="Of several stop strings only the first is sent.",
    cause="API usage",
    way="first",
)
@defect(
    "cli-stop-joined",
    place="body",
    sentence="The stop strings are joined by commas to one.",
    cause="API usage",
    way="joined",
)
@defect(
    "cli-stop-as-characters",
    place="body",
    sentence="A stop string is taken for a list: each of its characters ends the answer.",
    cause="API usage",
    way="characters",
)
@defect(
    "cli-stop-added",
    place="body",
    sentence="A line break is added to the stop strings of every request.",
    cause="configuration",
    way="added",
)
def stop_changed(body: Json, way: str) -> Json:
    """Send other stop strings."""
    given = body.get("stop")
    stop = [given] if isinstance(given, str) else list(given or ())
    if way == "added":
        return {**body, "stop": [*stop, "\n"]}
    if not stop:
        return body
    ways = {"first": stop[:1], "joined": [",".join(stop)], "characters": list(dict.fromkeys(stop[0]))}
    return {**body, "stop": ways[way]}
