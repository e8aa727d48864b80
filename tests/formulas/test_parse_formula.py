"""A formula's text makes the formula again: the same values by the same renderer, and what it can't make is refused."""

from __future__ import annotations

import inspect
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, tiny_inputs
from quick import quick
from torch import Tensor, nn

import cnnviz
from cnnviz import (
    Expr,
    LayerAt,
    activation,
    at,
    attributions,
    explain,
    gradient,
    image,
    lift,
    noted,
    over,
    parse_formula,
    prediction,
    procedure,
    rule,
    score,
    toward,
    upsample,
)
from cnnviz.engine.torch_functions import function_named, function_text, function_texts
from cnnviz.formulas import (
    FormulaError,
    along,
    backgrounds,
    baseline_input,
    between,
    bias_maps,
    bias_share,
    compared,
    layer_maps,
    noisy,
    passes_at_most,
    path,
)
from cnnviz.formulas.sample_points import _rule
from cnnviz.objectives import channel, class_score, neuron, strongest
from cnnviz.targets import against, region, value
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
    return AveragingNet(2, attention=True)


def answers(formulas: list[Expr]) -> list[cnnviz.Explanation]:
    """What each gives, all of them drawn alike."""
    return [*explain(net(), tiny_inputs(), formulas, target=1).values()]


def check_equal(formulas: list[Expr]) -> None:
    """Texts make formulas again: they print the same, and give the same values bit for bit."""
    for formula in formulas:
        assert repr(parse_formula(repr(formula))) == repr(formula)
    expected = answers(formulas)
    made = [parse_formula(each.recipe) for each in expected]
    # layers are named in recipes, and these print as they are
    assert [repr(each) for each in made] == [each.recipe for each in expected]
    for found, wanted in zip(answers(made), expected, strict=True):
        assert torch.equal(found.values, wanted.values), wanted.recipe
        assert found.values.dtype == wanted.values.dtype
        assert (found.recipe, found.renderer) == (wanted.recipe, wanted.renderer)
        assert found.notes.keys() == wanted.notes.keys()
        assert all(torch.equal(found.notes[name], wanted.notes[name]) for name in wanted.notes)


@pytest.mark.parametrize("group", range(4))
def test_formulas_are_made_again_of_what_they_print(group: int) -> None:
    check_equal(FORMULAS[group::4])


@pytest.mark.parametrize("group", range(4))
def test_methods_are_made_again_of_what_they_print(group: int) -> None:
    check_equal([attributions[name](**quick(name)) for name in [*attributions][group::4] if name not in UNFIT])


UNFIT = {"d_rise", "lime", "kernel_shap"}
"""Which a network of a few weights can't be asked; the next test has them too."""
OTHER: dict[str, list[Any]] = {
    "layer": ["late", 2, -1, ["late", "second"], ("late",), LayerAt("late", call=1), [LayerAt("late"), "second"]],
    "call": [1],
    "layout": ["tokens"],
    "grid": [(3, 4), "3x4"],
    "extra": [1],
    "baseline": [0.5, -1, "blur", (0.0, "mean"), image() * 0.5, None],
    "baselines": [0.5, "mean", baseline_input("blur")],
    "of": ["gradient", "grad_cam", grad_cam(2), guided() * cam, attributions["gradient"]],
    "window": [3, (2, 3), "3x3"],
    "stride": [3, (2, 3), None],
    "segments": ["equal", ("equal", "slic")],
    "channels": [3, "5,9", (5, 9), None],
    "area": [0.2],
    "low": [-2.0],
    "high": [3.0],
    "p": [0.25],
    "spread": ["even"],
    "by": ["max", None],
}


def others(name: str, setting: str) -> Iterator[Any]:
    """Values of a setting that are not the default."""
    parameter, kind = attributions[name].settings[setting], attributions[name].types.get(setting)
    if setting in OTHER:
        yield from OTHER[setting]
    elif get_origin(kind) is Literal:
        yield from get_args(kind)
    elif isinstance(parameter.default, bool):
        yield not parameter.default
    elif isinstance(parameter.default, int | float):
        yield from (parameter.default * 2, parameter.default + 1)
    elif isinstance(parameter.default, str):
        yield from [each for each in ("left", "unit", "variance") if name in ("integrated_gradients", "projections")]
    else:
        raise AssertionError(f"add other values of {setting}")


