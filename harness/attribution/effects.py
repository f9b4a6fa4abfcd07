"""What an integration defect costs at fixed weights: how far the engine is from what it says on the right prompt.

`python -m harness.attribution.effects --out FILE` measures every defect of the catalogue that reaches the engine
through the prompt's ids, the scale of quantization, and healthy settings, in nats. What the file holds already is not
measured again.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.attribution.held import ENGINE, Engine, Held, engine, held
from harness.attribution.plan import cost_of, plan_of
from harness.attribution.scale import scale_of, settings_of
from harness.attribution.study import Effect, Study, load, save
from harness.defects.catalogue import catalogue
from harness.defects.defect import Defect
from harness.defects.reference import BEFORE_IDS, HurtReference
from harness.errors import UserError
from harness.project.cases import cases_for
from harness.project.golden import Golden, load_golden, load_provenance
from harness.project.project import Project, find_project
from harness.project.stack import load_stack, resolve_model
from harness.stage import StageFailedError, StageRefusedError
from harness.values import Generation, ModelRef, Prompt

CASES = 12
"""Cases that the scale and the settings are measured on: those that cover most for what they cost."""
STRUCK = 8
"""Cases that a defect is measured on, at most: the cheapest of those whose ids it changes."""


class Subject:
    """One model's cases, what an engine says on their golden ids, and what was measured of other ids.

    Args:
        model: The model.
        goldens: By case.
        opened: The engine.
        reference: The reference around the model.
    """

    def __init__(
        self, model: ModelRef, goldens: Mapping[str, Golden], opened: Engine, reference: HurtReference
    ) -> None:
        self._model = model
        self._goldens = goldens
        self._opened = opened
        self._reference = reference
        self._clean: dict[str, Generation] = {}
        self._known: dict[tuple[str, tuple[int, ...]], Held | None] = {}

    def effect_of(self, defect: Defect) -> Effect:
        """Return what a defect does.

        Raises:
            UserError: something that the reference needs is not installed.
        """
        made = {case: self._reference.prompt_ids(defect, golden) for case, golden in self._goldens.items()}
        other = {case: ids for case, ids in made.items() if ids != self._right(case)}
        lost = [case for case, ids in other.items() if ids is None]
        fed = [(case, ids) for case, ids in other.items() if ids is not None]
        cases = []
        for case, ids in sorted(fed, key=lambda one: cost_of(self._goldens[one[0]]))[:STRUCK]:
            found = self.held(case, ids)
            if found is None:
                lost.append(case)
            else:
                cases.append(found)
        return Effect(
            id=defect.id,
            stage=defect.stage,
            place=defect.place.value,
            model=self._model.name,
            cases=tuple(cases),
            struck=len(other),
            of=len(made),
            lost=tuple(lost),
        )

    def held(self, case: str, ids: tuple[int, ...]) -> Held | None:
        """Hold what the engine says after other ids against what it says after the golden's; None if it refuses them.

        Many defects make the same ids of a case: they are fed once.
        """
        if (case, ids) not in self._known:
            try:
                self._known[case, ids] = self._held(case, ids)
            except (StageRefusedError, StageFailedError):
                self._known[case, ids] = None
        return self._known[case, ids]

    def _held(self, case: str, ids: tuple[int, ...]) -> Held:
        golden = self._goldens[case]
        assert isinstance(golden.generation, Generation)
        if case not in self._clean:
            self._clean[case] = self._opened.forced(golden, self._right(case))
        clean = self._clean[case]
        assert clean.distributions is not None
        found = held(case, golden.generation, clean, self._opened.forced(golden, ids))
        if golden.generation.finish != "end_token" or clean.distributions.argmax() != golden.generation.ids:
            return found
        # The clean engine's own answer ends here. Where every choice is the same one, so does the other's.
        same = not found.turned and len(found.kl) == len(golden.generation.ids)
        return found.model_copy(update={"answer": "ends" if same else self._opened.answer(ids)})

    def _right(self, case: str) -> tuple[int, ...]:
        tokens = self._goldens[case].tokens
        assert tokens is not None
        return tokens.ids


def measure(project: Project, out: Path, only: str = "*", progress: Callable[[str], None] = lambda _: None) -> Study:
    """Measure what is not in a file yet, and write it there after every defect.

    Args:
        project: Where stacks and goldens are.
        out: The file.
        only: A pattern of ids; where it leaves any out, those that it names are measured anew.
        progress: Told of everything that is measured.

    Raises:
        UserError: the file is of another engine or other cases, something named does not exist, or nothing can be
            rendered as a package is missing.
    """
    models = {name: resolve_model(project, name) for name in load_stack(project, ENGINE).models}
    goldens = {name: goldens_of(project, model) for name, model in models.items()}
    first, *_ = models
    with engine(project, models[first]) as opened:
        begun = Study(engine=dict(opened.part.identity()), cases={name: tuple(one) for name, one in goldens.items()})
        study = _resumed(begun, out)
        around = {one.id: _model_of(one, tuple(models)) for one in catalogue().values() if one.place in BEFORE_IDS}
        wanted = [catalogue()[name] for name, model in around.items() if model is not None]
        known = {one.id: one for one in study.effects if only == "*" or not fnmatch.fnmatch(one.id, only)}
        todo = [one for one in wanted if one.id not in known and fnmatch.fnmatch(one.id, only)]
        for name, model in models.items():
            own = [one for one in todo if around[one.id] == name]
            if not own:
                continue
            with HurtReference(model) as reference:
                subject = Subject(model, goldens[name], opened, reference)
                for defect in own:
                    progress(f"{len(known) + 1} of {len(wanted)}: {defect.id}")
                    known[defect.id] = subject.effect_of(defect)
                    effects = tuple(known[one.id] for one in wanted if one.id in known)
                    study = study.model_copy(update={"effects": effects})
                    save(study, out)
    chosen = {name: goldens[first][name] for name in plan_of(goldens[first], CASES).deep}
    if not study.scale:
        study = study.model_copy(update={"scale": scale_of(project, models[first], chosen, progress)})
        save(study, out)
    if not study.settings:
        study = study.model_copy(update={"settings": settings_of(project, models[first], chosen, progress)})
        save(study, out)
    return study


def _model_of(defect: Defect, models: tuple[str, ...]) -> str | None:
    """Return the model that a defect is measured around; None for one that shows around others only."""
    return next((one for one in defect.models if one in models), None) if defect.models else models[0]


def goldens_of(project: Project, model: ModelRef) -> dict[str, Golden]:
    """Return the cases that are looked at: the answer is the model's own, and the caller spells no control token.

    Of a text that spells one, the ids depend on more than the text. A model whose answers are all scripted is held at
    the positions of the scripts.
    """
    provenance = load_provenance(project, model)
    loaded = {one.name: load_golden(project, model, one, provenance) for one in cases_for(project, model.name)}
    usable = {
        name: golden
        for name, golden in loaded.items()
        if isinstance(golden.prompt, Prompt)
        and not golden.prompt.literals
        and isinstance(golden.generation, Generation)
    }
    own = {name: golden for name, golden in usable.items() if golden.case.options.script is None}
    return own or usable


def _resumed(begun: Study, out: Path) -> Study:
    if not out.exists():
        return begun
    found = load(out)
    if found.model_copy(update={"effects": (), "scale": (), "settings": ()}) != begun:
        raise UserError(f"{out} was measured on another engine, or on other cases", "name another file: --out FILE")
    return found


def main() -> None:
    """Measure, and say on standard error how far it is."""
    parser = argparse.ArgumentParser(prog="python -m harness.attribution.effects", description=measure.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the file of the results; it is gone on with")
    parser.add_argument("--only", default="*", help="a pattern of the defects' ids, to measure these anew")
    given = parser.parse_args()
    try:
        measure(find_project(), given.out, given.only, _say)
    except UserError as error:
        sys.exit(f"{error.message}\n{error.remedy}".strip())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
