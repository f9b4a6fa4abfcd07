"""Templates and answers that mean harm, many of them: no traceback, bounded memory and time, no process left behind.

`python -m benchmarks.hostile templates [--count N] [--seed N] [--engine NAME ...]`: each is rendered in the engines
that `--engine` names; innocent ones stand between them, and must all be judged alike.

`python -m benchmarks.hostile answers [--count N] [--seed N]`: answers of a server are read by each component that asks
servers of others, in every run of a case.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager

import psutil

from benchmarks.broken_answers import broken_answers
from benchmarks.hostile_templates import hostile_templates
from benchmarks.reading_answers import SECONDS as ANSWER_SECONDS
from benchmarks.reading_answers import read_all
from harness.fuzz import fixed_conversations
from harness.fuzz.finding import Finding
from harness.fuzz.template.api import engine_paths
from harness.fuzz.template.run import SECONDS, Children, Plan, Statistics
from harness.fuzz.template.trial import Subject
from harness.project.cases import cases_for
from harness.project.golden import load_golden, load_provenance
from harness.project.project import find_project
from harness.project.stack import resolve_model

_INNOCENT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
_EVERY = 100
"""Between so many hostile templates stands an innocent one."""
_MEMORY = 2 << 30
"""Bytes that reading any answer may take."""
_PROPERTIES = ("renders", "engines-agree", "text-verbatim")


class Watch:
    """Looks at this process and its children.

    Attributes:
        most: The most memory that was seen, resident, in bytes: of this process, and of one child.
        started: The children that were seen, by id and time of start.
    """

    def __init__(self) -> None:
        self.most = {"parent": 0, "a child": 0}
        self.started: set[psutil.Process] = set()
        self._over = threading.Event()

    def look(self) -> None:
        """Look until it is over, ten times a second."""
        own = psutil.Process()
        while not self._over.wait(0.1):
            self._seen("parent", own)
            for child in own.children(recursive=True):
                self.started.add(child)
                self._seen("a child", child)

    def _seen(self, who: str, process: psutil.Process) -> None:
        try:
            self.most[who] = max(self.most[who], process.memory_info().rss)
        except psutil.Error:
            return

    def end(self) -> list[psutil.Process]:
        """Stop looking; return the children that are still there."""
        self._over.set()
        time.sleep(1.0)
        return [one for one in self.started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def _watched(what: str) -> Iterator[None]:
    watch = Watch()
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    left = watch.end()
    own = max(watch.most["parent"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
    print(
        f"{what}: {seconds:,.0f} s in all; at most {own >> 20:,} MB in this process, {watch.most['a child'] >> 20:,} MB"
    )
    print(f"{what}: in one of {len(watch.started):,} children; {len(left)} of them left behind")


def templates(count: int, seed: int, engines: list[str]) -> None:
    """Render hostile templates, with innocent ones between them."""
    made = [Subject(name=name, source=source) for name, source in hostile_templates(count, seed)]
    innocent = [Subject(name=f"innocent {at}", source=_INNOCENT) for at in range(0, count, _EVERY)]
    for at, one in enumerate(innocent):
        made.insert(at * (_EVERY + 1), one)
    talks = [{key: one[key] for key in ("messages", "tools") if key in one} for one in fixed_conversations()]
    plan = Plan(engines=engine_paths(engines), properties=_PROPERTIES)
    run = Children(plan, talks[:1])
    findings: list[Finding] = []
    unjudged: dict[str, str] = {}
    longest = 0.0

    def tried(subject: Subject) -> tuple[list[Finding], Statistics, float]:
        began = time.perf_counter()
        found, statistics = run.tried(subject, (), ())
        return found, statistics, time.perf_counter() - began

    with _watched("templates"), run.pool() as submit:
        for done, future in enumerate(as_completed([submit(tried, one) for one in made]), start=1):
            found, statistics, seconds = future.result()
            findings += found
            unjudged |= statistics.unjudged
            longest = max(longest, seconds)
            if done % _EVERY == 0:
                print(f"templates: {done:,} of {len(made):,}", flush=True)
    deaths = Counter(f"{one.broken.path} {one.broken.cause}" for one in findings if one.example is None)
    judgements = {frozenset(found.fingerprint for found in findings if one.name in found.subjects) for one in innocent}
    accused = len({name for one in findings for name in one.subjects})
    print(f"templates: {count:,} hostile, {len(innocent)} innocent, in {', '.join(engines)}: no traceback")
    print(f"templates: {accused:,} with findings; {len(unjudged)} could not be judged: {unjudged}")
    print(f"templates: the longest took {longest:.0f} s, of {SECONDS:.0f} s that a template may take in a sweep")
    print(f"templates: ended a process: {dict(deaths)}")
    print(f"templates: the innocent ones, all equal, were judged in {len(judgements)} way(s)")


def answers(count: int, seed: int) -> None:
    """Read broken answers, and print every error of ours that came of one."""
    project = find_project()
    model = resolve_model(project, "smollm2-135m-instruct")
    (case,) = cases_for(project, model.name, ["system-and-user"])
    golden = load_golden(project, model, case, load_provenance(project, model))
    # What asks for more is then told as an error, with the answer that made it do so.
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    wrong, longest, busiest = 0, 0.0, 0.0
    with _watched("answers"):
        for done, read in enumerate(read_all(list(broken_answers(count, seed)), golden, model), start=1):
            for error in read.errors:
                print(f"answers: {read.name}: {error}", flush=True)
            wrong += bool(read.errors)
            longest, busiest = max(longest, read.seconds), max(busiest, read.busy)
            if read.seconds > 2 * ANSWER_SECONDS:
                print(f"answers: {read.name}: {read.seconds:.1f} s, {read.busy:.1f} s of its processor's", flush=True)
            if done % _EVERY == 0:
                print(f"answers: {done:,} of {count:,}", flush=True)
    print(f"answers: {count:,} (seed {seed}), of which {wrong} ended with an error of ours")
    print(
        f"answers: the longest exchange took {longest:.1f} s, and {busiest:.1f} s of its processor's, of "
        f"{ANSWER_SECONDS} s that it may take"
    )


def main() -> None:
    """Try them, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("templates", "answers"))
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", action="append")
    asked = parser.parse_args()
    if asked.what == "answers":
        answers(asked.count or 1500, asked.seed)
    else:
        templates(asked.count or 2000, asked.seed, asked.engine or ["transformers-template", "minijinja"])


if __name__ == "__main__":
    main()
