"""Attributions composed of other attributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, Formula, Layer, attribution, lift, noted, prediction, score, toward, upsample
from cnnviz.formulas import MapWarning, tell_if
from cnnviz_plugins.attributions.backprop import guided_backprop
from cnnviz_plugins.attributions.cam import grad_cam


@attribution(renderer="color")
def guided_grad_cam(
    layer: Layer = None,
    smooth: bool = False,
    interpolation: Literal["linear", "nearest"] = "linear",
    call: int | None = None,
    layout: Literal["auto", "tokens", "channels_last", "channels_first"] = "auto",
    grid: Sequence[int] | str | None = None,
    extra: int = 0,
    fuse: Literal["mean", "sum", "max", "product"] = "mean",
) -> Expr:
    """Guided backprop times the positive part of Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391).

    Values (N, C, *spatial). ``layer``, ``call``, ``layout``, ``grid``, ``extra`` and ``fuse`` are Grad-CAM's,
    ``smooth`` is guided backprop's, ``interpolation`` brings the
    Grad-CAM to the input's size. Raises LookupError for a network without rectifiers, ValueError for an unknown
    interpolation.
    """
    cam = grad_cam(layer, call=call, layout=layout, grid=grid, extra=extra, fuse=fuse)
    return guided_backprop(smooth) * upsample(_evidence_for(cam), interpolation)


@lift
def _evidence_for(cam: Tensor) -> Tensor:
    positive = cam.relu()
    zeros = (
        "guided_grad_cam is zero everywhere: Grad-CAM is nowhere positive here; choose another layer or target, or "
        "grad_cam, which is negative where a layer lowers the score"
    )
    tell_if(~positive.any() & cam.any(), lambda: zeros, MapWarning)  # of a CAM that is zero itself, the CAM tells
    return positive


@lift
def _negative_and_positive(*maps: Tensor) -> Tensor:
    totals = [values.sum(1, keepdim=True) for values in maps]
    return torch.cat([part.relu() for total in totals for part in (-total, total)], 1)


@attribution(renderer="confusion_matrix")
def saliency_confusion(of: Formula = "grad_cam") -> Expr:
    """Negative and positive evidence for the target, and for the predicted class (prasannals, neural_viz).

    The target is taken for the ground truth. Values (N, 4, *spatial), not negative, at the size and in the units of the
    attribution ``of``: target negative, target positive, prediction negative, prediction positive. The notes
    ``prediction`` and ``prediction_score`` (N,) are the predicted class and its score. Raises ValueError where the
    target is a function or an objective, which has no predicted class.
    """
    maps = _negative_and_positive(of, toward(of, prediction()))
    predicted = noted(maps, "prediction", prediction())
    return noted(predicted, "prediction_score", toward(score(), prediction()))
