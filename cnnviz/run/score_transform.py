"""What makes probabilities of a model's scores: decided once, for all that a question asks, and only where it must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnnviz.engine.forward import asking

Squashing = Literal["softmax", "sigmoid"]
SIGMOIDS = {torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid, torch.special.expit}


def squashing(model: nn.Module, inputs: Sequence[Tensor], scores: Tensor, computed: torch.dtype) -> Squashing | None:
    """By what scores (N, K) become probabilities: of a single class by a sigmoid; None where they are already.

    They are where each row adds up to one, or where the model ends in a sigmoid. Scores that might be are looked after
    in a pass of one input. ``computed`` is what the model computed them in.
    """
    wanted: Squashing = "sigmoid" if scores.shape[1] == 1 else "softmax"
    values, slack = scores.detach().double(), max(1e-4, 2 * torch.finfo(computed).eps)
    if bool(((values < 0) | (values > 1 + slack)).any()):
        return wanted
    if wanted == "softmax" and bool(((values.sum(1) - 1).abs() < slack).all()):
        return None
    return None if _ends_in_sigmoid(model, inputs) else wanted


def squashed(scores: Tensor, by: Squashing | None) -> Tensor:
    """Scores (N, K) as probabilities."""
    return scores if by is None else scores.sigmoid() if by == "sigmoid" else scores.softmax(1)


def _ends_in_sigmoid(model: nn.Module, inputs: Sequence[Tensor]) -> bool:
    one = [each[:1].clone() for each in inputs]  # the model may write into its input
    with torch.inference_mode(False), torch.no_grad(), asking(model, inputs[0]), _Sigmoids() as seen:
        output = model(*one)
    return isinstance(output, Tensor) and any(torch.equal(each.flatten(), output.flatten()) for each in seen.given)


class _Sigmoids(TorchFunctionMode):
    """What sigmoids gave."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in SIGMOIDS:
            self.given.append(output)
        return output
