"""The command that finds the pictures of a folder that activate channels most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.method_names import method_name
from cnnviz.cli.method_options import converted, named_methods
from cnnviz.cli.options import (
    ChannelLayer,
    FindOptions,
    ModelOptions,
    OverwriteOptions,
    Pictures,
    Render,
    Show,
    Target,
    WorkOptions,
    answer_option,
    sharing,
)

if TYPE_CHECKING:
    from torch import Tensor

CONCEPTS = "conditional_relevance"


@sharing(ModelOptions, WorkOptions, FindOptions, OverwriteOptions)
def excite(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    channels: Annotated[
        str | None,
        answer_option(
            "The channels, by number: 5,9. Default: the most relevant ones of --picture.",
            "--channels",
            "--channel",
            metavar="NUMBERS",
        ),
    ] = None,
    layer: ChannelLayer = None,
    count: Annotated[int, answer_option("How many pictures of each channel.", min=1, metavar="NUMBER")] = 9,
    by: Annotated[
        Literal["activation", "relevance"],
        answer_option("What chooses the pictures: how active a channel is, or how much of the score it has."),
    ] = "activation",
    picture: Annotated[
        Path | None,
        answer_option("A picture in which the channels are explained, beside the others.", metavar="FILE"),
    ] = None,
    top: Annotated[
        int | None, answer_option("How many channels of --picture. Default: 5.", min=1, metavar="NUMBER")
    ] = None,
    target: Target = None,
    method: Annotated[
        str | None,
        answer_option(
            "The method that carries the unit back to the picture. Default: deconvnet.",
            "--method",
            "-m",
            metavar="NAME",
        ),
    ] = None,
    render: Render = None,
    output: Annotated[Path, answer_option("The picture that is written.", "--output", "-o", metavar="FILE")] = Path(
        "excited.png"
    ),
    show: Show = False,
) -> int:
    """Find the pictures that excite a layer's channels most, cropped to what the strongest unit sees of them.

    Beside the crops stand their projections back from that unit, a row for each channel. The settings of the method and
    of the renderer are options too, such as --smooth or --style minmax. With --by relevance or --picture there are no
    projections: what the channel does not use of a crop is dark (concept relevance propagation, Achtibat et al., 2023).
    """
    from cnnviz.cli.batch_explain import batches, like_weights
    from cnnviz.cli.errors import FAILED, print_line
    from cnnviz.cli.failures import Unreadable
    from cnnviz.cli.outputs import check_folder, open_in_viewer
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.places import settle
    from cnnviz.cli.prepared import offered_renderers, prepared
    from cnnviz.cli.progress import progress
    from cnnviz.cli.targets import read_target
    from cnnviz.images.writing import encoded, picture_suffix, write
    from cnnviz.registry.registry import attributions
    from cnnviz.tasks.activation_crops import patch_sheet
    from cnnviz.tasks.channel_relevance import of_layer_relevance, top_channels
    from cnnviz.tasks.concept_sheets import concept_sheet
    from cnnviz.tasks.top_activations import top_activations

    concepts = by == "relevance" or picture is not None
    for wrong, reason in (
        (
            channels is None and picture is None,
            "no channels are asked for; add --channels 5,9, or a --picture whose channels are sought",
        ),
        (
            top is not None and (channels is not None or picture is None),
            "--top is how many channels of a --picture are sought; with --channels leave it out",
        ),
        (
            concepts and picture is None and layer is None,
            "no layer is named, and the last one may differ from picture to picture; add --layer NAME",
        ),
        (concepts and method is not None, "--method is for projections, and by relevance there are none; leave it out"),
        (not concepts and target is not None, "--target is about relevance; add --by relevance, or a --picture"),
    ):
        if wrong:
            raise ValueError(reason)
    method = CONCEPTS if concepts else method_name(method or "deconvnet")
    command = prepared(context, pictures, named_methods([method], pictures), options, offered_renderers(render))
    numbers = value_parsing.numbers(channels, "--channels", int, "numbers with commas between, such as 5,9") or ()
    files = picture_files(command.arguments, options)
    suffix = picture_suffix(output)
    check_folder(output)
    settle([output], [*files.paths, *command.reads, *([] if picture is None else [picture])], options)
    attribution, explain_options = command.attributions([method])[method], command.explain_options
    settings = converted(attributions[CONCEPTS], command.settings) if concepts else {}
    asked = {"target": read_target(target), **explain_options} if concepts else {}
    of_layer = of_layer_relevance(settings) | asked
    explained = None if picture is None else like_weights(command.read(picture)[None], command.model.module)
    if explained is not None and (channels is None or layer is None):
        best_of = top_channels(command.model, explained, layer, top or 5, **of_layer)
        numbers, layer = numbers or tuple(each.channel for each in best_of[0]), best_of.layer
    readable: list[Path] = []
    unreadable = Unreadable(raising=len(files.paths) == 1)

    def inputs() -> Iterator[Tensor]:
        with progress("looking", options["quiet"]) as step:
            for paths, batch, _ in batches(files.paths, command.model, options["batch"], unreadable, options["jobs"]):
                readable.extend(paths)
                yield like_weights(batch, command.model.module)
                step(len(readable) + unreadable.count, len(files.paths))

    more = of_layer if by == "relevance" else {}
    best = top_activations(command.model, inputs(), layer, tuple(dict.fromkeys(numbers)), count, by=by, **more)
    if not readable:
        return FAILED
    if not any(best.values()):
        asked_for = ",".join(map(str, best))
        raise ValueError(f"none of {len(readable)} pictures excites a channel of {asked_for}; choose other channels")
    if concepts:
        drawn = command.renderer(render or "overlay").checked
        crops = concept_sheet(command.model, layer, best, explained, renderer=drawn, **settings, **asked)
    else:
        drawn = command.renderer(render).checked
        crops = patch_sheet(command.model, layer, best, attribution, renderer=drawn, **explain_options)
    write(output, encoded(crops, suffix))
    if not options["quiet"]:
        for number, activations in best.items():
            names = ", ".join(f"{readable[unit.number].name} {unit.rank:.4g}" for unit in activations)
            print_line(f"{output}: f:{number} {names or 'nothing'}")
    if show:
        open_in_viewer([output])
    return files.status(unreadable.count)
