"""The command that finds what in a folder excites channels most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.options import MODEL, WORK, Layer, Pictures, Render, Show, loaded, sharing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from cnnviz.explanations.explanation import Explanation
    from cnnviz.images.batches import Picture

_ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}


@sharing(MODEL, WORK)
def excite(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    channels: Annotated[str, typer.Option("--channels", "--channel", help="Their numbers: 5,9.", **_ANSWER)],
    layer: Layer = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures of each channel.", **_ANSWER)] = 9,
    method: Annotated[
        str, typer.Option("--method", "-m", help="What carries the unit back to the picture.", **_ANSWER)
    ] = "deconvnet",
    render: Render = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", **_ANSWER)] = Path("excited.png"),
    show: Show = False,
) -> int:
    """Find the pictures that excite a layer's channels most, cropped to what the strongest unit sees of them.

    Beside the crops stand their projections back from that unit, a row for each channel. The settings of the method and
    of the renderer are options too, such as --smooth or --style minmax.
    """
    from cnnviz.cli.batch_explain import found_pictures, status
    from cnnviz.cli.errors import FAILED, reason, say, tell
    from cnnviz.cli.explain import offered_renderers
    from cnnviz.cli.method_options import formula, named_methods, separated
    from cnnviz.cli.outputs import Drawing, destination
    from cnnviz.cli.progress import progress
    from cnnviz.images.batches import in_batches
    from cnnviz.images.files import encoded, picture_suffix, read_input, write
    from cnnviz.tasks.activation_crops import patch_sheet
    from cnnviz.tasks.top_activations import top_activations

    declared = [name for parameter in context.command.params for name in parameter.opts]
    methods = named_methods([method], pictures)
    paths, settings = separated(pictures, methods, offered_renderers(render), declared)
    numbers = _numbers(channels)
    found, missing = found_pictures(paths)
    if not found:
        return FAILED
    suffix = picture_suffix(output)
    destination(str(output), found, [method], show)
    load = cache(lambda: loaded(options))
    explained = formula(method, settings, lambda path: read_input(path, load().preprocessing))
    drawing = Drawing(render, settings, frozenset(name for each in methods for name in each.settings))
    weight = next(load().module.parameters(), None)
    read: list[Path] = []
    unreadable = 0

    def left_out(picture: Picture, error: Exception) -> None:
        nonlocal unreadable
        unreadable += 1
        tell(reason(error))

    def inputs() -> Iterator[Tensor]:
        each = ((path, path) for path in found)
        with progress("looking", options["quiet"]) as step:
            for paths, batch in in_batches(each, load().preprocessing, options["batch"], left_out):
                read.extend(paths)
                yield batch if weight is None else batch.to(weight.device, weight.dtype)
                step(len(read) + unreadable, len(found))

    def drawn(explanation: Explanation) -> NDArray[np.uint8]:
        drawing.check([explanation])
        return drawing(explanation)

    best = top_activations(load(), inputs(), layer, numbers, count)
    if not read:
        return FAILED
    if not any(best.values()):
        raise ValueError(f"none of {len(read)} pictures excites a channel of {channels}; choose other channels")
    how = {"seed": options["seed"], "memory": value_parsing.byte_count(options["memory"])}
    write(output, encoded(patch_sheet(load(), layer, best, explained, renderer=drawn, **how), suffix))
    if not options["quiet"]:
        for number, row in best.items():
            names = ", ".join(f"{read[each.number].name} {each.activation:.4g}" for each in row)
            say(f"{output}: f:{number} {names or 'nothing'}")
    if show:
        from PIL import Image

        with Image.open(output) as picture:
            picture.show()
    return status(len(found) + missing, unreadable + missing)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(each) for each in text.split(",")))
    except ValueError:
        raise ValueError(f"--channels is numbers with commas between, such as 5,9, not {text!r}") from None
