"""What the sanity checks say of the methods, on the model of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cnnviz.explanations.explanation import Explanation
from cnnviz.pages.report.content import Answers
from cnnviz.pages.shared.texts import counted, short_number
from cnnviz.testing.sanity.on_model import ModelVerdict, check_on_model
from cnnviz.testing.sanity.reasons import ANY, reason

MOST = 6
"""Pictures that the checks are asked on: as many as a verdict needs."""
LAYERS = {"output": "the output layer", "quarter": "the quarter of layers next to it", "all": "all layers"}


def verdicts(
    model: Any, answers: Answers, told: Callable[[int, int], None] = lambda done, total: None
) -> Mapping[str, tuple[str, ...]]:
    """For each method the sentences of its checks, on the first pictures of these and their first class.

    ``told`` is called with how many methods are checked, and how many there are. A method that can't be checked, such
    as one of a black box, has a sentence that says why.
    """
    found: dict[str, tuple[str, ...]] = {}
    told(0, len(answers))
    for number, (method, of_classes) in enumerate(answers.items(), 1):
        found[method] = _checked(model, of_classes[0][:MOST])
        told(number, len(answers))
    return found


def _checked(model: Any, first: Explanation) -> tuple[str, ...]:
    if first.attribution is None:
        return ("Not checked: the explanation was read from a file, which keeps no method.",)
    if first.target is None:
        return ("Not checked: the checks ask about classes, and another target is explained here.",)
    try:
        verdict = check_on_model(
            model,
            first.inputs,
            first.attribution,
            target=first.target,
            preprocessing=first.preprocessing,
            seed=first.options.seed,
        )
    except ANY as error:  # the maps are computed, and are not lost for it
        return (f"Not checked: {reason(error)}.",)
    return tuple(_sentences(verdict))


def _sentences(verdict: ModelVerdict) -> Iterator[str]:
    """The verdict, what it rests on, and what it does not tell."""
    words = ", ".join(verdict.sentences) or "no verdict"
    yield f"{words[0].upper()}{words[1:]}{f' ({verdict.untold})' if verdict.untold else ''}."
    if verdict.figures:
        told = [(verdict.figures.get(name), layers) for name, layers in LAYERS.items()]
        alike = ", ".join(f"{short_number(value)} in {layers}" for value, layers in told if value is not None)
        yield (
            f"On {counted(verdict.pictures, 'picture')}: rank correlation with the maps of random weights {alike}. "
            "Near 0 the map depends on these weights; at 1 it is the same without them."
        )