@pytest.mark.parametrize("name", attributions)
def test_every_setting_of_every_method_is_read_back(name: str) -> None:
    """As it is printed: names and values of settings, of the same types, and the renderer."""
    tried = 0
    settings = attributions[name].settings
    for setting in settings:
        for other in others(name, setting):
            more = {"layout": "tokens"} if setting in ("grid", "extra") and "layout" in settings else {}
            try:
                method = attributions[name](**more, **{setting: other})
            except (ValueError, TypeError):  # which the method has no use for
                continue
            made, tried = parse_formula(repr(method)), tried + 1
            assert repr(made) == repr(method)
            assert made.renderer == method.renderer
            assert made.method.settings == method.method.settings
            kinds = [[type(value) for _, value in each.method.settings] for each in (made, method)]
            assert kinds[0] == kinds[1]
    assert tried >= len(attributions[name].settings)


def test_a_method_and_a_part_of_one_name_are_told_apart() -> None:
    method, part = parse_formula("gradient()"), parse_formula("cnnviz.gradient()")
    assert (method.renderer, repr(method)) == ("grayscale", "gradient()")
    assert part == gradient()
    assert repr(part) == "cnnviz.gradient()"
    assert parse_formula("attributions['gradient']()") == method
    assert parse_formula("activation('late')").renderer == "channels"
    assert parse_formula("cnnviz.activation('late')") == activation("late")
    assert parse_formula("cnnviz.upsample(cnnviz.formulas.bias_share())") == upsample(bias_share())


def test_a_method_named_as_a_word_of_the_language_changes_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's methods are called upsample, sum, and as no word of Python can be."""
    names = ["upsample", "sum", "channel", "3d-cam", "lambda"]
    for name in names:
        monkeypatch.setitem(attributions._methods, name, cnnviz.attribution(renamed(name)))
    assert parse_formula("upsample(score())") == upsample(score())
    assert parse_formula("sum(score())") == torch.sum(score())
    for name in names:
        text = f"attributions['{name}'](depth=2)"
        assert repr(attributions[name](depth=2)) == repr(parse_formula(text)) == text
    monkeypatch.setitem(attributions._methods, "own", cnnviz.attribution(renamed("own")))
    assert repr(parse_formula("own(depth=2)")) == "own(depth=2)"


def renamed(name: str) -> Any:
    def build(depth: int = 1) -> Expr:
        return depth * gradient()

    build.__name__ = name
    return build


@lift
def amax(values: Tensor) -> Tensor:
    """Of one's own, with the name of a torch function."""
    return values


class upsampled(upsample):
    """Of one's own, made of a part."""


class halved(cnnviz.objectives.Objective):
    """An objective of one's own."""


halved.__name__ = "channel"


@rule(*cnnviz.RECTIFIERS, name="guided")
def own_rule(call: cnnviz.Call, grad: Tensor) -> Tensor:
    return grad


def own_function(run: cnnviz.Run) -> Tensor:
    return run.inputs


UNREADABLE: list[tuple[Any, str]] = [
    (g * torch.ones(2, 3), "tensor"),
    (at(g, baseline_input(torch.ones(2, 5, 6))), "tensor"),
    (attributions["integrated_gradients"](baseline=torch.ones(2, 5, 6)), "tensor"),
    (amax(g), "<"),
    (upsampled(score()), "<"),
    (gradient(rule=own_rule), "<"),
    (toward(g, halved()), "<"),
    (toward(g, halved() * 2), "<"),
    (toward(g, region(1, where=torch.ones(2, 2))), "tensor"),
    (procedure(own_function), "<"),
    (procedure(lambda run: run.inputs), "<"),
    (bias_maps(torch.abs), "<"),
    (grad_cam(layer=nn.Conv2d(1, 1, 1)), "<"),
    (activation(LayerAt(nn.Conv2d(1, 1, 1))), "<"),
    (attributions["smoothgrad"](of=own_function), "<"),
    (torch.relu_(g), "<"),
    (F.relu(g, inplace=True), "inplace"),
]


