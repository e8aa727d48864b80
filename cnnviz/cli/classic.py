"""The command that makes the eleven pictures of utkuozbulak's pytorch-cnn-visualizations, named as there.

Their formulas, where they are as good as any. Otherwise: signed colours keep zero at middle gray instead of letting
each picture's extremes decide where it is (theirs: --style minmax); one sign alone is at full strength from a
percentile on, so that a few values do not leave the rest dark (theirs: --normalize image); the heat map runs from blue
to red, for hsv is red at both ends (theirs: --colormap hsv); on the picture, cold places stay clear (theirs: --blend
sum, later --blend alpha --opacity 0.4). Grad-CAM starts from zero: theirs starts from one, which shifts the threshold
of its ReLU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import EXPLAIN, FileOptions, Layer, Pictures, PlaceOptions, Target, answer_option, sharing
from cnnviz.registry.registry import renderers

if TYPE_CHECKING:
    from cnnviz.cli.outputs import Destination, RequestedRenderer
    from cnnviz.explanations.explanation import Explanation


@dataclass(frozen=True)
class Kind:
    """One of the pictures: which method it shows, and how it is drawn."""

    method: str
    renderer: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_WHOLE = {"normalize": "image"}  # full strength is the strongest value there is
KINDS = {
    "Vanilla_BP_color": Kind("gradient", "color"),
    "Vanilla_BP_gray": Kind("gradient", "grayscale"),
    "Guided_BP_color": Kind("guided_backprop", "color"),
    "Guided_BP_gray": Kind("guided_backprop", "grayscale"),
    "neg_sal": Kind("guided_backprop", "negative"),
    "pos_sal": Kind("guided_backprop", "positive"),
    "Cam_Grayscale": Kind("grad_cam", "grayscale", _WHOLE),
    "Cam_Heatmap": Kind("grad_cam", "heatmap", _WHOLE),
    "Cam_On_Image": Kind("grad_cam", "overlay", _WHOLE),
    "GGrad_Cam": Kind("guided_grad_cam", "color"),
    "GGrad_Cam_gray": Kind("guided_grad_cam", "grayscale"),
}
COLUMNS = 6  # the picture itself and the eleven, in two rows


@sharing(*EXPLAIN, FileOptions, PlaceOptions)
def classic(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    target: Target = None,
    layer: Layer = None,
    sheet: Annotated[Path | None, answer_option("Also draw them all in one picture.", metavar="FILE")] = None,
) -> int:
    """Draw eleven pictures for each of yours: gradients, guided gradients, each sign, Grad-CAM and guided Grad-CAM.

    They are named NAME_Vanilla_BP_color and so on, and cost one pass forward and two back. The settings of the methods
    and renderers are options too, such as --smooth or --colormap hsv.
    """
    from cnnviz.cli.batch_explain import Beside, explain_files
    from cnnviz.cli.outputs import Destination, destination, write_pages
    from cnnviz.cli.picture_files import picture_files
    from cnnviz.cli.prepared import prepared, with_settings
    from cnnviz.explanations.joining import joined

    words = with_settings(pictures, layer=layer)
    methods = named_methods(dict.fromkeys(kind.method for kind in KINDS.values()), words)
    used = [renderers[name] for name in dict.fromkeys(kind.renderer for kind in KINDS.values())]
    command = prepared(context, words, methods, options, used)
    files = picture_files(command.arguments, options)
    place = destination("classic", options, len(files.paths) * len(KINDS), len(KINDS))
    by_method = command.attributions(method.name for method in methods)
    explainer = command.explainer({name: by_method[kind.method] for name, kind in KINDS.items()}, target)
    explainer = replace(explainer, renderers={name: name for name in KINDS})
    presets = {name: (kind.renderer, kind.settings) for name, kind in KINDS.items()}
    renderer = replace(command.renderer(None), presets=presets)
    reads = [*files.paths, *command.reads]
    drawn = sheet is not None and sheet not in settled_sheet(sheet, 2 * len(files.paths), place, reads, options)
    for_sheet: dict[str, list[Explanation]] = {name: [] for name in KINDS}
    shown: list[Path] = []

    def keep(
        picture: Path, explanations: Mapping[str, Explanation], renderer: RequestedRenderer, there: Collection[Path]
    ) -> None:
        shown.append(picture)
        for name, explanation in explanations.items():
            for_sheet[name].append(explanation)

    beside = Beside({}, keep) if drawn else None
    failed = explain_files(explainer, files, renderer, place, options, command.reads, beside)
    if sheet is not None and any(for_sheet.values()):
        explanations = {name: joined(batches) for name, batches in for_sheet.items()}
        pages = renderer.pages(explanations, [path.name for path in shown], options["at"], COLUMNS)
        write_pages(Destination(sheet, folder=False), pages, options, reads)
    return files.status(failed)


def settled_sheet(
    sheet: Path, rows: int, place: Destination, reads: Sequence[Path], options: Mapping[str, Any]
) -> Collection[Path]:
    """Settle where the sheet of so many rows goes; it where it is there and stays."""
    from cnnviz.cli.outputs import check_folder
    from cnnviz.cli.places import earlier_pages, settle
    from cnnviz.images.writing import picture_suffix

    picture_suffix(sheet)
    check_folder(sheet)
    alone = [] if place.folder else [place.path]
    return settle([sheet, *earlier_pages(sheet, rows), *alone], reads, options)
