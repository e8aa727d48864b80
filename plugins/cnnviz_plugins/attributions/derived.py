"""Methods made of other methods."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, Formula, Layer, attribution, lift, noted, prediction, score, toward, upsample
from cnnviz_plugins.attributions.backprop import guided_backprop
from cnnviz_plugins.attributions.cam import grad_cam


@attribution(renderer="color")
def guided_grad_cam(
    layer: Layer = None, smooth: bool = False, interpolation: Literal["linear", "nearest"] = "linear"
) -> Expr:
    """Guided backprop's detail where Grad-CAM finds support (Selvaraju et al., 2017, arXiv:1610.02391).

    Values (N, C, *spatial). ``smooth`` is guided backprop's, ``interpolation`` how the Grad-CAM is brought to size.
    """
    return guided_backprop(smooth) * upsample(grad_cam(layer).relu(), interpolation)


@lift
def _signs(values: Tensor) -> Tensor:
    total = values.sum(1, keepdim=True)
    return torch.cat([torch.relu(-total), torch.relu(total)], 1)


@lift
def _stacked(*channels: Tensor) -> Tensor:
    return torch.cat(channels, 1)


@attribution(renderer="confusion_matrix")
def saliency_confusion(of: Formula = "grad_cam") -> Expr:
    """The saliency confusion matrix: what speaks against and for the target and the prediction, by any attribution.

    The target is the ground truth. Values (N, 4, *spatial), not negative, in the units of ``of``: target negative,
    target positive, prediction negative, prediction positive. The notes ``prediction`` and
    ``prediction_score`` (N,) are the predicted class and its score.
    After prasannals' neural_viz.
    """
    rows = _stacked(_signs(of), _signs(toward(of, prediction())))
    predicted = noted(rows, "prediction", prediction())
    return noted(predicted, "prediction_score", toward(score(), prediction()))
