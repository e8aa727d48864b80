"""Confusion matrices of explanations that are made already: no picture is predicted or explained again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cnnviz.drawing.confusion_matrix import Place
from cnnviz.explanations.explanation import Explanation
from cnnviz.models.class_names import class_names
from cnnviz.tasks.confusion_matrix import (
    TOWARD,
    Answers,
    ConfusionMatrix,
    Prediction,
    cell_means,
    chosen_cells,
    matrix_of,
)
from cnnviz.tasks.labels import class_number


def confusions_of(
    answers: Answers,
    method: Any,
    cell: str,
    toward: str,
    most: int,
    progress: Callable[[int, int], None] | None = None,
) -> ConfusionMatrix:
    """As :func:`cnnviz.confusion_matrix`, of answers with labels and predicted classes.

    Where maps are of the true class, pictures of a cell are ranked by the probability of the predicted one.

    Raises LookupError for a method that there is not and for a label that is no class; ValueError for items without
    labels or predictions, and for maps of another class than ``toward`` says.
    """
    if method not in answers.methods:
        raise LookupError(f"there is no method {method!r} in the batch; it has {', '.join(answers.methods)}")
    rows = [(number, row) for number, row in enumerate(answers.table()) if row["status"] == "ok"]
    if not rows:
        raise ValueError("the batch has no answered items, and so no confusions")
    own = answers[method]
    predictions = _predictions(rows, own[rows[0][0]])
    counts, classes, drawn = chosen_cells(predictions, cell, most)
    targets = {number: row["target"] for number, row in rows}
    looks = sum(map(len, drawn.values()))

    def explained() -> Iterator[tuple[Place, Explanation]]:
        done = 0
        for place, numbers in drawn.items():
            for number in numbers:
                if targets[number] != place[toward == "prediction"]:
                    raise ValueError(_other_target(targets[number], place, toward))
                yield place, own[number]
                done += 1
                if progress is not None:
                    progress(done, looks)

    return matrix_of(counts, classes, drawn, cell_means(explained()), cell, toward)


def _predictions(rows: list[tuple[int, Mapping[str, Any]]], like: Explanation) -> dict[int, Prediction]:
    names = None if like.categories is None else class_names(like.categories)
    labelled = [(number, row) for number, row in rows if row["label"] is not None]
    if not labelled:
        raise ValueError(
            "the items of the batch have no labels; run it again with labels='folder' or a table (--labels), in a new "
            "folder"
        )
    if labelled[0][1]["predicted"] is None:
        raise ValueError("the batch does not tell predicted classes, and confusions are of them; explain a classifier")
    labels = {
        label: class_number(str(label), names, f"the label of {identifier!r}")
        for label, identifier in {row["label"]: row["id"] for _, row in labelled}.items()
    }
    return {number: Prediction(labels[row["label"]], row["predicted"], _score(row)) for number, row in labelled}


def _score(row: Mapping[str, Any]) -> float:
    """What ranks pictures of a cell, which all have one target."""
    score = row["score"] if row["target"] == row["predicted"] else row["predicted_probability"]
    return float("-inf") if score is None else float(score)


def _other_target(target: int | None, place: Place, toward: str) -> str:
    other = next(name for name in TOWARD if name != toward)
    way_out = "explain the batch again with that target, in a new folder"
    if target == place[other == "prediction"]:
        way_out = f"use toward={other!r} (--toward {other})"
    return f"the maps of the batch are of another class than {TOWARD[toward]}; {way_out}"
