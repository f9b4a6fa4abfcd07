"""Defects of the sampler take effect in the real engine, and without them it is what it was, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness.components.llama_cpp_python import LlamaCppPython
from harness.defects.catalogue import catalogue, choice, sampling, settings
from harness.stage import Stage
from harness.values import Request, Tokens

LOOPING = (28, 28, 28, 28)
"""Commas, after which it goes on in a loop."""
HOOK = sampling.__name__
PLANT = "harness.defects.planting.llama_cpp_python:plant"
END = 2
CHOSEN = (28, 28, 28, 28, 28, 28)
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


@pytest.mark.parametrize(("module", "kind"), [(sampling, "engine"), (choice, "engine"), (settings, "integration")])
def test_each_is_labelled(module, kind):
    found = [one for one in catalogue().values() if one.hook.partition(":")[0] == module.__name__]
    assert found
    assert {(one.stage, one.kind) for one in found} == {(Stage.INFERENCE, kind)}


@pytest.mark.parametrize(
    ("name", "arguments", "ids"),
    [
        ("neighbour_id", {}, lambda clean: clean[0] + 1),
        ("prompt_end_repeated", {}, lambda clean: LOOPING[-1]),
        ("hidden_bias", {"text": None, "bias": 1e6}, lambda clean: END),
    ],
)
def test_another_id_is_chosen_from_the_same_numbers(part, name, arguments, ids):
    clean = generated(part, GREEDY)
    part.plant(PLANT, place="part", function=f"{choice.__name__}:{name}", arguments=arguments)
    hurt = generated(part, GREEDY)
    part.unplant()
    assert hurt.ids[0] == ids(clean.ids)
    assert hurt.digests[0] == clean.digests[0]


def test_a_choice_is_made_otherwise_every_third_time(part):
    part.plant(PLANT, place="part", function=f"{choice.__name__}:second_best", arguments={"every": 3})
    request = Request(messages=({"role": "user", "content": "unused"},), settings=GREEDY)
    hurt = part.generate(Tokens(ids=LOOPING), request, CHOSEN)
    part.unplant()
    clean = part.generate(Tokens(ids=LOOPING), request, CHOSEN)
    assert [one == other for one, other in zip(hurt.chosen, clean.chosen, strict=True)] == [True, True, False] * 2


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [
        ("smp-temperature-ignored", {"temperature": 0}, {"temperature": 0.8}),
        ("smp-temperature-clamped", {"temperature": 0}, {"temperature": 0.01}),
        ("smp-temperature-clamped", {"temperature": 0.7}, {"temperature": 0.7}),
        ("smp-temperature-halved", {"temperature": 0.5, "top_p": 1}, {"temperature": 0.25, "top_p": 1}),
        ("smp-top-p-inverted", {"top_p": 0.75}, {"top_p": 0.25}),
        ("smp-top-p-inverted", {"top_p": None}, {"top_p": None}),
        ("smp-max-tokens-less", {"max_tokens": 5}, {"max_tokens": 4}),
        ("smp-max-tokens-more", {"max_tokens": 5}, {"max_tokens": 6}),
        ("smp-max-tokens-halved", {"max_tokens": 5}, {"max_tokens": 2}),
        ("smp-max-tokens-capped", {"max_tokens": 5}, {"max_tokens": 4}),
        ("smp-max-tokens-less", {"max_tokens": None}, {"max_tokens": None}),
        ("smp-seed-fixed", {}, {"seed": 0}),
        ("pp-stop-not-passed", {"stop": ["ab"]}, {"stop": []}),
        ("pp-stop-first-letter", {"stop": ["ab", "c"]}, {"stop": ["a", "c"]}),
        ("pp-stop-first-letter", {"stop": None}, {"stop": []}),
    ],
)
def test_a_completion_is_asked_for_with_other_settings(name, asked, given):
    engine = SimpleNamespace(_create_completion=lambda **keywords: keywords)
    catalogue()[name].planting()(engine)
    assert engine._create_completion(**asked) == given
