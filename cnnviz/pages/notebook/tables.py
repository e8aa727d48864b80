"""Tables in notebooks: results, predictions, detections, and what a model is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cnnviz.explanations.evaluation import Evaluation
from cnnviz.explanations.explanation import percent
from cnnviz.explanations.tables import Table, readable
from cnnviz.models.loading import LoadedModel
from cnnviz.models.prediction import Prediction
from cnnviz.pages.notebook.page import Page, Rows
from cnnviz.tasks.channel_relevance import TopChannel
from cnnviz.tasks.detection import Detection

COLUMNS = 24
"""Columns that are shown."""
CLASSES = 8
"""Names of classes that are shown."""


def of_table(answer: Table) -> Page:
    """Rows of plain values."""
    return _tabled(f"{len(answer):,} row{'' if len(answer) == 1 else 's'}", answer)


def of_evaluation(answer: Evaluation) -> Page:
    """A row for each method, with the mean of each metric and its standard error."""
    return _tabled(f"{len(answer)} method{'' if len(answer) == 1 else 's'}, measured", answer.table())


def of_predictions(answer: Sequence[Sequence[Prediction]]) -> Page:
    """A row for each class of each input."""
    rows = [(str(number), *_told(one)) for number, ranking in enumerate(answer) for one in ranking]
    title = f"Predictions for {len(answer):,} input{'' if len(answer) == 1 else 's'}"
    names = ("input", "class", "name", "score", "probability")
    return Page(title, parts=[Rows(names, rows, (False, False, True, False, False), len(rows))], code=False)


def of_ranking(answer: Sequence[Prediction]) -> Page:
    """A row for each class of one input."""
    rows = [_told(one) for one in answer]
    names = ("class", "name", "score", "probability")
    return Page("Prediction", parts=[Rows(names, rows, (False, True, False, False), len(rows))], code=False)


def _told(one: Prediction) -> tuple[str, ...]:
    name = one.name or ("not class 0" if one.index < 0 else "")
    share = "" if one.probability is None else percent(one.probability)
    return str(one.index), name, f"{one.score:.2f}", share


def of_detections(answer: Sequence[Sequence[Detection]]) -> Page:
    """A row for each box of each image."""
    rows = [
        (str(image), str(one.number), one.name or f"class {one.label}", f"{one.score:.2f}", *map(_pixels, one.box))
        for image, found in enumerate(answer)
        for one in found
    ]
    names = ("image", "number", "class", "score", "left", "top", "right", "bottom")
    count = len(answer)
    title = f"{len(rows):,} detection{'' if len(rows) == 1 else 's'} in {count:,} image{'' if count == 1 else 's'}"
    told = ["cnnviz.targets.box(number) explains one of them."] if rows else []
    left = (False, False, True, *[False] * 5)
    return Page(title, told, [Rows(names, rows, left, len(rows))] if rows else [], code=False)


def of_top_channels(answer: Sequence[Sequence[TopChannel]]) -> Page:
    """A row for each channel of each input."""
    rows = [
        (str(number), str(one.channel), f"{one.relevance:.3g}", f"{100 * one.share:.1f} %")
        for number, found in enumerate(answer)
        for one in found
    ]
    title = f"Most relevant channels for {len(answer):,} input{'' if len(answer) == 1 else 's'}"
    told = ["The share is of the relevance of all channels, negative relevance counted as positive."]
    names = ("input", "channel", "relevance", "share")
    return Page(title, told, [Rows(names, rows, (False,) * 4, len(rows))], code=False)


def _pixels(place: float) -> str:
    return f"{place:.1f}"


def of_model(answer: LoadedModel) -> Page:
    """What a model is called, takes and gives."""
    parameters = list(answer.module.parameters())
    devices = dict.fromkeys(str(tensor.device) for tensor in (*parameters, *answer.module.buffers()))
    names = answer.categories
    count = answer.num_classes or (len(names) if names else None)
    rows = [
        ("network", type(answer.module).__name__),
        ("classes", "unknown" if count is None else f"{count:,}"),
        ("names of classes", "unknown" if names is None else _listed(names)),
        ("preprocessing", answer.preprocessing.describe()),
        ("parameters", f"{sum(each.numel() for each in parameters):,}"),
        ("device", " and ".join(devices) or "unknown"),
        *(("note", note) for note in answer.notes),
    ]
    return Page(answer.name, ["A network in eval mode."], [Rows(("", ""), rows, (True, True), len(rows))])


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - CLASSES:,} more" if len(names) > CLASSES else ""
    return ", ".join(names[:CLASSES]) + more


def _tabled(title: str, table: Table, told: Sequence[str] = ()) -> Page:
    return Page(title, [*told, *([] if table else ["It has no rows."])], [rows_of(table)] if table else [], code=False)


def rows_of(table: Table, rest: str = "to_dataframe(), markdown() and csv() have all of them") -> Rows:
    """The first rows of a table, and its first columns; numbers are at the right."""
    names = list(readable(table[0]))[:COLUMNS]
    left = [any(isinstance(row.get(name), str) for row in table) for name in names]
    shown: Iterable[dict[str, Any]] = table[:200]
    rows = [[readable(row).get(name, "") for name in names] for row in shown]
    return Rows(names, rows, left, len(table), rest)
