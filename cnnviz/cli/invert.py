"""The command that shows what layers keep of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from cnnviz.cli.method_options import converted
from cnnviz.cli.options import FileOptions, ModelOptions, Pictures, SynthesisWorkOptions, answer_option, sharing
from cnnviz.registry.registry import syntheses

NAME = "inversion"


@sharing(FileOptions, ModelOptions, SynthesisWorkOptions)
def invert(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    layer: Annotated[
        str | None, answer_option("By name or number; several: 1,features.3.", "--layer", "--layers")
    ] = None,
    depth: Annotated[int | None, answer_option("Instead: so many layers, evenly through the network.", min=1)] = None,
) -> int:
    """Make pictures that a layer answers like the ones given: what did it keep of them?

    A row for each picture, itself first, and then a picture for each layer with the relative error of its features.
    Settings are options too: --steps 100, --canvas pixels; [bold]cnnviz methods inversion[/bold] lists them.
    """
    from cnnviz.cli.outputs import destination
    from cnnviz.cli.prepared import prepared
    from cnnviz.cli.synthesis_jobs import Job, run_jobs
    from cnnviz.feature_visualization.synthesize import synthesize
    from cnnviz.images.files import find_pictures
    from cnnviz.tasks.layer_selection import depths

    command = prepared(context, pictures, [syntheses[NAME]], options)
    if layer is not None and depth is not None:
        raise ValueError("--layer names layers and --depth chooses them; say one of them")
    files = find_pictures(command.arguments)
    place = destination(options["output"], files, [NAME] * len(files), options["show"])
    model = command.model
    settings = converted(syntheses[NAME], command.settings) | {"seed": options["seed"]}
    inputs = [command.read(path) for path in files]
    names: list[str | None] = [None] if layer is None else [*layer.split(",")]
    if depth is not None:
        weight = next(model.module.parameters())
        names = [*depths(model.module, inputs[0][None].to(weight), depth)]
    jobs = []
    for path, original in zip(files, inputs, strict=True):
        for name in names:
            make = partial(synthesize, model, NAME, of=original, layer=name, **settings)
            file = f"{path.stem}_{NAME}" + (f"_{name}" if name else "")
            jobs.append(Job(make, name or "the last layer", file, path.name, original[None]))
    return run_jobs(jobs, place, options)
