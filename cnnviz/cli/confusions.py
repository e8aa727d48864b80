"""The command for a whole labelled folder: which classes are taken for which, and what the network looked at there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.method_names import method_name
from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import LOOK, Layer, OverwriteOptions, Render, Show, answer_option, sharing

if TYPE_CHECKING:
    from cnnviz.cli.prepared import PreparedCommand


@sharing(*LOOK, OverwriteOptions)
def confusions(
    context: typer.Context,
    folder: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER",
            help="A folder of pictures for each class, or any with --labels; or the folder of a batch run.",
        ),
    ],
    options: Mapping[str, Any],
    labels: Annotated[Path | None, answer_option("A table of the pictures: file,label.", metavar="FILE.csv")] = None,
    method: Annotated[str, answer_option("The method that explains.", "--method", "-m", metavar="NAME")] = "grad_cam",
    cell: Annotated[str, answer_option("What a cell shows: its typical picture, the surest, or the mean.")] = "typical",
    toward: Annotated[str, answer_option("The class explained: prediction or truth.")] = "prediction",
    most: Annotated[
        int,
        answer_option(
            "How many classes are drawn at most: of more, the most confused.", "--most-classes", min=2, metavar="NUMBER"
        ),
    ] = 12,
    layer: Layer = None,
    render: Render = None,
    output: Annotated[Path, answer_option("The picture of the matrix.", "--output", "-o", metavar="FILE")] = Path(
        "confusions.png"
    ),
    counts: Annotated[
        Path | None, answer_option("Also write how many pictures each cell has.", metavar="FILE.csv")
    ] = None,
    show: Show = False,
) -> int:
    """Draw the confusion matrix of a labelled folder, with what the network looked at in each cell.

    Rows are true classes, columns what they were taken for. The settings of the method and of the renderer are options
    too, such as --layer 3 or --opacity 0.4. Of the folder of a batch run the maps that are there are drawn, and no
    network is loaded.
    """
    from cnnviz.cli.errors import exit_status, print_line
    from cnnviz.cli.failures import Unreadable
    from cnnviz.cli.outputs import check_folder, open_in_viewer
    from cnnviz.cli.places import settle
    from cnnviz.cli.prepared import offered_renderers, prepared, with_settings
    from cnnviz.cli.progress import progress
    from cnnviz.datasets.plan import is_batch
    from cnnviz.datasets.stored.batch_view import open_batch
    from cnnviz.images.writing import encoded, picture_suffix, write
    from cnnviz.tasks.confusion_matrix import confusion_matrix
    from cnnviz.tasks.labels import labelled_pictures

    method = method_name(method)
    words = with_settings(folder, layer=layer)
    command = prepared(context, words, named_methods([method], words), options, offered_renderers(render))
    if len(command.arguments) != 1:
        raise ValueError(f"one folder of labelled pictures is explained at once, not {len(command.arguments)}")
    if not command.arguments[0]:
        raise ValueError("a name is empty; name a folder (of a shell's variable that is not set?)")
    suffix = picture_suffix(output)
    outputs = [path for path in (output, counts) if path is not None]
    if counts is not None and counts.suffix.lower() != ".csv":
        raise ValueError(f"{counts} has no suffix of a table; use .csv")
    for path in outputs:
        check_folder(path)
    drawn: dict[str, Any] = {"cell": cell, "toward": toward, "most": most}
    unreadable = Unreadable(raising=False)
    if is_batch(command.arguments[0]):
        _check_made(context, command, labels)
        settle(outputs, [], options)
        answers = open_batch(command.arguments[0])
        total, left_out = len(answers), len(answers) - len(answers.answered)
        with progress("looking", options["quiet"]) as step:
            matrix = confusion_matrix(answers, attribution=method, **drawn, progress=step)
    else:
        attribution = command.attributions([method])[method]
        pictures = labelled_pictures(command.arguments[0], labels, command.model.categories)
        settle(outputs, [*(picture for picture, _ in pictures), *filter(None, [labels]), *command.reads], options)
        with progress("looking", options["quiet"]) as step:
            matrix = confusion_matrix(
                command.model,
                pictures,
                attribution,
                **drawn,
                batch=options["batch"],
                readers=options["jobs"],
                **command.explain_options,
                unreadable=unreadable,
                progress=step,
            )
        total, left_out = len(pictures), unreadable.count
    picture = encoded(matrix.render(command.renderer(render).checked), suffix)
    if counts is not None:
        write(counts, matrix.table().encode())
    write(output, picture)
    if not options["quiet"]:
        print_line(f"{output}: {matrix.caption[0]}")
    if show:
        open_in_viewer([output])
    return exit_status(total, left_out)


def _check_made(context: typer.Context, command: PreparedCommand, labels: Path | None) -> None:
    """Raises ValueError for an option that would change maps, or what is known of pictures: a batch has these."""
    given = [
        name
        for name in command.options
        if name not in ("overwrite", "quiet", "limit")
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]
    given += ["labels"] if labels is not None else []
    given += [name for method in command.methods for name in method.settings if name in command.settings]
    if given:
        raise ValueError(
            f"--{given[0].replace('_', '-')} changes nothing of a batch run, whose maps are made; leave it out"
        )
