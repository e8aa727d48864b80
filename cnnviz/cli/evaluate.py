"""The command that measures maps: against annotations, or by asking the network again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.errors import FAILED, reason, tell
from cnnviz.cli.options import MODEL, QUESTION, WORK, Layer, Methods, Pictures, Target, loaded, sharing
from cnnviz.cli.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.cli.batch_explain import Question
    from cnnviz.cli.scores import Score
    from cnnviz.explanations.explanation import Explanation
    from cnnviz.images.annotations import Annotations
    from cnnviz.registry.protocols import Metric

_ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}
_ENOUGH = 3  # first pictures that fail alike: the others would, too


@sharing(QUESTION, MODEL, WORK)
def evaluate(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|FILE.csv",
            help="Where the evidence is: masks named as the pictures (.png or .npy), or a table of boxes"
            " (file,x0,y0,x1,y1) or of a signal's spans (file,start,stop).",
            **_ANSWER,
        ),
    ] = None,
    method: Methods = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable, or with commas between. Default: roc_auc,mass_inside.", **_ANSWER),
    ] = None,
    target: Target = None,
    layer: Layer = None,
    drop_blank: Annotated[
        bool, typer.Option("--drop-blank", help="Leave out maps that are zero everywhere.", **_ANSWER)
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the table: .csv, .md or .json.", **_ANSWER),
    ] = None,
    each: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a row for each picture: .csv, .md or .json.", **_ANSWER),
    ] = None,
) -> int:
    """Measure how good maps are: a row for each method, with the mean of each metric over the pictures.

    The settings of methods and metrics are options too: --per section, --tolerance 15. [bold]cnnviz methods[/bold]
    lists metrics.
    """
    from cnnviz.cli.batch_explain import Question, found_pictures, status
    from cnnviz.cli.method_options import converted, formula, named_methods, separated
    from cnnviz.cli.scores import Scores, check_table, say_rows, write_table
    from cnnviz.cli.targets import read_target
    from cnnviz.images.annotations import read_annotations
    from cnnviz.images.files import read_input
    from cnnviz.registry.registry import metrics

    names, asked = _names(method, "grad_cam"), _names(metric, "roc_auc,mass_inside")
    tokens = [*pictures, *(("--layer", layer) if layer is not None else ())]
    methods, measures = named_methods(names, tokens), [metrics[name] for name in asked]
    declared = [name for parameter in context.command.params for name in parameter.opts]
    paths, settings = separated(tokens, [*methods, *measures], [], declared)
    for place in filter(None, (output, each)):
        check_table(place)
    annotations = None if masks is None else read_annotations(masks)
    found, missing = found_pictures(paths)
    if not found:
        return FAILED
    load = cache(lambda: loaded(options))
    formulas = {name: formula(name, settings, lambda path: read_input(path, load().preprocessing)) for name in names}
    how = {"seed": options["seed"], "memory": value_parsing.byte_count(options["memory"])}
    question = Question(load(), formulas, read_target(target), how | {"before_softmax": options["before_softmax"]})
    scoring = {name: build(**converted(build, settings)) for name, build in zip(asked, measures, strict=True)}
    scores = Scores(names, asked, drop_blank)
    with progress("measuring", options["quiet"]) as step:
        held: list[tuple[Path, Exception]] = []
        for path, answers, mask in _answered(question, found, annotations, options["batch"]):
            try:
                if isinstance(answers, Exception):
                    raise answers
                scores.pictures[path] = {
                    name: _scored(answer, question, name, scoring, mask) for name, answer in answers.items()
                }
            except Exception as error:
                held.append((path, error))
                alike = not scores.pictures and len({reason(each) for _, each in held}) == 1
                if len(found) == 1 or (alike and len(held) == _ENOUGH):
                    raise  # it would go wrong for all of them
                if alike:
                    continue
            _tell_of(held)
            step(len(scores.pictures), len(found))
        _tell_of(held)
    rows = scores.rows()
    if not scores.pictures:
        return FAILED
    if not options["quiet"]:
        say_rows(rows)
    if output is not None:
        write_table(output, rows)
    if each is not None:
        write_table(each, scores.rows_of_pictures())
    return status(len(found) + missing, len(found) - len(scores.pictures) + missing)


def _names(given: Sequence[str] | None, default: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for each in given or [default] for name in each.split(",")))


def _answered(
    question: Question, pictures: Sequence[Path], annotations: Annotations | None, batch: int
) -> Iterator[tuple[Path, dict[str, Explanation] | Exception, Tensor | None]]:
    """Each picture with the answers for it, or why there is none, and its annotated places.

    Of pictures that can't be read or have no such places is told. Those of a batch that fails are asked one by one.
    """
    from cnnviz.cli.batch_explain import batches
    from cnnviz.images.annotations import read_mask

    for paths, inputs in batches(question.model, pictures, batch):
        if isinstance(inputs, Exception):
            _tell_or_raise(inputs, pictures)
            continue
        masks: dict[int, Tensor | None] = {}
        for item, path in enumerate(paths):
            try:
                size = tuple(inputs.shape[2:])
                seen = question.model.preprocessing
                masks[item] = None if annotations is None else read_mask(annotations, path, seen, size)
            except (OSError, ValueError, LookupError) as error:
                _tell_or_raise(error, pictures)
        for part in _answers(question, inputs, list(masks)):
            for item, answer in part.items():
                yield paths[item], answer, masks[item]


def _answers(
    question: Question, inputs: Tensor, items: Sequence[int]
) -> Iterator[dict[int, dict[str, Explanation] | Exception]]:
    if not items:
        return
    try:
        answers = question(inputs[list(items)])
    except Exception as error:
        if len(items) == 1:
            yield {items[0]: error}
        else:
            for item in items:
                yield from _answers(question, inputs, [item])
        return
    yield {item: {name: each[place] for name, each in answers.items()} for place, item in enumerate(items)}


def _scored(
    answer: Explanation, question: Question, method: str, scoring: Mapping[str, Metric], mask: Tensor | None
) -> Score:
    from cnnviz.cli.scores import Score
    from cnnviz.explanations.evaluate import evaluate as evaluated

    found = evaluated(
        answer,
        list(scoring.values()),
        masks=None if mask is None else mask[None],
        model=question.model,
        attribution=question.formulas[method],
        target=question.target,
        **question.how,
    )
    values = [float(each) for each in found.values()]
    return Score(dict(zip(scoring, values, strict=True)), blank=not bool(answer.values.any()))


def _tell_or_raise(error: Exception, pictures: Sequence[Path]) -> None:
    """Of a single picture the failure is that of the command."""
    if len(pictures) == 1:
        raise error
    tell(reason(error))


def _tell_of(failures: list[tuple[Path, Exception]]) -> None:
    for path, error in failures:
        tell(f"{path}: {reason(error)}")
    failures.clear()
