"""Signals, images, volumes and vectors, of any number of channels, are all explained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quick import LEARNING, OF_ANY_NETWORK, PERTURBING, quick
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.testing import SmallNet

NAMES = OF_ANY_NETWORK
SIZES = {1: (24,), 2: (12, 10), 3: (8, 12, 10)}
AT_THE_INPUT = [
    *("gradient", "input_x_gradient", "guided_backprop", "deconvnet", "fullgrad", "integrated_gradients"),
    *("smoothgrad", "smoothgrad_squared", "vargrad"),
    *("deeplift", "deeplift_shap", "gradient_shap", "expected_gradients", "lrp"),
]
OF_A_LAYER = [name for name in NAMES if name not in AT_THE_INPUT]


def ask(name: str, model: nn.Module, inputs: Tensor, **how: Any) -> Tensor:
    return explain(model, inputs, name, target=[1, 2], **(quick(name) | how)).values


def batch(channels: int, size: tuple[int, ...]) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_shape_is_of_the_inputs_rank(name: str, rank: int, channels: int) -> None:
    inputs = batch(channels, SIZES[rank])
    values = ask(name, SmallNet(rank, channels), inputs)
    halved = tuple(length // 2 for length in SIZES[rank])
    whole = {"fullgrad": (2, 1, *SIZES[rank]), "saliency_confusion": (2, 4, *halved)}
    whole |= dict.fromkeys(("activation", "layer_relevance"), (2, 8, *halved))
    whole |= dict.fromkeys(
        [*AT_THE_INPUT[:4], *AT_THE_INPUT[5:], "conditional_relevance", "guided_grad_cam"], tuple(inputs.shape)
    )
    whole |= dict.fromkeys((PERTURBING | LEARNING) - {"ablation_cam", "score_cam"}, (2, 1, *SIZES[rank]))
    whole["projections"] = (2, 8 * channels, *SIZES[rank])  # of eight channels
    assert tuple(values.shape) == whole.get(name, (2, 1, *halved))
    assert values.isfinite().all()
    assert values.any()


class Flattened(SmallNet):
    """A network of rank 2 or 3 in which one more axis of length 1 changes nothing."""

    def __init__(self, thin: SmallNet) -> None:
        super().__init__(2, thin.first.in_channels)
        with torch.no_grad():
            for name, weight in thin.state_dict().items():
                wide = self.state_dict()[name]
                if wide.ndim == 4:  # the kernel's middle column alone meets what is not padding
                    wide.zero_()[..., 1] = weight
                else:
                    wide.copy_(weight)
        self.pool = nn.MaxPool2d((2, 1))


# these are cut, or masked at random, in as many dimensions as there are
CUT = {"feature_ablation", "kernel_shap", "lime", "occlusion", "rise", "d_rise", "shapley_sampling"} | LEARNING


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CUT])
def test_a_signal_is_explained_as_an_image_one_pixel_wide(name: str) -> None:
    inputs, thin = batch(3, SIZES[1]), SmallNet(1)
    signal = ask(name, thin, inputs)
    image = ask(name, Flattened(thin), inputs[..., None])
    torch.testing.assert_close(image.squeeze(-1), signal, rtol=1e-4, atol=1e-5 * float(signal.abs().max()))


class Perceptron(nn.Sequential):
    def __init__(self, features: int = 6) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            super().__init__(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        self.eval()


@pytest.mark.parametrize("name", [*(name for name in AT_THE_INPUT if name != "fullgrad"), *sorted(CUT - LEARNING)])
@pytest.mark.parametrize("features", [1, 2, 4, 7])
def test_vectors_have_a_value_for_each_feature(name: str, features: int) -> None:
    inputs = batch(features, ())
    values = ask(name, Perceptron(features), inputs, **({"window": 1} if name == "occlusion" else {}))
    assert values.shape == inputs.shape
    assert values.isfinite().all()


@pytest.mark.parametrize("name", sorted({*OF_A_LAYER, "fullgrad"} - (CUT - LEARNING)))
def test_vectors_have_no_place_for_a_map(name: str) -> None:
    with pytest.raises((LookupError, ValueError), match="spatial extent") as caught:
        ask(name, Perceptron(), batch(6, ()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_pixel_is_enough_for_gradients(rank: int) -> None:
    model = nn.Sequential(
        (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5)
    )
    inputs = batch(3, (1,) * rank)
    for name in AT_THE_INPUT:
        if name != "fullgrad":
            assert ask(name, model.eval(), inputs).shape == inputs.shape
    with pytest.raises(LookupError, match="no layer of Sequential has spatial extent"):
        ask("grad_cam", model, inputs)


def test_complex_and_five_dimensional_inputs_are_told_apart() -> None:
    with pytest.raises(TypeError, match="complex64"):
        ask("gradient", SmallNet(), batch(3, SIZES[2]).to(torch.complex64))
