"""The command that makes the eleven pictures of utkuozbulak's pytorch-cnn-visualizations, named as there.

Their formulas, where they are as good as any. Otherwise: signed colours keep zero at middle gray instead of letting
each picture's extremes decide where it is (theirs: --style minmax); one sign alone is at full strength from a
percentile on, so that a few values do not leave the rest dark (theirs: --normalize image); the heat map runs from blue
to red, for hsv is red at both ends (theirs: --colormap hsv); on the picture, cold places stay clear (theirs: --blend
sum, later --blend alpha --opacity 0.4). Grad-CAM starts from zero: theirs starts from one, which shifts the threshold
of its ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.batch_explain import Question
from cnnviz.cli.errors import FAILED
from cnnviz.cli.options import FILES, MODEL, QUESTION, WORK, Layer, Pictures, Target, loaded, sharing
from cnnviz.cli.outputs import Drawing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from cnnviz.explanations.explanation import Explanation


@dataclass(frozen=True)
class Kind:
    """One of the pictures: what it shows, and how."""

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


@sharing(QUESTION, FILES, MODEL, WORK)
def classic(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    target: Target = None,
    layer: Layer = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw them all in one picture.", rich_help_panel="Question and answer"),
    ] = None,
) -> int:
    """Make eleven pictures of each: gradients, guided gradients, each sign, Grad-CAM and guided Grad-CAM.

    They are named NAME_Vanilla_BP_color and so on, and cost one pass forward and two back. The settings of the methods
    and renderers are options too, such as --smooth or --colormap hsv.
    """
    from cnnviz.cli.batch_explain import answered, found_pictures, status
    from cnnviz.cli.method_options import formula, named_methods, separated
    from cnnviz.cli.outputs import destination
    from cnnviz.cli.targets import read_target
    from cnnviz.drawing.comparison import grid
    from cnnviz.explanations.explanation import joined
    from cnnviz.images.files import encoded, picture_suffix, read_input, write
    from cnnviz.registry.registry import renderers

    declared = [name for parameter in context.command.params for name in parameter.opts]
    tokens = [*pictures, *(("--layer", layer) if layer is not None else ())]
    methods = named_methods(dict.fromkeys(kind.method for kind in KINDS.values()), tokens)
    used = [renderers[name] for name in dict.fromkeys(kind.renderer for kind in KINDS.values())]
    paths, settings = separated(tokens, methods, used, declared)
    found, missing = found_pictures(paths)
    if not found:
        return FAILED
    place = destination(options["output"], found, list(KINDS), options["show"])
    if sheet is not None:
        picture_suffix(sheet)
        destination(str(sheet), found, list(KINDS), show=False)  # raises for a place that can't be written
    load = cache(lambda: loaded(options))
    by_method = {
        method.name: formula(method.name, settings, lambda path: read_input(path, load().preprocessing))
        for method in methods
    }
    how = {"seed": options["seed"], "memory": value_parsing.byte_count(options["memory"])}
    how |= {"before_softmax": options["before_softmax"]}
    formulas = {name: by_method[kind.method] for name, kind in KINDS.items()}
    kept: dict[str, list[Explanation]] = {} if sheet is None else {name: [] for name in KINDS}
    question = _Kinds(load(), formulas, read_target(target), how, kept)
    drawing = _InKinds(None, settings, frozenset(name for each in methods for name in each.settings))
    work = {name: options[name] for name in ("batch", "quiet", "show")}
    failed = answered(question, found, drawing, place, **work)
    if sheet is not None and any(kept.values()):
        together = {name: joined(batches) for name, batches in kept.items()}
        write(sheet, encoded(grid(together, drawing, COLUMNS), picture_suffix(sheet)))
    return status(len(found) + missing, failed + missing)


@dataclass(frozen=True)
class _Kinds(Question):
    """Answers for each kind, which is told as the renderer that draws it."""

    kept: Mapping[str, list[Explanation]] = field(default_factory=dict)
    """Where answers are kept, for a sheet of them all."""

    def __call__(self, inputs: Tensor) -> dict[str, Explanation]:
        different = {formula.name: formula for formula in self.formulas.values()}
        found = Question(self.model, different, self.target, self.how)(inputs)
        answers = {name: replace(found[formula.name], renderer=name) for name, formula in self.formulas.items()}
        for name, batches in self.kept.items():
            batches.append(answers[name])
        return answers


@dataclass(frozen=True)
class _InKinds(Drawing):
    """Draws each kind as its table says, unless settings say otherwise."""

    def __call__(self, explanation: Explanation) -> NDArray[np.uint8]:
        from cnnviz.cli.method_options import converted
        from cnnviz.registry.registry import renderers

        kind = KINDS[str(explanation.renderer)]
        return explanation.render(kind.renderer, **{**kind.settings, **converted(renderers[kind.renderer], self.given)})

    def name(self, explanation: Explanation) -> str:
        return KINDS[str(explanation.renderer)].renderer