@pytest.mark.parametrize(
    ("formula", "place"), UNREADABLE, ids=lambda value: value if isinstance(value, str) else repr(value)
)
def test_what_no_text_makes_again_says_so_and_is_refused_there(formula: Expr, place: str) -> None:
    text = repr(formula)
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    assert text[caught.value.start : caught.value.stop].startswith(place)


def test_a_modules_layer_is_named_in_the_recipe() -> None:
    model = net()
    for formula in (grad_cam(layer=model.late), torch.sum(activation(LayerAt(model.late)), 1, True)):
        recipe = explain(model, tiny_inputs(), formula, target=1).recipe
        assert "layer='late'" in recipe or "LayerAt('late')" in recipe
        found = explain(model, tiny_inputs(), parse_formula(recipe), target=1)
        assert torch.equal(found.values, explain(model, tiny_inputs(), formula, target=1).values)


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    formula = over(g * np.float64(0.1), noisy(np.int64(3), np.float32(0.5)))
    assert repr(formula) == "over(cnnviz.gradient() * 0.1, noisy(3, 0.5))"


REFUSED: list[tuple[str, str, str, str | None]] = [
    # text, the place, what is said of it, and what may have been meant
    ("", "", "there is no formula; write one", None),
    ("  ", "  ", "there is no formula", None),
    ("upsample(GradCAM())", "GradCAM", "did you mean 'grad_cam'?", "grad_cam"),
    ("GradCAM", "GradCAM", "did you mean 'grad_cam'?", "grad_cam"),
    ("Saliency()", "Saliency", "did you mean 'gradient'? captum calls it Saliency", "gradient"),
    ("upsampel(grad_cam())", "upsampel", "did you mean 'upsample'?", "upsample"),
    ("torch.amaxx(grad_cam())", "torch.amaxx", "did you mean 'torch.amax'?", "torch.amax"),
    ("cnnviz.grad_camm()", "cnnviz.grad_camm", "did you mean", "grad_cam"),
    ("attributions['grad_camm']()", "attributions['grad_camm']", "did you mean 'grad_cam'?", "grad_cam"),
    ("attributions['grad_cam']", "attributions['grad_cam']", "write () behind it", None),
    ("qqqqqqqq()", "qqqqqqqq", "cnnviz methods lists methods", None),
    ("integrated_gradients(n_steps=5)", "n_steps", "did you mean 'steps'? captum calls it n_steps", "steps"),
    ("upsample(grad_cam(), modus='nearest')", "modus", "did you mean 'mode'?", "mode"),
    ("upsample()", "upsample()", "upsample needs of", None),
    ("image(3)", "3", "image takes no settings", None),
    ("cnnviz.gradient(rule=guidde)", "guidde", "did you mean 'guided'?", "guided"),
    ("cnnviz.gradient(rule=rule('other:guided'))", "'other:guided'", "there is no rule", "guided"),
    ("cnnviz.gradient(rule='guided')", "'guided'", "rule can't be a text", None),
    ("grad_cam", "grad_cam", "call it, as grad_cam()", "grad_cam()"),
    ("grad_cam * 2", "grad_cam", "call it, as grad_cam()", "grad_cam()"),
    ("image", "image", "call it, as image()", "image()"),
    ("smoothgrad(of='gradientt')", "smoothgrad(of='gradientt')", "did you mean 'gradient'?", None),
    # values
    ("grad_cam(relu=3)", "3", "give True or False", None),
    ("rise(masks=1)", "1", "say 2 masks", None),
    ("integrated_gradients(quadrature='simpson')", "'simpson'", "there is no quadrature 'simpson'", None),
    ("grad_cam(layer=image())", "image()", "layer can't be a formula", None),
    ("grad_cam(layer=['late', image()])", "['late', image()]", "layer can't be a list", None),
    ("grad_cam(layer=guided)", "guided", "there is no method", "guided_backprop"),
    ("upsample(3)", "3", "of can't be a whole number", None),
    ("upsample('a')", "'a'", "of can't be a text", None),
    ("over(image(), 3)", "3", "points can't be a whole number", None),
    ("over(image(), image())", "image()", "points can't be a formula", None),
    ("over(image(), noisy(2), 'mode')", "over(image(), noisy(2), 'mode')", "there is no reduction 'mode'", None),
    ("noted(image(), 3, score())", "3", "name can't be a whole number", None),
    ("toward(image(), 1.5)", "1.5", "target can't be a number", None),
    ("toward(image(), noisy())", "noisy()", "target can't be points", None),
    ("noisy()", "noisy()", "this is points, and no formula", None),
    ("channel('late', 1)", "channel('late', 1)", "it stands inside of one, such as toward(grad_cam(), ...)", None),
    ("(grad_cam(),)", "(grad_cam(),)", "this is a tuple, and no formula", None),
    ("'grad_cam()'", "'grad_cam()'", "this is a text, and no formula", None),
    ("None", "None", "this is None, and no formula", None),
    ("similar('/etc/passwd')", "similar", "a formula's text opens none", None),
    ("toward(image(), box(0, boxes=own))", "own", "there is no method", None),
    # signs
    ("2", "2", "this is a whole number, and no formula", None),
    ("2 * 3", "2 * 3", "arithmetic needs a formula on one side", None),
    ("image() + 2 * 3", "2 * 3", "arithmetic needs a formula on one side", None),
    ("9**9**9**9", "9**9", "arithmetic needs a formula on one side", None),
    ("(1,)*10**9", "10**9", "arithmetic needs a formula on one side", None),
    ("(1,) * image()", "(1,)", "a tuple takes no part in arithmetic", None),
    ("'a' * image()", "'a'", "a text takes no part in arithmetic", None),
    ("None + image()", "None", "None takes no part in arithmetic", None),
    ("-'a'", "'a'", "a text takes no part in arithmetic", None),
    ("--(1, 2)", "(1, 2)", "a tuple takes no part", None),
    ("image() ** 1001", "1001", "an exponent is at most 1,000", None),
    ("image() ** -1e9", "-1e9", "an exponent is at most 1,000", None),
    ("image() ** 9**9", "9**9", "arithmetic needs a formula on one side", None),
    ("toward(image(), channel('late', 1) ** 2)", "channel('late', 1) ** 2", "targets have no powers", None),
    ("channel('late', 1) * image()", "channel('late', 1) * image()", "can't be put together", None),
    ("+image()", "+", "a plus before a value does nothing", None),
    ("image() // 2", "/", "can't stand here", None),
    ("image() % 2", "%", "a formula has no remainder", None),
    ("image() @ image()", "@", "write torch.matmul(a, b)", None),
    ("image() < 2", "<", "a formula has no comparisons", None),
    ("image() == 2", "=", "= names an argument", None),
    ("image() and 2", "and", "can't stand here", None),
    ("not image()", "image", "two words follow each other, 'not image'", None),
    # what it costs
    ("rise(masks=1000000000000)", "1000000000000", "a whole number in a formula is at most 1,000,000", None),
    ("rise(masks=10**12)", "10**12", "arithmetic needs a formula", None),
    ("rise(masks=-1000001)", "1000001", "is too large", None),
    ("integrated_gradients(steps=1000000000)", "1000000000", "is too large", None),
    (f"image() * {'9' * 1900}", "9" * 1900, "is too large", None),
    ("image() * 1e999", "1e999", "is infinite", None),
    ("image() * inf", "inf", "there is no method", "sin"),
    ("image() * nan", "nan", "there is no method", None),
    (
        "over(over(over(gradient(), noisy(1000)), noisy(1000)), noisy(1000))",
        "over(over(over(gradient(), noisy(1000)), noisy(1000)), noisy(1000))",
        "1,000,000,000 passes, and a formula at most 10,000,000",
        None,
    ),
    (
        "smoothgrad(of=rise(masks=100000), samples=1000)",
        "smoothgrad(of=rise(masks=100000), samples=1000)",
        "700,000,000 passes",
        None,
    ),
    # Python that is no formula
    ("image().relu()", ".", "a formula reads no attributes", None),
    ("image().__class__", ".", "a formula reads no attributes", None),
    ("image.__class__()", "image.__class__", "there is no method", None),
    ("().__class__", ".", "a formula reads no attributes", None),
    ("image()[0]", "[", "takes nothing out of a formula by [...]", None),
    ("attributions[0]()", "0", "a method's name stands here", None),
    ("attributions[image()]()", "image", "a method's name stands here", None),
    ("lambda: image()", ":", "a formula has no slices, lambdas or named values", None),
    ("(x := image())", ":", "a formula has no slices, lambdas or named values", None),
    ("[x for x in (1, 2)]", "for", "two words follow each other", None),
    ("sum(x for x in y)", "for", "two words follow each other", None),
    ("{1: image()}", "{", "no sets and dictionaries", None),
    ("f'{image()}'", "'{image()}'", "two words follow each other", None),
    ("b'a'", "'a'", "two words follow each other", None),
    ("'a' 'b'", "'b'", "two words follow each other", None),
    ("image(*a)", "*", "takes no arguments with stars", None),
    ("image(**a)", "**", "takes no arguments with stars", None),
    ("grad_cam(layer=1, layer=2)", "layer", "is given twice", None),
    ("grad_cam(1, layer=2)", "layer", "layer is given twice", None),
    ("grad_cam(layer=1, True)", "True", "stands before those with names", None),
    ("image() if 1 else image()", "if", "can't stand here", None),
    ("image(); image()", ";", "a formula is one expression", None),
    ("image() # all", "#", "a formula has no comments", None),
    ("import os", "os", "two words follow each other", None),
    ("__import__('os').system('true')", ".", "a formula reads no attributes", None),
    ("__import__('os')", "__import__", "there is no method", None),
    ("eval('1')", "eval", "there is no method", "value"),
    ("torch.load('a')", "torch.load", "there is no method", "torch.log"),
    ("torch.hub.load(image())", "torch.hub.load", "there is no method", "torch.sub"),
    ("torch.relu_(image())", "torch.relu_", "there is no method", "torch.relu"),
    ("torch.rand_like(image())", "torch.rand_like", "there is no method", "torch.angle"),
    ("torch.add(image(), 1, out=image())", "out=image()", "would change what other parts", None),
    ("clamp(3, 1)", "clamp(3, 1)", "clamp takes at least one formula", None),
    ("clamp(image(), noisy())", "noisy()", "points is no argument of clamp", None),
    ("torch.nn.functional.relu(image(), True)", "True", "inplace would change what other parts", None),
    ("torch.nn.functional.elu(image(), 1.0, True)", "True", "inplace would change what other parts", None),
    ("torch.poisson(image())", "torch.poisson", "there is no method", "torch.poisson_nll_loss"),
    ("torch.nn.functional.dropout(image())", "torch.nn.functional.dropout", "there is no", "torch.nn.functional.relu"),
    ("grad_cam(layer=layer3)", "layer3", "A text stands in quotation marks: 'layer3'", "layer_cam"),
    ("grad_cam(layer=[stem, 'late'])", "stem", "parts. A text stands in quotation marks: 'stem'", None),
    ("grad_cam(layer=layer4.1.conv2)", "layer4.1.conv2", "a text stands in quotation marks", "'layer4.1.conv2'"),
    ("1_000 * image()", "_000", "two words follow each other", None),
    ("1j * image()", "j", "a number is written as 1000, 0.5 or 1e-3", None),
    ("toward(image(), r'a')", "'a'", "a text begins with its quotation mark", None),
    ("0x10 * image()", "x10", "two words follow each other", None),
    ("...", ".", "a formula reads no attributes", None),
    # letters
    ("\uff47rad_cam()", "\uff47", "is no letter of formulas", None),
    ("grad_c\u0430m()", "\u0430", "is no letter of formulas", None),
    ("image()\u200b", "\u200b", "is no letter of formulas", None),
    ("image()\0", "\0", "is no letter of formulas", None),
    ("grad_cam(layer='a\u202eb')", "\u202e", "write it as '\\u202e'", None),
    ("grad_cam(layer='a\ud800')", "\ud800", "unprintable", None),
    ("grad_cam(layer='\\ud800')", "\\ud800", "means nothing", None),
    ("grad_cam(layer='\\q')", "\\q", "means nothing", None),
    ("grad_cam(layer='\\N{BULLET}')", "\\N", "means nothing", None),
    ("grad_cam(layer='a", "'", "this text has no end", None),
    ("grad_cam(layer='a'", "", "ends too early", None),
    ("grad_cam(layer=", "", "ends too early", None),
    ("grad_cam)", ")", "can't stand here", None),
    ("image() 3", "3", "can't stand here", None),
    ("grad_cam(,)", ",", "can't stand here", None),
    # sizes
    ("(" * 2000, "(", "at most 32 levels deep", None),
    ("-" * 2000, "-", "at most 32 levels deep", None),
    ("[" * 1999, "[", "at most 32 levels deep", None),
    ("image()**" * 200 + "2", "(", "at most 32 levels deep", None),
    ("abs(" * 40 + "image()" + ")" * 40, "(", "at most 32 levels deep", None),
    ("image()+" + "1+" * 70 + "1", "+", "at most 64 signs", None),
    (f"stack(({'image(),' * 65}))", "image", "at most 64 calls", None),
    (f"stack(({'1,' * 65}image()))", "(", "a list has at most 64 items", None),
    (f"stack({'1,' * 65}image())", "stack", "a call has at most 64 arguments", None),
    (" " * 2000 + "image()", "image()", "at most 2,000 characters, not 2,007", None),
]


