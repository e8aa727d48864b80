"""Methods of captum as ours: captum's own values, a model that is borrowed, and targets that it can't answer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import cnnviz
from cnnviz import attributions, black_box, explain
from cnnviz.formulas import from_captum
from cnnviz.objectives import channel
from cnnviz.testing import SmallNet, check_attribution
from cnnviz.testing.nets import PairNet

captum = pytest.importorskip("captum.attr")


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "made", "settings"),
    [
        ("Saliency", {}, {"abs": False}),
        ("InputXGradient", {}, {}),
        ("IntegratedGradients", {"multiply_by_inputs": False}, {"n_steps": 4}),
        ("Occlusion", {}, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2)}),
    ],
)
def test_values_are_those_of_captum(name: str, made: dict[str, Any], settings: dict[str, Any]) -> None:
    model, inputs, target = SmallNet(2), pictures(), torch.tensor([1, 3])
    method = from_captum(getattr(captum, name), **made)
    ours = explain(model, inputs, method(**settings), target=target.tolist()).values
    theirs = getattr(captum, name)(model, **made).attribute(inputs.clone().requires_grad_(), target=target, **settings)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)


def test_layers_are_handed_over() -> None:
    model, inputs = SmallNet(2), pictures()
    ours = explain(model, inputs, from_captum(captum.LayerGradCam)(layer="third"), target=1).values
    theirs = captum.LayerGradCam(model, model.third).attribute(inputs.clone().requires_grad_(), target=1)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)


def test_a_method_inside_of_another_draws_by_the_seed() -> None:
    method = from_captum(captum.NoiseTunnel, attribution_method=captum.Saliency)
    state = torch.get_rng_state()
    first, again, other = (
        explain(SmallNet(2), pictures(), method(nt_samples=2, stdevs=0.1), target=1, seed=seed).values
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_further_inputs_are_called_with() -> None:
    model, inputs, factor = PairNet(2), pictures(), torch.tensor([[2.0], [3.0]])
    ours = explain(model, (inputs, factor), from_captum(captum.Saliency)(), target=1).values
    theirs = captum.Saliency(model).attribute(
        inputs.clone().requires_grad_(), target=1, additional_forward_args=(factor,)
    )
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)


@pytest.fixture
def _registered() -> Iterator[None]:
    attributions.register(from_captum(captum.Saliency), name="their_saliency")
    yield
    attributions.plugins.unregister(name="their_saliency")
    del attributions._methods["their_saliency"], attributions._origins["their_saliency"]


@pytest.mark.usefixtures("_registered")
def test_it_is_registered_and_part_of_formulas() -> None:
    answer = explain(SmallNet(2), pictures(), "their_saliency", target=1)
    assert answer.recipe == "their_saliency()"
    doubled = explain(SmallNet(2), pictures(), attributions["their_saliency"]() * 2, target=1)
    torch.testing.assert_close(doubled.values, answer.values * 2)
    with pytest.raises(TypeError, match="has no setting 'absolute'"):
        explain(SmallNet(2), pictures(), "their_saliency", absolute=False)


def test_it_keeps_the_promises_of_the_kit() -> None:
    check_attribution(from_captum(captum.InputXGradient)())


class Broken(captum.Saliency):  # type: ignore[misc]  # captum has no types
    """Leaves a hook and a tensor on the model, and raises."""

    def attribute(self, inputs: Tensor, target: Any = None, abs: bool = True) -> Tensor:
        self.forward_func.third.register_forward_hook(lambda *each: None)
        self.forward_func.third.left_over = inputs
        raise RuntimeError("halfway")


def test_what_captum_leaves_behind_goes() -> None:
    model = SmallNet(2)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="halfway"):
        explain(model, pictures(), from_captum(Broken)(), target=1)
    assert not model.third._forward_hooks
    assert not hasattr(model.third, "left_over")
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


def test_a_function_of_the_output_is_explained() -> None:
    model, inputs, method = SmallNet(2), pictures(), from_captum(captum.InputXGradient)()
    one, other = (explain(model, inputs, method, target=each).values for each in (1, 3))
    both = explain(model, inputs, method, target=lambda output: 2 * output[:, 1] - output[:, 3]).values
    torch.testing.assert_close(both, 2 * one - other)


def bands() -> Tensor:
    """Four bands of three rows, numbered."""
    return (torch.arange(12) // 3).view(1, 1, 12, 1).expand(1, 3, 12, 10).contiguous()


@pytest.mark.filterwarnings("ignore:Setting forward:UserWarning", "ignore:You are providing multiple:UserWarning")
@pytest.mark.parametrize(
    ("name", "made", "settings"),
    [
        # these repeat each input, these the whole batch, and these ask about one input at a time
        ("NoiseTunnel", {"attribution_method": captum.InputXGradient}, {"nt_samples": 3, "stdevs": 0.2}),
        ("GradientShap", {}, {"baselines": torch.zeros(3, 3, 12, 10), "n_samples": 2}),
        ("DeepLiftShap", {}, {"baselines": torch.linspace(0, 1, 3 * 360).view(3, 3, 12, 10)}),
        ("IntegratedGradients", {}, {"n_steps": 3, "internal_batch_size": 5}),
        ("FeatureAblation", {}, {"feature_mask": bands(), "perturbations_per_eval": 3}),
        ("KernelShap", {}, {"feature_mask": bands(), "n_samples": 8}),
    ],
)
def test_functions_of_each_input_are_as_the_classes(name: str, made: dict[str, Any], settings: dict[str, Any]) -> None:
    """Rows are told apart however captum repeats them: by classes captum does it itself."""
    model, inputs, method = SmallNet(2), pictures(), from_captum(getattr(captum, name), **made)(**settings)
    classes, functions = [1, 3], [lambda output: output[:, 1], lambda output: output[:, 3]]
    of_places: Any = lambda output: output[:, 1] * torch.arange(1, len(output) + 1)  # noqa: E731
    for asked in (method, attributions["smoothgrad"](of=method, samples=2)):
        by_class, by_function = (explain(model, inputs, asked, target=each).values for each in (classes, functions))
        torch.testing.assert_close(by_function, by_class)
        assert by_class.abs().sum() > 0
    first, placed = (explain(model, inputs, method, target=each).values for each in (1, of_places))
    torch.testing.assert_close(placed, first * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), rtol=1e-3, atol=1e-5)


def test_methods_that_take_no_class_are_asked_without() -> None:
    model, inputs = SmallNet(2), pictures()
    ours = explain(model, inputs, from_captum(captum.LayerActivation)(layer="third"), target=1).values
    theirs = captum.LayerActivation(model, model.third).attribute(inputs)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)
    neuron = from_captum(captum.NeuronGradient)(layer="third", neuron_selector=(0, 1, 2))
    theirs = captum.NeuronGradient(model, model.third).attribute(inputs.clone().requires_grad_(), (0, 1, 2))
    torch.testing.assert_close(explain(model, inputs, neuron, target=1).values, theirs.detach(), rtol=0, atol=0)


def test_what_it_cannot_answer_is_refused() -> None:
    model, inputs, method = SmallNet(2), pictures(), from_captum(captum.Saliency)()
    with pytest.raises(ValueError, match="Saliency of captum explains what a model gives; give a class, or a function"):
        explain(model, inputs, method, target=channel("third", 1))
    with pytest.raises(ValueError, match="asks for gradients, which a black box does not give"):
        explain(black_box(model), inputs, method, target=1)
    windows = from_captum(captum.Occlusion)(sliding_window_shapes=(3, 6, 5))
    seen, plain = (explain(each, inputs, windows, target=1).values for each in (black_box(model), model))
    torch.testing.assert_close(seen, plain)


def test_what_is_no_method_of_captum_is_named() -> None:
    with pytest.raises(TypeError, match=r"from_captum takes a class such as captum.attr.Saliency, not 'Saliency'"):
        from_captum("Saliency")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Saliency is not made with 'steps'; it takes forward_func"):
        from_captum(captum.Saliency, steps=3)
    with pytest.raises(TypeError, match="NoiseTunnel is made with no model"):
        from_captum(captum.NoiseTunnel)
    with pytest.raises(TypeError, match="NoiseTunnel is made with no model"):
        from_captum(captum.NoiseTunnel, attribution_method=captum.NoiseTunnel)
    with pytest.raises(TypeError, match="LayerGradCam gets layer when it is asked; leave it out of from_captum"):
        from_captum(captum.LayerGradCam, layer=SmallNet(2).third)
    with pytest.raises(TypeError, match="LimeBase is made with interpretable_model; say from_captum"):
        from_captum(captum.LimeBase)
    assert cnnviz.formulas.from_captum is from_captum
