"""A formula's text makes the formula again: the same values by the same renderer, and what it can't make is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, tiny_inputs

from cnnviz import (
    Expr,
    LayerAt,
    activation,
    at,
    attributions,
    explain,
    gradient,
    image,
    noted,
    over,
    parse_formula,
    prediction,
    score,
    toward,
    upsample,
)
from cnnviz.formulas import (
    along,
    backgrounds,
    baseline_input,
    between,
    bias_share,
    compared,
    layer_maps,
    noisy,
    path,
)
from cnnviz.objectives import channel, class_score, neuron, strongest
from cnnviz.targets import against, value
from cnnviz_plugins.attributions.backprop import DECONV, DECONV_SMOOTH, GUIDED, GUIDED_SMOOTH
from cnnviz_plugins.attributions.deeplift import RESCALE

grad_cam, guided = attributions["grad_cam"], attributions["guided_backprop"]
cam = upsample(grad_cam("late"))
g = gradient()

FORMULAS: list[Expr] = [
    # parts
    image(),
    image() * torch.reshape(score(), (-1, 1, 1, 1)),
    activation("second"),
    activation("second", spatial=False),
    activation(LayerAt("early", call=1)),
    activation(),
    g,
    gradient("second"),
    gradient(None),
    gradient(LayerAt("late")),
    gradient(rule=GUIDED),
    gradient("first", GUIDED_SMOOTH),
    gradient(rule=DECONV),
    gradient(rule=DECONV_SMOOTH),
    compared(RESCALE, backgrounds("mean")),
    noted(compared(RESCALE, backgrounds(0.5)), "at 0.5", compared(RESCALE, backgrounds(0.5)).baseline_score()),
    upsample(activation("second"), "nearest"),
    upsample(gradient("late"), mode="corners"),
    at(g, baseline_input("mean")),
    at(g, image() * 0.5),
    over(g, path(4)),
    over(g, path(3, "blur", "left")),
    over(g, path(3, baseline_input(-0.5), quadrature="middle")),
    over(g * g, noisy(3, 0.2), "variance"),
    over(g, noisy(samples=2)),
    over(g, backgrounds("mean")),
    along(g, between(backgrounds(0.25), 3, "even", 0.1)),
    along(g, between(backgrounds(), 2)),
    noted(g, "how much", score() - bias_share()),
    layer_maps((torch.sum(gradient("late") * activation("late"), 1, True),), (LayerAt("late"),), "sum"),
    # classes and targets
    toward(g, 2),
    toward(g, prediction()),
    toward(grad_cam("late"), channel("late", 1) + 2 * neuron(layer="second", index=2, at=(1, 1)) - class_score(0)),
    toward(g, -(class_score(1) / 3 - strongest("late", 0) * 2.5)),
    toward(g, class_score(0) - (class_score(1) + class_score(2))),
    toward(g, class_score(0) * (class_score(1) / class_score(2))),
    toward(g, against(0, (1, 2))),
    toward(g, value(2, above=-1.5)),
    # signs: what is computed first is computed first again, so that not a bit differs
    2 - g,
    -g,
    -(g + 1),
    -(-g),  # noqa: B002
    -(g**2),
    (-g) ** 2,
    (g**2) ** 3,
    abs(g) ** (g**2),
    torch.pow(-2, torch.round(g)),
    2**-3 * g,
    g - (g - 1),
    0.1 * g - (0.2 - g),
    0.1 + g + (0.3 + 0.7 * g),
    0.1 * (0.3 * g),
    g / (g * g + 1e-3),
    g / 3 / 7,
    g * (g / 3),
    1 / (abs(g) + 1),
    torch.rsub(g, 0.25 - g),
    torch.rsub(g, g, alpha=2),
    torch.add(g, g, alpha=0.5),
    True * g,
    # torch functions
    g.relu(),
    torch.amax(abs(g), 1, keepdim=True),
    torch.sum(g, (2, 3), keepdim=True, dtype=torch.float32),
    torch.clamp(g, min=-0.1, max=0.2),
    torch.where(torch.gt(g, 0), g, torch.tensor(0.5)),
    torch.cat((g, g + 1), 1),
    torch.maximum(g, image()),
    torch.einsum("nchw,nchw->nchw", g, g),
    torch.special.expit(g),
    torch.linalg.vector_norm(g, dim=1, keepdim=True),
    torch.nan_to_num(g, 0.0),
    F.relu(g),
    F.max_pool2d(g, 2),
    F.softmax(g, dim=1),
    F.interpolate(grad_cam("late"), size=(5, 6), mode="bilinear"),
    torch.square(g),
    # methods, and a method in a method
    guided() * cam,
    grad_cam(layer=["late", "second"], fuse="product"),
    grad_cam(layer=[("late",), "second"]),
    grad_cam(layer=("late",)),
    grad_cam(layer=LayerAt("late", call=1)),
    grad_cam(layer=2),
    attributions["smoothgrad"](of=guided() * cam, samples=2),
    attributions["smoothgrad"](of=attributions["input_x_gradient"], samples=2),
    attributions["smoothgrad"](of=g, samples=2, sigma=0),
    attributions["vargrad"](of="guided_backprop", samples=3),
    attributions["integrated_gradients"](baseline=("mean"), steps=3),
    attributions["integrated_gradients"](baseline=image() * 0.5, steps=3),
    attributions["occlusion"](window=(2, 3), stride=2, baseline="blur"),
    attributions["gradient"](absolute=True) - attributions["gradient"]() + g,
    attributions["activation"]("second"),
]


def net() -> AveragingNet:
    return AveragingNet(2)


def check_equal(formula: Expr, text: str, **question: Any) -> None:
    """The text makes the formula again: it prints the same, and gives the same values bit for bit, drawn the same."""
    found, expected = (
        explain(net(), tiny_inputs(), each, target=1, **question) for each in (parse_formula(text), formula)
    )
    assert torch.equal(found.values, expected.values), text
    assert found.values.dtype == expected.values.dtype
    assert (found.recipe, found.renderer) == (expected.recipe, expected.renderer)
    assert found.notes.keys() == expected.notes.keys()
    assert all(torch.equal(found.notes[name], expected.notes[name]) for name in expected.notes)


@pytest.mark.parametrize("formula", FORMULAS, ids=repr)
def test_a_formula_is_made_again_of_what_it_prints(formula: Expr) -> None:
    assert repr(parse_formula(repr(formula))) == repr(formula)
    check_equal(formula, explain(net(), tiny_inputs(), formula, target=1).recipe)
