"""The questions of a page: read from what it sends, asked by the worker, answered in results that can be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.formulas.formula_error import FormulaError
from cnnviz.formulas.parsing import parse_formula
from cnnviz.formulas.passes import passes_at_most
from cnnviz.pages.explorer.jobs import Job, noting, reason
from cnnviz.pages.explorer.limits import METHODS, PASSES, Refused
from cnnviz.pages.explorer.offered import Subject, method_named
from cnnviz.pages.explorer.regions import covered
from cnnviz.pages.shared.texts import shown
from cnnviz.registry.registry import attributions
from cnnviz.run.dense_targets import region

SEED = 0


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that was sent, upright."""

    image: Image.Image
    name: str
    """What its file was called, which is told and never opened."""


@dataclass(frozen=True, eq=False)
class Result:
    """The answer of one method: an explanation, or why there is none."""

    method: str
    """Its name, or the formula as it was written."""
    is_formula: bool = False
    explanation: Explanation | None = None
    error: str | None = None
    warnings: Sequence[str] = ()
    name: str | None = None
    """What is explained, where the explanation calls it otherwise."""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        about: dict[str, Any] = {"method": self.method, "error": self.error, "warnings": list(self.warnings)}
        if (each := self.explanation) is None:
            return about
        probability = each.told_probability
        return about | {
            "recipe": each.recipe,
            "class": shown(self.name or each.names()[0]),
            "score": float(each.score[0]),
            "probability": None if probability is None else float(probability[0]),
            "shape": list(each.values.shape[1:]),
            "fine": each.fine,
            "low": float(each.values.min()),
            "high": float(each.values.max()),
        }


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of one model about one picture."""

    subject: Subject
    picture: Picture
    target: int | None
    """A class by number; None for the predicted one, of a network that names one for the picture."""
    layer: str | None
    """Of the methods that take one; None for the one that each chooses."""
    names: tuple[str, ...]
    """Methods of the registry."""
    formulas: tuple[str, ...]
    seed: int = SEED
    results: list[Result] = field(default_factory=list)

    @property
    def methods(self) -> tuple[str, ...]:
        """Everything that is asked, in its order."""
        return (*self.names, *self.formulas)

    @property
    def class_name(self) -> str | None:
        """Of the target, where it is a class that has a name."""
        names = self.subject.model.categories
        known = names is not None and self.target is not None and 0 <= self.target < len(names)
        return names[self.target] if known and names is not None and self.target is not None else None

    def settings_of(self, name: str) -> dict[str, Any]:
        """The settings that a method of the registry gets."""
        takes_layer = self.layer is not None and "layer" in attributions[name].settings
        return {"layer": self.layer} if takes_layer else {}

    def ask(self, job: Job) -> None:
        """Ask all methods, one after the other; a fault of one is its result. Run by the worker."""
        job.parts, job.answer = len(self.methods), self.results
        for number, name in enumerate(self.methods):
            job.begin(number, name)
            self.results.append(self._answer(job, name, number >= len(self.names)))
            kept = [_bytes(each.explanation) for each in self.results if each.explanation is not None]
            job.size = sum(kept) + self.picture.image.width * self.picture.image.height * 4

    def _answer(self, job: Job, name: str, is_formula: bool) -> Result:
        told: list[str] = []
        try:
            with noting(told):
                found = explain(
                    self.subject.model,
                    self.picture.image,
                    parse_formula(name) if is_formula else name,
                    target=region(self.target) if self.subject.regions and self.target is not None else self.target,
                    preprocess="whole" if self.subject.whole else "crop",
                    seed=self.seed,
                    progress=job.listen,
                    **({} if is_formula else self.settings_of(name)),
                )
        except (Exception, SystemExit) as error:
            return Result(name, is_formula, error=reason(error), warnings=told)
        first = next((each.explanation for each in self.results if each.explanation is not None), found)
        # one copy of the picture's pixels is enough
        found = replace(found.to("cpu"), originals=first.originals)
        return Result(name, is_formula, found, warnings=told, name=self.class_name if self.subject.regions else None)


def predicting(subject: Subject, picture: Picture, top: int = 5) -> Callable[[Job], None]:
    """The work that finds what the model sees in the picture."""

    def work(job: Job) -> None:
        job.begin(0, "the model's prediction")
        told: list[str] = []
        with noting(told):
            if subject.regions:
                classes = covered(subject.model, picture.image)
            else:
                (found,) = subject.model.predict(picture.image, top)
                classes = [
                    {"index": each.index, "score": each.score, "probability": each.probability} for each in found
                ]
        job.answer = {"classes": classes, "warnings": told}

    return work


def read_question(asked: Mapping[str, Any], subject: Subject, picture: Picture) -> Question:
    """The question of a request. Raises Refused (422) for one that can't be asked."""
    target, layer = asked.get("target"), asked.get("layer")
    names, formulas = asked.get("methods", []), asked.get("formulas", [])
    if target is not None and (type(target) is not int or not -1 <= target < (subject.model.num_classes or 2**31)):
        raise Refused(422, f"there is no class {str(target)[:20]}")
    if target is None and subject.regions:
        raise Refused(422, f"{subject.model.name} names a class for each place; choose the class that is meant")
    if layer is not None and layer not in [name for name, _ in subject.layers]:
        raise Refused(422, f"{subject.model.name} has no layer {str(layer)[:80]!r} that is a place for a map")
    if not isinstance(names, list) or not isinstance(formulas, list):
        raise Refused(422, "methods and formulas are lists of texts")
    if not names and not formulas:
        raise Refused(422, "choose a method, or write a formula")
    if len(names) + len(formulas) > METHODS:
        raise Refused(422, f"at most {METHODS} methods and formulas can be asked at once")
    try:
        for name in names:
            check_passes(method_named(name)(), name)
        for text in formulas:
            if not isinstance(text, str):
                raise TypeError("a formula is a text")
            check_passes(parse_formula(text), text)
    except Exception as error:
        raise Refused(422, reason(error)) from error
    return Question(subject, picture, target, layer, tuple(dict.fromkeys(names)), tuple(dict.fromkeys(formulas)))


def formula_told(text: str) -> dict[str, Any]:
    """What is said of a formula while it is typed: how it reads, or what is wrong and where."""
    try:
        formula = parse_formula(text)
        check_passes(formula, text)
    except FormulaError as error:
        return {"error": error.reason, "start": error.start, "stop": error.stop, "hint": error.hint}
    except Exception as error:  # of a plugin's method, which looks at its settings
        return {"error": reason(error), "start": 0, "stop": len(text), "hint": None}
    return {"recipe": repr(formula), "passes": passes_at_most(formula)}


def check_passes(formula: Any, name: str) -> None:
    """Raises ValueError for a formula that would keep the model busy for too long."""
    passes = passes_at_most(formula)
    if passes > PASSES:
        raise ValueError(
            f"{name[:80]} passes up to {passes:,} inputs through the model, more than the {PASSES:,} of the explorer; "
            "ask for fewer, or use Python"
        )


def _bytes(explanation: Explanation) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (explanation.values, explanation.inputs))
