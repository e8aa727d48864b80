"""The command that writes a report: one page with all maps, to look at in a browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnviz.cli.completion import attribution_names
from cnnviz.cli.method_names import method_names
from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import (
    EXPLAIN,
    Layers,
    OverwriteOptions,
    Pictures,
    Show,
    SpeedOptions,
    TargetList,
    TargetTable,
    answer_option,
    sharing,
)
from cnnviz.cli.question import Question

METHODS = "grad_cam,layer_cam,gradient,guided_backprop"


@sharing(*EXPLAIN, OverwriteOptions, SpeedOptions)
def report(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    method: Annotated[
        list[str] | None,
        answer_option(
            "The methods that explain, by name or as a formula; cnnviz methods lists them. Repeatable, or with commas"
            f" between. Default: {METHODS}.",
            "--method",
            "-m",
            metavar="NAMES",
            autocompletion=attribution_names,
        ),
    ] = None,
    target: TargetList = None,
    targets: TargetTable = None,
    top_classes: Annotated[
        int | None,
        answer_option(
            "Explain so many classes, the most probable first. Default: 5, or as many as there are.",
            "--top-classes",
            min=1,
            metavar="NUMBER",
        ),
    ] = None,
    layer: Layers = None,
    depth: Annotated[
        str | None,
        answer_option(
            "Layers at which class activation maps are shown too, with commas between; none for none. Default: some"
            " through the network.",
            metavar="NAMES",
        ),
    ] = None,
    verdict: Annotated[
        bool,
        answer_option("Whether the methods' sanity checks are asked on the first pictures.", "--verdict/--no-verdict"),
    ] = True,
    title: Annotated[str, answer_option("What stands above the page.", metavar="TEXT")] = "",
    output: Annotated[
        Path, answer_option("The page, which holds all that it shows.", "--output", "-o", metavar="FILE.html")
    ] = Path("cnnviz-report.html"),
    show: Show = False,
) -> int:
    """Explain pictures, and write one page to look at all maps: by class, method, layer, opacity, and place.

    The page is one file that asks for nothing elsewhere, for the browser. Every setting of a method is an option too:
    --steps 100, --masks 500. [bold]cnnviz methods NAME[/bold] lists them.
    """
    from cnnviz.cli.errors import print_line
    from cnnviz.cli.outputs import check_folder, open_in_viewer
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.places import settle
    from cnnviz.cli.prepared import prepared, with_settings
    from cnnviz.cli.report_work import ReportWork
    from cnnviz.images.writing import write
    from cnnviz.pages.report.making import NO_VERDICT, check_count, check_report
    from cnnviz.pages.report.page import page

    names = method_names(method, METHODS)
    question = Question(target or (), targets, top_classes)
    words = with_settings(pictures, layer=",".join(layer) if layer else None)
    command = prepared(context, words, named_methods(names, words), options)
    check_report(output)
    check_folder(output)
    files = picture_files(command.arguments, options)
    check_count(len(files.paths))
    settle([output], [*files.paths, *command.reads], options)
    work = ReportWork(command, names, question, depth, verdict)
    content = work(files.paths)
    content.failures = {**files.absent, **content.failures}
    if content.rows:
        verdicts = work.verdicts()
        unasked = "" if verdicts is not None else NO_VERDICT
        made = work.made(context.obj or [], files.paths, output)
        write(output, page(content, made, title, verdicts, unasked).encode())
        if not options["quiet"]:
            print_line(f"{output}: {len(content.rows)} of {len(files.paths) + len(files.absent)} pictures")
        if show:
            open_in_viewer([output])
    return files.status(len(files.paths) - len(content.rows))
