"""The command that cuts out what a map points at: pictures with the object outlined, masks, boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.options import FILES, MODEL, QUESTION, WORK, Layer, Methods, Pictures, Target, sharing

if TYPE_CHECKING:
    from cnnviz.cli.outputs import Drawing
    from cnnviz.explanations.explanation import Explanation

RENDERER = "segmentation"


@sharing(QUESTION, FILES, MODEL, WORK)
def segment(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    method: Methods = None,
    target: Target = None,
    layer: Layer = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write masks here, 255 on the object and 0 elsewhere, by the pictures' names; of several methods"
            " in a folder each.",
            rich_help_panel="Question and answer",
        ),
    ] = None,
) -> int:
    """Cut out the object a map points at: by examples of its colours and a graph cut (Simonyan et al., 2014).

    Prints each picture's box: left, top, right, bottom, in pixels of what the network sees. Settings of the methods and
    of the renderer segmentation are options too: --foreground 97, --background 50, --iterations 5, --color red.
    """
    from cnnviz.cli.explain import explained

    names = list(dict.fromkeys(name.strip() for each in method or ["grad_cam"] for name in each.split(",")))
    taken: dict[Path, Path] = {}

    def also(paths: Sequence[Path], answers: Mapping[str, Explanation], drawing: Drawing) -> None:
        for name, answer in answers.items():
            found = _segmented(answer, drawing)
            for item, path in enumerate(paths):
                left, top, right, bottom = found.boxes[item].tolist()
                if masks is not None:
                    place = masks / name / f"{path.stem}.png" if len(names) > 1 else masks / f"{path.stem}.png"
                    _check_place(place, path, taken)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    found[item].save(place)
                if not options["quiet"]:
                    _tell_box(path, name, (left, top, right, bottom), float(found.masks[item].float().mean()))

    return explained(context, pictures, names, {"layer": layer}, target, RENDERER, options, also)


def _segmented(answer: Explanation, drawing: Drawing) -> Any:
    import inspect

    from cnnviz.cli.method_options import converted
    from cnnviz.registry.registry import renderers
    from cnnviz.tasks.object_segmentation import segment as cut

    drawn = converted(renderers[RENDERER], drawing.given)
    known = inspect.signature(cut).parameters
    return cut(answer, **{name: value for name, value in drawn.items() if name in known})


def _check_place(place: Path, picture: Path, taken: dict[Path, Path]) -> None:
    """Raises ValueError where a mask would replace a picture, or the mask of another one."""
    if place.resolve() == picture.resolve():
        raise ValueError(f"{place} is the picture itself, and its mask would replace it; name another --masks folder")
    if taken.setdefault(place.resolve(), picture) != picture:
        raise ValueError(f"{place} is the mask of {taken[place.resolve()]} already; segment {picture} apart from it")


def _tell_box(path: Path, method: str, box: tuple[int, int, int, int], share: float) -> None:
    from cnnviz.cli.errors import say

    said = f"box {','.join(map(str, box))}, {share:.1%} of the picture" if box[2] else "nothing stands out"
    say(f"{path}: {method}: {said}")
