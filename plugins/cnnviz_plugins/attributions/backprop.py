"""Gradients of the score at the input, and the two older rules for carrying them through rectifiers."""

from __future__ import annotations

from torch import Tensor

import cnnviz
from cnnviz import ACTIVATIONS, RECTIFIERS, Call, Expr, attribution, image, rule

_SMOOTH = "the setting smooth=True extends it to every activation, such as SiLU and GELU"
_NONE = "where there is no activation, gradient is the same"


def _guided(call: Call, grad: Tensor) -> Tensor:
    return call.vjp(grad.clamp(min=0))


def _deconvolved(call: Call, grad: Tensor) -> Tensor:
    return grad.clamp(min=0)


GUIDED = rule(*RECTIFIERS, reads_input=False, otherwise=_SMOOTH, name="guided")(_guided)
GUIDED_SMOOTH = rule(*ACTIVATIONS, reads_input=False, otherwise=_NONE, name="guided smooth")(_guided)
DECONV = rule(*RECTIFIERS, reads_input=False, otherwise=_SMOOTH, name="deconvnet")(_deconvolved)
DECONV_SMOOTH = rule(*ACTIVATIONS, reads_input=False, otherwise=_NONE, name="deconvnet smooth")(_deconvolved)


@attribution(renderer="grayscale")
def gradient(absolute: bool = False) -> Expr:
    """How the score moves with each input value: the saliency map (Simonyan et al., 2014, arXiv:1312.6034).

    Values (N, C, *spatial), score per unit of input. ``absolute`` drops the sign.
    """
    return abs(cnnviz.gradient()) if absolute else cnnviz.gradient()


@attribution(renderer="grayscale")
def input_x_gradient() -> Expr:
    """Each input value's share of the score, to first order (Shrikumar et al., 2016, arXiv:1605.01713).

    Values (N, C, *spatial), in units of the score.
    """
    return image() * cnnviz.gradient()


@attribution(renderer="color")
def guided_backprop(smooth: bool = False) -> Expr:
    """Gradients that were positive all the way down (Springenberg et al., 2015, arXiv:1412.6806).

    Every rectifier (ReLU, ReLU6, leaky, parametric and randomized ReLU, threshold; clamp at zero) passes only positive
    gradients back. ``smooth`` extends that to every activation. Values (N, C, *spatial). Raises LookupError for a
    network without rectifiers. Shows what excites the network more than what decides the class: a known failure.
    """
    return cnnviz.gradient(rule=GUIDED_SMOOTH if smooth else GUIDED)


@attribution(renderer="color")
def deconvnet(smooth: bool = False) -> Expr:
    """Gradients clipped at every rectifier, whatever it let through (Zeiler & Fergus, 2014, arXiv:1311.2901).

    ``smooth`` extends that to every activation. Values (N, C, *spatial). Raises LookupError for a network without
    rectifiers. Only max-pooling tells it what is in the picture: on networks without it the map is a texture, and
    where a class's signal is negative all over some layer it is blank.
    """
    return cnnviz.gradient(rule=DECONV_SMOOTH if smooth else DECONV)
