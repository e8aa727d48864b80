"""The command for a whole labelled folder: which classes are taken for which, and what the network looked at there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.options import MODEL, QUESTION, WORK, Layer, Render, Show, loaded, sharing

if TYPE_CHECKING:
    from cnnviz.images.batches import Picture

_ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}


@sharing(QUESTION, MODEL, WORK)
def confusions(
    context: typer.Context,
    folder: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER", help="A folder of pictures for each class, or any with --labels."),
    ],
    options: Mapping[str, Any],
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="A table of the pictures: file,label.", **_ANSWER)
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="What explains.", **_ANSWER)] = "grad_cam",
    cell: Annotated[
        str, typer.Option(help="What a cell shows: its typical picture, the surest, or the mean.", **_ANSWER)
    ] = "typical",
    toward: Annotated[str, typer.Option(help="The class explained: prediction or truth.", **_ANSWER)] = "prediction",
    most: Annotated[
        int, typer.Option(min=2, help="Of more classes than so many, the most confused are drawn.", **_ANSWER)
    ] = 12,
    layer: Layer = None,
    render: Render = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The picture of the matrix.", **_ANSWER)
    ] = Path("confusions.png"),
    counts: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write how many pictures each cell has.", **_ANSWER)
    ] = None,
    show: Show = False,
) -> int:
    """Draw the confusion matrix of a labelled folder, with what the network looked at in each cell.

    Rows are true classes, columns what they were taken for. The settings of the method and of the renderer are options
    too, such as --layer 3 or --opacity 0.4.
    """
    from cnnviz.cli.batch_explain import status
    from cnnviz.cli.errors import reason, say, tell
    from cnnviz.cli.explain import offered_renderers
    from cnnviz.cli.method_options import formula, named_methods, separated
    from cnnviz.cli.outputs import Drawing
    from cnnviz.cli.progress import progress
    from cnnviz.images.files import encoded, picture_suffix, read_input, write
    from cnnviz.tasks.confusion_matrix import confusion_matrix
    from cnnviz.tasks.labels import labelled_pictures

    declared = [name for parameter in context.command.params for name in parameter.opts]
    tokens = [*folder, *(("--layer", layer) if layer is not None else ())]
    methods = named_methods([method], tokens)
    places, settings = separated(tokens, methods, offered_renderers(render), declared)
    if len(places) != 1:
        raise ValueError(f"one folder of labelled pictures is explained at once, not {len(places)}")
    suffix = picture_suffix(output)
    for path in filter(None, (output, counts)):
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")
    load = cache(lambda: loaded(options))
    explained = formula(method, settings, lambda path: read_input(path, load().preprocessing))
    pictures = labelled_pictures(places[0], labels, load().categories)
    written = {path.resolve() for path in (output, counts) if path is not None}
    for picture in (*(path for path, _ in pictures), *filter(None, [labels])):
        if picture.resolve() in written:
            raise ValueError(f"{picture} is read, and would be replaced; choose another name")
    unreadable = 0

    def left_out(picture: Picture, error: Exception) -> None:
        nonlocal unreadable
        unreadable += 1
        tell(reason(error))

    with progress("looking", options["quiet"]) as step:
        found = confusion_matrix(
            load(),
            pictures,
            explained,
            cell=cell,  # type: ignore[arg-type]  # which there are is checked there
            toward=toward,  # type: ignore[arg-type]
            most=most,
            batch=options["batch"],
            seed=options["seed"],
            memory=value_parsing.byte_count(options["memory"]),
            before_softmax=options["before_softmax"],
            unreadable=left_out,
            progress=step,
        )
    drawing = Drawing(render, settings, frozenset(name for each in methods for name in each.settings))
    drawing.check([found.explanation])
    matrix = encoded(found.render(drawing), suffix)
    if counts is not None:
        write(counts, found.table().encode())
    write(output, matrix)
    if not options["quiet"]:
        say(f"{output}: {found.caption[0]}")
    if show:
        from PIL import Image

        with Image.open(output) as drawn:
            drawn.show()
    return status(len(pictures), unreadable)
