"""What each attribution costs: ``python docs/_extensions/passes.py`` counts it and writes docs/_extensions/passes.json.

It is counted on the bundled network for one picture of 96 x 96, and on a transformer of two blocks for methods of
attention, with the method's default settings: how many inputs are passed through the model, as ``progress=`` tells,
and for how many gradients are taken.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from families import FAMILIES
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import cnnviz
from cnnviz import demo

FILE = Path(__file__).with_suffix(".json")
OF_BOXES = ("d_rise",)
"""Methods that ask about detections, which the network does not give."""


class Cost(TypedDict):
    passes: int
    backward: int


class Counted(nn.Module):
    """A network that counts its inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs += len(inputs)
        scores: Tensor = self.network(inputs)
        return scores


def cost(name: str) -> Cost:
    """How many inputs pass forward, and how many backward passes follow."""
    attends = name in FAMILIES["Attention"][1]
    model = Counted(VisionTransformer(96, 16, 2, 2, 16, 32) if attends else demo.network("demo")).eval()
    inputs = demo.as_inputs(demo.pictures().pictures[:1])
    cnnviz.explain(model, inputs, "grad_cam", target=3)  # the first call looks at the layers, by passes of its own
    model.inputs = 0
    totals: list[int] = [0]
    with backward_passes() as asked:
        cnnviz.explain(model, inputs, name, target=3, progress=lambda done, total: totals.append(total))
    if totals[-1] > 1:  # in chunks, or by passes from a layer on, which the network does not see
        return {"passes": totals[-1], "backward": totals[-1] * bool(asked)}
    return {"passes": model.inputs, "backward": len(asked)}


@contextmanager
def backward_passes() -> Iterator[list[str]]:
    """The modules that ask PyTorch for gradients, but for what looks at layers before a question, and single calls."""
    asked: list[str] = []

    def counting(*args: Any, **more: Any) -> Any:
        module = sys._getframe(1).f_globals["__name__"]
        if not module.endswith(("flow_observer", "engine.switch")):
            asked.append(module)
        return plain(*args, **more)

    plain = torch.autograd.grad
    torch.autograd.grad = counting
    try:
        yield asked
    finally:
        torch.autograd.grad = plain


def counted() -> list[str]:
    """The methods that are counted."""
    ours = (name for name in cnnviz.attributions if cnnviz.attributions.origin(name).startswith("cnnviz "))
    return [name for name in ours if name not in OF_BOXES]


def in_words(found: Cost) -> str:
    forward, backward = found["passes"], found["backward"]
    times = "1 pass" if forward == 1 else f"{forward:,} passes"
    if not backward:
        return f"{times} forward, none backward"
    return f"{times} forward and backward" if backward == forward else f"{times} forward, {backward} backward"


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps({name: cost(name) for name in counted()}, indent=1) + "\n")
