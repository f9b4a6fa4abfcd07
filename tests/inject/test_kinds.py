"""Every kind of fault takes effect in the real engine, and undoing it restores the same logits bit for bit."""

from __future__ import annotations

import pytest

from harness.inject.draw import KINDS, draw
from harness.inject.fault import Fault, Injection
from harness.inject.feeding import FEEDINGS, LOGITS
from harness.inject.kinds import PLANTINGS
from tests.inject.conftest import PROMPT, STEPS

DOWN = "blk.3.ffn_down.weight"
STRONG = [
    Fault(kind="activation-bit", site="l_out-3/ADD", phase="first", element=5, bit=27),
    Fault(kind="activation-bit", site="Qcur-3/ROPE", phase="prefill", position=7, element=5, bit=26),
    Fault(kind="activation-bit", site="l_out-3/ADD", phase="decode", step=1, element=5, bit=27),
    Fault(kind="activation-scale", site="ffn_out-3/MUL_MAT", phase="first", value=10.0),
    Fault(kind="activation-zero", site="attn_out-3/MUL_MAT", phase="first"),
    Fault(kind="activation-nan", site="ffn_out-3/MUL_MAT", phase="first", element=3),
    Fault(kind="weight-bit", site=DOWN, layer=3, field="scale", element=1000, bit=14),
    Fault(kind="weight-bit", site=DOWN, layer=3, field="minimum", element=1000, bit=14),
    Fault(kind="weight-bit", site=DOWN, layer=3, field="quant", element=1000, bit=7),
    Fault(kind="weight-bit", site="blk.3.attn_norm.weight", layer=3, field="value", element=9, bit=29),
    Fault(kind="weight-zero", site=DOWN, layer=3),
    Fault(kind="weight-swap", site=DOWN, layer=3),
    Fault(kind="weight-permute", site=DOWN, layer=3),
    Fault(kind="weight-nan", site=DOWN, layer=3, field="scale", element=77),
    Fault(kind="weight-inf", site="output_norm.weight", field="value", element=7),
    Fault(kind="operator-rms-eps", value=1e-2),
    Fault(kind="operator-rms-eps", value=1e-2, layer=4),
    Fault(kind="operator-rope-base", value=1e4),
    Fault(kind="operator-rope-dims", value=32),
    Fault(kind="operator-rope-style", value=2),
    Fault(kind="operator-softmax-scale", value=2.0),
    Fault(kind="operator-soft-cap", value=5.0),
    Fault(kind="operator-window", value=4),
    Fault(kind="operator-mask-leak", phase="prefill", position=7),
    Fault(kind="cache-bit", site="cache_k_l3", layer=3, position=9, element=7, bit=13),
    Fault(kind="cache-stale", position=5),
    Fault(kind="cache-dropped", position=5),
    Fault(kind="cache-duplicated"),
    Fault(kind="cache-position", position=5, value=3),
    Fault(kind="cache-shared", position=5),
    Fault(kind="logits-scale", value=34.0),
    Fault(kind="logits-drop-top", step=1),
]


def inject(subject, *faults: Fault) -> list[Injection]:
    """Run faults; the clean run that follows inside must be what it was, or this raises."""
    found = subject.call("inject", faults=[fault.model_dump(mode="json") for fault in faults])
    return [Injection.model_validate(one) for one in found]


@pytest.mark.parametrize("fault", STRONG, ids=lambda fault: f"{fault.kind}-{fault.field or fault.phase}")
def test_a_fault_takes_effect_and_is_undone(subject, fault):
    (found,) = inject(subject, fault)
    assert found.outcome in ("masked_semantic", "sdc", "due_nan"), found
    assert "digest" in found.detected_by
    assert (found.outcome == "due_nan") == ("nan" in fault.kind or "inf" in fault.kind)


