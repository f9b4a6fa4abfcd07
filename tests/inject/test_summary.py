"""A campaign's summary: what is counted, of what, and what is left out of it."""

import pytest

from harness.inject.fault import Injection
from harness.inject.summary import Cell, Divergence, Summary, paired, summarise
from harness.statistics import margin, sample_size, wilson
from tests.inject.made import PLAN, manifest, results

STRUCK = 8
"""All faults of the plan but the one that is void."""


@pytest.fixture(scope="module")
def summary():
    return summarise(manifest(), results())


def counts(groups):
    return {one.name: (one.struck, one.void, one.sdc.count, one.harm.count) for one in groups}


def test_what_is_void_is_in_no_share_and_counted_apart(summary):
    assert (summary.drawn, summary.run, summary.void) == (9, 9, 1)
    assert {name: share.count for name, share in summary.outcomes.items()} == {
        "masked_identical": 1,
        "masked_semantic": 2,
        "sdc": 3,
        "due_nan": 1,
        "due_crash": 1,
        "due_hang": 0,
    }
    assert summary.outcomes["sdc"] == wilson(3, STRUCK)
    assert summary.harm == wilson(5, STRUCK)


def test_checks_are_counted_of_what_changed_something(summary):
    found = {
        one.check: (one.noticed.count, one.noticed.of, one.alone, one.alone_but_digest) for one in summary.detection
    }
    assert found == {
        "digest": (6, 7, 1, 0),
        "nan": (1, 7, 0, 1),
        "distribution": (3, 7, 0, 1),
        "text": (3, 7, 0, 1),
        "ended": (1, 7, 1, 1),
    }


def test_groups_by_what_the_faults_have_in_common(summary):
    assert counts(summary.kinds) == {"activation-bit": (1, 0, 1, 1), "weight-bit": (7, 1, 2, 4)}
    assert counts(summary.modules) == {"ffn_down": (2, 0, 0, 1), "ffn_up": (5, 1, 2, 3), "result_norm": (1, 0, 1, 1)}
    assert counts(summary.layers) == {"0": (5, 1, 2, 3), "1": (2, 0, 0, 1)}
    assert [one.index for one in summary.layers] == [0, 1]
    assert counts(summary.fields) == {"quant": (4, 1, 0, 1), "scale": (3, 0, 2, 3)}
    assert counts(summary.phases) == {"load": (7, 1, 2, 4), "decode": (1, 0, 1, 1)}
    assert summary.cells == (
        Cell(layer=0, module="ffn_up", struck=5, sdc=2, harm=3),
        Cell(layer=1, module="ffn_down", struck=2, sdc=0, harm=1),
    )


def test_bits_are_those_of_the_number_and_not_of_its_bytes(summary):
    # Bit 6 of the quants' bytes is bit 2 of the second weight: both Q4_0 and Q6_K keep four bits of it there.
    found = {one.name: {group.index: group.struck for group in one.groups} for one in summary.bits}
    assert found == {
        "4-bit weight": {2: 2},
        "6-bit weight": {2: 2},
        "float16 scale": {14: 3},
        "float32 activation": {30: 1},
    }
    assert [(one.name, one.first, one.last) for one in summary.bits[2].parts] == [
        ("fraction", 0, 9),
        ("exponent", 10, 14),
        ("sign", 15, 15),
    ]


def test_a_bit_of_a_tensor_of_unknown_type_is_left_out_and_said_to_be():
    found = summarise(manifest(types={}), results())
    assert [one.name for one in found.bits] == ["float16 scale", "float32 activation"]
    assert any(note.startswith("5 flipped bits are in no table of bits") for note in found.notes)


def test_divergence_is_of_runs_that_ended_with_numbers(summary):
    by_module = {one.name: one.divergence for one in summary.modules}
    # 0, 0.001, 0.01 and 2 by nearest rank: the second, and the fourth.
    assert by_module["ffn_up"] == Divergence(runs=4, infinite=0, median=0.001, high=2.0)
    # JSON writes infinity as null, and the crash has none.
    assert by_module["ffn_down"] == Divergence(runs=1, infinite=1, median=None, high=None)


def test_the_margin_that_was_reached_and_what_others_take(summary):
    assert summary.margin == margin(1000, STRUCK)
    assert summary.needed == {"0.05": sample_size(1000, 0.05), "0.01": sample_size(1000, 0.01)}
    unknown = summarise(manifest(population=None), results())
    assert unknown.needed == {}
    assert unknown.margin > summary.margin


def test_a_campaign_that_is_not_done_says_so():
    found = summarise(manifest(), results(PLAN[:3]))
    assert (found.drawn, found.run) == (9, 3)
    assert "6 of 9 faults are still to be run." in found.notes


def test_a_campaign_that_has_not_begun_has_a_summary():
    found = summarise(manifest(), {})
    assert (found.run, found.margin, found.modules, found.bits) == (0, 1.0, (), ())


def test_a_summary_is_saved_and_loaded(summary):
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_two_arms_are_compared_fault_by_fault():
    one = results()
    ids = list(one)
    changed = {
        ids[0]: Injection(fault=ids[0], outcome="masked_semantic"),
        ids[3]: Injection(fault=ids[3], outcome="sdc"),
        ids[4]: Injection(fault=ids[4], outcome="sdc"),
        ids[6]: Injection(fault=ids[6], outcome="due_hang"),
        ids[7]: Injection(fault=ids[7], outcome="void"),
    }
    other = {key: found for key, found in {**one, **changed}.items() if key != ids[8]}
    found = paired(one, other)
    assert (found.compared, found.void, found.unpaired) == (6, 2, 1)
    assert found.changed == {
        "masked_identical": {"sdc": 1},
        "masked_semantic": {"sdc": 1, "due_hang": 1},
        "sdc": {"masked_semantic": 1, "sdc": 1},
        "due_nan": {"due_nan": 1},
    }
    sdc, harm = found.contrasts
    assert (sdc.both, sdc.only_one, sdc.only_other, sdc.neither, sdc.p) == (1, 1, 2, 2, 1.0)
    # 2 * (1 + 4) / 2^4
    assert (harm.both, harm.only_one, harm.only_other, harm.neither, harm.p) == (2, 1, 3, 0, 0.625)
