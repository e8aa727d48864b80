"""The command that measures maps: against annotations, or by asking the network again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.completion import metric_names
from cnnviz.cli.documents import AnswersJson, print_document
from cnnviz.cli.errors import FAILED, Interrupted, print_failure, reason
from cnnviz.cli.method_names import method_names
from cnnviz.cli.method_options import converted, named_methods
from cnnviz.cli.options import EXPLAIN, Layer, Methods, OverwriteOptions, Pictures, Target, answer_option, sharing
from cnnviz.registry.registry import metrics

LEVELS = "whole numbers with commas between, such as 1,15, or nonzero"


@sharing(*EXPLAIN, OverwriteOptions)
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
    inside: Annotated[
        str | None,
        answer_option("Of index masks: the levels that are inside, as 1,15, or nonzero.", metavar="LEVELS"),
    ] = None,
    method: Methods = None,
    metric: Annotated[
        list[str] | None,
        answer_option(
            "What measures; cnnviz methods lists them. Repeatable, or with commas between."
            " Default: roc_auc,mass_inside.",
            autocompletion=metric_names,
        ),
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
    json: AnswersJson = False,
) -> int:
    """Measure how good maps are: a row for each method, with the mean of each metric over the pictures.

    The settings of methods and metrics are options too: --per section, --tolerance 15. [bold]cnnviz methods[/bold]
    lists metrics.
    """
    from cnnviz.cli.failures import Failures, Unreadable
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.places import settle
    from cnnviz.cli.prepared import prepared, with_settings
    from cnnviz.cli.progress import progress
    from cnnviz.cli.scores import Scores, check_table, print_rows, write_table
    from cnnviz.cli.scoring import Scorer
    from cnnviz.images.annotations import read_annotations
    from cnnviz.images.mask_levels import Inside

    names, measured = method_names(method, "grad_cam"), value_parsing.names(metric, "roc_auc,mass_inside")
    words = with_settings(pictures, layer=layer)
    methods, measures = named_methods(names, words), [metrics[name] for name in measured]
    command = prepared(context, words, [*methods, *measures], options)
    for place in filter(None, (output, each)):
        check_table(place)
    files = picture_files(command.arguments, options)
    tables = [*filter(None, (output, each))]
    settle(tables, [*files.paths, *command.reads, *([Path(masks)] if masks is not None else [])], options)
    levels: Inside = "nonzero" if inside == "nonzero" else value_parsing.numbers(inside, "--inside", int, LEVELS)
    if levels is not None and masks is None:
        raise ValueError("--inside says what is inside of masks, and there are none; give --annotations FOLDER")
    annotations = None if masks is None else read_annotations(masks, inside=levels, pictures=files.paths)
    explainer = command.explainer(command.attributions(names), target)
    configured = {name: metrics[name](**converted(metrics[name], command.settings)) for name in measured}
    scorer = Scorer(explainer, configured, annotations)
    scores, left_out = Scores(names, measured, drop_blank), Unreadable(raising=len(files.paths) == 1)
    interrupted = False
    with progress("measuring", options["quiet"]) as step:
        failures = Failures(len(files.paths))
        try:
            for path, result in scorer(files.paths, options["batch"], options["jobs"], left_out):
                if isinstance(result, Exception):
                    failures(path, result)
                else:
                    failures.settled()
                    scores.pictures[path] = result
                step(len(scores.pictures), len(files.paths))
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            if not json:
                raise
            print_failure(reason(error))
            failures.reasons |= {str(path): reason(error) for path in files.paths if path not in scores.pictures}
        failures.settled()
    if json:
        reasons = {**files.absent, **left_out.reasons, **failures.reasons}
        failed = [{"file": file, "error": why} for file, why in reasons.items()]
        rows = scores.rows() if scores.pictures else []
        print_document({"methods": rows, "pictures": scores.rows_of_pictures(), "failures": failed})
    if not scores.pictures:
        if interrupted:
            raise Interrupted("nothing was measured")
        return FAILED
    rows = scores.rows()
    if output is not None:
        write_table(output, rows)
    if each is not None:
        write_table(each, scores.rows_of_pictures())
    if not (json or options["quiet"]):
        print_rows(rows)
    if interrupted:
        raise Interrupted(f"the table holds the {len(scores.pictures)} of {len(files.paths)} pictures measured")
    return files.status(len(files.paths) - len(scores.pictures))