@pytest.mark.parametrize(("text", "place", "said", "hint"), REFUSED, ids=lambda value: ascii(value)[:40])
def test_what_is_no_formula_is_refused_with_the_place_and_the_way_out(
    text: str, place: str, said: str, hint: str | None
) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    error = caught.value
    assert said in error.reason
    assert (error.text, error.text[error.start : error.stop], error.hint) == (text, place, hint)
    assert "\n" not in str(error)
    assert str(error).isprintable()
    assert str(error).startswith(error.reason)
    assert len(str(error)) < 600


def test_an_error_marks_its_place_in_one_line() -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula("guided_backprop() *\n upsample(GradCAM())")
    assert str(caught.value) == (
        "there is no method, part or function 'GradCAM'; did you mean 'grad_cam'?; here, between >>> and <<<: "
        "guided_backprop() * upsample(>>>GradCAM<<<())"
    )
    same = pickle.loads(pickle.dumps(caught.value))
    assert (str(same), same.start, same.stop, same.hint) == (str(caught.value), 30, 37, "grad_cam")


@pytest.mark.parametrize("thing", [3, None, b"grad_cam()", grad_cam()])
def test_what_is_no_text_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="parse_formula reads a text, not a "):
        parse_formula(thing)


def test_texts_hold_every_letter_that_names_have() -> None:
    for name in ("château", "猫", "a\nb", "it's", '"', "\\", "\x00\x1b", "\u202e", "a,b)(", "\U0001f408"):
        assert parse_formula(repr(toward(g, name))) == toward(g, name)


