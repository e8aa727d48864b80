"""What the sanity checks say of the methods, on the model of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from cnnviz.explanations.explanation import Explanation
from cnnviz.pages.report.content import Answers

MOST = 4
"""Pictures that the checks are asked on."""


def verdicts(
    model: Any, answers: Answers, told: Callable[[int, int], None] = lambda done, total: None
) -> Mapping[str, tuple[str, ...]]:
    """For each method the sentences of its checks, on the first pictures of these and their first class.

    ``told`` is called with how many methods are checked, and how many there are. A method that can't be checked, such
    as one of a black box, has a sentence that says why.
    """
    check = import_module("cnnviz.testing.sanity.on_model").check_on_model
    found: dict[str, tuple[str, ...]] = {}
    told(0, len(answers))
    for number, (method, of_classes) in enumerate(answers.items(), 1):
        found[method] = _checked(check, model, of_classes[0][:MOST])
        told(number, len(answers))
    return found


def _checked(check: Callable[..., Any], model: Any, first: Explanation) -> tuple[str, ...]:
    if first.attribution is None:
        return ("Not checked: the explanation was read from a file, which keeps no method.",)
    if first.target is None:
        return ("Not checked: the checks ask about classes, and another target is explained here.",)
    try:
        verdict = check(
            model,
            first.inputs,
            first.attribution,
            target=first.target,
            preprocessing=first.preprocessing,
            seed=first.options.seed,
        )
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        return (f"Not checked: {error}",)
    return tuple(verdict.sentences)
