"""Defects of the sampler take effect in the real engine, and without them it is what it was, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.components.llama_cpp_python import LlamaCppPython
from harness.faults.catalogue import catalogue, sampling
from harness.values import Request, Tokens

LOOPING = (28, 28, 28, 28)
"""Commas, after which it goes on in a loop."""
HOOK = sampling.__name__
GREEDY = {"temperature": 0.0, "max_tokens": 12}
SAMPLED = {"temperature": 1.5, "top_p": 0.6, "min_p": 0.0, "top_k": 0, "max_tokens": 12, "seed": 11}


@pytest.fixture(scope="module")
def part(engine, smollm) -> Iterator[LlamaCppPython]:
    with LlamaCppPython(smollm, {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}) as opened:
        yield opened


def generated(part, settings):
    request = Request(messages=({"role": "user", "content": "unused"},), settings=settings)
    return part.generate(Tokens(ids=LOOPING), request, None)


@pytest.mark.parametrize(
    ("name", "settings", "numbers"),
    [
        ("logits_scaled", GREEDY, True),
        ("top_token_dropped", GREEDY, True),
        ("hidden_repeat_penalty", GREEDY, False),
        ("temperature_first", SAMPLED, False),
        ("seed_ignored", SAMPLED, False),
    ],
)
def test_a_defect_takes_effect_and_is_undone(part, name, settings, numbers):
    clean = generated(part, settings)
    part.plant(f"{HOOK}:{name}")
    hurt = generated(part, settings)
    part.unplant()
    again = generated(part, settings)
    assert (again.ids, again.digests) == (clean.ids, clean.digests)
    # The first row is computed from the prompt alone.
    assert (hurt.digests[0] != clean.digests[0]) == numbers
    if name == "logits_scaled":
        assert hurt.ids == clean.ids
    else:
        assert hurt.ids != clean.ids


def test_each_is_labelled():
    found = {one.id: one for one in catalogue().values()}
    assert {name for name in found if name.startswith("smp-")} == {
        "smp-hidden-repeat-penalty",
        "smp-temperature-first",
        "smp-seed-ignored",
    }
    assert all(found[name].kind == "engine" for name in found if name.startswith(("smp-", "eng-")))
