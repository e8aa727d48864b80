"""One forward pass hands copies to the model, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import randomized, tiny_inputs
from quick import quick
from torch import Tensor, nn

from cnnviz import explain


class Writes(nn.Module):
    """Writes into all of its inputs, or computes the same without."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.writes, self.layer, self.norm = writes, nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        randomized(self)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        x, scale = (x.mul_(2), scale.add_(1)) if self.writes else (x * 2, scale + 1)
        return self.head((self.norm(self.layer(x)).relu() * scale[..., None, None]).mean((2, 3)))


@pytest.mark.parametrize("options", [{}, {"fold": True}, {"compile": "eager"}], ids=str)
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "score_cam", "occlusion", "ablation_cam", "deeplift"])
def test_a_model_that_writes_into_its_inputs_gets_copies(method: str, options: dict[str, Any]) -> None:
    inputs, scale = tiny_inputs(), torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    before, options = (inputs.clone(), scale.clone()), options | quick(method)
    options |= {"layer": "norm"} if method.endswith("_cam") and "fold" in options else {}
    found = explain(Writes(True).eval(), (inputs, scale), method, target=[1, 0], **options)
    assert torch.equal(inputs, before[0])
    assert torch.equal(scale, before[1])
    plain = explain(Writes(False).eval(), (inputs, scale), method, target=[1, 0], **options)
    torch.testing.assert_close(found.values, plain.values, rtol=1e-9, atol=1e-12)
