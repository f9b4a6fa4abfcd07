"""The invariants of an engine as Hypothesis properties: prompts are made up, and what breaks one is made small."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from tempfile import TemporaryDirectory
from typing import Literal

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

from harness.checking.compare.inference import Floor
from harness.errors import UserError
from harness.llama.laboratory.invariants import LONGEST, Broken, Invariant, Trial, attempt
from harness.process.child import Child
from harness.values import Value

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many are done."""
Input = tuple[tuple[int, ...], int]
"""The ids of a prompt, and the number that picks the settings."""

_LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
"""Lengths of prompts around those of micro-batches."""
_LISTED = 24
_CHOICES = 10_000
_SHRINKS = 200
"""How many inputs are tried to make a counterexample smaller: each costs what the engine takes."""


class Tried(Value):
    """What came of an invariant.

    Attributes:
        invariant: Its name.
        sentence: What must hold.
        status: `broken`; `holds` on every input that could be judged; `unjudged` where none could.
        inputs: How many were judged.
        exact: How many rows of logits were found bit-identical where they must be.
        share: Of the other comparisons, the largest share of the limit that one took.
        broken: What is broken.
        ids: The smallest prompt found that breaks it.
        choice: The number that picks the settings which break it.
        command: What tries this input again.
    """

    invariant: str
    sentence: str
    status: Literal["holds", "broken", "unjudged"]
    inputs: int
    exact: int
    share: float
    broken: Broken | None = None
    ids: tuple[int, ...] = ()
    choice: int = 0
    command: str = ""


def prompts(n_vocab: int, control: Sequence[int], shortest: int = 1) -> SearchStrategy[tuple[int, ...]]:
    """Return a strategy for prompts of any ids and control tokens: short ones, and ones around a batch's end.

    Args:
        n_vocab: The number of ids.
        control: The control tokens.
        shortest: The fewest ids of a prompt.
    """
    token = st.integers(0, n_vocab - 1)
    if control:
        token = st.one_of(token, st.sampled_from(sorted(control)))
    listed = st.lists(token, min_size=shortest, max_size=max(_LISTED, shortest))
    length = st.sampled_from([n for n in _LENGTHS if n >= shortest])
    at_boundary = length.flatmap(lambda n: st.lists(token, min_size=n, max_size=n))
    repeated = st.builds(lambda ids, n: islice(cycle(ids), n), st.lists(token, min_size=1, max_size=4), length)
    return st.one_of(listed, repeated, at_boundary).map(tuple)


def fuzz(
    child: Child,
    invariants: Sequence[Invariant],
    floor: Floor | None,
    *,
    examples: int,
    number: int,
    call: Sequence[str],
    progress: Progress = lambda *_: None,
) -> Iterator[Tried]:
    """Try invariants on made-up prompts.

    Args:
        child: The engine's process; see `harness.llama.laboratory.invariants.open_engine`.
        invariants: Which.
        floor: How far apart two healthy runs may be where they cannot be bit-identical; None leaves these unjudged.
        examples: How many inputs for each.
        number: The seed; the same one makes the same inputs.
        call: The command line that a finding's command begins with.
        progress: Told the invariant, and how many of its inputs are done.

    Raises:
        StageFailedError: the engine does not start.
        RemoteError: a defect of ours.
    """
    child.start()
    facts = child.call("facts")
    for invariant in invariants:
        made = prompts(facts["n_vocab"], facts["control"], invariant.shortest)
        inputs = st.tuples(made, st.integers(0, _CHOICES - 1))
        wanted = 1 if invariant.slow else examples
        search = _Search(child, invariant, floor, partial(progress, invariant.name), wanted)
        found = search.run(inputs, number)
        yield search.tried(found, call)


def try_input(
    child: Child, invariants: Sequence[Invariant], floor: Floor | None, found: Input, call: Sequence[str]
) -> Iterator[Tried]:
    """Try invariants on one input, as a finding's command does.

    Raises:
        UserError: the model has no such id, or the prompt is too long.
        StageFailedError: the engine does not start.
        RemoteError: a defect of ours.
    """
    child.start()
    n_vocab = child.call("facts")["n_vocab"]
    if max(found[0]) >= n_vocab or len(found[0]) > LONGEST:
        raise UserError(f"the prompt must have at most {LONGEST} ids, each below {n_vocab}")
    for invariant in invariants:
        search = _Search(child, invariant, floor, lambda *_: None, 1)
        yield search.tried(found if search.breaks(found) else None, call)


class _BrokenError(Exception):
    """Tells Hypothesis that an input breaks the property."""


class _Search:
    """The search for an input that breaks one invariant.

    What an input did is remembered, so that Hypothesis sees it do the same again, and so that the search can be ended
    by letting every further input pass.
    """

    def __init__(
        self,
        child: Child,
        invariant: Invariant,
        floor: Floor | None,
        progress: Callable[[int, int], None],
        examples: int,
    ) -> None:
        self._child = child
        self._invariant = invariant
        self._floor = floor
        self._progress = progress
        self._examples = examples
        self._trials: dict[Input, Trial] = {}
        self._left = _SHRINKS

    def run(self, inputs: SearchStrategy[Input], number: int) -> Input | None:
        """Return the smallest input found that breaks the invariant."""
        smallest: Input | None = None

        @seed(number)
        @settings(
            max_examples=self._examples,
            phases=(Phase.generate, Phase.shrink),
            database=None,
            deadline=None,
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def holds(found: Input) -> None:
            nonlocal smallest
            if self.breaks(found):
                smallest = found
                raise _BrokenError

        # Hypothesis would leave a folder with notes where the program runs.
        with TemporaryDirectory() as folder:
            set_hypothesis_home_dir(folder)
            try:
                holds()
            except _BrokenError:
                return smallest
            finally:
                set_hypothesis_home_dir(None)
        return None

    def breaks(self, found: Input) -> bool:
        """Return whether an input breaks the invariant; of one that it is too late to try, that it does not."""
        if found not in self._trials:
            if self._left == 0:
                return False
            trial = attempt(self._child, self._invariant.name, *found)
            self._trials[found] = trial
            self._progress(len(self._trials), self._examples)
            if any(self._broken(one) for one in self._trials.values()):
                # A hang costs its whole time limit each time.
                self._left = 0 if trial.failure is not None and trial.failure.reason == "hang" else self._left - 1
        return self._broken(self._trials[found]) is not None

    def tried(self, found: Input | None, call: Sequence[str]) -> Tried:
        """Return what came of it, given the input that breaks it."""
        judged = [trial for trial in self._trials.values() if trial.judged(self._floor)]
        seen = [one for trial in judged for one in trial.seen]
        result = Tried(
            invariant=self._invariant.name,
            sentence=self._invariant.sentence,
            status="holds" if judged else "unjudged",
            inputs=len(judged),
            exact=sum(one.positions for one in seen if one.rule == "exact" and not one.wrong),
            share=max((one.share(self._floor) for one in seen), default=0.0),
        )
        if found is None:
            return result
        ids, choice = found
        words = [*call, "--only", self._invariant.name, "--ids", " ".join(map(str, ids)), "--choice", str(choice)]
        broken = self._broken(self._trials[found])
        update = {"status": "broken", "broken": broken, "ids": ids, "choice": choice, "command": shlex.join(words)}
        return result.model_copy(update=update)

    def _broken(self, trial: Trial) -> Broken | None:
        return trial.broken(self._floor)