def test_a_plugin_that_does_not_load_and_one_that_raises_are_errors_of_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(depth: int = 1) -> Expr:
        raise RuntimeError("no luck\ntoday")

    monkeypatch.setitem(attributions._methods, "broken", cnnviz.attribution(broken))
    with pytest.raises(FormulaError, match="no luck today") as caught:
        parse_formula("2 * broken(depth=3)")
    assert (caught.value.start, caught.value.stop) == (4, 19)


def test_passes_are_told_before_any_is_made() -> None:
    expected = {
        "gradient()": 1,
        "gradient() * grad_cam()": 1,
        "score() - at(score(), image())": 2,
        "over(gradient(), noisy(7)) + over(score(), path(3))": 10,
        "over(over(gradient(), noisy(7)), path(3))": 21,
        "along(gradient(), between(backgrounds(), 5))": 5,
        "compared(deeplift, backgrounds())": 2,
        "toward(over(gradient(), noisy(7)), 1)": 7,
        "rise(masks=100, cells=7)": 700,
        "rise()": 7 * inspect.signature(attributions["rise"].build).parameters["masks"].default,
        "smoothgrad(samples=9)": 9,
        "smoothgrad(of=rise(masks=100, cells=7), samples=9)": 6300,
        "projections(of=smoothgrad(samples=9), top=5)": 45,
    }
    assert {text: passes_at_most(parse_formula(text)) for text in expected} == expected


