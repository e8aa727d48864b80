"""The command for a whole data set: explained in shards by worker processes, and gone on with after any end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cnnviz.cli.completion import among, metric_names, renderer_names
from cnnviz.cli.options import (
    Layers,
    Limit,
    Methods,
    ModelOptions,
    QuestionOptions,
    Quiet,
    Seed,
    SpeedOptions,
    Target,
    answer_option,
    sharing,
    work_option,
)


class BatchWorkOptions:
    """How a data set is worked through."""

    seed: Seed = 0
    memory: Annotated[
        str | None,
        work_option(
            "What inputs that are computed together may take, such as 512MB. It is fixed when the run is planned.",
            metavar="SIZE",
        ),
    ] = None
    batch: Annotated[
        int | None,
        work_option("How many pictures are explained at once. Default: 8, on CUDA 64.", min=1, metavar="NUMBER"),
    ] = None
    limit: Limit = None
    jobs: Annotated[
        int, work_option("How many threads of each worker read pictures ahead.", min=1, metavar="NUMBER")
    ] = 2
    quiet: Quiet = False


@sharing(QuestionOptions, ModelOptions, BatchWorkOptions, SpeedOptions)
def batch(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... OUT",
            help="What is explained: a folder of pictures, with folders inside; files; a list (.txt) or a table (.csv,"
            " .tsv, .parquet) of paths; WebDataset tars, 'train-{0000..0146}.tar'. OUT is the folder of the run; alone"
            " it stands for what it holds.",
            show_default=False,
        ),
    ],
    options: Mapping[str, Any],
    method: Methods = None,
    target: Target = None,
    true_class: Annotated[
        bool, answer_option("Explain the true class of each picture, as its label tells.", "--true-class")
    ] = False,
    layer: Layers = None,
    metric: Annotated[
        list[str] | None,
        answer_option(
            "What is measured of each map; cnnviz methods lists them. Repeatable, or with commas between.",
            autocompletion=metric_names,
        ),
    ] = None,
    labels: Annotated[
        str,
        answer_option(
            "The true classes: folder, the name of each picture's first folder; a table path,label; none; or auto, what"
            " the source has, and folders that are named as classes.",
            metavar="folder|none|auto|FILE.csv",
        ),
    ] = "auto",
    annotations: Annotated[
        str | None,
        answer_option("A folder of masks of the evidence, named as the pictures, for metrics.", metavar="FOLDER"),
    ] = None,
    root: Annotated[
        Path | None,
        work_option(
            "The folder that the paths of a list or table are relative to. Default: where it lies.", metavar="FOLDER"
        ),
    ] = None,
    kept: Annotated[
        Literal["full", "float16"],
        answer_option("How values are kept: full, or float16 for 11 bits of each, in half of the space.", "--store"),
    ] = "full",
    channels: Annotated[
        Literal["all", "sum", "magnitude"],
        answer_option("Which channels of a map are kept: all, their sum, or that of magnitudes.", "--store-channels"),
    ] = "all",
    longest: Annotated[
        int | None,
        answer_option(
            "The longest side of a map that is kept; a larger one is averaged.",
            "--store-size",
            min=1,
            metavar="PIXELS",
        ),
    ] = None,
    backend: Annotated[
        str,
        work_option(
            "Where the workers are: local, or ray. Its settings are options too: --workers 4, --address auto.",
            metavar="NAME",
            autocompletion=among(("local", "ray")),
        ),
    ] = "local",
    threads: Annotated[
        int | None, work_option("How many threads a worker computes with. Default: 1.", min=1, metavar="NUMBER")
    ] = None,
    shard_size: Annotated[
        int | None,
        work_option(
            "How many pictures one file of answers has. Default: at most 256, and 32 MB.",
            "--shard-size",
            min=1,
            metavar="NUMBER",
        ),
    ] = None,
    shard_of: Annotated[
        str | None,
        work_option(
            "Of several processes that a scheduler starts with one OUT: which one this is, from 0, and of how many.",
            "--shard-of",
            metavar="I/N",
        ),
    ] = None,
    add: Annotated[bool, work_option("Take in pictures that are new in the source.", "--add")] = False,
    dry_run: Annotated[
        bool, work_option("Measure a few pictures, tell time and space of all, and write nothing.", "--dry-run")
    ] = False,
    verify: Annotated[
        bool, work_option("Read all of OUT again, and tell what is damaged or missing.", "--verify")
    ] = False,
    export: Annotated[
        Path | None,
        work_option(
            "Draw the maps of OUT as pictures in this folder. SOURCE says where the pictures are now, if they"
            " were moved.",
            "--export",
            metavar="FOLDER",
        ),
    ] = None,
    render: Annotated[
        str | None,
        work_option(
            "With --export: the renderer that draws. Default: the one that suits the method. Its settings are options"
            " too.",
            metavar="NAME",
            autocompletion=renderer_names,
        ),
    ] = None,
    at: Annotated[
        Literal["input", "original"],
        work_option("With --export: draw on what the network sees, or on the whole picture at its own size.", "--at"),
    ] = "input",
    overwrite: Annotated[
        bool, work_option("With --export: replace pictures that are there already.", "--overwrite")
    ] = False,
    log: Annotated[
        Literal["text", "json"], work_option("json: print a line of JSON for each file of answers.", "--log")
    ] = "text",
) -> int:
    """Explain a data set, and go on where an earlier run ended.

    Every picture gets its maps, score, probability, metrics, or the reason why not. Maps are kept in shards, files that
    are put in place when they are whole. The same command again does what is missing. Settings of methods, metrics and
    the backend are options too. [bold]cnnviz.open_batch[/bold] reads the answers, [bold]cnnviz audit[/bold] tells what
    they say together.
    """
    from cnnviz.cli.batch_look import Drawing, look
    from cnnviz.cli.batch_run import BatchCommand

    settings = {"layer": ",".join(layer) if layer else None}
    command = BatchCommand.of(context, words, method, metric, backend, settings, options, render)
    drawing = Drawing(export, render, at, overwrite)
    drawing.check(context)
    told = {"labels": None if labels == "none" else labels, "masks": annotations, "root": root}
    if verify or export is not None:
        return look(command, verify, drawing, told)
    if len(command.words) == 1 and not dry_run:
        return command.status()
    command = command.asking(target, true_class, kept, channels, longest, threads, shard_size)
    if dry_run:
        return command.estimate(told)
    return command.run(told, add, shard_of, log)
