"""The commands that explain pictures and draw the explanations: explain, confusion, project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import (
    EXPLAIN,
    FileOptions,
    Layer,
    Layers,
    Methods,
    Pictures,
    PlaceOptions,
    Render,
    SpeedOptions,
    Target,
    answer_option,
    sharing,
)

if TYPE_CHECKING:
    from cnnviz.cli.batch_explain import Beside
    from cnnviz.cli.picture_files import PictureFiles


@sharing(*EXPLAIN, FileOptions, PlaceOptions, SpeedOptions)
def explain(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    method: Methods = None,
    target: Target = None,
    layer: Layers = None,
    render: Render = None,
    top_classes: Annotated[
        int | None, answer_option("Explain so many classes, the most probable first.", "--top-classes", min=1)
    ] = None,
) -> int:
    """Explain pictures: where is what speaks for the class, or against it?

    Every setting of a method or of a renderer is an option too: --steps 100, --of guided_backprop, --opacity 0.4,
    --relu, --no-relu. [bold]cnnviz methods NAME[/bold] lists them.
    """
    names = value_parsing.names(method, "grad_cam")
    settings = {"layer": ",".join(layer) if layer else None}
    return explain_pictures(context, pictures, names, settings, target, render, options, top=top_classes)


@sharing(*EXPLAIN, FileOptions, PlaceOptions, SpeedOptions)
def confusion(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    target: Annotated[str, answer_option("The true class, by number or name.")],
    of: Annotated[str, answer_option("The method whose values are split.")] = "grad_cam",
    layer: Layer = None,
    render: Render = None,
) -> int:
    """Draw the saliency confusion matrix: what speaks against and for the true class, and the predicted one.

    The settings of --of and of the renderer are options too, such as --layer 3 or --opacity 0.4.
    """
    settings = {"layer": layer, "of": of}
    return explain_pictures(context, pictures, ["saliency_confusion"], settings, target, render, options)


@sharing(*EXPLAIN, FileOptions, PlaceOptions)
def project(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    layer: Layer = None,
    channels: Annotated[
        str | None, answer_option("By number: 5,9. Default: the strongest.", "--channels", "--channel")
    ] = None,
    top: Annotated[int, answer_option("How many of the strongest.", min=1)] = 12,
    unit: Annotated[bool, answer_option("Begin with each channel's strongest unit alone.", "--unit")] = False,
    of: Annotated[str, answer_option("What carries them back.", "--of", "--method", "-m")] = "deconvnet",
    target: Target = None,
    render: Render = None,
) -> int:
    """Project a layer's channels back to the picture: what of it makes them respond?

    Each channel's map, or its strongest unit, by a deconvolutional network. --of guided_backprop shows finer parts.
    Settings of the method and of the renderer are options too: --by max, --smooth, --columns 4, --contrast 2. Networks
    that give no scores of classes need a target, such as --target channel:features.3:0; it changes nothing else.
    """
    settings = {"layer": layer, "channels": channels, "top": str(top), "start": "unit" if unit else "map", "of": of}
    return explain_pictures(context, pictures, ["projections"], settings, target, render, options)


def explain_pictures(
    context: typer.Context,
    words: Sequence[str],
    names: Sequence[str],
    settings: Mapping[str, str | None],
    target: str | None,
    render: str | None,
    options: Mapping[str, Any],
    beside: Callable[[PictureFiles], Beside] | None = None,
    top: int | None = None,
) -> int:
    """Explain and draw; ``settings`` are those of the method that the command declares itself.

    ``top`` classes are explained, if it is given, instead of the target. ``beside`` says what is written beside the
    answers of these pictures.
    """
    from cnnviz.cli.batch_explain import explain_files
    from cnnviz.cli.outputs import destination
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.prepared import offered_renderers, prepared, with_settings

    words = with_settings(words, **settings)
    command = prepared(context, words, named_methods(names, words), options, offered_renderers(render))
    pictures = picture_files(command.arguments, options)
    methods = len(names) * (top or 1)
    place = destination(context.command.name or "explain", options, len(pictures.paths) * methods, methods)
    explainer = command.explainer(command.attributions(names), target, top)
    also = None if beside is None else beside(pictures)
    failed = explain_files(explainer, pictures, command.renderer(render), place, options, command.reads, also)
    return pictures.status(failed)
