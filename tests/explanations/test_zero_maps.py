"""An explanation that is zero everywhere says so, once; a network that is not trained yet is the usual reason."""

from __future__ import annotations

import warnings

import pytest
import torch
from nets import AveragingNet, tiny_inputs
from quick import ATTENDING, quick
from torch import nn

from cnnviz import attributions, explain
from cnnviz.formulas import MapWarning


def told(net: nn.Module, method: str) -> list[str]:
    """The warnings that an explanation comes with."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", MapWarning)
        explain(net, tiny_inputs(), method, target=1, **quick(method))
    return [str(each.message) for each in found if issubclass(each.category, MapWarning)]


def untrained(attention: bool = False) -> nn.Module:
    """A network whose last layer is zero, as some are made."""
    net = AveragingNet(2, attention=attention).double().eval()
    for layer in [part for part in net.modules() if isinstance(part, nn.Linear)][-1:]:
        nn.init.zeros_(layer.weight)
    return net


NOT_ZERO = (
    *("activation", "attention_rollout", "eigen_cam", "projections"),
    *("extremal_perturbation", "meaningful_perturbation"),
)
"""They do not read the score alone; or they look for a mask, and find one for any score."""
MASKS_OR_SEVERAL = ("rise", "score_cam", "d_rise", "saliency_confusion")
"""Means of masks, which are not zero where all masks score the same; and several maps in one."""


@pytest.mark.parametrize("method", [name for name in attributions if name not in (*NOT_ZERO, *MASKS_OR_SEVERAL)])
def test_a_network_whose_head_is_zero_says_so_once(method: str) -> None:
    assert len(found := told(untrained(method in ATTENDING), method)) == 1, found
    assert "is zero everywhere" in found[0]


@pytest.mark.parametrize("method", ["gradient", "occlusion", "grad_cam", "integrated_gradients"])
def test_other_networks_say_nothing(method: str) -> None:
    assert told(AveragingNet(2).double().eval(), method) == []


def test_a_network_that_is_linear_has_no_variance_of_gradients() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.LazyLinear(3)).double()
    net(tiny_inputs())
    with pytest.warns(MapWarning, match=r"^vargrad\(samples=2\) is zero everywhere: .* gradients do not vary; choose"):
        assert not torch.any(explain(net.eval(), tiny_inputs(), "vargrad", target=1, samples=2).values)
