"""The HTML report of 50 cases in which three stages are at fault: its size, and its first paint in headless Chromium.

Wanted: at most 3 MB and at most 1 s. What is shown is made of the real goldens, with a difference planted in each; no
engine runs.

    python -m benchmarks.page [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.checking.compare.inference import Floor
from harness.checking.judge import Judge
from harness.checking.trace import FIELDS, Run, Trace
from harness.checking.verdict import convict
from harness.project.cases import cases_for
from harness.project.golden import Golden, load_golden, load_provenance
from harness.project.project import Project, find_project
from harness.project.stack import resolve_model
from harness.report.html import to_html
from harness.report.sheet import Sheet, sheet_of_verdict
from harness.values import Distributions, Generation, Observation, Reply, Tokens

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MODELS = ("smollm2-135m-instruct", "smollm2-135m-instruct-tools")
CASES = 50
FLOOR = Floor(limit=0.1, mean=0.1, source="this benchmark")
CHROMIUM = os.environ.get("HARNESS_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main(rounds: int) -> None:
    """Measure and print."""
    sheet = planted_sheet(find_project())
    start = time.perf_counter()
    page = to_html([sheet])
    print(f"{len(sheet.cases)} cases, {sum(case.bad for case in sheet.cases)} of them bad")
    print(f"written in {time.perf_counter() - start:.1f} s")
    print(f"size: {len(page.encode()) / 1e6:.2f} MB (wanted at most 3 MB)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        paints = []
        for _ in range(rounds):
            with chromium() as browser:
                paints.append(first_paint(browser, path))
    said = ", ".join(f"{paint:.0f}" for paint in paints)
    print(f"first paint: {statistics.median(paints):.0f} ms, median of {said} (wanted at most 1,000 ms)")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start headless Chromium with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        yield browser


def first_paint(browser: Browser, path: Path) -> float:
    """Return the milliseconds to the first contentful paint of a page."""
    page = browser.new_page()
    page.goto(path.as_uri())
    # The page allows no evaluated text, which waiting for an expression would be.
    while (paint := page.evaluate(_PAINT)) is None:
        page.wait_for_timeout(20)
    page.close()
    return float(paint)


def planted_sheet(project: Project) -> Sheet:
    """Return a sheet of the real goldens of both models, with differences planted in three stages of every case."""
    goldens: dict[str, Golden] = {}
    for name in MODELS:
        model = resolve_model(project, name)
        provenance = load_provenance(project, model)
        for case in cases_for(project, name):
            golden = load_golden(project, model, case, provenance)
            renamed = f"{case.name}-{len(goldens)}"
            goldens[renamed] = golden.model_copy(update={"case": case.model_copy(update={"name": renamed})})
    goldens = dict(list(goldens.items())[:CASES])
    noise = np.random.default_rng(0)
    traces = {name: _trace(golden, noise) for name, golden in goldens.items()}
    judge = Judge({}, FLOOR)
    results = [result for name, golden in goldens.items() for result in judge.case(golden, traces[name])]
    verdict = convict("planted", MODELS[0], results, lambda _: "state")
    return sheet_of_verdict(
        verdict,
        goldens,
        traces,
        limit=FLOOR.limit,
        parts={"planted": "by hand"},
        command="harness check",
        made="",
    )


def _trace(golden: Golden, noise: np.random.Generator) -> Trace:
    """Return what a stack would do that splits every fifth token, computes other numbers and loses a word."""
    found = {field: golden.value(stage) for stage, field in FIELDS.items()}
    tokens, generation, reply = golden.tokens, golden.generation, golden.reply
    if isinstance(tokens, Tokens):
        ids = [i for at, token in enumerate(tokens.ids) for i in ((token, 44) if at % 5 == 0 else (token,))]
        found["tokens"] = tokens.model_copy(update={"ids": tuple(ids), "pieces": None})
    if isinstance(generation, Generation) and generation.distributions is not None:
        top = generation.distributions
        other = (top.logprobs + noise.normal(0, 1.5, top.logprobs.shape)).astype(np.float32)
        other -= np.log(np.exp(other).sum(axis=1, keepdims=True))
        distributions = Distributions(other, top.ids, np.full(len(top), -12, dtype=np.float32))
        digests = tuple("0123456789abcdef" * 4 for _ in generation.ids)
        found["generation"] = generation.model_copy(update={"distributions": distributions, "digests": digests})
    stream = None
    if isinstance(reply, Reply):
        words = (reply.content or "").split(" ")
        found["reply"] = reply.model_copy(update={"content": " ".join(words[:-1])})
        stream = reply.model_copy(update={"deltas": tuple({"content": f"{word} "} for word in words)})
    runs = {Run.ISOLATED: Observation(**found), Run.ISOLATED_STREAM: Observation(reply=stream)}
    return Trace(stack="planted", model=golden.model, case=golden.case.name, runs=runs)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
