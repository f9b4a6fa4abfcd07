"""A campaign of a few faults whose every number can be counted by hand."""

from harness.inject.campaign import Manifest, Setup
from harness.inject.fault import Fault, Injection


def fault(module="ffn_up", layer=0, kind="weight-bit", **more):
    """Return a fault; a number tells apart those that are otherwise the same."""
    return Fault(kind=kind, site=f"blk.{layer}.{module}.weight", module=module, layer=layer, **more)


SCALE = {"field": "scale", "bit": 14}
QUANT = {"field": "quant", "bit": 6}
DIGEST, DISTRIBUTION, TEXT = ("digest",), ("digest", "distribution"), ("digest", "distribution", "text")
PLAN = (
    (fault(element=0, **SCALE), {"outcome": "sdc", "detected_by": TEXT, "divergence": 2.0}),
    (fault(element=1, **SCALE), {"outcome": "sdc", "detected_by": ("digest", "text"), "divergence": 0.01}),
    (fault(element=2, **SCALE), {"outcome": "due_nan", "detected_by": ("digest", "nan")}),
    (fault(element=3, **QUANT), {"outcome": "masked_semantic", "detected_by": DIGEST, "divergence": 0.001}),
    (fault(element=4, **QUANT), {"outcome": "masked_identical", "divergence": 0.0}),
    (fault(element=5, **QUANT), {"outcome": "void", "reason": "its place was not reached"}),
    (fault("ffn_down", 1, element=6, **QUANT), {"outcome": "masked_semantic", "detected_by": DISTRIBUTION}),
    (fault("ffn_down", 1, element=7, **QUANT), {"outcome": "due_crash", "reason": "SIGSEGV"}),
    (
        Fault(kind="activation-bit", site="result_norm/MUL", module="result_norm", phase="decode", step=1, bit=30),
        {"outcome": "sdc", "detected_by": TEXT, "divergence": 8.0},
    ),
)
TYPES = {"blk.0.ffn_up.weight": 2, "blk.1.ffn_down.weight": 14}


def manifest(**more):
    """Return the campaign."""
    fields = {
        "model": "tiny",
        "engine": {"llama-cpp-python": "0.3.36"},
        "setup": Setup(path="tiny.gguf", sha256="ab" * 32, prompt=(1, 2, 3)),
        "seed": 7,
        "kinds": ("activation-bit", "weight-bit"),
        "population": 1000,
        "types": TYPES,
        "faults": tuple(one for one, _ in PLAN),
    }
    return Manifest(**{**fields, **more})


def results(plan=PLAN):
    """Return what came of it."""
    return {one.id: Injection(fault=one.id, **said) for one, said in plan}