def test_rules_of_other_packages_are_named_with_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    other = cnnviz.Rule("guided", {}, otherwise=None)
    module = types.ModuleType("another_package_of_methods")
    module.first = other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    modules = [*attributions.modules(), ("another", module.__name__)]
    monkeypatch.setattr(attributions, "_modules", modules)
    assert repr(gradient(rule=other)) == "cnnviz.gradient(rule=rule('another:guided'))"
    assert parse_formula(repr(gradient(rule=other))) == gradient(rule=other)
    assert parse_formula("cnnviz.gradient(rule=guided)") == gradient(rule=GUIDED)
    module.second = cnnviz.Rule("guided", {})  # type: ignore[attr-defined]
    assert repr(gradient(rule=other)) == "cnnviz.gradient(rule=<guided>)"
    with pytest.raises(FormulaError, match="there are several rules 'another:guided'"):
        parse_formula("cnnviz.gradient(rule=rule('another:guided'))")


def test_no_torch_function_of_formulas_draws_or_says_that_it_writes() -> None:
    """By what torch itself says of its operators, where a function has one of its name."""
    asked = 0
    for text in function_texts():
        name = text.rpartition(".")[2]
        operator = getattr(torch.ops.aten, name, None)
        for overload in operator.overloads() if operator is not None else ():
            asked += 1
            assert torch.Tag.nondeterministic_seeded not in getattr(operator, overload).tags, text
        assert not name.startswith("_"), text
    assert asked > 500


