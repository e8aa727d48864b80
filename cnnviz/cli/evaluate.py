"""The command that measures maps: against annotations, or by asking the network again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.errors import FAILED, print_failure, reason
from cnnviz.cli.method_options import converted, named_methods
from cnnviz.cli.options import EXPLAIN, Layer, Methods, Pictures, Target, answer_option, sharing
from cnnviz.registry.registry import metrics

_ENOUGH = 3  # first pictures that fail alike: the others would fail, too


@sharing(*EXPLAIN)
def evaluate(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    masks: Annotated[
        str | None,
        answer_option(
            "Where the evidence is: masks named as the pictures (.png or .npy), or a table of boxes"
            " (file,x0,y0,x1,y1) or of a signal's spans (file,start,stop).",
            "--annotations",
            metavar="FOLDER|FILE.csv",
        ),
    ] = None,
    method: Methods = None,
    metric: Annotated[
        list[str] | None, answer_option("Repeatable, or with commas between. Default: roc_auc,mass_inside.")
    ] = None,
    target: Target = None,
    layer: Layer = None,
    drop_blank: Annotated[bool, answer_option("Leave out maps that are zero everywhere.", "--drop-blank")] = False,
    output: Annotated[
        Path | None, answer_option("Also write the table: .csv, .md or .json.", "--output", "-o", metavar="FILE")
    ] = None,
    each: Annotated[
        Path | None, answer_option("Also write a row for each picture: .csv, .md or .json.", metavar="FILE")
    ] = None,
) -> int:
    """Measure how good maps are: a row for each method, with the mean of each metric over the pictures.

    The settings of methods and metrics are options too: --per section, --tolerance 15. [bold]cnnviz methods[/bold]
    lists metrics.
    """
    from cnnviz.cli.prepared import picture_files, prepared, with_settings
    from cnnviz.cli.progress import progress
    from cnnviz.cli.scores import Scores, check_table, print_rows, write_table
    from cnnviz.cli.scoring import Scorer
    from cnnviz.images.annotations import read_annotations

    names, metric_names = value_parsing.names(method, "grad_cam"), value_parsing.names(metric, "roc_auc,mass_inside")
    words = with_settings(pictures, layer=layer)
    methods, measures = named_methods(names, words), [metrics[name] for name in metric_names]
    command = prepared(context, words, [*methods, *measures], options)
    for place in filter(None, (output, each)):
        check_table(place)
    annotations = None if masks is None else read_annotations(masks)
    files = picture_files(command.arguments)
    explainer = command.explainer(command.attributions(names), target)
    configured = {name: metrics[name](**converted(metrics[name], command.settings)) for name in metric_names}
    scorer = Scorer(explainer, configured, annotations)
    scores = Scores(names, metric_names, drop_blank)
    with progress("measuring", options["quiet"]) as step:
        failures: list[tuple[Path, Exception]] = []
        for path, result in scorer(files.paths, options["batch"]):
            if isinstance(result, Exception):
                failures.append((path, result))
                alike = not scores.pictures and len({reason(error) for _, error in failures}) == 1
                if len(files.paths) == 1 or (alike and len(failures) == _ENOUGH):
                    raise result  # it would go wrong for all of them
                if alike:
                    continue
            else:
                scores.pictures[path] = result
            _print(failures)
            step(len(scores.pictures), len(files.paths))
        _print(failures)
    if not scores.pictures:
        return FAILED
    rows = scores.rows()
    if not options["quiet"]:
        print_rows(rows)
    if output is not None:
        write_table(output, rows)
    if each is not None:
        write_table(each, scores.rows_of_pictures())
    return files.status(len(files.paths) - len(scores.pictures))


def _print(failures: list[tuple[Path, Exception]]) -> None:
    for path, error in failures:
        print_failure(f"{path}: {reason(error)}")
    failures.clear()
