"""One place of the package calls a model, whatever is asked of it, also when it is folded or compiled."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import tiny_inputs
from quick import OF_ANY_NETWORK, quick
from torch import Tensor, nn

import cnnviz
from cnnviz import attributions, evaluate, explain, metrics, synthesize
from cnnviz.objectives import channel

PACKAGE = Path(cnnviz.__file__).parent
PLUGINS = PACKAGE.parent / "plugins"
CALLERS: set[str] = set()


class Watchful(nn.Module):
    """Remembers which file of cnnviz or its plugins called it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.early, self.norm, self.late = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        look()
        maps = self.late(self.norm(self.early(x)).relu()).relu()
        return self.head(maps.mean((2, 3)))


@torch.compiler.disable
def look() -> None:
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE) or file.is_relative_to(PLUGINS):
            CALLERS.add(file.relative_to(PACKAGE.parent).as_posix())
            return
        frame = frame.f_back


@pytest.fixture
def net() -> nn.Module:
    CALLERS.clear()
    return Watchful().double().eval()


ONE = {"cnnviz/engine/forward.py"}


@pytest.mark.parametrize("method", sorted(OF_ANY_NETWORK))
def test_attributions_call_the_model_in_one_place(net: nn.Module, method: str) -> None:
    explain(net, tiny_inputs(), method, target=1, **quick(method))
    assert ONE == CALLERS


@pytest.mark.parametrize("options", [{"fold": True}, {"compile": "eager"}, {"before_softmax": True}], ids=str)
@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_options_call_the_model_in_one_place(net: nn.Module, method: str, options: dict[str, Any]) -> None:
    model = nn.Sequential(net, nn.Softmax(1)).eval() if "before_softmax" in options else net
    explain(model, tiny_inputs(), method, target=1, **quick(method), **options)
    assert ONE == CALLERS


@pytest.mark.parametrize("metric", sorted(set(metrics) - {"completeness_gap"}))
def test_metrics_call_the_model_in_one_place(net: nn.Module, metric: str) -> None:
    inputs = tiny_inputs()
    answer = explain(net, inputs, "grad_cam", target=1)
    CALLERS.clear()
    masks = torch.zeros(2, *inputs.shape[2:], dtype=torch.bool)
    masks[..., :2, :2] = True
    evaluate(answer, metric, masks=masks, model=net, attribution=attributions["grad_cam"]())
    assert CALLERS <= ONE


@pytest.mark.parametrize("synthesis", ["feature_image", "class_image"])
def test_syntheses_call_the_model_in_one_place(net: nn.Module, synthesis: str) -> None:
    settings = {"layer": "early", "channel": 1} if synthesis == "feature_image" else {"target": 1}
    synthesize(net, synthesis, size=(5, 6), steps=2, **settings)
    assert ONE == CALLERS


def test_objectives_and_functions_call_the_model_in_one_place(net: nn.Module) -> None:
    for target in (channel("early", 1), lambda output: output[:, 0]):
        explain(net, tiny_inputs(), "occlusion", target=target, window=2)
    assert ONE == CALLERS
