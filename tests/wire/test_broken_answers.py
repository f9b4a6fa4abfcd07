"""Broken answers end as the server's failure, whichever component reads them; a thousand more: `benchmarks.hostile`."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx", reason="speaking to a server: pip install -e '.[servers]'")

from benchmarks.broken_answers import broken_answers
from benchmarks.reading_answers import read_all
from harness.project.golden import cases_for, load_golden, load_provenance


def test_no_answer_is_an_error_of_ours(project, smollm):
    (case,) = cases_for(project, smollm.name, ["system-and-user"])
    golden = load_golden(project, smollm, case, load_provenance(project, smollm))
    # Of each kind that takes no time, and of each form a few.
    wanted = [one for one in broken_answers(42, 7) if not one[0].endswith(("endless", "many", "deep"))][-12:]
    assert {read.name: read.errors for read in read_all(wanted, golden, smollm) if read.errors} == {}
