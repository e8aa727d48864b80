"""Makes a report of explanations that are there, and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnviz.engine.loans import borrows
from cnnviz.explanations.evaluate import asked_again
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.explanation_set import ExplanationList, Explanations
from cnnviz.explanations.joint import JointExplanation
from cnnviz.images.reading import one_line
from cnnviz.images.writing import write
from cnnviz.pages.report.content import Answers, Content
from cnnviz.pages.report.depth import deeper_maps
from cnnviz.pages.report.made import Made
from cnnviz.pages.report.page import page
from cnnviz.pages.report.verdict import verdicts

SUFFIXES = (".html", ".htm")
MOST_PICTURES = 100
NO_VERDICT = "The sanity checks of the methods were not asked for."
NO_MODEL = "The sanity checks of the methods were not asked: they need the model. Give it: report(path, model=model)."


def write_report(
    explanations: Explanations[Any] | ExplanationList,
    path: str | Path,
    *,
    model: Any = None,
    verdict: bool = True,
    depth: bool | Sequence[Any] = True,
    title: str = "",
) -> Path:
    """As :meth:`cnnviz.explanations.Explanations.report`."""
    path = check_report(Path(path))
    answers = answers_of(explanations)
    count = len(next(iter(answers.values()))[0])
    check_count(count)
    if depth and not isinstance(depth, bool) and model is None:
        raise ValueError("depth names layers for more maps, which need the model; give it: report(path, model=model)")
    layers = None if isinstance(depth, bool) else [depth] if isinstance(depth, str | nn.Module) else list(depth)
    if model is not None:
        _check_gave(model, next(iter(answers.values()))[0])
    deeper = deeper_maps(model, answers, layers) if model is not None and depth is not False else {}
    content = Content()
    content.add(answers, names_of(next(iter(answers.values()))[0]), deeper)
    found = verdicts(model, answers) if verdict and model is not None else None
    unasked = "" if found is not None else NO_MODEL if verdict else NO_VERDICT
    write(path, page(content, Made.by(model), title, found, unasked).encode())
    return path


def check_report(path: Path) -> Path:
    """Raises ValueError for a file that can be no report."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} has no suffix of a report; use .html")
    return path


def check_count(pictures: int) -> None:
    """Raises ValueError for more pictures than a page can show."""
    if pictures > MOST_PICTURES:
        raise ValueError(
            f"a report shows at most {MOST_PICTURES} pictures, and there are {pictures}; choose some of them, "
            "or explain all with cnnviz batch and read cnnviz audit"
        )
    if not pictures:
        raise ValueError("there are no pictures to report of; explain at least one")


def answers_of(explanations: Mapping[str, Any] | ExplanationList) -> Answers:
    """By method the explanations for each class. Raises ValueError for those of several inputs of a model."""
    if not explanations:
        raise ValueError("there are no explanations to report of; explain with at least one method")
    if isinstance(explanations, list):
        explanations = {explanations[0].recipe.partition("(")[0]: explanations}
    answers: dict[str, list[Explanation]] = {}
    for method, each in explanations.items():
        parts = [each] if isinstance(each, Explanation) else list(each)
        if isinstance(each, JointExplanation) or not all(isinstance(part, Explanation) for part in parts):
            raise ValueError(
                f"{method} explains several inputs of the model together, and a report shows one; give the "
                "explanations of one input: Explanations({name: each[0] for name, each in explanations.items()})"
            )
        answers[method] = parts
    _check_alike(answers)
    return answers


@borrows
def _check_gave(model: Any, first: Explanation) -> None:
    """Raises ValueError for a model that gives these inputs other scores, or that needs more than these inputs.

    What it would say on the page, of checks and layers, would be of another question than that of the maps.
    """
    if first.target is None:
        return  # checks and layers are of classes alone
    try:
        with torch.inference_mode(False), torch.no_grad():
            asked_again(first, model)
    except Exception as error:
        raise ValueError(
            f"the model can't be asked again about these maps: {one_line(error)}; report(path) without model makes "
            "the page without checks and further layers"
        ) from error


def _check_alike(answers: Answers) -> None:
    """Raises ValueError unless all methods explain the same inputs and classes."""
    first = next(iter(answers.values()))
    for method, each in answers.items():
        alike = len(each) == len(first) and all(
            len(one) == len(other) and one.inputs.shape == other.inputs.shape and one.names() == other.names()
            for one, other in zip(each, first, strict=True)
        )
        if not alike:
            raise ValueError(
                f"{method} explains other inputs or classes than {next(iter(answers))}; a report shows all methods on "
                "the same ones: explain them in one call"
            )


def names_of(explanation: Explanation) -> list[str]:
    """A name for each input: that of its file, with the folder where two have one name."""
    originals = explanation.originals or (None,) * len(explanation)
    paths = [
        Path(each.path) if each is not None and each.path else Path(f"input {number}")
        for number, each in enumerate(originals, 1)
    ]
    return file_names(paths)


def file_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, with the folder where two have one name."""
    names = [path.name for path in paths]
    return [
        f"{path.parent.name}/{name}" if names.count(name) > 1 and path.parent.name else name
        for path, name in zip(paths, names, strict=True)
    ]
