"""The commands that explain pictures and draw the explanations: explain, confusion, project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.completion import among
from cnnviz.cli.documents import AnswersJson
from cnnviz.cli.method_names import method_names
from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import (
    EXPLAIN,
    ChannelLayer,
    FileOptions,
    Layer,
    Layers,
    Methods,
    Pictures,
    PlaceOptions,
    Render,
    SpeedOptions,
    Target,
    TargetList,
    TargetTable,
    answer_option,
    sharing,
)
from cnnviz.cli.question import Question

if TYPE_CHECKING:
    from cnnviz.cli.answers import Answers
    from cnnviz.cli.batch_explain import Beside
    from cnnviz.cli.picture_files import PictureFiles


FORMATS = ("png", "jpg", "webp", "tif", "npy", "npz", "safetensors")


@sharing(*EXPLAIN, FileOptions, PlaceOptions, SpeedOptions)
def explain(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    method: Methods = None,
    target: TargetList = None,
    targets: TargetTable = None,
    top_classes: Annotated[
        int | None,
        answer_option("Explain so many classes, the most probable first.", "--top-classes", min=1, metavar="NUMBER"),
    ] = None,
    layer: Layers = None,
    render: Render = None,
    format: Annotated[
        str,
        answer_option(
            "What is written in a folder: png, jpg, webp or tif for pictures; npy for the raw values of each map; npz"
            " for those of all maps of a picture in one file; safetensors for maps that cnnviz reads back.",
            "--format",
            autocompletion=among(FORMATS),
        ),
    ] = "png",
    json: AnswersJson = False,
) -> int:
    """Explain pictures: where is what speaks for the class, or against it?

    Every setting of a method or of a renderer is an option too: --steps 100, --of guided_backprop, --opacity 0.4,
    --relu, --no-relu. [bold]cnnviz methods NAME[/bold] lists them.
    """
    from cnnviz.cli.answers import Answers

    names = method_names(method, "grad_cam")
    settings = {"layer": ",".join(layer) if layer else None}
    question = Question(target or (), targets, top_classes)
    if format not in FORMATS:
        raise ValueError(f"there is no --format {format}; there are {', '.join(FORMATS)}")
    suffix, answers = f".{format}", Answers() if json else None
    return explain_pictures(
        context, pictures, names, settings, question, render, options, suffix=suffix, answers=answers
    )


@sharing(*EXPLAIN, FileOptions, PlaceOptions, SpeedOptions)
def confusion(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    target: Annotated[str, answer_option("The true class, by number or name.", metavar="CLASS")],
    of: Annotated[str, answer_option("The method whose values are split.", metavar="NAME")] = "grad_cam",
    layer: Layer = None,
    render: Render = None,
) -> int:
    """Draw the saliency confusion matrix: what speaks against and for the true class, and the predicted one.

    The settings of --of and of the renderer are options too, such as --layer 3 or --opacity 0.4.
    """
    settings = {"layer": layer, "of": of}
    return explain_pictures(context, pictures, ["saliency_confusion"], settings, Question([target]), render, options)


@sharing(*EXPLAIN, FileOptions, PlaceOptions)
def project(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    layer: ChannelLayer = None,
    channels: Annotated[
        str | None,
        answer_option(
            "The channels, by number: 5,9. Default: the strongest.", "--channels", "--channel", metavar="NUMBERS"
        ),
    ] = None,
    top: Annotated[
        int, answer_option("How many channels, where none are named: the strongest.", min=1, metavar="NUMBER")
    ] = 12,
    unit: Annotated[bool, answer_option("Begin with each channel's strongest unit alone.", "--unit")] = False,
    of: Annotated[
        str,
        answer_option("The method that carries them back to the picture.", "--of", "--method", "-m", metavar="NAME"),
    ] = "deconvnet",
    target: Target = None,
    render: Render = None,
) -> int:
    """Show which parts of a picture make a layer's channels respond.

    Each channel's map, or its strongest unit, by a deconvolutional network. --of guided_backprop shows finer parts.
    Settings of the method and of the renderer are options too: --by max, --smooth, --columns 4, --contrast 2. Networks
    that give no scores of classes need a target, such as --target channel:features.3:0; it changes nothing else.
    """
    settings = {"layer": layer, "channels": channels, "top": str(top), "start": "unit" if unit else "map", "of": of}
    question = Question() if target is None else Question([target])
    return explain_pictures(context, pictures, ["projections"], settings, question, render, options)


def explain_pictures(
    context: typer.Context,
    words: Sequence[str],
    names: Sequence[str],
    settings: Mapping[str, str | None],
    question: Question,
    render: str | None,
    options: Mapping[str, Any],
    beside: Callable[[PictureFiles], Beside] | None = None,
    suffix: str = ".png",
    answers: Answers | None = None,
) -> int:
    """Explain and draw; ``settings`` are those of the method that the command declares itself.

    ``beside`` says what is written beside the answers of these pictures. Files of a folder have the ``suffix``.
    ``answers``, where they are given, are printed as JSON.
    """
    from cnnviz.cli.batch_explain import explain_files
    from cnnviz.cli.outputs import STDOUT, destination
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.prepared import offered_renderers, prepared, with_settings
    from cnnviz.images.writing import PICTURES

    words = with_settings(words, **settings)
    command = prepared(context, words, named_methods(names, words), options, offered_renderers(render))
    pictures = picture_files(command.arguments, options)
    name, number = context.command.name or "explain", len(pictures.paths)
    place = destination(name, options, number * len(names), len(names))
    if suffix != ".png" and not place.folder:
        raise ValueError(f"--format says what is written in a folder, and {place.path} is a file; name a folder")
    if suffix not in PICTURES and options["show"]:
        raise ValueError(f"--show opens pictures, and --format {suffix[1:]} keeps values; leave one of them out")
    if place.path == STDOUT and answers is not None:
        raise ValueError("--json and -o - both write to standard output; name a file or a folder")
    explainer = command.asking(command.explainer(command.attributions(names), None), question, pictures.paths)
    # with the targets known there may be more answers
    place = destination(name, options, number * len(explainer.names), len(explainer.names))
    also = None if beside is None else beside(pictures)
    if answers is None:
        renderer = command.renderer(render)
        failed = explain_files(explainer, pictures, renderer, place, options, command.reads, also, suffix)
        return pictures.status(failed)
    with answers.printed(pictures.paths, pictures.absent):
        renderer = command.renderer(render)
        explain_files(explainer, pictures, renderer, place, options, command.reads, also, suffix, answers)
    return pictures.status(answers.failed(pictures.paths))
