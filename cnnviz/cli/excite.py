"""The command that finds the pictures of a folder that activate channels most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.method_names import method_name
from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import (
    ChannelLayer,
    FindOptions,
    ModelOptions,
    OverwriteOptions,
    Pictures,
    Render,
    Show,
    WorkOptions,
    answer_option,
    sharing,
)

if TYPE_CHECKING:
    from torch import Tensor


@sharing(ModelOptions, WorkOptions, FindOptions, OverwriteOptions)
def excite(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    channels: Annotated[
        str, answer_option("The channels, by number: 5,9.", "--channels", "--channel", metavar="NUMBERS")
    ],
    layer: ChannelLayer = None,
    count: Annotated[int, answer_option("How many pictures of each channel.", min=1, metavar="NUMBER")] = 9,
    method: Annotated[
        str, answer_option("The method that carries the unit back to the picture.", "--method", "-m", metavar="NAME")
    ] = "deconvnet",
    render: Render = None,
    output: Annotated[Path, answer_option("The picture that is written.", "--output", "-o", metavar="FILE")] = Path(
        "excited.png"
    ),
    show: Show = False,
) -> int:
    """Find the pictures that excite a layer's channels most, cropped to what the strongest unit sees of them.

    Beside the crops stand their projections back from that unit, a row for each channel. The settings of the method and
    of the renderer are options too, such as --smooth or --style minmax.
    """
    from cnnviz.cli.batch_explain import batches, like_weights
    from cnnviz.cli.errors import FAILED, print_line
    from cnnviz.cli.failures import Unreadable
    from cnnviz.cli.outputs import check_folder, open_in_viewer
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.places import settle
    from cnnviz.cli.prepared import offered_renderers, prepared
    from cnnviz.cli.progress import progress
    from cnnviz.images.writing import encoded, picture_suffix, write
    from cnnviz.tasks.activation_crops import patch_sheet
    from cnnviz.tasks.top_activations import top_activations

    method = method_name(method)
    command = prepared(context, pictures, named_methods([method], pictures), options, offered_renderers(render))
    numbers = value_parsing.numbers(channels, "--channels", int, "numbers with commas between, such as 5,9") or ()
    files = picture_files(command.arguments, options)
    suffix = picture_suffix(output)
    check_folder(output)
    settle([output], [*files.paths, *command.reads], options)
    attribution = command.attributions([method])[method]
    readable: list[Path] = []
    unreadable = Unreadable(raising=len(files.paths) == 1)

    def inputs() -> Iterator[Tensor]:
        with progress("looking", options["quiet"]) as step:
            for paths, batch, _ in batches(files.paths, command.model, options["batch"], unreadable, options["jobs"]):
                readable.extend(paths)
                yield like_weights(batch, command.model.module)
                step(len(readable) + unreadable.count, len(files.paths))

    best = top_activations(command.model, inputs(), layer, tuple(dict.fromkeys(numbers)), count)
    if not readable:
        return FAILED
    if not any(best.values()):
        raise ValueError(f"none of {len(readable)} pictures excites a channel of {channels}; choose other channels")
    crops = patch_sheet(
        command.model, layer, best, attribution, renderer=command.renderer(render).checked, **command.explain_options
    )
    write(output, encoded(crops, suffix))
    if not options["quiet"]:
        for number, activations in best.items():
            names = ", ".join(f"{readable[unit.number].name} {unit.activation:.4g}" for unit in activations)
            print_line(f"{output}: f:{number} {names or 'nothing'}")
    if show:
        open_in_viewer([output])
    return files.status(unreadable.count)
