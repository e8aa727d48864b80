"""The command that carries feature maps back to the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cnnviz.cli.explain import explain_pictures
from cnnviz.cli.options import ANSWER, EXPLAIN, Layer, Pictures, Render, Target, sharing


@sharing(*EXPLAIN)
def project(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    layer: Layer = None,
    channels: Annotated[
        str | None,
        typer.Option("--channels", "--channel", help="By number: 5,9. Default: the strongest.", **ANSWER),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the strongest.", **ANSWER)] = 12,
    unit: Annotated[
        bool, typer.Option("--unit", help="Begin with each channel's strongest unit alone.", **ANSWER)
    ] = False,
    of: Annotated[str, typer.Option("--of", "--method", "-m", help="What carries them back.", **ANSWER)] = "deconvnet",
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
