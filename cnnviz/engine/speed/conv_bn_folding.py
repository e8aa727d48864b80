"""Batch norms folded into the convolutions before them, on a private copy: fewer operations, equal values.

Which batch norm follows which convolution is seen in a pass, and only where nothing else reads the convolution's
output. The copy is compared with the model before it is asked anything, and lives as long as the question.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cnnviz.engine.agreement import outputs_agree
from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.forward import forward
from cnnviz.engine.model_inputs import AnyInputs, ModelInputs
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import READ_BY_PYTHON, name_of
from cnnviz.engine.thread_state import WatchingMode

CONVOLUTIONS = {nn.Conv1d: torch.conv1d, nn.Conv2d: torch.conv2d, nn.Conv3d: torch.conv3d}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Folded:
    """A private copy of a model, and what of it is not what it was."""

    model: nn.Module
    norms: Mapping[str, str]
    """For each convolution the batch norm it now does."""
    names: Mapping[nn.Module, str]
    """Of the parts of the model that was copied."""
    original: nn.Module
    """The model that was copied."""

    def renew(self) -> None:
        """Compute the weights of the copy anew, in place: the model's may have been written."""
        with torch.no_grad():
            for conv, norm in self.norms.items():
                private: Any = self.model.get_submodule(conv)
                for kept, now in zip((private.weight, private.bias), _folded(self.original, conv, norm), strict=True):
                    kept.copy_(now)

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
        for rule in rules:
            if folded & set(rule.backwards) and not rule.folds:
                raise ValueError(f"rule {rule.name!r} acts on convolutions and batch norms as they are; leave fold out")


def fold(model: nn.Module, inputs: AnyInputs) -> Folded | None:
    """A copy that shares all weights but those of convolutions that a batch norm follows.

    Costs two passes of one input. None, with a warning, where the model reads values of a pass: it may go another way
    for other inputs. Raises ValueError where there is nothing to fold, where the model can't be copied, or where the
    copy answers differently.
    """
    inputs = ModelInputs.of(inputs)
    one = inputs.rows(slice(0, 1))
    parts = dict(model.named_modules())
    readers = _ReaderRecorder()
    expected = forward(model, one, modes=[readers], batch=inputs[0])
    if readers.values is not None:
        warnings.warn(
            f"{type(model).__name__} reads values of a pass ({name_of(readers.values)}) and may go another way for "
            "other inputs, on which a convolution's own output is needed; so its batch norms are not folded",
            stacklevel=2,
        )
        return None
    pairs = dict(_pairs(parts, readers, expected))
    if not pairs:
        raise ValueError(f"{type(model).__name__} has no batch norm that alone reads a convolution; leave fold out")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shared |= {id(value): value for part in parts.values() for value in vars(part).values() if _is_shared(value)}
    try:
        private = copy.deepcopy(model, shared)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} can't be copied, which fold needs: {error}") from error
    for conv, norm in pairs.items():
        _fold(private, conv, norm)
    if not outputs_agree(forward(private, one, batch=inputs[0]), expected):
        raise ValueError(f"{type(model).__name__} answers differently with its batch norms folded; leave fold out")
    return Folded(private, pairs, {module: name for name, module in parts.items()}, model)


class _ReaderRecorder(WatchingMode):
    """Remembers which operations read a convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[int, tuple[Tensor, int]] = {}
        """Outputs of convolutions by their identity, which lasts while they are held, with the weight's identity."""
        self.reads: Counter[int] = Counter()
        self.normed: dict[int, int] = {}
        """For each statistic of a batch norm, the identity of the convolution's output that it read."""
        self.calls: Counter[int] = Counter()
        self.values: Any = None
        """The first operation by which Python read values of a tensor, if there is one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.values is None and func in READ_BY_PYTHON:
            self.values = func
        output = func(*args, **kwargs)
        operands = list(tensors([*args, *kwargs.values()]))
        if any(True for _ in tensors([output])):  # else it only tells of a tensor
            self.reads.update(id(operand) for operand in operands)
        if func in CONVOLUTIONS.values() and len(operands) > 1:
            self.outputs[id(output)] = output, id(operands[1])
            self.reads[id(output)] = 0  # another tensor may have had this identity before
            self.calls[id(operands[1])] += 1
        if func is F.batch_norm and len(operands) > 1:
            convolved, _ = self.outputs.get(id(operands[0]), (None, 0))
            if convolved is operands[0]:  # another tensor may get this identity later
                self.normed[id(operands[1])] = id(operands[0])
            self.calls[id(operands[1])] += 1
        return output


def _pairs(parts: Mapping[str, nn.Module], readers: _ReaderRecorder, output: Any) -> list[tuple[str, str]]:
    """Names of convolutions, each with that of the batch norm which alone reads its output."""
    returned = {id(tensor) for tensor in tensors([output])}
    weights = Counter(id(part.weight) for part in parts.values() if isinstance(getattr(part, "weight", None), Tensor))
    convolutions = {
        id(module.weight): name
        for name, module in parts.items()
        if type(module) in CONVOLUTIONS and weights[id(module.weight)] == 1 and not _hooked(module)
    }
    pairs = []
    for name, module in parts.items():
        if type(module) not in NORMS or module.running_mean is None or module.training or _hooked(module):
            continue
        read = readers.normed.get(id(module.running_mean))
        if read not in readers.outputs or readers.reads[read] != 1 or read in returned:
            continue
        weight = readers.outputs[read][1]
        if weight in convolutions and readers.calls[weight] == readers.calls[id(module.running_mean)] == 1:
            pairs.append((convolutions[weight], name))
    return pairs


def _is_shared(value: Any) -> bool:
    """True for a tensor that a module keeps, or an object of settings: the copy has to see what becomes of them."""
    if isinstance(value, Tensor):
        return True
    kinds = (nn.Module, type, dict, FunctionType, MethodType, ModuleType)
    held = getattr(value, "__dict__", None)
    if held is None or isinstance(value, kinds):
        return False
    return not any(isinstance(each, nn.Module | MethodType) for each in held.values())


def _hooked(module: nn.Module) -> bool:
    """True if somebody's hook looks at what goes in or comes out."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _folded(model: nn.Module, conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does its batch norm too."""
    first: Any = model.get_submodule(conv)
    second: Any = model.get_submodule(norm)
    numbers = (first.weight, first.bias, second.running_mean, second.running_var, second.weight, second.bias)
    weight, bias, mean, variance, scale, shift = (None if n is None else n.detach().double() for n in numbers)
    folded = fuse_conv_bn_weights(weight, bias, mean, variance, second.eps, scale, shift)  # type: ignore[arg-type]  # torch says Tensor where it takes None
    kind = first.weight.dtype
    return folded[0].detach().to(kind), folded[1].detach().to(kind)


def _fold(model: nn.Module, conv: str, norm: str) -> None:
    first: Any = model.get_submodule(conv)
    folded = _folded(model, conv, norm)
    first.weight, first.bias = (nn.Parameter(number, requires_grad=False) for number in folded)
    parent, _, name = norm.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())
