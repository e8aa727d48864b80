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
from cnnviz.engine.call_site import Labels
from cnnviz.engine.operand_record import Place
from cnnviz.engine.operations import Operation
from cnnviz.engine.switch import Bound, Switchboard

_OUTPUTS_SECOND = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
MERGED = (F.linear, torch.conv1d, torch.conv2d, torch.conv3d, *_OUTPUTS_SECOND)
"""Operations that a batch norm behind them can be merged with."""


class _Product(NamedTuple):
    func: Operation
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    operand: Tensor
    place: Place
    labels: Labels
    versions: tuple[int, int]
    """How often its output and its operand had been written."""


class MergedNorms:
    """The products of one pass that a batch norm may follow."""

    def __init__(self, board: Switchboard):
        self.board = board
        self._products: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def see(
        self,
        output: Tensor,
        func: Operation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        place: Place,
        labels: Labels,
    ) -> None:
        """A product with one operand from the input."""
        operand = args[0] if args else kwargs["input"]
        versions = output._version, operand._version
        self._products[output] = _Product(func, args, kwargs, operand, place, labels, versions)

    def merged(self, args: Sequence[Any], kwargs: Mapping[str, Any], normed: Tensor) -> tuple[Tensor, Labels | None]:
        """A batch norm's output with both ways back, and the labels of what is merged; or as it is, and None."""
        given, mean, variance, scale, shift, training, _, eps = _of_norm(*args, **kwargs)
        product = self._products.get(given)  # type: ignore[no-untyped-call]  # torch has no types here
        if product is None or training or mean is None:
            return normed, None
        weight, bias = (_argument(product, *place) for place in ((1, "weight"), (2, "bias")))
        apart = given.ndim != weight.ndim  # of an output without a batch, or of tokens, other dimensions are normed
        if apart or product.versions != (given._version, product.operand._version):
            return normed, None
        factor = (variance.double() + eps).rsqrt() * (1 if scale is None else scale.double())
        moved = -mean.double() if bias is None else bias.double() - mean.double()
        moved = moved * factor + (0 if shift is None else shift.double())
        with torch.no_grad():
            changes = {1: _scaled(product, weight, factor).to(weight.dtype), 2: moved.to(weight.dtype)}
        named = {name: value for name, value in product.kwargs.items() if name not in ("input", "weight", "bias")}
        arguments = product.operand, changes[1], changes[2], *product.args[3:]
        bound = Bound(product.func, arguments, named, arguments[:1], False)
        bound.labels.inputs = product.labels.inputs
        given.grad_fn.merged = True
        inner = given.grad_fn.inner  # as the product's switch holds it
        output: Tensor = _BothWays.apply(self.board, product.place, bound, inner, normed, product.operand)
        return output, bound.labels


def check_apart(edge: Any, layer: str, rule: Rule) -> None:
    """Raises LookupError for a layer whose output a batch norm reads, where the rule makes both one operation."""
    if rule.folds and getattr(getattr(edge, "node", None), "merged", False) is True:
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
        call = ctx.bound.called(ctx.inner, site=board.site(ctx, ctx.bound.labels))
        return None, None, None, None, None, *board.gradients(ctx.operation, backward, call, grad)


def _of_norm(
    given: Any,
    mean: Tensor | None,
    variance: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> tuple[Any, Tensor | None, Any, Tensor | None, Tensor | None, bool, Any, float]:
    return given, mean, variance, weight, bias, training, momentum, eps


def _argument(product: _Product, place: int, name: str) -> Any:
    return product.args[place] if len(product.args) > place else product.kwargs.get(name)


def _scaled(product: _Product, weight: Tensor, factor: Tensor) -> Tensor:
    """The weight in double precision, with a factor for each channel of the output."""
    weight = weight.double()
    if product.place[1] not in _OUTPUTS_SECOND:
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    groups = len(factor) // weight.shape[1]
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    spread = factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
    return (by_group * spread).reshape(weight.shape)
