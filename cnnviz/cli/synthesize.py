"""The command that makes inputs for a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.options import FILES, MODEL, Group, Quiet, Seed, loaded, sharing
from cnnviz.cli.synthesis_jobs import Job, made

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}
_SIZE = Annotated[str | None, typer.Option(help="Of what is made: 224, 224x320, any rank.", rich_help_panel="Model")]
MAKING: Group = {**MODEL, "size": (_SIZE, None), "seed": (Seed, 0), "quiet": (Quiet, False)}


@sharing(FILES, MAKING)
def synthesize(
    context: typer.Context,
    synthesis: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Such as feature_image; see cnnviz methods.", show_default=False)
    ],
    options: Mapping[str, Any],
    channel: Annotated[str | None, typer.Option(help="Of a layer, by number; several: 1,5,9.", **_ANSWER)] = None,
    count: Annotated[int, typer.Option(min=1, help="How many are made for each.", **_ANSWER)] = 1,
    snapshots: Annotated[int, typer.Option(min=0, help="Shown too after every so many steps.", **_ANSWER)] = 0,
) -> int:
    """Make inputs for a network: what does a channel, a class or a layer look for?

    Every setting of the synthesis is an option too: --layer features.3, --target tabby, --steps 100, --start cat.png.
    [bold]cnnviz methods NAME[/bold] lists them. Ctrl-C ends the work and keeps what there is.
    """
    from cnnviz.cli.method_options import converted, separated
    from cnnviz.cli.outputs import destination
    from cnnviz.feature_visualization.synthesize import synthesize as make
    from cnnviz.images.files import read_input
    from cnnviz.registry.registry import syntheses

    words = [word for word in synthesis if not word.startswith("-")]
    name = next((word for word in words if word in syntheses), (words or [""])[0])
    method = syntheses[name]
    declared = [name for parameter in context.command.params for name in parameter.opts]
    others, given = separated(synthesis, [method], [], declared)
    others.remove(name)
    if others:
        raise ValueError(f"{others[0]!r} is neither a synthesis nor a setting of {name}; make one thing at a time")
    channels = _numbers(channel)
    if channels:
        method.bind(channel=None)  # raises where it has none
    place = destination(options["output"], [], [name] * max(1, len(channels)), options["show"])
    model = loaded({**options, "size": None})  # which is for pictures alone

    def read(path: Path) -> Tensor:
        return read_input(path, model.preprocessing.changed(size=value_parsing.size(options["size"])))

    lengths = value_parsing.lengths(options["size"])
    size = lengths[0] if lengths is not None and len(lengths) == 1 else lengths
    how = {"size": size, "count": count, "seed": options["seed"], "snapshots": snapshots}
    run = partial(make, model, name, **how, **converted(method, given, read))
    called = [name, *(given[setting] for setting in ("layer", "target") if setting in given)]
    jobs = []
    for each in channels:
        title, row = f"channel {each}", f"channel {each}" if count > 1 and len(channels) > 1 else ""
        jobs.append(Job(partial(run, channel=each), title, "_".join([*called, str(each)]), row))
    return made(jobs or [Job(run, " ".join(called), "_".join(called))], place, options)


def _numbers(text: str | None) -> list[int]:
    """``1,5,9`` as numbers. Raises ValueError."""
    try:
        return [] if text is None else list(dict.fromkeys(int(each) for each in text.split(",")))
    except ValueError:
        raise ValueError(f"--channel is a number, or several such as 1,5,9, not {text!r}") from None
