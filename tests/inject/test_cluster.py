"""A campaign on a dask cluster: a worker that dies loses no result, and nothing is counted twice."""

from __future__ import annotations

import importlib.util

import pytest

from harness.errors import UserError
from harness.inject import campaign
from harness.inject.campaign import Manifest, Setup, executor_at, run, save
from harness.inject.fault import Fault
from tests.inject.conftest import PROMPT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="dask.distributed is not installed: pip install -e '.[cluster]' (`tox -e cluster`)",
)


def test_no_scheduler_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(campaign, "_CONNECTING", "1s")
    with pytest.raises(UserError, match="no scheduler answers at"), executor_at("tcp://127.0.0.1:9"):
        pass


def test_a_worker_that_dies_loses_no_result(engine, smollm, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(campaign, "_CHUNK", 4)
    setup = Setup(path=str(smollm.path), sha256=smollm.sha256, prompt=tuple(PROMPT), rows=5, threads=1)
    faults = [
        Fault(kind="activation-scale", site=f"l_out-{layer}/ADD", phase="first", value=2.0) for layer in range(20)
    ]
    manifest = Manifest(model="m", engine={}, setup=setup, seed=1, kinds=("activation-scale",), faults=tuple(faults))
    save(manifest, tmp_path / "alone")
    alone = run(tmp_path / "alone", manifest)
    save(manifest, tmp_path / "cluster")
    killed = []
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:

        def kill_one(done: int) -> None:
            if done and not killed:
                killed.append(next(iter(cluster.workers.values())))
                killed[0].process.process.kill()

        with executor_at(cluster.scheduler_address) as executor:
            found = run(tmp_path / "cluster", manifest, executor, kill_one)
    assert killed
    assert found == alone
    lines = (tmp_path / "cluster" / campaign.RESULTS).read_text().splitlines()
    assert len(lines) == len(faults)