@pytest.mark.parametrize(
    ("writes", "same"),
    [
        (F.relu(image(), True), F.relu(image())),
        (F.relu(image(), inplace=True), F.relu(image())),
        (torch.relu_(image()), F.relu(image())),
        (F.elu(activation("late"), 1.0, True), F.elu(activation("late"))),
        (torch.mul(image(), 2, out=image()), image() * 2),
    ],
)
def test_a_function_that_writes_in_place_changes_nothing_that_others_read(writes: Expr, same: Expr) -> None:
    inputs, others = tiny_inputs() - 0.5, 2 * image() + torch.mean(activation("late"))
    before = inputs.clone()
    both = explain(net(), inputs, writes * 3 + torch.mean(others), target=1).values
    assert torch.equal(inputs, before)
    expected = explain(net(), before, same * 3 + torch.mean(others), target=1).values
    torch.testing.assert_close(both, expected, rtol=0, atol=0)


def test_every_torch_function_that_is_printed_is_read_back() -> None:
    assert len(function_texts()) > 500
    for text in function_texts():
        function = function_named(text)
        assert function is not None
        printed = function_text(function)
        assert printed is not None, text
        assert function_named(printed) == function  # some have several names
        assert not printed.endswith("_")
    formula = parse_formula("torch.special.expit(torch.linalg.norm(torch.nn.functional.gelu(image()), dim=1))")
    assert formula == torch.special.expit(torch.linalg.norm(F.gelu(image()), dim=1))


def test_numbers_of_numpy_in_targets_are_written_as_numbers() -> None:
    formula = toward(g, np.float64(2.5) * channel("late", np.int64(1)))
    assert repr(formula) == "toward(cnnviz.gradient(), 2.5 * channel(layer='late', index=1))"


def test_thousands_of_points_of_a_path_are_found_at_once() -> None:
    """Gauss-Legendre integrates polynomials exactly, and is symmetric; NumPy's way takes minutes for so many."""
    places, weights = _rule("gauss-legendre", 3000)
    for power in (0, 1, 7, 50):
        assert float((weights * places**power).sum()) == pytest.approx(1 / (power + 1), abs=1e-13)
    np.testing.assert_allclose(places + places[::-1], 1, atol=1e-14)
    slow, fast = np.polynomial.legendre.leggauss(201), _rule("gauss-legendre", 201)
    np.testing.assert_allclose(fast[0], (slow[0] + 1) / 2, atol=1e-14)
    np.testing.assert_allclose(fast[1], slow[1] / 2, atol=1e-13)
    with pytest.raises(
        FormulaError, match="gauss-legendre has at most 10000 steps, not 20000; say quadrature='middle'"
    ):
        parse_formula("integrated_gradients(steps=20000)")
    assert passes_at_most(parse_formula("integrated_gradients(steps=20000, quadrature='middle')")) == 20002
