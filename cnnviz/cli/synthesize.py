"""The command that makes inputs for a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.method_options import converted
from cnnviz.cli.options import FileOptions, ModelOptions, SynthesisWorkOptions, answer_option, model_option, sharing
from cnnviz.registry.registry import syntheses

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class SizedModelOptions(ModelOptions):
    """Which network, and where it runs; the size is that of the synthesized inputs, of any rank."""

    size: Annotated[str | None, model_option("Of what is made: 224, 224x320, any rank.")] = None


@sharing(FileOptions, SizedModelOptions, SynthesisWorkOptions)
def synthesize(
    context: typer.Context,
    synthesis: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Such as feature_image; see cnnviz methods.", show_default=False)
    ],
    options: Mapping[str, Any],
    channel: Annotated[str | None, answer_option("Of a layer, by number; several: 1,5,9.")] = None,
    count: Annotated[int, answer_option("How many are made for each.", min=1)] = 1,
    snapshots: Annotated[int, answer_option("Shown too after every so many steps.", min=0)] = 0,
) -> int:
    """Make inputs for a network: what does a channel, a class or a layer look for?

    Every setting of the synthesis is an option too: --layer features.3, --target tabby, --steps 100, --start cat.png.
    [bold]cnnviz methods NAME[/bold] lists them. Ctrl-C ends the work and keeps what there is.
    """
    from cnnviz.cli.outputs import destination
    from cnnviz.cli.prepared import prepared
    from cnnviz.cli.synthesis_jobs import Job, run_jobs
    from cnnviz.feature_visualization.synthesize import synthesize as make
    from cnnviz.images.files import read_input

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
    place = destination(options["output"], [], [name] * max(1, len(channels)), options["show"])
    model = command.model

    def read(path: Path) -> Tensor:
        return read_input(path, model.preprocessing.changed(size=value_parsing.size(options["size"])))

    lengths = value_parsing.lengths(options["size"])
    size = lengths[0] if lengths is not None and len(lengths) == 1 else lengths
    how = {"size": size, "count": count, "seed": options["seed"], "snapshots": snapshots}
    run = partial(make, model, name, **how, **converted(method, command.settings, read))
    labels = [name, *(command.settings[setting] for setting in ("layer", "target") if setting in command.settings)]
    jobs = []
    for number in channels:
        title = f"channel {number}"
        row = title if count > 1 and len(channels) > 1 else ""
        jobs.append(Job(partial(run, channel=number), title, "_".join([*labels, str(number)]), row))
    return run_jobs(jobs or [Job(run, " ".join(labels), "_".join(labels))], place, options)
