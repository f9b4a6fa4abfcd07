"""The invariants of the real engine: all hold of a healthy one, and each can break."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from harness.checking.compare.inference import Floor
from harness.errors import UserError
from harness.llama.ggml import Watcher, float_parameters
from harness.llama.laboratory.invariants import (
    INVARIANTS,
    LONGEST,
    Seen,
    Trial,
    attempt,
    check_invariants,
    invariants_named,
    open_engine,
)
from harness.llama.laboratory.noise import floor_of_one, floor_of_two
from harness.llama.layout import RMS_NORM_EPS
from harness.process.child import Child
from harness.process.worker import Worker
from tests.conftest import ROOT

IDS = (1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407)
NAMES = [one.name for one in INVARIANTS if not one.slow]
FED = [name for name in NAMES if name != "end_ids"]
"""Those that feed the engine themselves; `end_ids` is about the high-level API."""


@pytest.fixture(scope="module")
def floor(project) -> Floor:
    return floor_of_two(floor_of_one(project, "smollm2-135m-instruct"))


@pytest.fixture(scope="module")
def trials(engine, smollm):
    from harness.llama.laboratory.trials import Trials

    made = Trials(str(smollm.path))
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def hurt(engine):
    from tests.llama.laboratory import hurt

    return hurt


@pytest.fixture(scope="module")
def child(engine, smollm) -> Iterator[Child]:
    opened = open_engine(smollm.path)
    yield opened
    opened.close()


def served(monkeypatch, smollm, what: str, seconds: float = 60.0) -> Child:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Child(
        Worker("tests.llama.laboratory.hurt:served", {"path": str(smollm.path), "what": what}, seconds=seconds)
    )


def tried(trials, name: str, ids=IDS, choice: int = 0) -> Trial:
    return Trial(invariant=name, seen=tuple(map(Seen.model_validate, trials.attempt(name, ids, choice))))


def broken(trials, name: str, floor: Floor, ids=IDS, choice: int = 0) -> str:
    """Return how an invariant broke."""
    found = tried(trials, name, ids, choice).broken(floor)
    assert found is not None
    return f"{found.what}: {found.message}"


@pytest.mark.parametrize("name", NAMES)
def test_all_hold_of_a_healthy_engine(trials, floor, name):
    found = tried(trials, name, choice=5)
    assert found.broken(floor) is None
    assert found.judged(floor)
    assert all(one.judged(floor) for one in found.seen if one.positions >= 8)


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_prompts(trials, floor, length):
    for name in set(FED) - {"lengths", "threads"}:
        assert tried(trials, name, IDS[:length], choice=length).broken(floor) is None


def test_all_at_once_the_quick_ones(child, floor):
    assert check_invariants(child, IDS[:8], floor) == ()


def test_how_bit_exactness_is_stated(trials):
    """Rows up to the first micro-batch of a single token are held bit for bit, the others within the limit."""
    (eights,) = tried(trials, "n_ubatch", IDS[:16], choice=0).seen
    assert (eights.what, eights.rule, eights.positions) == ("n_ubatch 8 and all at once", "exact", 16)
    exact, order = tried(trials, "n_ubatch", IDS[:9], choice=0).seen
    assert [(one.rule, one.positions) for one in (exact, order)] == [("exact", 8), ("order", 1)]
    (ones,) = tried(trials, "n_ubatch", IDS, choice=3).seen
    assert (ones.what, ones.rule, ones.positions) == ("n_ubatch 1 and all at once", "order", 17)
    assert ones.kl > 0


@pytest.mark.parametrize("name", sorted(set(FED) - {"threads"}))  # watched by several threads: slow on a shared machine
def test_not_a_number_breaks_every_invariant(trials, hurt, floor, name):
    with trials.engine.nodes.watched(hurt.not_a_number()):
        assert "not a number in" in broken(trials, name, floor, IDS[:4])


@pytest.mark.parametrize(
    "name",
    [
        "n_ubatch", "n_batch", "lengths", "split", "one_by_one", "neighbours", "own_cache", "prefix_shared", "state",
        "rewound",
    ],
)  # fmt: skip
def test_an_edit_that_depends_on_the_size_of_the_micro_batch(trials, hurt, floor, name):
    # The longer prompt of `lengths` has as many ids.
    with trials.engine.nodes.watched(hurt.batch_sensitive(len(IDS))):
        assert "KL" in broken(trials, name, floor)


def test_an_edit_that_is_not_restored(trials, floor):
    def edit(tensor):
        float_parameters(tensor)[RMS_NORM_EPS] = 1.0

    with trials.engine.nodes.watched(Watcher(lambda name, op: op == "RMS_NORM", after=edit)):
        assert broken(trials, "repeated", floor).startswith("again in the same context: 17 of 17 rows")
    assert tried(trials, "repeated").broken(floor) is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("n_ctx", "n_ctx"),
        ("threads", "n_threads"),
        ("flash_attention", "flash_attn_type"),
        ("cache_types", "type_k"),
    ],
)
def test_a_setting_that_changes_more_than_it_should(trials, hurt, floor, name, key):
    with hurt.misconfigured(trials.engine, key):
        assert "KL" in broken(trials, name, floor)


@pytest.mark.parametrize("name", ["offset", "shift"])
def test_positions_that_are_not_relative(trials, hurt, floor, name):
    with trials.engine.nodes.watched(hurt.positions_end_at(50)):
        ids = IDS * 2
        assert "median KL" in broken(trials, name, floor, ids, choice=2)
        assert tried(trials, name, ids).broken(floor) is None


@pytest.mark.parametrize(
    ("name", "method", "does"),
    [
        ("prefix_shared", "share", lambda *_: None),
        ("rewound", "forget", lambda *_: True),
        ("rewound", "forget", lambda *_: False),
        ("hole", "forget", lambda *_: False),
        ("state", "restore", lambda *_: False),
        ("state", "restore", lambda *_: True),
        ("shift", "shift", lambda *_: None),
    ],
)
def test_a_cache_that_does_not_do_what_it_is_told(trials, floor, monkeypatch, name, method, does):
    monkeypatch.setattr(trials.engine, method, does)
    assert broken(trials, name, floor, choice=2)


def test_a_state_with_a_flipped_bit(trials, floor, monkeypatch):
    real = trials.engine.restore

    def restore(state, sequence=0):
        at = len(state) // 2
        return real(state[:at] + bytes([state[at] ^ 0x40]) + state[at + 1 :], sequence)

    monkeypatch.setattr(trials.engine, "restore", restore)
    assert "another state" in broken(trials, "state", floor)


def test_samplers_that_do_not_do_what_they_say(trials, floor, monkeypatch):
    from harness.llama.laboratory import sampling

    real = {name: getattr(sampling, name) for name in ("drawn", "temperature", "biased", "penalized", "bound_by")}
    numbers = itertools.count()
    ignored = lambda engine, biases: real["biased"](engine, dict.fromkeys(biases, 0.0))  # noqa: E731
    wrong = [
        ("greedy", "greedy", lambda: real["drawn"](1), "the greedy sampler"),
        ("greedy", "temperature", lambda degree: real["temperature"](degree or 5.0), "temperature 0"),
        ("seed", "drawn", lambda seed: real["drawn"](7), "seeds 1 and 2: draw the same"),
        ("seed", "drawn", lambda seed: real["drawn"](next(numbers)), "seed 1 and itself"),
        ("logit_bias", "biased", ignored, "a bias of 2.5 on id 407: the logit of id 407"),
        ("logit_bias", "biased", lambda engine, b: real["biased"](engine, b | {5: 1.0}), "id 5 is changed too"),
        ("penalties", "penalized", lambda e, last, *r: real["penalized"](e, 4, *r), "the logit of id 9690 becomes"),
        ("penalties", "penalized", lambda e, n, r, *x: real["penalized"](e, n, r, 0.1, 0.0), "the logit of id 9690"),
        ("grammar", "bound_by", lambda e, text: real["bound_by"](e, "root ::= [0-9x]+"), "lets through id"),
        ("grammar", "bound_by", lambda e, text: real["bound_by"](e, "root ::= [1-9]+"), "keeps out id"),
        ("end_ids", "ends", lambda engine, token: token == 9690, "end id 9690 forced"),
        ("end_ids", "ends", lambda engine, token: False, "none does"),
    ]
    for name, function, replaced, said in wrong:
        with monkeypatch.context() as patch:
            patch.setattr(sampling, function, replaced)
            assert said in broken(trials, name, floor), name
        assert tried(trials, name).broken(floor) is None


def test_what_the_engine_refuses_is_broken(trials, floor):
    assert "llama_decode returned -1" in broken(trials, "n_ctx", floor, (10**6,))


def test_all_at_once_of_a_hurt_engine(engine, smollm, floor, monkeypatch):
    child = served(monkeypatch, smollm, "negate")
    try:
        found = {one.invariant for one in check_invariants(child, IDS[:5], floor)}
    finally:
        child.close()
    assert {"prefix_shared", "state"} <= found
    assert not found & {"repeated", "greedy", "seed", "penalties"}


def test_a_crash_is_an_outcome_with_its_signal_and_the_next_trial_works(engine, smollm, floor, monkeypatch):
    child = served(monkeypatch, smollm, "crash")
    try:
        found = attempt(child, "n_ubatch", IDS[:5], choice=1)
        assert found.failure.signal == "SIGSEGV"
        assert found.broken(floor).failure == found.failure
        assert attempt(child, "greedy", IDS[:5]).broken(floor) is None
    finally:
        child.close()


def test_a_hang_is_an_outcome(engine, smollm, floor, monkeypatch):
    child = served(monkeypatch, smollm, "hang", seconds=5.0)
    try:
        assert attempt(child, "n_ubatch", IDS[:5], choice=1).failure.reason == "hang"
    finally:
        child.close()


def test_what_is_judged_by_a_limit_is_not_judged_without_one():
    far = Seen(what="two runs", rule="order", positions=8, kl=0.5, median=0.03)
    assert not far.judged(None)
    assert far.judge(None) == ""
    floor = Floor(limit=0.1, mean=0.02, source="measured")
    assert far.judge(floor) == "median KL over 8 positions 0.03 nats, limit 0.02 (measured)"
    assert far.share(floor) == pytest.approx(1.5)
    # Single positions of a made-up prompt may be far off; half of them may not.
    assert far.model_copy(update={"median": 0.01}).judge(floor) == ""
    few = far.model_copy(update={"positions": 7})
    assert not few.judged(floor)
    assert few.judge(floor) == ""


def test_names():
    assert [one.name for one in invariants_named(())] == NAMES
    assert [one.name for one in invariants_named(["seed", "long_prompt"])] == ["long_prompt", "seed"]
    with pytest.raises(UserError, match="did you mean 'n_batch'"):
        invariants_named(["n_bach"])
    with pytest.raises(ValueError, match="a prompt of 257 ids"):
        attempt(open_engine(ROOT), "greedy", range(LONGEST + 1))
