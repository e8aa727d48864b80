"""What precision and memory order do on a CUDA device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.engine.speed import memory_format as layouts
from cnnviz.engine.speed.tf32 import computed_in, of_cuda


class Normed(nn.Module):
    """Convolutions of many channels, whose sums show in how many bits they are added; batch norms; a skip."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.layer, self.again = nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.head = nn.Linear(64, 10)
        for norm in (self.norm, self.again):
            nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        kept = F.relu(self.norm(self.first(x)))
        return self.head((F.relu(self.again(self.layer(kept))) + kept).mean((2, 3)))


def pictures(items: int = 2) -> Tensor:
    noise = torch.randn(items, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, (64, 64), mode="bilinear")


def distance(found: Tensor, expected: Tensor) -> float:
    """One minus the smallest cosine of an input's maps."""
    return 1 - float(torch.cosine_similarity(found.double().cpu().flatten(1), expected.double().flatten(1)).min())


@pytest.fixture
def has_tf32(device: torch.device) -> None:
    if torch.cuda.get_device_capability(device) < (8, 0):
        pytest.skip("this device has no TF32")


@pytest.mark.parametrize("user", [True, False])
@pytest.mark.parametrize(("method", "settings"), [("gradient", {}), ("integrated_gradients", {"steps": 8})])
def test_exact_float32_agrees_with_the_cpu(
    method: str, settings: dict[str, Any], user: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", user)
    before, net, inputs = of_cuda(), Normed(), pictures()
    expected = explain(net, inputs, method, target=1, **settings).values
    found = explain(net.to(device), inputs.to(device), method, target=1, precision="float32", **settings)
    assert distance(found.values, expected) < 1e-5
    assert found.computed_in == "float32"
    assert of_cuda() == before


@pytest.mark.usefixtures("has_tf32")
def test_tf32_is_computed_in_ten_bits_and_told(device: torch.device) -> None:
    net, inputs = Normed().to(device), pictures().to(device)
    exact = explain(net, inputs, "grad_cam", layer="again", target=1, precision="float32")
    rounded = explain(net, inputs, "grad_cam", layer="again", target=1, precision="tf32")
    assert (exact.computed_in, rounded.computed_in) == ("float32", "tf32")
    difference = float((exact.values - rounded.values).abs().max() / exact.values.abs().max())
    assert 1e-6 < difference < 1e-2
    plain = explain(net, inputs, "grad_cam", layer="again", target=1)
    assert plain.computed_in == str(computed_in(inputs)) == "float32"  # as the fixture set torch's flags
    assert torch.equal(plain.values, exact.values)


@pytest.mark.usefixtures("has_tf32")
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("tf32", 0.01), ("bfloat16", 0.1)])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("gradient", {}),
        ("guided_backprop", {}),
        ("grad_cam", {"layer": "again"}),
        ("occlusion", {"window": 32, "stride": 32}),
    ],
)
def test_the_memory_order_and_scaled_batch_norms_change_no_answer(
    method: str,
    settings: dict[str, Any],
    precision: Any,
    limit: float,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, inputs, orders = Normed(), pictures(8), set()
    expected = explain(net, inputs, method, target=1, **settings).values
    net, inputs = net.to(device), inputs.to(device)
    net.layer.register_forward_pre_hook(
        lambda module, args: orders.add(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    monkeypatch.setattr(layouts, "LARGE_ON_CUDA", 1)
    found = explain(net, inputs, method, target=1, precision=precision, **settings).values
    assert found.is_contiguous()
    assert distance(found, expected) < limit
    graph = method in ("gradient", "guided_backprop")
    assert (True in orders) is (precision != "float32" and not graph)
