"""From results to the explained verdict: the one way that every runner goes.

The check, the pytest plugin, the demonstration and the bench of `harness attribute` judge by the same calls in the same
order, so what is published of one is true of all:

1. every stage of every case is held against its golden (`Judge`),
2. the stages at fault are convicted, and what shows only in the chain is run again (`convict`),
3. a wrong file is told from a wrong part (`artifact`),
4. the nodes of the engine are held: where its first wrong number is, or that none is (`locate`),
5. known defects are named that give exactly what was observed (`hints`),
6. what was declared of how the model is loaded is held against what is in force (`checking/load/`): once a session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.checking.judge import StageResult
from harness.checking.load.verdict import with_load
from harness.checking.opened import Checked, Progress, Session, identities, open_session, purpose_of
from harness.checking.trace import Trace, save_trace
from harness.checking.verdict import Verdict
from harness.explain.artifact import Inspector, Reopen, reopening
from harness.explain.locate import Locator, longest_prompt
from harness.explain.own_ids import OwnIds
from harness.project.cases import cases_for
from harness.project.golden import Golden
from harness.project.project import Project
from harness.project.stack import Stack, declared_model, missing_distribution, resolve_model

_WITHOUT_HINTS = "known defects were not looked for: that needs tokenizers (pip install 'llm-stack-harness[reference]')"


class Pipeline:
    """Gives explained verdicts. What is dear to make, as the references over a file, is made once for all of them.

    Args:
        project: Where the goldens are.
        strict: Whether any file that is not the golden's is convicted, whatever it differs in.
    """

    def __init__(self, project: Project, *, strict: bool = False) -> None:
        self._inspector = Inspector(project, strict=strict)
        self._locator = Locator(project)
        self._own_ids = OwnIds()
        self.replying = self._own_ids.replying

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End what the references have started."""
        self._inspector.close()
        self._own_ids.close()

    def verdict(
        self,
        session: Session,
        results: Sequence[StageResult],
        reopen: Reopen | None = None,
        among: Collection[str] = (),
    ) -> Verdict:
        """Return the explained verdict on results.

        Args:
            session: The stack that they are of, still open.
            results: Every stage of the cases that were run.
            reopen: Opens the same stack around another file; the stack as it is defined, where none is given.
            among: The cases of the whole run, where these are a part of them. The nodes of an engine that seems right
                are held for one prompt a run, the longest, so that is done with the part that has it.

        Raises:
            UserError: the goldens' folder is damaged.
        """
        goldens = {case: session.goldens[case] for case in dict.fromkeys(result.case for result in results)}
        whole = {case: session.goldens[case] for case in among} or goldens
        running = session.running
        verdict = session.verdict(results)
        verdict = self._inspector.verdict(verdict, running, goldens, reopen or reopening(running.stack))
        verdict = self._locator.verdict(verdict, running, goldens, elsewhere=longest_prompt(whole) not in goldens)
        return with_load(_hinted(verdict, session, goldens), session.load)


def _hinted(verdict: Verdict, session: Session, goldens: Mapping[str, Golden]) -> Verdict:
    if not verdict.findings:
        return verdict
    if missing_distribution("tokenizers"):
        return verdict.model_copy(update={"notes": (*verdict.notes, _WITHOUT_HINTS)})
    # It stands on the reference, which is an extra.
    from harness.explain.hints import with_hints

    return with_hints(verdict, session.running, goldens)


def check(
    project: Project,
    stack: Stack,
    cases: Sequence[str] = (),
    models: Sequence[str] = (),
    progress: Progress = lambda *_: None,
    save: Path | None = None,
) -> Iterator[Verdict]:
    """Hold a stack against its goldens; one verdict a model. Takes and raises what `checked` does."""
    for one in checked(project, stack, cases, models, progress, save):
        yield one.verdict


def checked(
    project: Project,
    stack: Stack,
    cases: Sequence[str] = (),
    models: Sequence[str] = (),
    progress: Progress = lambda *_: None,
    save: Path | None = None,
    *,
    keep: bool = False,
    golden: str | None = None,
    strict: bool = False,
) -> Iterator[Checked]:
    """Hold a stack against its goldens; one explained verdict a model, with what it rests on.

    Args:
        project: Where stacks and goldens are.
        stack: The stack.
        cases: Names; empty means all.
        models: Names; empty means all that the stack names.
        progress: Told of every case.
        save: A folder to keep every trace in, as `<stack>/<model>/<case>.*`.
        keep: Keep every trace in memory, for a report.
        golden: The model whose goldens and noise it is held against on purpose; None means each model's own.
        strict: Convict any file that is not the golden's.

    Raises:
        UserError: something named does not exist, is broken, or does not belong together.
    """
    with closing(Pipeline(project, strict=strict)) as pipeline:
        for name in models or stack.models:
            model = resolve_model(project, name)
            held = model if golden is None else declared_model(project, golden)
            wanted = [case.name for case in cases_for(project, held.name, cases)]
            if cases and not wanted:
                continue
            with open_session(
                project,
                stack,
                held,
                wanted,
                around=model,
                purpose=purpose_of(golden),
                replying=pipeline.replying(held),
            ) as session:
                results: list[StageResult] = []
                traces: dict[str, Trace] = {}
                for done, case in enumerate(session.goldens):
                    progress(f"{stack.name} {name} {case}", done, len(session.goldens))
                    trace = session.trace(case)
                    if save is not None:
                        save_trace(trace, save / stack.name / name)
                    if keep:
                        traces[case] = trace
                    results.extend(session.judge.case(session.goldens[case], trace))
                floor = session.judge.floor
                yield Checked(
                    verdict=pipeline.verdict(session, results),
                    goldens=session.goldens,
                    traces=traces,
                    limit=None if floor is None else floor.limit,
                    parts=identities(session.running),
                )
