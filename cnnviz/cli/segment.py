"""The command that cuts out what a map points at: pictures with the object outlined, masks, boxes."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.documents import AnswersJson
from cnnviz.cli.errors import print_line
from cnnviz.cli.explain import explain_pictures
from cnnviz.cli.method_names import file_part, method_names
from cnnviz.cli.method_options import converted
from cnnviz.cli.options import (
    EXPLAIN,
    FileOptions,
    Layer,
    Methods,
    Pictures,
    PlaceOptions,
    Target,
    answer_option,
    sharing,
)
from cnnviz.cli.question import Question
from cnnviz.registry.registry import renderers

if TYPE_CHECKING:
    from cnnviz.cli.batch_explain import Beside
    from cnnviz.cli.outputs import RequestedRenderer
    from cnnviz.cli.picture_files import PictureFiles
    from cnnviz.explanations.explanation import Explanation

RENDERER = "segmentation"


@sharing(*EXPLAIN, FileOptions, PlaceOptions)
def segment(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    method: Methods = None,
    target: Target = None,
    layer: Layer = None,
    masks: Annotated[
        Path | None,
        answer_option(
            "Also write masks here, 255 on the object and 0 elsewhere, by the pictures' names; of several methods"
            " in a folder each.",
            "--write-masks",
            metavar="FOLDER",
        ),
    ] = None,
    json: AnswersJson = False,
) -> int:
    """Cut out the object that a map points at, by its colours and a graph cut (Simonyan et al., 2014).

    Prints each picture's box: left, top, right, bottom, in pixels of the picture. Settings of the methods and
    of the renderer segmentation are options too: --foreground 97, --background 50, --iterations 5, --color red.
    """
    from cnnviz.cli.answers import Answers

    names, answers = method_names(method, "grad_cam"), Answers() if json else None

    def beside(files: PictureFiles) -> Beside:
        from cnnviz.cli.batch_explain import Beside

        places: dict[tuple[Path, str], Path] = {}
        for picture in files.paths if masks is not None else ():
            for name in names:
                folder = masks / file_part(name) if masks is not None and len(names) > 1 else masks or Path()
                places[picture, f"mask of {name}"] = folder / files.below[picture] / f"{picture.stem}.png"
        return Beside(places, partial(cut_out, places=places))

    def cut_out(
        picture: Path,
        explanations: Mapping[str, Explanation],
        renderer: RequestedRenderer,
        there: Collection[Path],
        places: Mapping[tuple[Path, str], Path],
    ) -> None:
        from cnnviz.tasks.object_segmentation import segment as cut

        settings = converted(renderers[RENDERER], renderer.settings)
        known = inspect.signature(cut).parameters
        for name, explanation in explanations.items():
            found = cut(explanation, **{key: value for key, value in settings.items() if key in known})
            part = found if options["at"] == "input" else found.at_original()[0]
            place = places.get((picture, f"mask of {name}"))
            if place is not None and place not in there:
                place.parent.mkdir(parents=True, exist_ok=True)
                part.save(place)
            box, share = part.boxes[0].tolist(), part.masks[0].float().mean().item()
            if answers is not None:
                mask = None if place is None else str(place)
                answers.more[picture, name] = {"box": box if box[2] else None, "share": share, "mask": mask}
            elif not options["quiet"] and options["output"] != "-":
                area = f"box {','.join(map(str, box))}, {share:.1%} of the picture"
                print_line(f"{picture}: {name}: {area if box[2] else 'nothing stands out'}")

    settings, question = {"layer": layer}, Question() if target is None else Question([target])
    return explain_pictures(context, pictures, names, settings, question, RENDERER, options, beside, answers=answers)
