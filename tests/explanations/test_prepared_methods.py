"""A prepared question answers as ``explain`` does, for every method and several networks; pairs are asked by share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F
from nets import AveragingNet, FlatteningNet, Halfway, Rectified, Residual, randomized, tiny_inputs
from prepared import same
from quick import quick
from torch import Tensor, nn

from cnnviz import attributions, explain, prepare


class InFloat(nn.Module):
    """Functional, in float32, with a batch norm and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)
        randomized(self).float()

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu(self.norm(self.conv(x)))
        return self.head((maps + F.silu(self.conv(x))).mean((2, 3)))


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "averaging": (AveragingNet, lambda seed: tiny_inputs(seed=seed)),
    "flattening": (FlatteningNet, lambda seed: tiny_inputs(seed=seed)),
    "residual": (Residual, lambda seed: tiny_inputs(seed=seed)),
    "rectified": (lambda: Rectified(2, F.relu6), lambda seed: tiny_inputs(seed=seed)),
    "halfway": (Halfway, lambda seed: tiny_inputs(seed=seed)),
    "signals": (lambda: AveragingNet(1), lambda seed: tiny_inputs(1, seed=seed)),
    "volumes": (lambda: AveragingNet(3), lambda seed: tiny_inputs(3, seed=seed)),
    "float32": (InFloat, lambda seed: tiny_inputs(seed=seed).float()),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("method", attributions)
def test_it_answers_as_explain(method: str, net: str) -> None:
    (make, inputs), settings = NETS[net], quick(method)
    model = make()
    try:
        expected = [explain(model, inputs(seed), method, **settings) for seed in (1, 2, 3)]
    except (ValueError, LookupError) as error:  # a method that this network has no answer for
        with pytest.raises(type(error)):
            prepare(model, method, like=inputs(1), **settings)(inputs(1))
        return
    asked = prepare(model, method, like=inputs(1), **settings)
    for seed, wanted in zip((1, 2, 3), expected, strict=True):
        same(asked(inputs(seed)), wanted)
