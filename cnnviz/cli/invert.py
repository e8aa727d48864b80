"""The command that shows what layers kept of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnviz.cli.options import FILES, MODEL, Pictures, Quiet, Seed, loaded, sharing
from cnnviz.cli.synthesis_jobs import Job, made

NAME = "inversion"
_ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}


@sharing(FILES, {**MODEL, "seed": (Seed, 0), "quiet": (Quiet, False)})
def invert(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    layer: Annotated[
        str | None, typer.Option("--layer", "--layers", help="By name or number; several: 1,features.3.", **_ANSWER)
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Instead: so many layers, evenly through the network.", **_ANSWER)
    ] = None,
) -> int:
    """Make pictures that a layer answers like the ones given: what did it keep of them?

    A row for each picture, itself first, and then a picture for each layer with the relative error of its features.
    Settings are options too: --steps 100, --canvas pixels; [bold]cnnviz methods inversion[/bold] lists them.
    """
    from cnnviz.cli.method_options import converted, separated
    from cnnviz.cli.outputs import destination
    from cnnviz.feature_visualization.synthesize import synthesize
    from cnnviz.images.files import find_pictures, read_input
    from cnnviz.registry.registry import syntheses
    from cnnviz.tasks.layer_selection import evenly_spaced_layers

    method = syntheses[NAME]
    declared = [name for parameter in context.command.params for name in parameter.opts]
    paths, given = separated(pictures, [method], [], declared)
    if layer is not None and depth is not None:
        raise ValueError("--layer names layers and --depth chooses them; say one of them")
    found = find_pictures(paths)
    place = destination(options["output"], found, [NAME] * len(found), options["show"])
    model = loaded(options)
    settings = converted(method, given)
    inputs = [read_input(path, model.preprocessing) for path in found]
    names: list[str | None] = [None] if layer is None else [*layer.split(",")]
    if depth is not None:
        weight = next(model.module.parameters())
        names = [*evenly_spaced_layers(model.module, inputs[0][None].to(weight), depth)]
    jobs = []
    for path, each in zip(found, inputs, strict=True):
        for name in names:
            asked = settings | {"of": each, "layer": name, "seed": options["seed"]}
            make = partial(synthesize, model, NAME, **asked)
            called = f"{path.stem}_{NAME}" + (f"_{name}" if name else "")
            jobs.append(Job(make, name or "the last layer", called, Path(path).name, each[None]))
    return made(jobs, place, options)
