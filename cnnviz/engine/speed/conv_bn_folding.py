"""Batch norms folded into the convolutions before them, on a private copy: fewer operations, equal values.

Which batch norm follows which convolution is seen in a pass, and only where nothing else reads the convolution's
output. The copy is compared with the model before it is asked anything, and lives as long as the question.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.forward import asking
from cnnviz.engine.nested import tensors

CONVOLUTIONS = {nn.Conv1d: torch.conv1d, nn.Conv2d: torch.conv2d, nn.Conv3d: torch.conv3d}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Folded:
    """A private copy of a model, and what of it is not what it was."""

    model: nn.Module
    norms: Mapping[str, str]
    """For each convolution the batch norm it now does."""
    names: Mapping[nn.Module, str]
    """Of the parts of the model that was copied."""

    def check_layer(self, name: str) -> str:
        """Raises LookupError for a convolution, whose output is now that of its batch norm."""
        if name in self.norms:
            raise LookupError(f"layer {name!r} now does {self.norms[name]!r} too; name that one, or leave fold out")
        return name

    def check_rules(self, rules: Sequence[Rule], biases: bool) -> None:
        """Raises ValueError where an answer looks at what was folded away."""
        if biases:
            raise ValueError("the biases of batch norms are asked for, which fold puts elsewhere; leave fold out")
        folded = {F.batch_norm, torch.batch_norm, *CONVOLUTIONS.values()}
        for each in rules:
            if folded & set(each.backwards):
                raise ValueError(f"rule {each.name!r} acts on convolutions and batch norms as they are; leave fold out")


def fold(model: nn.Module, inputs: Sequence[Tensor]) -> Folded:
    """A copy that shares all weights but those of convolutions that a batch norm follows.

    Costs two passes of one input. Raises ValueError where there is nothing to fold, where the model can't be copied,
    or where the copy answers differently.
    """
    one = [each[:1] for each in inputs]
    parts = dict(model.named_modules())
    with asking(model, inputs[0]), torch.no_grad(), _Watching() as seen:
        expected = model(*(each.clone() for each in one))
    pairs = dict(_pairs(parts, seen, expected))
    if not pairs:
        raise ValueError(f"{type(model).__name__} has no batch norm that alone reads a convolution; leave fold out")
    kept = {id(each): each for each in (*model.parameters(), *model.buffers())}
    try:
        private = copy.deepcopy(model, dict(kept))
    except Exception as error:
        raise ValueError(f"{type(model).__name__} can't be copied, which fold needs: {error}") from error
    for conv, norm in pairs.items():
        _fold(private, conv, norm)
    with asking(private, inputs[0]), torch.no_grad():
        found = private(*(each.clone() for each in one))
    if not _alike(expected, found):
        raise ValueError(f"{type(model).__name__} answers differently with its batch norms folded; leave fold out")
    return Folded(private, pairs, {module: name for name, module in parts.items()})


class _Watching(TorchFunctionMode):
    """Who reads what a convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[int, tuple[Tensor, int]] = {}
        """What convolutions gave, by its identity, which lasts while it is kept; and the weight that gave it."""
        self.reads: Counter[int] = Counter()
        self.normed: dict[int, int] = {}
        """For each statistic of a batch norm, the identity of the convolution's output that it read."""
        self.calls: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        given = list(tensors([*args, *kwargs.values()]))
        if any(True for _ in tensors([output])):  # else it only tells of a tensor
            self.reads.update(id(each) for each in given)
        if func in CONVOLUTIONS.values() and len(given) > 1:
            self.given[id(output)] = output, id(given[1])
            self.reads[id(output)] = 0  # another tensor may have had this identity before
            self.calls[id(given[1])] += 1
        if func is F.batch_norm and len(given) > 1:
            held, _ = self.given.get(id(given[0]), (None, 0))
            if held is given[0]:  # another tensor may get this identity later
                self.normed[id(given[1])] = id(given[0])
            self.calls[id(given[1])] += 1
        return output


def _pairs(parts: Mapping[str, nn.Module], seen: _Watching, output: Any) -> list[tuple[str, str]]:
    returned = {id(each) for each in tensors([output])}
    weights = Counter(id(each.weight) for each in parts.values() if isinstance(getattr(each, "weight", None), Tensor))
    convolutions = {
        id(module.weight): name
        for name, module in parts.items()
        if type(module) in CONVOLUTIONS and weights[id(module.weight)] == 1 and not _watched(module)
    }
    found = []
    for name, module in parts.items():
        if type(module) not in NORMS or module.running_mean is None or module.training or _watched(module):
            continue
        read = seen.normed.get(id(module.running_mean))
        if read not in seen.given or seen.reads[read] != 1 or read in returned:
            continue
        weight = seen.given[read][1]
        if weight in convolutions and seen.calls[weight] == seen.calls[id(module.running_mean)] == 1:
            found.append((convolutions[weight], name))
    return found


def _watched(module: nn.Module) -> bool:
    """Whether somebody's hook looks at what goes in or comes out."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _fold(model: nn.Module, conv: str, norm: str) -> None:
    first: Any = model.get_submodule(conv)
    second: Any = model.get_submodule(norm)
    with torch.no_grad():
        scale = (second.running_var.double() + second.eps).rsqrt()
        scale = scale if second.weight is None else scale * second.weight.double()
        shift = -second.running_mean.double() if first.bias is None else first.bias.double() - second.running_mean
        shift = shift * scale if second.bias is None else shift * scale + second.bias.double()
        weight = first.weight.double() * scale.view(-1, *(1,) * (first.weight.ndim - 1))
    kind = first.weight.dtype
    first.weight, first.bias = (nn.Parameter(each.to(kind), requires_grad=False) for each in (weight, shift))
    parent, _, name = norm.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def _alike(expected: Any, found: Any) -> bool:
    pairs = list(zip(tensors([expected]), tensors([found]), strict=True))
    if not pairs and not isinstance(expected, Tensor):
        pairs = list(zip(tensors(_listed(expected)), tensors(_listed(found)), strict=True))
    return bool(pairs) and all(
        one.shape == other.shape and bool(((one - other).abs() <= TOLERANCE * one.abs().max()).all())
        for one, other in pairs
    )


def _listed(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else []
