"""The commands that make inputs for a network: synthesize, and invert, which begins with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.completion import synthesis_names
from cnnviz.cli.method_options import converted
from cnnviz.cli.options import (
    FileOptions,
    FindOptions,
    ModelOptions,
    Pictures,
    SynthesisWorkOptions,
    answer_option,
    model_option,
    sharing,
)
from cnnviz.registry.registry import syntheses

if TYPE_CHECKING:
    from torch import Tensor

INVERSION = "inversion"


class SizedModelOptions(ModelOptions):
    """Which network, and where it runs; the size is that of the synthesized inputs, of any rank."""

    size: Annotated[
        str | None, model_option("The size of what is made: 224, 224x320, or of any rank.", metavar="SIZE")
    ] = None


@sharing(FileOptions, SizedModelOptions, SynthesisWorkOptions)
def synthesize(
    context: typer.Context,
    synthesis: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="What is made, such as feature_image; cnnviz methods lists what there is.",
            show_default=False,
            autocompletion=synthesis_names,
        ),
    ],
    options: Mapping[str, Any],
    channel: Annotated[
        str | None, answer_option("A channel of the layer, by number; several: 1,5,9.", metavar="NUMBERS")
    ] = None,
    count: Annotated[
        int, answer_option("How many inputs are made for each channel or class.", min=1, metavar="NUMBER")
    ] = 1,
    snapshots: Annotated[
        int,
        answer_option(
            "Show the input after every so many steps, too; 0 shows the last alone.", min=0, metavar="NUMBER"
        ),
    ] = 0,
) -> int:
    """Make inputs for a network: what does a channel, a class or a layer look for?

    Every setting of the synthesis is an option too: --layer features.3, --target tabby, --target channel:features.3:5,
    --steps 100, --start cat.png.
    [bold]cnnviz methods NAME[/bold] lists them. Ctrl-C ends the work and keeps what there is.
    """
    from cnnviz.cli.outputs import destination
    from cnnviz.cli.prepared import prepared
    from cnnviz.cli.synthesis_jobs import Job, plain, run_jobs, settle_jobs
    from cnnviz.cli.targets import read_target
    from cnnviz.feature_visualization.synthesize import synthesize as make_input
    from cnnviz.images.reading import read_input

    words = [word for word in synthesis if not word.startswith("-")]
    name = next((word for word in words if word in syntheses), (words or [""])[0])
    method = syntheses[name]
    command = prepared(context, synthesis, [method], {**options, "size": None})  # a size for pictures alone
    command.arguments.remove(name)
    if command.arguments:
        other = command.arguments[0]
        raise ValueError(f"{other!r} is neither a synthesis nor a setting of {name}; make one thing at a time")
    numbers = value_parsing.numbers(channel, "--channel", int, "a number, or several such as 1,5,9")
    channels = list(dict.fromkeys(numbers or ()))
    if channels:
        method.bind(channel=None)  # raises where it has none
    made = max(1, len(channels)) * count
    place = destination("synthesize", options, made, max(1, len(channels)))
    labels = [name, *(command.settings[setting] for setting in ("layer", "target") if setting in command.settings)]
    names = [plain("_".join([*labels, str(number)])) for number in channels] or [plain("_".join(labels))]
    there = settle_jobs(names, place, options, command.reads, count)
    model = command.model

    def read(path: Path) -> Tensor:
        return read_input(path, model.preprocessing.changed(size=value_parsing.size(options["size"])))

    lengths = value_parsing.lengths(options["size"])
    size = lengths[0] if lengths is not None and len(lengths) == 1 else lengths
    how = {"size": size, "count": count, "seed": options["seed"], "snapshots": snapshots}
    settings = converted(method, command.settings, read)
    if not isinstance(goal := read_target(command.settings.get("target")), str | None):  # no class
        method.bind(objective=None)  # raises where it has none
        settings = {setting: value for setting, value in settings.items() if setting != "target"} | {"objective": goal}
    run = partial(make_input, model, name, **how, **settings)
    jobs = []
    for number, file in zip(channels, names, strict=False):
        title = f"channel {number}"
        row = title if count > 1 and len(channels) > 1 else ""
        jobs.append(Job(partial(run, channel=number), title, file, row))
    jobs = jobs or [Job(run, " ".join(labels), names[0])]
    return run_jobs([job for job in jobs if job.name not in there], place, options)


@sharing(FileOptions, FindOptions, ModelOptions, SynthesisWorkOptions)
def invert(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    layer: Annotated[
        str | None,
        answer_option(
            "The layer that is inverted, by name or number; several: 1,features.3.",
            "--layer",
            "--layers",
            metavar="NAME",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        answer_option("Instead of --layer: so many layers, evenly through the network.", min=1, metavar="NUMBER"),
    ] = None,
) -> int:
    """Make pictures that look the same to a layer as yours: which information does the layer keep?

    A row for each picture, itself first, and then a picture for each layer with the relative error of its features.
    Settings are options too: --steps 100, --canvas pixels; [bold]cnnviz methods inversion[/bold] lists them.
    """
    from cnnviz.cli.failures import Unreadable
    from cnnviz.cli.outputs import destination
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.places import file_names
    from cnnviz.cli.prepared import prepared
    from cnnviz.cli.synthesis_jobs import Job, plain, run_jobs, settle_jobs
    from cnnviz.feature_visualization.synthesize import synthesize as make_input
    from cnnviz.tasks.layer_selection import evenly_spaced_layers

    command = prepared(context, pictures, [syntheses[INVERSION]], options)
    if layer is not None and depth is not None:
        raise ValueError("--layer names layers and --depth chooses them; say one of them")
    files = picture_files(command.arguments, options)
    place = destination("invert", options, len(files.paths), len(files.paths))
    model = command.model
    settings = converted(syntheses[INVERSION], command.settings) | {"seed": options["seed"]}
    unreadable = Unreadable(raising=len(files.paths) == 1)
    inputs: dict[Path, Tensor] = {}
    for path in files.paths:
        try:
            inputs[path] = command.read(path)
        except (OSError, ValueError) as error:
            unreadable(path, error)
    if not inputs:
        return files.status(unreadable.count)
    layers: list[str | None] = [None] if layer is None else [*layer.split(",")]
    if depth is not None:
        weight = next(model.module.parameters())
        layers = [*evenly_spaced_layers(model.module, next(iter(inputs.values()))[None].to(weight), depth)]
    kinds = [plain(INVERSION + (f"_{name}" if name else "")) for name in layers]
    written = file_names(Path(), list(inputs), kinds, files.below)
    names = {asked: str(path.with_suffix("")) for asked, path in written.items()}
    there = settle_jobs(list(names.values()), place, options, [*files.paths, *command.reads])
    jobs = []
    for path, original in inputs.items():
        for name, kind in zip(layers, kinds, strict=True):
            if names[path, kind] not in there:
                make = partial(make_input, model, INVERSION, of=original, layer=name, **settings)
                jobs.append(Job(make, name or "the last layer", names[path, kind], path.name, original[None]))
    status = run_jobs(jobs, place, options)
    return status or files.status(unreadable.count)
