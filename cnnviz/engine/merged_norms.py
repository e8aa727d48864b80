"""A batch norm behind a convolution or a linear layer as one operation with it, for rules that ask for that.

Nothing of the model is changed. The batch norm's output has two ways back: through the batch norm, and straight to what
the convolution was given. The rule of the backward pass takes one of them, so one forward pass serves all rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.operand_record import Place
from cnnviz.engine.switch import Bound, Switchboard

_OUTPUTS_SECOND = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
MERGED = (F.linear, torch.conv1d, torch.conv2d, torch.conv3d, *_OUTPUTS_SECOND)
"""Operations that a batch norm behind them can be merged with."""
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


class _Product(NamedTuple):
    bound: Bound
    place: Place
    operand: Tensor
    versions: tuple[int, int]
    """How often its output and its operand had been written."""


class MergedNorms:
    """The products of one pass that a batch norm may follow."""

    def __init__(self, board: Switchboard):
        self.board = board
        self._products: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._before: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """By the output of a product before the place where the graph begins, the dimensions of its weight."""
        self._begun: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """By the copy that takes such an output's place, where the graph begins."""

    def see_before(self, output: Tensor, weight: Tensor) -> None:
        """A product before the place where the graph begins."""
        self._before[output] = weight.ndim

    def begin(self, output: Tensor, leaf: Tensor, copy: Tensor) -> None:
        """The graph begins at ``leaf``, and ``copy`` takes the place of what a layer gave."""
        if self._before.get(output) == output.ndim:  # type: ignore[no-untyped-call]  # torch has no types here
            self._begun[copy] = leaf  # of tokens, or without a batch, other dimensions are normed

    def see(self, output: Tensor, bound: Bound, place: Place, operand: Tensor) -> None:
        """A product with one operand from the input."""
        self._products[output] = _Product(bound, place, operand, (output._version, operand._version))

    def merged(self, args: Sequence[Any], kwargs: Mapping[str, Any], normed: Tensor) -> tuple[Tensor, Bound | None]:
        """A batch norm's output with both ways back, and the merged operation; or as it is, and None."""
        norm = dict(zip(_NORM, args, strict=False)) | dict(kwargs)
        given, mean, scale, shift = norm["input"], norm["running_mean"], norm.get("weight"), norm.get("bias")
        product = self._products.get(given)  # type: ignore[no-untyped-call]  # torch has no types here
        if norm.get("training") or mean is None:
            return normed, None
        if product is None:
            if given in self._begun:
                self._begun[given].merged = True
            return normed, None
        bound, place, operand, versions = product
        weight, bias = bound.constant(1, "weight"), bound.constant(2, "bias")
        # of an output without a batch, or of tokens, other dimensions are normed
        apart = bound.constant(0, "input") is not None or given.ndim != weight.ndim
        if apart or versions != (given._version, operand._version):
            return normed, None
        factor = (norm["running_var"].double() + norm.get("eps", 1e-5)).rsqrt()
        factor = factor if scale is None else factor * scale.double()
        moved = ((0 if bias is None else bias.double()) - mean.double()) * factor
        moved = moved if shift is None else moved + shift.double()
        with torch.no_grad():
            scaled = _scaled(weight.double(), factor, place[1] in _OUTPUTS_SECOND).to(weight.dtype)
            arguments = operand, scaled, moved.to(weight.dtype), *bound.args[3:]
        named = {name: value for name, value in bound.kwargs.items() if name not in ("input", "weight", "bias")}
        whole = Bound(bound.func, arguments, named, arguments[:1], False)
        given.grad_fn.merged = True
        inner = given.grad_fn.inner  # as the product's switch holds it
        output: Tensor = _BothWays.apply(self.board, place, whole, inner, normed, operand)
        return output, whole


def check_apart(edge: Any, layer: str, rule: Rule) -> None:
    """Raises LookupError for a layer whose output a batch norm reads, where the rule makes both one operation."""
    if rule.folds and getattr(getattr(edge, "node", edge), "merged", False) is True:
        raise LookupError(
            f"layer {layer!r} is one operation with the batch norm behind it under rule {rule.name!r}; name the batch "
            "norm instead"
        )


class _BothWays(torch.autograd.Function):
    """What a batch norm gave, which leads back to it, or to the operand of the product before it."""

    @staticmethod
    def forward(
        ctx: Any,
        board: Switchboard,
        place: Place,
        bound: Bound,
        inner: Sequence[Tensor],
        normed: Tensor,
        operand: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.board, ctx.operation, ctx.bound, ctx.inner, ctx.linear = board, place[1], bound, inner, True
        return normed.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        board: Switchboard = ctx.board
        backward = board.backward(ctx.operation) if board.rule.folds and grad is not None else None
        if grad is None or backward is None:
            return None, None, None, None, grad, None
        call = ctx.bound.called(ctx.inner, site=board.site(ctx, ctx.bound.label))
        return None, None, None, None, None, *board.gradients(ctx.operation, backward, call, grad)


def _scaled(weight: Tensor, factor: Tensor, outputs_second: bool) -> Tensor:
    """A weight with a factor for each channel of the output."""
    if not outputs_second:
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    groups = len(factor) // weight.shape[1]
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    spread = factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
    return (by_group * spread).reshape(weight.shape)