def test_every_kind_is_there(subject):
    assert {fault.kind for fault in STRONG} == set(KINDS) == {*PLANTINGS, *FEEDINGS, *LOGITS}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(kind="weight-zero", site="blk.99.ffn_down.weight"), "no tensor 'blk.99.ffn_down.weight'"),
        (Fault(kind="weight-bit", site=DOWN, field="sub_scale", element=0, bit=0), "have scale, minimum, quant"),
        (Fault(kind="weight-swap", site="output_norm.weight"), "no other layer has"),
        (Fault(kind="weight-nan", site=DOWN, field="quant", element=0), "no floating-point number"),
        (Fault(kind="activation-zero", site="nowhere/ADD", phase="first"), "its place was not reached"),
        (Fault(kind="activation-scale", site="l_out-3/ADD", phase="first", value=1.0), "was there before"),
        (Fault(kind="cache-bit", site="cache_k_l99", position=1, element=0, bit=0), "no cache 'cache_k_l99'"),
        (Fault(kind="cache-stale", position=0), "not inside a prompt"),
        (Fault(kind="operator-rope-base", value=100_000.0), "was there before"),
    ],
)
def test_what_cannot_take_effect_is_void_and_never_masked(subject, fault, says):
    (found,) = inject(subject, fault)
    assert found.outcome == "void"
    assert says in found.reason


def test_a_fault_in_a_row_is_what_it_is_alone(subject):
    """Seven beside a control, and each again by itself, where other kernels compute the same within their rounding."""
    places = ((0, 0), (9, 0), (19, 0), (28, 0), (0, 1), (15, 1), (28, 1))
    faults = [
        Fault(kind="activation-scale", site=f"l_out-{at}/ADD", phase="decode" if step else "first", step=step, value=2)
        for at, step in places
    ]
    before = subject.call("splits")
    together = inject(subject, *faults)
    assert subject.call("splits") == before
    assert len({found.divergence for found in together}) == len(faults)
    assert inject(subject, *faults) == together
    # In another order they are in other rows, which a processor may round otherwise.
    for found, other in zip(together, inject(subject, *faults[::-1])[::-1], strict=True):
        assert other.outcome == found.outcome
        assert other.divergence == pytest.approx(found.divergence, abs=0.02)
    for fault, found in zip(faults, together, strict=True):
        (alone,) = inject(subject, fault.model_copy(update={"kind": "activation-scale", "value": 2.0}))
        assert alone.outcome == found.outcome
        assert alone.divergence == pytest.approx(found.divergence, abs=0.02)


def test_a_fault_that_spreads_does_not_spoil_its_neighbours(subject):
    """Large enough to overflow in the next layer: the batch is split until what it says can be believed."""
    spreading = Fault(kind="activation-scale", site="l_out-3/ADD", phase="first", value=1e38)
    mild = [Fault(kind="activation-zero", site="ffn_out-5/MUL_MAT", phase="first", element=at) for at in range(6)]
    clean = inject(subject, *mild)
    before = subject.call("splits")
    found = inject(subject, *mild, spreading)
    # None where a clean batch does not repeat itself on this processor: then each ran alone.
    assert before is None or subject.call("splits") > before
    assert found[-1].outcome == "due_nan"
    for mended, alone in zip(found, clean, strict=False):
        assert mended.outcome == alone.outcome
        assert mended.divergence == pytest.approx(alone.divergence, abs=0.02)


def test_sites_are_every_part_of_every_layer(subject):
    sites = subject.call("sites")
    assert sites["n_layer"] == 30
    assert sites["prompt"] == len(PROMPT)
    for name, width in {"l_out-29/ADD": 576, "Kcur-0/ROPE": 192, "ffn_swiglu-7/GLU": 1536}.items():
        assert sites["activations"][name] == width
    assert sites["weights"][DOWN]["bits"] == {"scale": 16, "minimum": 16, "quant": 128}
    assert sites["weights"]["output_norm.weight"] == {"type": 0, "blocks": 576, "bits": {"value": 32}, "rows": 1}
    assert sites["caches"]["cache_v_l29"] == {"elements": 192, "bits": 16}


def test_a_manifest_is_the_same_from_the_same_seed_and_starves_no_site(subject):
    sites = subject.call("sites")
    first, again = (draw(sites, 900, 7, KINDS, ("prefill", "first", "decode"), STEPS) for _ in range(2))
    assert first == again
    assert first != draw(sites, 900, 8, KINDS, ("prefill", "first", "decode"), STEPS)
    assert len({fault.id for fault in first}) == 900
    assert {fault.kind for fault in first} == set(KINDS)
    bits = draw(sites, len(sites["activations"]), 7, ("activation-bit",), ("first",), STEPS)
    assert {fault.site for fault in bits} == set(sites["activations"])
