"""The gradient of the score at the input, and two rules that change how it passes rectifiers."""

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
GUIDED_SMOOTH = rule(*ACTIVATIONS, reads_input=False, otherwise=_NONE, name="guided_smooth")(_guided)
DECONV = rule(*RECTIFIERS, reads_input=False, otherwise=_SMOOTH, name="deconvnet")(_deconvolved)
DECONV_SMOOTH = rule(*ACTIVATIONS, reads_input=False, otherwise=_NONE, name="deconvnet_smooth")(_deconvolved)


@attribution(renderer="grayscale")
def gradient(absolute: bool = False) -> Expr:
    """Gradient of the score with respect to each input value (Simonyan et al., 2014, arXiv:1312.6034).

    Values (N, C, *spatial), score per unit of input: positive where a larger value raises the score. ``absolute`` gives
    magnitudes, as the saliency maps of the paper.
    """
    return abs(cnnviz.gradient()) if absolute else cnnviz.gradient()


@attribution(renderer="grayscale")
def input_x_gradient() -> Expr:
    """Input times gradient, a first-order contribution to the score (Shrikumar et al., 2016, arXiv:1605.01713).

    Values (N, C, *spatial), in units of the score. They sum to the score of a network that is piecewise linear and has
    no biases.
    """
    return image() * cnnviz.gradient()


@attribution(renderer="color")
def guided_backprop(smooth: bool = False) -> Expr:
    """Gradient whose negative part is dropped before each rectifier (Springenberg et al., 2015, arXiv:1412.6806).

    Values (N, C, *spatial). Rectifiers are ReLU, ReLU6, leaky, parametric and randomized ReLU, threshold, and clamp at
    zero; ``smooth`` extends the rule to every activation. Raises LookupError for a network without any of them. The map
    shows what excites the network more than what decides the class, a known failure.
    """
    return cnnviz.gradient(rule=GUIDED_SMOOTH if smooth else GUIDED)


@attribution(renderer="color")
def deconvnet(smooth: bool = False) -> Expr:
    """Gradient passed back through each rectifier by a ReLU of itself (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Values (N, C, *spatial). Rectifiers are those of ``guided_backprop``; ``smooth`` extends the rule to every
    activation. Raises LookupError for a network without any of them. Only max-pooling carries information about the
    input's activations: without it the map is a texture, and where the gradient of a layer is negative everywhere, it
    is blank.
    """
    return cnnviz.gradient(rule=DECONV_SMOOTH if smooth else DECONV)
