"""The pytest plugin: a second thin runner over the same functions as the command line.

Installed with the package, it costs nothing until asked: everything of the house is imported where it is used.

    pytest --stack llama-cpp-python        one item a case and stage, so -k, JUnit and xdist work as usual
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from harness.checking.opened import Session
    from harness.checking.trace import Trace
    from harness.checking.verdict import Verdict
    from harness.errors import UserError
    from harness.explain.pipeline import Pipeline
    from harness.project.golden import Golden
    from harness.stage import Stage
    from harness.values import ModelRef, OwnError


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the group `harness`."""
    group = parser.getgroup("harness", "stages of a local LLM stack, held against goldens")
    group.addoption("--stack", action="append", default=[], metavar="NAME", help="check this stack; may be repeated")
    group.addoption("--stack-model", action="append", default=[], metavar="NAME", help="only around this model")
    group.addoption("--stack-golden", default=None, metavar="MODEL", help="hold it against this model's goldens")
    group.addoption(
        "--stack-project", type=Path, default=None, metavar="DIR", help="the folder with stacks/ and golden/ in it"
    )
    group.addoption(
        "--golden-update",
        choices=("new", "changed"),
        default=None,
        help="before the run, write missing goldens (new), or also those that changed (changed)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare for stacks only where some are asked for."""
    if config.getoption("--stack"):
        config.stash[_RUNNER] = _Runner(config)
        config.pluginmanager.register(config.stash[_RUNNER], "harness-runner")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End every engine."""
    runner = config.stash.get(_RUNNER, None)
    if runner is not None:
        runner.close()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Update goldens, once, before anything is collected."""
    config = session.config
    kind = config.getoption("--golden-update")
    is_worker = hasattr(config, "workerinput")
    if kind is not None and not is_worker:
        if _RUNNER not in config.stash:
            raise pytest.UsageError("--golden-update needs --stack")
        config.stash[_RUNNER].update(kind)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the items of the stacks before others select among all items."""
    runner = config.stash.get(_RUNNER, None)
    if runner is not None:
        items.extend(runner.items(session))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which model files are served that are not the golden's, also where every stage is right."""
    if _RUNNER not in config.stash:
        return
    from harness.explain.served import SERVED

    reports = [report for some in terminalreporter.stats.values() for report in some]
    told = [value for one in reports for name, value in getattr(one, "user_properties", ()) if name == SERVED]
    for note in dict.fromkeys(told):
        terminalreporter.write_line(note, yellow=True)


class _Runner:
    """The sessions that are open, by stack and model, and the verdicts so far."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._opened = ExitStack()
        self._erred = False
        self._absent = False
        self._sessions: dict[tuple[str, str], Session] = {}
        self._verdicts: dict[tuple[str, str, str], Verdict] = {}
        self._judging: Pipeline | None = None

    def pairs(self) -> list[tuple[str, str]]:
        """Return every stack and model that is asked for."""
        from harness.project.stack import load_stack

        wanted = self._config.getoption("--stack-model")
        with _usage_errors():
            return [
                (name, model)
                for name in self._config.getoption("--stack")
                for model in load_stack(self._project(), name).models
                if not wanted or model in wanted
            ]

    def items(self, session: pytest.Session) -> Iterator[pytest.Item]:
        """Yield one item a case and stage that the goldens have something to say of, and one of the load stage."""
        from harness.project.cases import cases_for
        from harness.project.golden import load_golden, load_provenance
        from harness.stage import Stage

        with _usage_errors():
            for stack, name in self.pairs():
                model = self._golden_model(name)
                provenance = load_provenance(self._project(), model)
                node = _Node.from_parent(session, name=stack, nodeid=f"stack::{stack}::{name}")
                for case in cases_for(self._project(), model.name):
                    golden = load_golden(self._project(), model, case, provenance)
                    for stage in Stage:
                        if golden.value(stage) is not None:
                            yield StageItem.from_parent(
                                node, name=f"{case.name}-{stage}", pair=(stack, name), case=case.name, stage=stage
                            )
                yield LoadItem.from_parent(node, name=_LOAD, pair=(stack, name))

    def session(self, pair: tuple[str, str]) -> Session:
        """Return the open session of a stack and model; it stays open until the end."""
        from harness.checking.opened import open_session, purpose_of
        from harness.project.stack import load_stack, resolve_model

        if pair not in self._sessions:
            stack, model = pair
            project = self._project()
            around = resolve_model(project, model)
            purpose = purpose_of(self._config.getoption("--stack-golden"))
            held = self._golden_model(model)
            opened = open_session(
                project,
                load_stack(project, stack),
                held,
                around=around,
                purpose=purpose,
                replying=self._pipeline().replying(held),
            )
            self._sessions[pair] = self._opened.enter_context(opened)
        return self._sessions[pair]

    def verdict(self, pair: tuple[str, str], case: str, among: Collection[str]) -> Verdict:
        """Return the verdict on a case, which is run once, however many of its stages are asked for.

        Args:
            pair: Stack and model.
            case: The case.
            among: All cases of this stack and model that this run asks for.
        """
        key = (*pair, case)
        if key not in self._verdicts:
            session = self.session(pair)
            self._verdicts[key] = self._pipeline().verdict(session, session.results(case), among=among)
        return self._verdicts[key]

    def _pipeline(self) -> Pipeline:
        from harness.explain.pipeline import Pipeline

        if self._judging is None:
            self._judging = self._opened.enter_context(Pipeline(self._project()))
        return self._judging

    def _golden_model(self, model: str) -> ModelRef:
        """Return the model whose goldens another one is held against: its own, unless told otherwise."""
        from harness.project.stack import declared_model, resolve_model

        golden = self._config.getoption("--stack-golden")
        return resolve_model(self._project(), model) if golden is None else declared_model(self._project(), golden)

    def update(self, kind: str) -> None:
        """Record the goldens of every model asked for."""
        from harness.project.stack import resolve_model
        from harness.reference.record import Change, Recording

        approved = {Change.NEW} if kind == "new" else {Change.NEW, Change.CHANGED}
        with _usage_errors():
            for model in dict.fromkeys(model for _, model in self.pairs()):
                for _ in Recording(self._project(), resolve_model(self._project(), model), frozenset(approved)).run():
                    pass

    def close(self) -> None:
        """End every engine."""
        self._opened.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an error of our own, and a server that does not run, in whichever process it was."""
        self._erred |= report.failed and any(tuple(one) == _OF_OURS for one in report.user_properties)
        self._absent |= any(tuple(one) == _NOT_RUNNING for one in report.user_properties)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """End with the command line's status, where pytest has none: of an error of ours, of what was not judged."""
        if self._erred and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = _OWN_ERROR
        elif self._absent and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = _UNJUDGED

    def _project(self) -> Any:
        from harness.project.project import find_project

        return find_project(self._config.getoption("--stack-project"))


class _usage_errors:  # noqa: N801 - reads as a statement
    """Turns what the user can mend into pytest's own usage error."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: Any) -> None:
        from harness.errors import UserError

        if isinstance(error, UserError):
            raise pytest.UsageError(str(error)) from None


class _Node(pytest.Collector):
    """Stands for a stack around a model in the items' names."""

    def collect(self) -> list[pytest.Item]:
        """Nothing is collected here: the items are made with the node."""
        return []


class StageFailure(Exception):  # noqa: N818 - what pytest shows is a failure, not an error of ours
    """A stage of a case that is at fault."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class StageItem(pytest.Item):
    """One stage of one case."""

    def __init__(self, *, pair: tuple[str, str], case: str, stage: Stage, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.pair = pair
        self.case = case
        self._stage = stage
        self._judged: Verdict | UserError | None = None

    def setup(self) -> None:
        """Run the case, unless it was. Where code of ours raises, pytest counts an error, no failure of the stage."""
        from harness.checking.own import own_error
        from harness.errors import UserError

        runner = self.config.stash[_RUNNER]
        among = {item.case for item in self.session.items if isinstance(item, StageItem) and item.pair == self.pair}
        try:
            self._judged = runner.verdict(self.pair, self.case, among)
        except UserError as error:
            self._judged = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it speaks against no stage
            _end_with(self, [own_error(error)])
        else:
            errors = [told.error for told in self._judged.errors if told.stage is self._stage]
            if errors:
                _end_with(self, errors)

    def runtest(self) -> None:
        """Judge this stage.

        Raises:
            StageFailure: the stage is at fault.
        """
        from harness.errors import NotRunningError, UserError
        from harness.explain.served import SERVED
        from harness.report.console import finding_text

        verdict = self._judged
        if isinstance(verdict, NotRunningError):
            self.user_properties.append(_NOT_RUNNING)
            pytest.skip(f"unobserved: {verdict}")
        if isinstance(verdict, UserError):
            raise verdict
        assert verdict is not None
        result = next(result for result in verdict.results if result.stage is self._stage)
        self.user_properties.append(("outcome", str(result.isolated.outcome)))
        if result.isolated.rule:
            self.user_properties.append(("rule", result.isolated.rule))
        self.user_properties += [(SERVED, note) for note in verdict.notes if note.startswith(SERVED)]
        # What no case shows is told once, by an item of its own.
        own = [finding for finding in verdict.findings if finding.stage is self._stage]
        findings = [finding for finding in own if finding.cases or finding.evidence != _LOAD]
        if findings:
            raise StageFailure("\n".join(finding_text(finding) for finding in findings))
        said = verdict.stages[self._stage]
        if said.status == "unobserved":
            pytest.skip(f"unobserved: {said.why}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the finding, not our own code."""
        return _shown_failure(excinfo) or super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the item's name for the report."""
        return self.path, None, self.nodeid


class LoadItem(pytest.Item):
    """What was declared of how a model is loaded, against what is in force."""

    def __init__(self, *, pair: tuple[str, str], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.pair = pair

    def runtest(self) -> None:
        """Judge the rows of the load stage.

        Raises:
            StageFailure: something else is in force than was declared.
        """
        from harness.checking.load.verdict import findings_of
        from harness.errors import NotRunningError
        from harness.report.console import finding_text

        try:
            rows = self.config.stash[_RUNNER].session(self.pair).load
        except NotRunningError as error:
            self.user_properties.append(_NOT_RUNNING)
            pytest.skip(f"unobserved: {error}")
        errors = [row.error for row in rows if row.error is not None]
        if errors:
            _end_with(self, errors)
        findings = findings_of(rows)
        if findings:
            raise StageFailure("\n".join(finding_text(finding) for finding in findings))
        if all(row.found == "" for row in rows):
            pytest.skip(f"unobserved: {'; '.join(row.why for row in rows)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the finding, not our own code."""
        return _shown_failure(excinfo) or super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the item's name for the report."""
        return self.path, None, self.nodeid


def _end_with(item: pytest.Item, errors: Sequence[OwnError]) -> NoReturn:
    """End an item with errors of our own: one line, with where the full report is."""
    from harness.report.own import line_of, write_own_report

    item.user_properties.append(_OF_OURS)
    path = write_own_report(" ".join(("pytest", *map(str, item.config.invocation_params.args))), errors)
    pytest.fail(f"harness: {line_of(errors, path)}", pytrace=False)


def _shown_failure(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    return excinfo.value.text if isinstance(excinfo.value, StageFailure) else ""


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Session:
    """The session of the first stack and model asked for by --stack and --stack-model."""
    runner = request.config.stash.get(_RUNNER, None)
    if runner is None:
        raise pytest.UsageError("the fixtures stack, trace and golden need --stack NAME")
    return runner.session(runner.pairs()[0])


@pytest.fixture
def trace(stack: Session) -> Callable[[str], Trace]:
    """A function that runs a case of the stack and returns its trace."""
    return stack.trace


@pytest.fixture
def golden(stack: Session) -> Callable[[str], Golden]:
    """A function that returns the golden of a case."""
    return lambda case: stack.goldens[case]


_RUNNER = pytest.StashKey[_Runner]()
_LOAD = "load"
_OF_OURS = ("outcome", "error")
"""The property of an item whose stage was not judged for an error of ours."""
_NOT_RUNNING = ("outcome", "not running")
"""The property of an item whose stack's server does not run."""
_UNJUDGED = 3
_OWN_ERROR = 4
"""The statuses of such runs, as the command line's."""
